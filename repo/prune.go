package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sync/errgroup"
	"varve/repo/pack"
	"varve/repo/storage"
)

// Marker calls node for every tree node and chunk for every chunk that the remaining records refer to. node reports
// whether it sees the id for the first time; what is below a node that was seen need not be marked again.
type Marker func(ctx context.Context, node func(ID) (first bool), chunk func(ID)) error

// PruneOptions says how far a prune goes.
type PruneOptions struct {
	DryRun bool
	// MaxUnused returns how many bytes of garbage may stay in packs, of a repository with used bytes in use. Packs are
	// rewritten, those with most garbage first, until no more is left. nil: 5 %.
	MaxUnused   func(used int64) int64
	Compression Compression // of packs that are rewritten
}

// Pruned says what a prune found and did. Bytes are of the storage.
type Pruned struct {
	Packs, Bytes    int64 // before
	Used            int64 // bytes of packs taken by chunks in use, garbage in rewritten packs not counted
	DeletedPacks    int64 // that held nothing in use
	DeletedBytes    int64
	RepackedPacks   int64 // that were rewritten
	RepackedBytes   int64
	WrittenBytes    int64 // of the packs that replace them
	UnusedBytes     int64 // garbage that stays
	UnreadablePacks int64 // left alone
}

// Freed returns by how many bytes the repository shrank, or would.
func (p Pruned) Freed() int64 { return p.DeletedBytes + p.RepackedBytes - p.WrittenBytes }

// candidate is what prune knows of a pack.
type candidate struct {
	id          ID
	size        int64
	plain, live int64  // bytes of all its chunks, and of those to be kept here
	kept        []bool // by position: the chunks to be kept here; nil when all or none
}

// unused estimates how many bytes of the pack are garbage.
func (c *candidate) unused() int64 {
	return int64(float64(c.size) * float64(c.plain-c.live) / float64(max(1, c.plain)))
}

// Prune removes what no record refers to. It fails with *LockedError while anybody else uses the repository, and with
// *DamagedError, before it removes anything, when something that is referred to is missing.
//
// The order makes it safe to be interrupted at any point, and to meet damage: what is in use in packs with garbage is
// copied into new ones, and only when these are durable anything goes. What a crash leaves behind is at worst stored
// twice, and the next prune removes it.
func (r *Repository) Prune(ctx context.Context, o PruneOptions, mark Marker) (Pruned, error) {
	lease, err := r.takeLease(ctx, true, "prune")
	if err != nil {
		return Pruned{}, err
	}
	defer lease.release()
	if o.MaxUnused == nil {
		o.MaxUnused = func(used int64) int64 { return used / 20 }
	}
	live, err := r.markAll(ctx, mark)
	if err != nil {
		return Pruned{}, fmt.Errorf("finding what is in use: %w; nothing was removed: run 'varve check'", err)
	}
	var result Pruned
	packs, err := r.weigh(ctx, live, &result)
	if err != nil {
		return result, err
	}
	if n := live.unclaimed(); n > 0 {
		return result, &DamagedError{Object: "the repository", Reason: fmt.Sprintf("%d chunks that snapshots refer to are in no readable pack; nothing was removed: run 'varve check'", n)}
	}
	dead, rewrite := plan(packs, o.MaxUnused, &result)
	if o.DryRun {
		for _, c := range rewrite {
			result.WrittenBytes += c.size - c.unused()
		}
		return result, nil
	}
	if len(rewrite) > 0 {
		if result.WrittenBytes, err = r.repack(ctx, rewrite, o.Compression); err != nil {
			if errors.Is(err, syscall.ENOSPC) {
				err = fmt.Errorf("%w; 'varve prune --max-unused unlimited' rewrites nothing, and needs no room", err)
			}
			return result, err
		}
	}
	if err := r.deletePacks(ctx, lease, slices.Concat(dead, rewrite), "removing packs"); err != nil {
		return result, err
	}
	_, err = r.follow(ctx)
	return result, err
}

// markAll collects the ids of everything in use.
func (r *Repository) markAll(ctx context.Context, mark Marker) (*idSet, error) {
	live := &idSet{}
	nodes := map[ID]struct{}{} // exact: a node wrongly taken as seen would lose what is below it
	err := mark(ctx, func(id ID) bool {
		if _, seen := nodes[id]; seen {
			return false
		}
		nodes[id] = struct{}{}
		live.add(id)
		return true
	}, func(id ID) { live.add(id) })
	return live, err
}

