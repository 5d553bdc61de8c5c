package snapshot

import "context"

// Loss finds what of disks cannot be read when some chunks are lost.
type Loss struct {
	Load Loader
	Lost func(id ID) bool // chunks and nodes that are known to be lost; a node that cannot be read is lost as well

	known map[ID]int64 // by node; nodes are shared by many snapshots
}

// Of returns how many bytes of d are lost, and calls each, which may be nil, for the ranges that they make up, in order.
func (l *Loss) Of(ctx context.Context, d *Disk, each func(Range)) (int64, error) {
	if d.Size == 0 {
		return 0, nil
	}
	if l.known == nil {
		l.known = map[ID]int64{}
	}
	w := lossWalk{Loss: l, tree: newTree(l.Load, ID(d.Root), d.Size), segments: segments(d.Size), each: each}
	lost, err := w.of(ctx, child{id: ID(d.Root)}, levels(w.segments), 0)
	if err == nil && each != nil && w.last.Length > 0 {
		each(w.last)
	}
	return lost, err
}

// lossWalk goes through one disk.
type lossWalk struct {
	*Loss
	tree     *tree
	segments int64
	each     func(Range)
	last     Range // the one that each has not been told yet: the next may join it
}

// of returns what is lost under the node c, number i at level.
func (w *lossWalk) of(ctx context.Context, c child, level int, i int64) (lost int64, err error) {
	if c.hole != 0 {
		return 0, ctx.Err()
	}
	if lost, found := w.known[c.id]; found && (lost == 0 || w.each == nil) {
		return lost, ctx.Err()
	}
	if level == 0 {
		length := segmentLength(w.tree.size, i)
		extents, err := w.tree.extents(ctx, i, c)
		if err != nil {
			return w.whole(ctx, c.id, Range{i * Segment, int64(length)})
		}
		at := 0
		for k := range extents {
			bytes := min(extents[k].Blocks*Block, length-at)
			if !extents[k].Kind.hole() && w.Lost(extents[k].ID) {
				w.tell(Range{i*Segment + int64(at), int64(bytes)})
				lost += int64(bytes)
			}
			at += bytes
		}
		return w.note(ctx, c.id, lost)
	}
	span := int64(1) // segments under one child
	for range level - 1 {
		span *= Fanout
	}
	children, err := w.tree.children(ctx, c.id, level, childCount(w.segments, level, i))
	if err != nil {
		first := i * Fanout * span * Segment
		return w.whole(ctx, c.id, Range{first, min(Fanout*span*Segment, w.tree.size-first)})
	}
	for k, next := range children {
		bytes, err := w.of(ctx, next, level-1, i*Fanout+int64(k))
		if err != nil {
			return 0, err
		}
		lost += bytes
	}
	return w.note(ctx, c.id, lost)
}

// tell passes a range on, joined with those before that it follows.
func (w *lossWalk) tell(r Range) {
	if w.each == nil {
		return
	}
	if w.last.Length > 0 && w.last.End() == r.Offset {
		w.last.Length += r.Length
		return
	}
	if w.last.Length > 0 {
		w.each(w.last)
	}
	w.last = r
}

// whole is note for a node of which everything is lost.
func (w *lossWalk) whole(ctx context.Context, id ID, r Range) (int64, error) {
	w.tell(r)
	return w.note(ctx, id, r.Length)
}

// note remembers what is lost under a node, unless the work was broken off.
func (w *lossWalk) note(ctx context.Context, id ID, lost int64) (int64, error) {
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	w.known[id] = lost
	return lost, nil
}
