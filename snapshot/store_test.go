package snapshot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"

	"varve/chunker"
	"varve/image"
)

// store is a repository in memory.
type store struct {
	mu     sync.Mutex
	chunks map[ID][]byte
	loads  int // calls of Load
}

func newStore() *store { return &store{chunks: map[ID][]byte{}} }

func (s *store) ID(data []byte) ID { return sha256.Sum256(data) }

func (s *store) Has(id ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, found := s.chunks[id]
	return found
}

func (s *store) Save(_ context.Context, id ID, data []byte) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, found := s.chunks[id]; found {
		return false, nil
	}
	s.chunks[id] = bytes.Clone(data)
	return true, nil
}

func (s *store) Load(_ context.Context, id ID, buf []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loads++
	data, found := s.chunks[id]
	if !found {
		return nil, fmt.Errorf("chunk %s is not there", short(id))
	}
	return append(buf[:0], data...), nil
}

// Compare compares with the chunk's bytes.
func (s *store) Compare(ctx context.Context, id ID, first int, data []byte, same []bool) (int, error) {
	chunk, err := s.Load(ctx, id, nil)
	for i := range same {
		at := (first + i) * Block
		same[i] = at < len(chunk) && bytes.Equal(chunk[at:min(at+Block, len(chunk))], data[i*Block:min((i+1)*Block, len(data))])
	}
	return len(chunk), err
}

// Holds compares with the chunk's bytes, and knows half of the chunks.
func (s *store) Holds(_ context.Context, id ID, first int, data []byte) (holds bool, length int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	chunk := s.chunks[id]
	if id[0]%2 == 0 || len(chunk) == 0 {
		return false, 0
	}
	at := first * Block
	return at+len(data) <= len(chunk) && bytes.Equal(chunk[at:at+len(data)], data), len(chunk)
}

func (s *store) LoadEach(ctx context.Context, ids []ID, _ int, f func(int, []byte, error) error) error {
	for _, i := range rand.Perm(len(ids)) {
		data, err := s.Load(ctx, ids[i], nil)
		if err := f(i, data, err); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) writer() (Writer, error) { return s, nil }

// hashing gives each worker what computes ids.
func (s *store) hashing() func([]byte) ID { return s.ID }

// disk is a disk in memory, a source and a target. Its holes are the zero blocks that holes lists.
type disk struct {
	mu    sync.Mutex
	data  []byte
	holes map[int64]image.Kind // by block
	fresh bool
	fail  int64 // reads beyond it fail, when not 0
	wrote int64
}

func (d *disk) Info() image.Info {
	return image.Info{Name: "disk", Path: "/disk", Type: "file", Size: int64(len(d.data))}
}

var errBroken = errors.New("the disk is broken here")

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail > 0 && off+int64(len(p)) > d.fail {
		return 0, errBroken
	}
	if off >= int64(len(d.data)) {
		return 0, io.EOF
	}
	n := copy(p, d.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (d *disk) Map(off, length int64) ([]image.Extent, error) {
	var list []image.Extent
	for at := off; at < off+length; at += Block {
		kind := d.holes[at/Block]
		n := min(Block, off+length-at)
		if last := len(list) - 1; last >= 0 && list[last].Kind == kind {
			list[last].Length += n
		} else {
			list = append(list, image.Extent{Offset: at, Length: n, Kind: kind})
		}
	}
	return list, nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off+int64(len(p)) > int64(len(d.data)) {
		return 0, errors.New("write beyond the end")
	}
	d.wrote += int64(len(p))
	return copy(d.data[off:], p), nil
}

func (d *disk) Zero(off, length int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.data[off : off+length])
	return nil
}

func (d *disk) Fresh() bool  { return d.fresh }
func (d *disk) Sync() error  { return nil }
func (d *disk) Forget()      {}
func (d *disk) Close() error { return nil }

func testChunker() chunker.Params {
	return chunker.Params{Polynomial: 0x3DA3358B4DC173, Min: 32 << 10, Max: 256 << 10, Bits: 15, ZeroRun: 4}
}

// options are those of a backup to s.
func (s *store) options(parent *Disk, workers int) CreateOptions {
	return CreateOptions{Chunker: testChunker(), Workers: workers, Parent: parent, ParentComplete: true,
		Load: s, DataWriter: s.writer, TreeWriter: s.writer}
}

// create makes the tree of d in s.
func create(s *store, d image.Source, parent *Disk, workers int) (*Disk, error) {
	return Create(context.Background(), d, s.options(parent, workers))
}

// createParts is create with references into the parent's chunks.
func createParts(s *store, d image.Source, parent *Disk, workers int) (*Disk, error) {
	o := s.options(parent, workers)
	o.Parts = func() Comparer { return s }
	return Create(context.Background(), d, o)
}

// readBack reads all of a disk from s.
func readBack(s *store, d *Disk) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(NewReader(context.Background(), s, d), 0, d.Size))
}

// noise is n pseudo-random bytes that are the same on every run.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	data := make([]byte, n)
	rand.NewChaCha8(key).Read(data)
	return data
}
