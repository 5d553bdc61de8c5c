package repo

import (
	"context"
	"fmt"
	"slices"

	"varve/repo/pack"
)

// repack copies what is in use from packs into new ones and returns their size. It returns when they are durable.
func (p *pruner) repack(ctx context.Context, packs []*candidate) (int64, error) {
	r := p.repo
	s, err := r.beginUnder(ctx, p.lease, SessionOptions{Purpose: "prune", Compression: p.options.Compression})
	if err != nil {
		return 0, err
	}
	s.lent = true
	defer s.Close()
	writers := map[pack.Kind]*Writer{}
	for _, kind := range []pack.Kind{pack.Data, pack.Tree} {
		if writers[kind], err = s.writer(kind); err != nil {
			return 0, err
		}
	}
	scratch := newFrameScratch(r.secrets.id)
	for i, c := range packs {
		r.progress("rewriting packs", i, len(packs))
		if err := r.repackOne(ctx, c, writers, scratch); err != nil {
			return 0, fmt.Errorf("rewriting pack %s: %w; nothing that is in use was removed: run 'varve check'", short(c.id), err)
		}
	}
	r.progress("rewriting packs", len(packs), len(packs))
	if err := s.Sync(ctx); err != nil {
		return 0, err
	}
	return s.Added().Stored, s.present(ctx)
}

func (r *Repository) repackOne(ctx context.Context, c *candidate, writers map[pack.Kind]*Writer, scratch *frameScratch) error {
	every := func(pack.Frame, func(int) bool) bool { return true }
	return r.keptFrames(ctx, c, scratch, every, func(kind pack.Kind, f pack.Frame, kept func(int) bool, plain []byte) error {
		at := 0
		for k, chunk := range f.Chunks {
			if kept(k) {
				if err := writers[kind].put(ctx, chunk.ID, plain[at:at+int(chunk.Length)]); err != nil {
					return err
				}
			}
			at += int(chunk.Length)
		}
		return nil
	})
}

// verifyKept reads the chunks that are kept in packs which stay, where packs in gone have copies of them: the copy that stays
// must not be the one that is damaged. It reports whether one is; its pack is left alone from then on.
func (p *pruner) verifyKept(ctx context.Context, packs, gone []*candidate) (damaged bool, err error) {
	if !slices.ContainsFunc(gone, func(c *candidate) bool { return c.inUse > c.live }) {
		return false, nil
	}
	r := p.repo
	scratch := newFrameScratch(r.secrets.id)
	for i, c := range packs {
		r.progress("reading chunks that are there twice", i, len(packs))
		if c.live == 0 || slices.Contains(gone, c) { // these are read when they are copied
			continue
		}
		err := r.keptFrames(ctx, c, scratch, func(f pack.Frame, kept func(int) bool) bool {
			for k, chunk := range f.Chunks {
				if kept(k) && p.twice.has(chunk.ID) {
					return true
				}
			}
			return false
		}, func(pack.Kind, pack.Frame, func(int) bool, []byte) error { return nil })
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err != nil {
			r.logf("%v; it is left alone, since its chunks are in other packs too", &DamagedError{Object: packName(c.id), Reason: err.Error()})
			p.fates[c.id] = unreadable
			damaged = true
		}
	}
	r.progress("reading chunks that are there twice", len(packs), len(packs))
	return damaged, nil
}

// keptFrames reads the frames of a pack of which something is kept and that want selects, verifies them, and calls f with
// their plain bytes. kept tells of the chunks of the frame, by position, which are kept.
func (r *Repository) keptFrames(ctx context.Context, c *candidate, scratch *frameScratch, want func(f pack.Frame, kept func(int) bool) bool,
	f func(kind pack.Kind, f pack.Frame, kept func(int) bool, plain []byte) error) error {
	dir, err := r.readDirectory(ctx, c.id, c.size)
	if err != nil {
		return err
	}
	opener := dir.Opener(r.secrets.pack)
	n := 0
	for _, frame := range dir.Frames {
		first := n
		n += len(frame.Chunks)
		kept := func(k int) bool { return c.kept == nil || c.kept[first+k] }
		if c.kept != nil && !slices.Contains(c.kept[first:n], true) || !want(frame, kept) {
			continue
		}
		err := r.healing(ctx, c.id, c.size, func() error {
			sealed, err := r.packRange(ctx, c.id, int64(frame.Offset), int64(frame.Stored), nil)
			if err != nil {
				return err
			}
			return scratch.verify(opener, frame, sealed)
		})
		if err != nil {
			return err
		}
		if err := f(dir.Kind, frame, kept, scratch.plain); err != nil {
			return err
		}
	}
	return nil
}