// weigh reads the directories of all packs and claims what is in use, each chunk in one pack.
func (r *Repository) weigh(ctx context.Context, live *idSet, result *Pruned) ([]*candidate, error) {
	var packs []*candidate
	if err := r.listPacks(ctx, func(id ID, size int64) { packs = append(packs, &candidate{id: id, size: size}) }); err != nil {
		return nil, err
	}
	readable := packs[:0]
	for i, c := range packs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r.progress("reading the directories of packs", i, len(packs))
		result.Packs++
		result.Bytes += c.size
		dir, err := r.readDirectory(ctx, c.id, c.size)
		if err != nil {
			var damaged *DamagedError
			if !errors.As(err, &damaged) {
				return nil, err
			}
			r.logf("%v; it is left alone", err)
			result.UnreadablePacks++
			continue
		}
		var kept []bool
		for _, f := range dir.Frames {
			for _, chunk := range f.Chunks {
				keep := live.claim(chunk.ID)
				kept = append(kept, keep)
				c.plain += int64(chunk.Length)
				if keep {
					c.live += int64(chunk.Length)
				}
			}
		}
		if c.live > 0 && c.live < c.plain {
			c.kept = kept
		}
		readable = append(readable, c)
	}
	r.progress("reading the directories of packs", len(packs), len(packs))
	return readable, nil
}

// plan decides which packs go and which are rewritten.
func plan(packs []*candidate, maxUnused func(int64) int64, result *Pruned) (dead, rewrite []*candidate) {
	var partial []*candidate
	for _, c := range packs {
		switch {
		case c.live == 0:
			dead = append(dead, c)
			result.DeletedPacks++
			result.DeletedBytes += c.size
			continue
		case c.live < c.plain:
			partial = append(partial, c)
			result.UnusedBytes += c.unused()
		}
		result.Used += c.size - c.unused()
	}
	slices.SortFunc(partial, func(a, b *candidate) int {
		return cmp.Compare(float64(a.live)/float64(a.plain), float64(b.live)/float64(b.plain))
	})
	limit := maxUnused(result.Used)
	for _, c := range partial {
		if result.UnusedBytes <= limit {
			break
		}
		rewrite = append(rewrite, c)
		result.UnusedBytes -= c.unused()
		result.RepackedPacks++
		result.RepackedBytes += c.size
	}
	return dead, rewrite
}

// repack copies what is in use from packs into new ones and returns their size. It returns when they are durable.
func (r *Repository) repack(ctx context.Context, packs []*candidate, level Compression) (int64, error) {
	s, err := r.beginUnder(ctx, nil, SessionOptions{Purpose: "prune", Compression: level})
	if err != nil {
		return 0, err
	}
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
	dir, err := r.readDirectory(ctx, c.id, c.size)
	if err != nil {
		return err
	}
	opener := dir.Opener(r.secrets.pack)
	w := writers[dir.Kind]
	n := 0
	for _, f := range dir.Frames {
		kept := c.kept[n : n+len(f.Chunks)]
		n += len(f.Chunks)
		if !slices.Contains(kept, true) {
			continue
		}
		sealed, err := r.storage.Get(ctx, packName(c.id), int64(f.Offset), int64(f.Stored), nil)
		if err != nil {
			return err
		}
		if err := scratch.verify(opener, f, sealed); err != nil {
			return err
		}
		at := 0
		for k, chunk := range f.Chunks {
			if kept[k] {
				if err := w.put(ctx, chunk.ID, scratch.plain[at:at+int(chunk.Length)]); err != nil {
					return err
				}
			}
			at += int(chunk.Length)
		}
	}
	return nil
}

// deletions is how many packs are removed at once: each waits for the storage.
const deletions = 8

// deletePacks removes packs, making sure before each hundred that the lease still protects it.
func (r *Repository) deletePacks(ctx context.Context, lease *heldLease, packs []*candidate, what string) error {
	done := 0
	for part := range slices.Chunk(packs, 100) {
		r.progress(what, done, len(packs))
		if err := cmp.Or(ctx.Err(), lease.check(ctx)); err != nil {
			return err
		}
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(deletions)
		for _, c := range part {
			group.Go(func() error {
				if err := r.storage.Delete(ctx, packName(c.id)); err != nil && !errors.Is(err, storage.ErrNotExist) {
					return fmt.Errorf("removing pack %s: %w", short(c.id), err)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		done += len(part)
	}
	r.progress(what, done, len(packs))
	return nil
}
