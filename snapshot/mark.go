package snapshot

import (
	"context"
	"fmt"
)

// Mark calls node for every tree node and page of a catalogue that disk d refers to, and chunk for every chunk, again and again for one that is
// there more than once. node reports whether it has not seen the id before; below one that it has seen, Mark does not go.
func Mark(ctx context.Context, load Loader, d *Disk, node func(ID) (first bool), chunk func(ID)) error {
	return walk(ctx, load, d, Walker{Node: node, Chunk: chunk})
}

// Walker says what Walk meets. Its functions are called one at a time.
type Walker struct {
	Node   func(id ID) (first bool) // a tree node, or a page of a catalogue; below one that was met before, Walk does not go
	Chunk  func(id ID)              // a chunk, as often as it is there
	Broken func(error) error        // a node cannot be read; an error ends Walk, nil leaves out what is below. nil: it ends
}

// Walk goes through all that the disks of the snapshots in list refer to.
func Walk(ctx context.Context, load Loader, list []*Snapshot, w Walker) error {
	for _, s := range list {
		for i := range s.Disks {
			named := w
			named.Broken = func(err error) error {
				err = fmt.Errorf("snapshot %s, disk %s: %w", short(s.ID), s.Disks[i].Name, err)
				if w.Broken == nil || ctx.Err() != nil {
					return err
				}
				return w.Broken(err)
			}
			if err := walk(ctx, load, &s.Disks[i], named); err != nil {
				return err
			}
		}
	}
	return nil
}

// walk goes through one disk, and the lists of its files.
func walk(ctx context.Context, load Loader, d *Disk, w Walker) error {
	if d.Size == 0 {
		return nil
	}
	t := newTree(load, ID(d.Root), d.Size)
	n := segments(d.Size)
	if err := t.walk(ctx, child{id: t.root}, levels(n), 0, n, w); err != nil {
		return err
	}
	for i := range d.Volumes {
		if err := walkCatalogue(ctx, load, &d.Volumes[i], w); err != nil {
			return err
		}
	}
	return nil
}

// walk visits the node c, which is number i at level of a tree over n segments.
func (t *tree) walk(ctx context.Context, c child, level int, i, n int64, w Walker) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.hole != 0 || !w.Node(c.id) {
		return nil
	}
	broken := func(err error) error {
		if w.Broken == nil {
			return err
		}
		return w.Broken(err)
	}
	if level == 0 {
		extents, err := t.extents(ctx, i, c)
		if err != nil {
			return broken(fmt.Errorf("at %d MiB: %w", i*Segment>>20, err))
		}
		for k := range extents {
			if !extents[k].Kind.hole() {
				w.Chunk(extents[k].ID)
			}
		}
		return nil
	}
	children, err := t.children(ctx, c.id, level, childCount(n, level, i))
	if err != nil {
		return broken(err)
	}
	for k, next := range children {
		if err := t.walk(ctx, next, level-1, i*Fanout+int64(k), n, w); err != nil {
			return err
		}
	}
	return nil
}
