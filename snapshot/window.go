package snapshot

import (
	"io"

	"varve/image"
)

// windowTarget is a disk of which only a part is there, in a target of its own. What is written elsewhere is dropped, what is read
// elsewhere is nothing.
type windowTarget struct {
	image.Target
	part Range
}

func (w *windowTarget) WriteAt(p []byte, off int64) (int, error) {
	inside := Range{off, int64(len(p))}.within(w.part)
	if inside.Length == 0 {
		return len(p), nil
	}
	n, err := w.Target.WriteAt(p[inside.Offset-off:inside.End()-off], inside.Offset-w.part.Offset)
	if err != nil {
		return int(inside.Offset-off) + n, err
	}
	return len(p), nil
}

func (w *windowTarget) ReadAt(p []byte, off int64) (int, error) {
	return readWindow(w.Target, w.part, p, off)
}

func (w *windowTarget) Map(off, length int64) ([]image.Extent, error) {
	return mapWindow(w.Target.Map, w.part, off, length)
}

func (w *windowTarget) Zero(off, length int64) error {
	inside := Range{off, length}.within(w.part)
	if inside.Length == 0 {
		return nil
	}
	return w.Target.Zero(inside.Offset-w.part.Offset, inside.Length)
}

// windowMapped is a disk to compare with of which only a part is there.
type windowMapped struct {
	Mapped
	part Range
}

func (w *windowMapped) ReadAt(p []byte, off int64) (int, error) {
	return readWindow(w.Mapped, w.part, p, off)
}

func (w *windowMapped) Map(off, length int64) ([]image.Extent, error) {
	return mapWindow(w.Mapped.Map, w.part, off, length)
}

// readWindow reads from r, which holds part of a disk, as from the disk; zeros stand for the rest.
func readWindow(r io.ReaderAt, part Range, p []byte, off int64) (int, error) {
	inside := Range{off, int64(len(p))}.within(part)
	clear(p)
	if inside.Length == 0 {
		return len(p), nil
	}
	n, err := r.ReadAt(p[inside.Offset-off:inside.End()-off], inside.Offset-part.Offset)
	if int64(n) < inside.Length {
		return int(inside.Offset-off) + n, err
	}
	return len(p), nil
}

// mapWindow asks of, which tells the holes of part of a disk, for those of the disk. What is not there is a hole. Where the part does not
// begin on a block of the disk, only its own blocks count: nothing is a hole that is not one on both.
func mapWindow(of func(off, length int64) ([]image.Extent, error), part Range, off, length int64) ([]image.Extent, error) {
	inside := Range{off, length}.within(part)
	var list []image.Extent
	add := func(from, to int64, kind image.Kind) {
		if to > from {
			list = append(list, image.Extent{Offset: from, Length: to - from, Kind: kind})
		}
	}
	if inside.Length == 0 {
		add(off, off+length, image.Sparse)
		return list, nil
	}
	add(off, inside.Offset, image.Sparse)
	if part.Offset%Block != 0 {
		add(inside.Offset, inside.End(), image.Data)
	} else {
		held, err := of(inside.Offset-part.Offset, inside.Length)
		if err != nil {
			return nil, err
		}
		for _, e := range held {
			add(e.Offset+part.Offset, e.Offset+e.Length+part.Offset, e.Kind)
		}
	}
	add(inside.End(), off+length, image.Sparse)
	return list, nil
}
