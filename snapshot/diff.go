package snapshot

import "context"

// diffExtents calls f for the ranges of a segment of length bytes in which two lists of extents are not known to hold
// the same bytes, in order; ranges that touch are one. Chunks that begin at different places count as different.
func diffExtents(a, b []Extent, length int, f func(Range)) {
	var open Range
	i, j, atA, atB := 0, 0, 0, 0 // the extents that hold pos, and where they begin
	for pos := 0; pos < length; {
		endA, endB := min(atA+a[i].Blocks*Block, length), min(atB+b[j].Blocks*Block, length)
		end := min(endA, endB)
		if !sameContent(&a[i], atA, &b[j], atB) {
			if open.Length > 0 && open.End() == int64(pos) {
				open.Length += int64(end - pos)
			} else {
				if open.Length > 0 {
					f(open)
				}
				open = Range{int64(pos), int64(end - pos)}
			}
		}
		if endA == end {
			i, atA = i+1, endA
		}
		if endB == end {
			j, atB = j+1, endB
		}
		pos = end
	}
	if open.Length > 0 {
		f(open)
	}
}

// sameContent reports whether two extents, which begin at atA and atB, hold the same bytes where they overlap.
func sameContent(a *Extent, atA int, b *Extent, atB int) bool {
	if a.Kind.hole() || b.Kind.hole() {
		return a.Kind.hole() && b.Kind.hole()
	}
	// A whole chunk is a part of itself from block 0.
	return a.ID == b.ID && atA-a.First*Block == atB-b.First*Block
}

// Diff calls f for the ranges in which disk b differs from disk a, in order and merged; where one is longer, the rest of
// it differs. Leaves that are equal are not read. Holes read as zeros, whatever their kind.
func Diff(ctx context.Context, load Loader, a, b *Disk, f func(Range) error) error {
	ta, tb := newTree(load, ID(a.Root), a.Size), newTree(load, ID(b.Root), b.Size)
	m := merger{f: f}
	short := min(a.Size, b.Size)
	for i := int64(0); i < segments(short); i++ {
		length := segmentLength(short, i)
		ca, err := ta.leafRef(ctx, i)
		if err != nil {
			return err
		}
		cb, err := tb.leafRef(ctx, i)
		if err != nil {
			return err
		}
		if ca == cb && segmentLength(a.Size, i) == segmentLength(b.Size, i) {
			continue
		}
		ea, err := ta.extents(ctx, i, ca)
		if err != nil {
			return err
		}
		eb, err := tb.extents(ctx, i, cb)
		if err != nil {
			return err
		}
		diffExtents(ea, eb, length, func(r Range) { m.add(Range{i*Segment + r.Offset, r.Length}) })
		if m.err != nil {
			return m.err
		}
	}
	if long := max(a.Size, b.Size); long > short {
		m.add(Range{short, long - short})
	}
	return m.finish()
}

// merger passes ranges on that come in order, and makes one of those that touch.
type merger struct {
	f    func(Range) error
	open Range
	err  error
}

func (m *merger) add(r Range) {
	if m.open.Length > 0 && m.open.End() == r.Offset {
		m.open.Length += r.Length
		return
	}
	if m.finish() == nil {
		m.open = r
	}
}

func (m *merger) finish() error {
	if m.err == nil && m.open.Length > 0 {
		m.err = m.f(m.open)
	}
	m.open = Range{}
	return m.err
}
