package repo

import (
	"context"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
	"varve/repo/pack"
	"varve/repo/storage"
)

// RepairedRecord says what was done about a record, or would be.
type RepairedRecord struct {
	ID     ID
	Reason error // what is wrong
	Left   bool  // it cannot be read at all, and is where it was
}

// RepairRecords moves records that are damaged to quarantine; where they are there twice, those of which neither copy is
// whole. valid reports why a record cannot be used that has the hash that is its name. The caller keeps others from removing
// records meanwhile: see Maintain.
func (r *Repository) RepairRecords(ctx context.Context, dryRun bool, valid func(id ID, record []byte) error, report func(RepairedRecord)) error {
	ids, err := r.Records(ctx)
	if err != nil {
		return err
	}
	for _, id := range ids {
		first, firstErr := r.readSealed(ctx, recordName(id), id, valid)
		second, secondErr := r.readSealed(ctx, recordCopy(id), id, valid)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if firstErr == nil || secondErr == nil {
			continue
		}
		done := RepairedRecord{ID: id, Reason: firstErr, Left: first == nil && second == nil}
		err = errors.Join(r.putAside(ctx, recordName(id), first, dryRun), r.putAside(ctx, recordCopy(id), second, dryRun))
		if err != nil {
			return err
		}
		report(done)
	}
	return nil
}

// readSealed reads one copy of a record as it is stored. What it returns with an error is what there is of it.
func (r *Repository) readSealed(ctx context.Context, name string, id ID, valid func(id ID, record []byte) error) (sealed []byte, err error) {
	err = r.again(ctx, name, func() error {
		if sealed, err = r.storage.Get(ctx, name, 0, -1, nil); err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if sealed == nil {
			sealed = []byte{} // it is there, and has no bytes
		}
		if blake3.Sum256(sealed) != id {
			return &DamagedError{Object: name, Reason: "its bytes do not have the hash that is its name"}
		}
		record, err := r.readRecord(ctx, name, id)
		if err == nil {
			err = valid(id, record)
		}
		return err
	})
	return sealed, err
}

// putAside moves what there is of an object to quarantine.
func (r *Repository) putAside(ctx context.Context, name string, data []byte, dryRun bool) error {
	if dryRun || data == nil {
		return nil
	}
	if _, err := r.quarantine(ctx, name, data); err != nil {
		return err
	}
	if err := r.storage.Delete(ctx, name); err != nil && !errors.Is(err, storage.ErrNotExist) {
		return fmt.Errorf("removing %s, of which there is a copy in quarantine: %w", name, err)
	}
	return nil
}

// EachNode calls f for every tree node in every pack, some more than once; node is valid until it returns. What cannot be
// read is passed to damaged. An error of f ends it.
func (r *Repository) EachNode(ctx context.Context, f func(id ID, node []byte) error, damaged func(error)) error {
	packs, err := r.storedPacks(ctx, nil)
	if err != nil {
		return err
	}
	scratch := newFrameScratch(r.secrets.id)
	for i, p := range packs {
		r.progress("reading tree nodes", i, len(packs))
		var dir pack.Directory
		err := r.again(ctx, packName(p.ID), func() (err error) {
			dir, err = r.readDirectory(ctx, p.ID, p.Size)
			return err
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			damaged(err)
		}
		if err != nil || dir.Kind != pack.Tree {
			continue
		}
		opener := dir.Opener(r.secrets.pack)
		for _, frame := range dir.Frames {
			err := r.again(ctx, packName(p.ID), func() error {
				return r.healing(ctx, p.ID, p.Size, func() error {
					sealed, err := r.packRange(ctx, p.ID, int64(frame.Offset), int64(frame.Stored), nil)
					if err != nil {
						return err
					}
					return scratch.verify(opener, frame, sealed)
				})
			})
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				damaged(&DamagedError{Object: packName(p.ID), Reason: err.Error()})
				continue
			}
			at := 0
			for _, c := range frame.Chunks {
				if err := f(c.ID, scratch.plain[at:at+int(c.Length)]); err != nil {
					return err
				}
				at += int(c.Length)
			}
		}
	}
	r.progress("reading tree nodes", len(packs), len(packs))
	return nil
}
