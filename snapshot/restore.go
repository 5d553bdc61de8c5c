package snapshot

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"varve/chunker"
	"varve/image"
)

// RestoreOptions says how Restore works.
type RestoreOptions struct {
	Workers int
	Done    *atomic.Int64 // counts bytes of the disk that are as they should be; may be nil
	Only    Range         // of the disk, such as a partition, at whose start the target begins; the zero value is all of it
}

// Restored says what Restore did, in bytes.
type Restored struct {
	Written int64
	Same    int64 // that the target had already, holes not counted
	Zeroed  int64 // that were made holes, or zero
	Damaged []DamagedRange
}

// DamagedRange is a run of bytes that could not be restored, and why.
type DamagedRange struct {
	Range
	Err error
}

// windowChunks is how many chunks Restore plans at once: within them each frame is read once. About 150 bytes of memory
// each.
const windowChunks = 1 << 18

// Restore writes the disk d, or Only a part of it, to target, which is at least as large. What the target holds already is recognised by its
// hash and neither fetched nor written. What cannot be read from the repository is left as it is and listed in Damaged;
// everything else is restored all the same.
func Restore(ctx context.Context, load EachLoader, d *Disk, target image.Target, id func() func([]byte) ID, o RestoreOptions) (Restored, error) {
	only := o.Only.orAll(d.Size)
	if only != (Range{0, d.Size}) {
		target = &windowTarget{target, only}
	}
	r := &restorer{ctx: ctx, load: load, disk: d, only: only, target: target, fresh: target.Fresh(), id: id, o: o}
	if r.o.Done == nil {
		r.o.Done = new(atomic.Int64)
	}
	r.o.Workers = max(1, r.o.Workers)
	t := newTree(load, ID(d.Root), d.Size)
	for i := only.Offset / Segment; i*Segment < only.End(); i++ {
		extents, err := t.segment(ctx, i)
		if err != nil {
			if ctx.Err() != nil {
				return r.result, err
			}
			// A node that cannot be read costs its own segment, not the rest of the disk.
			r.result.Damaged = append(r.result.Damaged, DamagedRange{Range{i * Segment, int64(segmentLength(d.Size, i))}.within(only), err})
			continue
		}
		if err := r.plan(i, extents); err != nil {
			return r.result, err
		}
		if len(r.window) >= windowChunks {
			if err := r.flush(); err != nil {
				return r.result, err
			}
		}
	}
	if err := r.flush(); err != nil {
		return r.result, err
	}
	return r.result, target.Sync()
}

// restorer is the state of one Restore.
type restorer struct {
	ctx    context.Context
	load   EachLoader
	disk   *Disk
	only   Range
	target image.Target // of which the part outside of only is not there
	fresh  bool
	id     func() func([]byte) ID
	o      RestoreOptions
	window []placed

	mu     sync.Mutex
	result Restored
}

// placed is an extent with chunk data and its place on the disk.
type placed struct {
	Extent
	offset int64
	length int
}

// plan makes the holes of segment i, and notes its chunks in the window.
func (r *restorer) plan(i int64, extents []Extent) error {
	at, length := 0, segmentLength(r.disk.Size, i)
	for k := range extents {
		e := &extents[k]
		n := min(e.Blocks*Block, length-at)
		offset := i*Segment + int64(at)
		at += n
		inside := Range{offset, int64(n)}.within(r.only)
		switch {
		case inside.Length == 0:
		case !e.Kind.hole():
			r.window = append(r.window, placed{*e, offset, n})
		default:
			if !r.fresh {
				if err := r.zero(inside.Offset, inside.Length); err != nil {
					return err
				}
			}
			r.o.Done.Add(inside.Length)
		}
	}
	return r.ctx.Err()
}

