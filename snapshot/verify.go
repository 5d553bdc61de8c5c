package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"varve/chunker"
	"varve/image"
)

// Mapped is a disk to compare with: image.Source and image.Target both are.
type Mapped interface {
	io.ReaderAt
	Map(offset, length int64) ([]image.Extent, error)
}

// VerifyOptions says how Verify works.
type VerifyOptions struct {
	Workers int
	Done    *atomic.Int64 // counts bytes of the disk that are done with; may be nil
	Only    Range         // of the disk, such as a partition, at whose start the other begins; the zero value is all of it
	// LeftOut has what was left out of the snapshot compared with zeros, as which it is restored. Otherwise it is not compared.
	LeftOut bool
	Skipped *atomic.Int64 // counts bytes that were not compared, since they were left out; may be nil
}

// Verify compares the disk d with the size bytes of other, and returns the ranges that differ, in order, merged, and to
// the block.
// Holes are equal to zeros, and those of what was left out to anything. The repository's data is read only where a hash does not match.
func Verify(ctx context.Context, load Loader, d *Disk, other Mapped, size int64, id func() func([]byte) ID, o VerifyOptions) ([]Range, error) {
	only := o.Only.orAll(d.Size)
	common := Range{only.Offset, min(size, only.Length)}
	if only != (Range{0, d.Size}) {
		other = &windowMapped{other, common}
	}
	v := &verifier{load: load, disk: d, tree: newTree(load, ID(d.Root), d.Size), other: other, common: common, o: o}
	v.next.Store(only.Offset / Segment)
	for _, counter := range []**atomic.Int64{&v.o.Done, &v.o.Skipped} {
		if *counter == nil {
			*counter = new(atomic.Int64)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for range max(1, o.Workers) {
		group.Go(func() error {
			w := verifyWorker{verifier: v, ctx: ctx, id: id(), buf: make([]byte, 1<<20)}
			for {
				i := v.next.Add(1) - 1
				if i*Segment >= v.common.End() {
					return nil
				}
				if err := w.segment(i); err != nil {
					return err
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if long := max(size, only.Length); long > common.Length {
		v.differ = append(v.differ, Range{common.End(), long - common.Length})
	}
	slices.SortFunc(v.differ, func(a, b Range) int { return int(min(1, max(-1, a.Offset-b.Offset))) })
	var merged []Range
	m := merger{f: func(r Range) error { merged = append(merged, r); return nil }}
	for _, r := range v.differ {
		m.add(r)
	}
	return merged, m.finish()
}

// verifier is the state that the workers of one Verify share.
type verifier struct {
	load   Loader
	disk   *Disk
	tree   *tree
	other  Mapped
	common Range // that both have
	o      VerifyOptions
	next   atomic.Int64

	mu     sync.Mutex
	differ []Range
}

// verifyWorker compares one segment after the other.
type verifyWorker struct {
	*verifier
	ctx   context.Context
	id    func([]byte) ID
	buf   []byte
	chunk []byte
}

func (w *verifyWorker) segment(i int64) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	extents, err := w.tree.segment(w.ctx, i)
	if err != nil {
		return err
	}
	at, length := 0, segmentLength(w.disk.Size, i)
	for k := range extents {
		n := min(extents[k].Blocks*Block, length-at)
		offset := i*Segment + int64(at)
		at += n
		// Where the other disk is shorter, the rest counts as different as a whole.
		inside := Range{offset, int64(n)}.within(w.common)
		if inside.Length == 0 {
			continue
		}
		if !w.o.LeftOut && leftOut(extents[k].Kind) {
			w.o.Skipped.Add(inside.Length)
		} else if err := w.extent(&extents[k], offset, n, int(min(int64(n), w.common.End()-offset))); err != nil {
			return err
		}
		w.o.Done.Add(inside.Length)
	}
	return nil
}

// extent compares an extent of n bytes, of which the other disk has inside.
func (w *verifyWorker) extent(e *Extent, offset int64, n, inside int) error {
	if e.Kind.hole() {
		ranges, err := w.other.Map(offset, int64(inside))
		if err != nil {
			return err
		}
		for _, r := range ranges {
			for at := r.Offset; r.Kind == image.Data && at < r.Offset+r.Length; {
				data, err := w.read(at, int(min(int64(len(w.buf)), r.Offset+r.Length-at)))
				if err != nil {
					return err
				}
				if !chunker.IsZero(data) {
					w.compare(data, nil, at)
				}
				at += int64(len(data))
			}
		}
		return nil
	}
	data, err := w.read(offset, inside)
	if err != nil {
		return err
	}
	name := e.ID
	if e.Kind == Part {
		name = e.Digest
	}
	if inside == n && w.id(data) == name {
		return nil
	}
	if w.chunk, err = w.load.Load(w.ctx, e.ID, w.chunk); err != nil {
		return err
	}
	run, err := runOf(w.chunk, e, n)
	if err != nil {
		return err
	}
	w.compare(data, run, offset)
	return nil
}

func (w *verifyWorker) read(offset int64, n int) ([]byte, error) {
	k, err := w.other.ReadAt(w.buf[:n], offset)
	if k < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = errors.New("it became shorter while it was read")
		}
		return nil, fmt.Errorf("reading the disk at %d: %w", offset+int64(k), err)
	}
	return w.buf[:n], nil
}

// compare notes the blocks of data that are not those of want, or not zero when want is nil. Only what both disks have counts.
func (w *verifyWorker) compare(data, want []byte, offset int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for next := 0; next < len(data); next += Block {
		inside := Range{offset + int64(next), int64(min(Block, len(data)-next))}.within(w.common)
		if inside.Length == 0 {
			continue
		}
		at, end := int(inside.Offset-offset), int(inside.End()-offset)
		if want == nil && !chunker.IsZero(data[at:end]) || want != nil && !bytes.Equal(data[at:end], want[at:end]) {
			if last := len(w.differ) - 1; last >= 0 && w.differ[last].End() == offset+int64(at) {
				w.differ[last].Length += int64(end - at)
			} else {
				w.differ = append(w.differ, Range{offset + int64(at), int64(end - at)})
			}
		}
	}
}
