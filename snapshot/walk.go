package snapshot

import (
	"context"
	"fmt"
)

// Walker says what Walk meets. Its functions are called one at a time.
type Walker struct {
	Node   func(id ID) (first bool) // a tree node; below one that was met before, Walk does not go
	Chunk  func(id ID)
	Broken func(error) error // a node cannot be read; an error ends Walk, nil leaves out what is below. nil: it ends
}

// Walk goes through all that the disks of the snapshots in list refer to.
func Walk(ctx context.Context, load Loader, list []*Snapshot, w Walker) error {
	for _, s := range list {
		for i := range s.Disks {
			d := &s.Disks[i]
			if d.Size == 0 {
				continue
			}
			t := newTree(load, ID(d.Root), d.Size)
			n := segments(d.Size)
			err := t.walk(ctx, child{id: t.root}, levels(n), 0, n, func(err error) error {
				err = fmt.Errorf("snapshot %s, disk %s: %w", short(s.ID), d.Name, err)
				if w.Broken == nil || ctx.Err() != nil {
					return err
				}
				return w.Broken(err)
			}, w)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// walk visits the node c, which is number i at level of a tree over n segments.
func (t *tree) walk(ctx context.Context, c child, level int, i, n int64, broken func(error) error, w Walker) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.hole != 0 || !w.Node(c.id) {
		return nil
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
		if err := t.walk(ctx, next, level-1, i*Fanout+int64(k), n, broken, w); err != nil {
			return err
		}
	}
	return nil
}

// Loss counts how many bytes of disks cannot be read when some chunks are lost.
type Loss struct {
	Load Loader
	Lost func(id ID) bool // chunks and nodes that are known to be lost; a node that cannot be read is lost as well

	known map[ID]int64 // by node; nodes are shared by many snapshots
}

// Of returns how many bytes of d are lost.
func (l *Loss) Of(ctx context.Context, d *Disk) (int64, error) {
	if d.Size == 0 {
		return 0, nil
	}
	if l.known == nil {
		l.known = map[ID]int64{}
	}
	n := segments(d.Size)
	return l.of(ctx, newTree(l.Load, ID(d.Root), d.Size), child{id: ID(d.Root)}, levels(n), 0, n)
}

func (l *Loss) of(ctx context.Context, t *tree, c child, level int, i, n int64) (lost int64, err error) {
	if c.hole != 0 {
		return 0, ctx.Err()
	}
	if lost, found := l.known[c.id]; found {
		return lost, ctx.Err()
	}
	if level == 0 {
		length := segmentLength(t.size, i)
		extents, err := t.extents(ctx, i, c)
		if err != nil {
			return l.note(ctx, c.id, int64(length))
		}
		at := 0
		for k := range extents {
			bytes := min(extents[k].Blocks*Block, length-at)
			at += bytes
			if !extents[k].Kind.hole() && l.Lost(extents[k].ID) {
				lost += int64(bytes)
			}
		}
		return l.note(ctx, c.id, lost)
	}
	span := int64(1) // segments under one child
	for range level - 1 {
		span *= Fanout
	}
	children, err := t.children(ctx, c.id, level, childCount(n, level, i))
	if err != nil {
		first := i * Fanout * span * Segment
		return l.note(ctx, c.id, min(Fanout*span*Segment, t.size-first))
	}
	for k, next := range children {
		bytes, err := l.of(ctx, t, next, level-1, i*Fanout+int64(k), n)
		if err != nil {
			return 0, err
		}
		lost += bytes
	}
	return l.note(ctx, c.id, lost)
}

// note remembers what is lost under a node, unless the work was broken off.
func (l *Loss) note(ctx context.Context, id ID, lost int64) (int64, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	l.known[id] = lost
	return lost, nil
}