// zero makes a range of a target that is not new read as zeros, where it does not yet.
func (r *restorer) zero(offset, length int64) error {
	ranges, err := r.target.Map(offset, length)
	if err != nil {
		return err
	}
	var buf []byte
	for _, e := range ranges {
		if e.Kind != image.Data {
			continue
		}
		if buf == nil {
			buf = make([]byte, min(1<<20, e.Length))
		}
		for at := e.Offset; at < e.Offset+e.Length; at += int64(len(buf)) {
			part := buf[:min(int64(len(buf)), e.Offset+e.Length-at)]
			if n, err := r.target.ReadAt(part, at); n == len(part) && chunker.IsZero(part) {
				continue
			} else if err != nil && err != io.EOF && n < len(part) {
				return fmt.Errorf("reading the target at %d: %w", at, err)
			}
			if err := r.target.Zero(at, int64(len(part))); err != nil {
				return fmt.Errorf("writing zeros to the target at %d: %w", at, err)
			}
			r.result.Zeroed += int64(len(part))
		}
	}
	return nil
}

// flush restores the chunks in the window.
func (r *restorer) flush() error {
	todo := r.window
	if !r.fresh {
		var err error
		if todo, err = r.different(); err != nil {
			return err
		}
	}
	ids := make([]ID, len(todo))
	for i := range todo {
		ids[i] = todo[i].ID
	}
	err := r.load.LoadEach(r.ctx, ids, r.o.Workers, func(i int, data []byte, err error) error {
		p := &todo[i]
		if err == nil {
			data, err = runOf(data, &p.Extent, p.length)
		}
		if err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.result.Damaged = append(r.result.Damaged, DamagedRange{Range{p.offset, int64(p.length)}.within(r.only), err})
			return nil
		}
		if err := r.write(data, p.offset); err != nil {
			return fmt.Errorf("writing the target at %d: %w", p.offset, err)
		}
		r.o.Done.Add(int64(p.length))
		return nil
	})
	r.window = r.window[:0]
	return err
}

// different returns the chunks of the window that the target does not hold where they belong.
func (r *restorer) different() ([]placed, error) {
	keep := make([]bool, len(r.window))
	group, ctx := errgroup.WithContext(r.ctx)
	var next atomic.Int64
	for range r.o.Workers {
		group.Go(func() error {
			id := r.id()
			var buf []byte
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(r.window) {
					return nil
				}
				p := &r.window[i]
				if cap(buf) < p.length {
					buf = make([]byte, p.length)
				}
				name := p.ID
				if p.Kind == Part {
					name = p.Digest
				}
				n, _ := r.target.ReadAt(buf[:p.length], p.offset) // what cannot be read is written
				keep[i] = n < p.length || id(buf[:p.length]) != name
			}
			return ctx.Err()
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var todo []placed
	for i, k := range keep {
		if k {
			todo = append(todo, r.window[i])
		} else {
			r.result.Same += int64(r.window[i].length)
			r.o.Done.Add(int64(r.window[i].length))
		}
	}
	return todo, nil
}

// write puts data at offset: on a new target the blocks that are not zero, on another those that differ.
func (r *restorer) write(data []byte, offset int64) error {
	var old []byte
	if !r.fresh {
		old = make([]byte, len(data))
		if n, _ := r.target.ReadAt(old, offset); n < len(old) {
			old = nil
		}
	}
	skip := func(at, end int) bool {
		if r.fresh {
			return chunker.IsZero(data[at:end])
		}
		return old != nil && bytes.Equal(old[at:end], data[at:end])
	}
	written := 0
	for at := 0; at < len(data); {
		end := min(at+Block, len(data))
		if skip(at, end) {
			at = end
			continue
		}
		start := at
		for at = end; at < len(data); at = end {
			if end = min(at+Block, len(data)); skip(at, end) {
				break
			}
		}
		if _, err := r.target.WriteAt(data[start:at], offset+int64(start)); err != nil {
			return err
		}
		written += at - start
	}
	r.mu.Lock()
	r.result.Written += int64(written)
	if !r.fresh {
		r.result.Same += int64(len(data) - written)
	}
	r.mu.Unlock()
	return nil
}
