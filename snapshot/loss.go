package snapshot

import "context"

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
