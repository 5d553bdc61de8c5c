package snapshot

import (
	"context"
	"fmt"
)

// Mark calls node for every tree node and chunk for every chunk that disk d refers to. node reports whether it has not
// seen the id before; below a node that it has seen, Mark does not go. A chunk may come several times.
func Mark(ctx context.Context, load Loader, d *Disk, node func(ID) (first bool), chunk func(ID)) error {
	if d.Size == 0 {
		return nil
	}
	t := newTree(load, ID(d.Root), d.Size)
	n := segments(d.Size)
	return t.mark(ctx, child{id: t.root}, levels(n), 0, n, node, chunk)
}

// mark visits the node c, which is number i at level.
func (t *tree) mark(ctx context.Context, c child, level int, i, n int64, node func(ID) bool, chunk func(ID)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.hole != 0 || !node(c.id) {
		return nil
	}
	if level == 0 {
		extents, err := t.extents(ctx, i, c)
		if err != nil {
			return fmt.Errorf("at %d MiB: %w", i*Segment>>20, err)
		}
		for k := range extents {
			if !extents[k].Kind.hole() {
				chunk(extents[k].ID)
			}
		}
		return nil
	}
	children, err := t.children(ctx, c.id, level, childCount(n, level, i))
	if err != nil {
		return err
	}
	for k, next := range children {
		if err := t.mark(ctx, next, level-1, i*Fanout+int64(k), n, node, chunk); err != nil {
			return err
		}
	}
	return nil
}
