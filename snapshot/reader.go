package snapshot

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// Reader reads from a disk of a snapshot as from the disk itself. It may be used concurrently.
type Reader struct {
	ctx  context.Context
	load Loader
	tree *tree

	mu     sync.Mutex
	leaves map[int64][]Extent
}

// leafCacheNodes bounds Reader.leaves.
const leafCacheNodes = 64

// NewReader returns a reader of d, which ends with ctx.
func NewReader(ctx context.Context, load Loader, d *Disk) *Reader {
	return &Reader{ctx: ctx, load: load, tree: newTree(load, ID(d.Root), d.Size), leaves: map[int64][]Extent{}}
}

// Size returns the size of the disk in bytes.
func (r *Reader) Size() int64 { return r.tree.size }

// ReadAt fills p from offset off, as io.ReaderAt tells: fewer bytes only with an error, which is io.EOF at the end.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading at the negative offset %d", off)
	}
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if at >= r.tree.size {
			return done, io.EOF
		}
		n, err := r.readSegment(p[done:], at/Segment, int(at%Segment))
		done += n
		if err != nil {
			return done, fmt.Errorf("reading at %d: %w", at+int64(n), err)
		}
	}
	return done, nil
}

// readSegment fills p from segment i, beginning at start, up to its end.
func (r *Reader) readSegment(p []byte, i int64, start int) (int, error) {
	extents, err := r.leaf(i)
	if err != nil {
		return 0, err
	}
	length := segmentLength(r.tree.size, i)
	p = p[:min(len(p), length-start)]
	done, at := 0, 0
	for k := range extents {
		e := &extents[k]
		n := min(e.Blocks*Block, length-at)
		if from := start + done - at; done < len(p) && from < n {
			want := p[done:min(len(p), done+n-from)]
			if err := r.readExtent(want, e, from, n); err != nil {
				return done, err
			}
			done += len(want)
		}
		at += n
	}
	return done, nil
}

// readExtent fills p from the extent e of n bytes, beginning at byte from of it.
func (r *Reader) readExtent(p []byte, e *Extent, from, n int) error {
	if e.Kind.hole() {
		clear(p)
		return nil
	}
	buf := chunkBuffers.Get().(*[]byte)
	defer chunkBuffers.Put(buf)
	data, err := r.load.Load(r.ctx, e.ID, *buf)
	if err != nil {
		return err
	}
	*buf = data
	run, err := runOf(data, e, n)
	if err != nil {
		return err
	}
	copy(p, run[from:])
	return nil
}

var chunkBuffers = sync.Pool{New: func() any { return new([]byte) }}

// runOf returns the n bytes of a chunk that an extent refers to.
func runOf(data []byte, e *Extent, n int) ([]byte, error) {
	if err := e.fits(len(data), n); err != nil {
		return nil, err
	}
	return data[e.First*Block:][:n], nil
}

// fits reports why an extent of n bytes cannot refer to a chunk of length bytes.
func (e *Extent) fits(length, n int) error {
	start := e.First * Block
	if start+n > length || (e.Kind == Chunk && n != length) {
		return fmt.Errorf("the tree is damaged: it wants %d bytes from %d of chunk %s, which has %d", n, start, short(e.ID), length)
	}
	return nil
}

// leaf returns the extents of segment i.
func (r *Reader) leaf(i int64) ([]Extent, error) {
	r.mu.Lock()
	extents, found := r.leaves[i]
	r.mu.Unlock()
	if found {
		return extents, nil
	}
	extents, err := r.tree.segment(r.ctx, i)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.leaves) >= leafCacheNodes {
		clear(r.leaves)
	}
	r.leaves[i] = extents
	return extents, nil
}
