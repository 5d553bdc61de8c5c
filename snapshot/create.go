package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"varve/chunker"
	"varve/image"
)

// CreateOptions says how Create works.
type CreateOptions struct {
	Chunker chunker.Params
	Workers int // goroutines, each with a segment in memory

	// Parent guides the scan: what is recognised as one of its extents is not cut and looked up again. nil: none. Without
	// Parts it has no influence on the result.
	Parent *Disk
	// ParentComplete says that everything that Parent refers to is in the repository. Otherwise each of its extents is
	// looked up before it is used.
	ParentComplete bool
	// ParentLost is told why a part of the parent cannot be read; the scan goes on there as without a parent. It is called
	// concurrently; nil: nobody is told.
	ParentLost func(error)
	// Parts makes what compares with the parent's chunks, one a worker: of those that have changed only the blocks are stored
	// that have. What the disk reads as is the same, but the tree is another one than that of a scan without a parent. nil:
	// changed chunks are stored as a whole.
	Parts func() Comparer

	Load       Loader                 // reads the parent's tree
	DataWriter func() (Writer, error) // makes one writer of chunks a worker
	TreeWriter func() (Writer, error) // makes the writer of nodes
	Counters   *Counters              // counts while Create runs; may be nil
}

// Counters counts bytes while a backup runs.
type Counters struct {
	Scanned atomic.Int64 // of the disk, holes included
	Read    atomic.Int64
	Changed atomic.Int64
	Added   atomic.Int64
}

// window is how much of a segment is in memory at once, in bytes: little enough to be hashed while it is in the
// processor's cache, and more than any chunk.
const window = 1 << 20

// Create reads a disk and saves what the repository lacks of it. It returns the disk with its tree, ready for a record;
// Stats.Stored is left to the caller, who knows what the repository stored. The result does not depend on the number of
// workers, nor, without Parts, on the parent, except in which extents refer to parts of chunks.
func Create(ctx context.Context, src image.Source, o CreateOptions) (*Disk, error) {
	info := src.Info()
	c := &creator{src: src, info: info, o: o, counters: o.Counters}
	if c.counters == nil {
		c.counters = &Counters{}
	}
	var err error
	if c.tree, err = o.TreeWriter(); err != nil {
		return nil, err
	}
	c.builder = treeBuilder{save: func(node []byte) (ID, error) {
		c.treeMu.Lock()
		defer c.treeMu.Unlock()
		id := c.tree.ID(node)
		_, err := c.tree.Save(ctx, id, node)
		return id, err
	}}
	if o.Parent != nil && o.Parent.Size > 0 {
		c.parent = newTree(o.Load, ID(o.Parent.Root), o.Parent.Size)
	}
	group, ctx := errgroup.WithContext(ctx)
	for range max(1, o.Workers) {
		group.Go(func() error { return c.work(ctx) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	size := info.Size
	if size < 0 {
		size = c.read.Load() // a stream has been read once, to its end
	}
	d := &Disk{Name: info.Name, Path: info.Path, Type: info.Type, Size: size, SectorSize: info.SectorSize, Model: info.Model,
		Serial: info.Serial, ModTime: info.ModTime, ChangeTime: info.ChangeTime, Inode: info.Inode, Device: info.Device}
	d.Stats = DiskStats{Used: c.used.Load(), Read: c.read.Load(), Changed: c.changed.Load(), Added: c.added.Load(), Parts: c.parts.Load(), Chunks: c.chunks.Load(),
		Free: c.free.Load(), Excluded: c.excluded.Load()}
	if d.Size > 0 {
		root, err := c.builder.finish(d.Size)
		if err != nil {
			return nil, err
		}
		d.Root = Root(root)
	}
	return d, nil
}

// creator is the state that the workers of one Create share.
type creator struct {
	src      image.Source
	info     image.Info
	o        CreateOptions
	counters *Counters
	parent   *tree // nil without one
	builder  treeBuilder

	treeMu sync.Mutex
	tree   Writer

	next                                      atomic.Int64 // the next segment that nobody has taken
	used, read, changed, added, chunks, parts atomic.Int64
	free, excluded                            atomic.Int64
}

// work scans segments until there are none left.
func (c *creator) work(ctx context.Context) error {
	data, err := c.o.DataWriter()
	if err != nil {
		return err
	}
	s := &scanner{creator: c, ctx: ctx, data: data, cutter: chunker.New(c.o.Chunker)}
	if c.info.Size < 0 {
		s.buf = make([]byte, Segment)
	} else {
		s.buf = make([]byte, window)
	}
	if c.o.Parts != nil {
		s.before = c.o.Parts()
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		i := c.next.Add(1) - 1
		more, err := s.segment(i)
		if err != nil {
			return fmt.Errorf("%s at %d MiB: %w", c.info.Path, i*Segment>>20, err)
		}
		if !more {
			return nil
		}
	}
}

// scanner turns one segment after the other into extents. It belongs to one goroutine.
type scanner struct {
	*creator
	ctx    context.Context
	data   Writer
	cutter *chunker.Chunker

	buf    []byte // bytes of the segment from base on; holes are zero
	base   int
	filled int   // where the bytes in buf end, in the segment
	offset int64 // of the segment on the disk
	length int   // of the segment
	ranges []image.Extent
	at     int // index in ranges of the one to be read next
	limit  int // of what is scanned now, in the segment: what lies behind is left out

	guide  guide
	before Comparer   // with the parent's chunks; nil: they are not compared with
	same   []bool     // blocks of an extent that has changed
	runs   []blockRun // of it

	extents []Extent
	end     int // of the extents so far, in the segment
	node    []byte
}

// segment scans segment i. It reports false when the disk ends before it.
func (s *scanner) segment(i int64) (more bool, err error) {
	s.offset, s.base, s.filled, s.at, s.extents, s.end = i*Segment, 0, 0, 0, s.extents[:0], 0
	if s.info.Size >= 0 {
		if s.offset >= s.info.Size {
			return false, nil
		}
		s.length = segmentLength(s.info.Size, i)
		if s.ranges, err = s.src.Map(s.offset, int64(s.length)); err != nil {
			return false, err
		}
	} else if more, err := s.stream(); !more || err != nil {
		return false, err
	}
	var parentRef child
	var parent []Extent
	if s.guides(i) {
		if parentRef, err = s.parent.leafRef(s.ctx, i); err == nil {
			parent, err = s.parent.extents(s.ctx, i, parentRef)
		}
		if err != nil {
			if s.ctx.Err() != nil {
				return false, err
			}
			parentRef, parent = child{}, nil
			s.parentLost(err)
		}
	}
	s.guide.reset(parent)
	if err := s.scan(); err != nil {
		return false, err
	}
	leaf, err := s.leaf(parentRef)
	if err != nil {
		return false, err
	}
	s.count(parent)
	return true, s.builder.add(0, i, leaf)
}

// stream reads a whole segment of a source whose size is not known, since others wait for what comes after it.
func (s *scanner) stream() (more bool, err error) {
	n, err := s.src.ReadAt(s.buf, s.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	s.length, s.filled = n, n
	s.ranges = append(s.ranges[:0], image.Extent{Offset: s.offset, Length: int64(n), Kind: image.Data})
	s.countRead(n)
	return n > 0, nil
}

// guides reports whether the parent has segment i, of the same length: where a disk ends, its last chunk ends too, and
// says nothing of one that goes on.
func (s *scanner) guides(i int64) bool {
	return s.parent != nil && i < segments(s.parent.size) && segmentLength(s.parent.size, i) == s.length
}

func (s *scanner) parentLost(err error) {
	if s.o.ParentLost != nil {
		s.o.ParentLost(err)
	}
}

func (s *scanner) countRead(n int) {
	s.read.Add(int64(n))
	s.counters.Read.Add(int64(n))
}

// bytes returns the bytes of the segment from pos to end. They are valid until the next call, which must not go back
// before pos. end is at most the length of the segment, and not more than a window from pos.
func (s *scanner) bytes(pos, end int) ([]byte, error) {
	if end > s.filled {
		if err := s.fill(pos, end); err != nil {
			return nil, err
		}
	}
	return s.buf[pos-s.base : end-s.base], nil
}

// fill reads on until the bytes up to end are in buf, and some more; it lets go of those before pos.
func (s *scanner) fill(pos, end int) error {
	if end-s.base > len(s.buf) {
		keep := max(0, s.filled-pos)
		copy(s.buf, s.buf[s.filled-keep-s.base:s.filled-s.base])
		s.base = pos
		s.filled = max(s.filled, pos)
	}
	for s.filled < end {
		for int(s.ranges[s.at].Offset+s.ranges[s.at].Length-s.offset) <= s.filled {
			s.at++
		}
		e := s.ranges[s.at]
		stop := min(int(e.Offset+e.Length-s.offset), s.base+len(s.buf))
		part := s.buf[s.filled-s.base : stop-s.base]
		if e.Kind == image.Data {
			n, err := s.src.ReadAt(part, s.offset+int64(s.filled))
			s.countRead(n)
			if n < len(part) {
				if err == nil || errors.Is(err, io.EOF) {
					err = fmt.Errorf("it became shorter while it was read: it ends at %d", s.offset+int64(s.filled+n))
				}
				return err
			}
		} else {
			clear(part)
		}
		s.filled = stop
	}
	return nil
}

// scan finds the extents of the segment. Those of the parent are tried first, at the places where it has them.
func (s *scanner) scan() error {
	r := 0      // the range of s.ranges that holds pos
	s.limit = 0 // where the run ends in which nothing is left out
	for pos := 0; pos < s.length; pos = s.end {
		for int(s.ranges[r].Offset+s.ranges[r].Length-s.offset) <= pos {
			r++
		}
		end := int(s.ranges[r].Offset + s.ranges[r].Length - s.offset)
		if s.limit <= pos {
			s.limit = s.length
			for _, next := range s.ranges[r:] {
				if leftOut(holeOf(next.Kind)) {
					s.limit = int(next.Offset - s.offset)
					break
				}
			}
		}
		if kind := holeOf(s.ranges[r].Kind); s.ranges[r].Kind != image.Data {
			s.emit(Extent{Kind: kind, Blocks: blocksOf(end - pos)})
			if leftOut(kind) {
				s.guide.leftOut = s.end
			}
			continue
		}
		first, err := s.bytes(pos, min(pos+Block, s.length))
		if err != nil {
			return err
		}
		if chunker.IsZero(first) {
			n := chunker.Zeros(s.buf[pos-s.base : min(s.filled, end)-s.base])
			s.emit(Extent{Kind: Zero, Blocks: blocksOf(n)})
			continue
		}
		if e := s.guide.seek(pos); e != nil && s.ends(s.guide.at) {
			held, err := s.holds(s.guide.at, pos)
			if err != nil {
				return err
			}
			if held && (e.Kind == Part || s.o.ParentComplete) {
				s.emit(*e)
				continue
			}
			if held { // where it was lost it is stored again, and all trees that refer to it have it back
				data, err := s.bytes(pos, min(pos+e.Blocks*Block, s.length))
				if err != nil {
					return err
				}
				if err := s.save(data, e.ID); err != nil {
					return err
				}
				continue
			}
		}
		if e, whole := s.guide.rest(pos, s.limit); e.Blocks > 0 && s.before != nil {
			data, err := s.bytes(pos, min(pos+e.Blocks*Block, s.length))
			if err != nil {
				return err
			}
			if done, err := s.split(&e, whole, data); err != nil {
				return err
			} else if done {
				continue
			}
		}
		limit, err := s.meeting(pos)
		if err != nil {
			return err
		}
		data, err := s.bytes(pos, min(pos+s.o.Chunker.Max, limit))
		if err != nil {
			return err
		}
		data = data[:s.cutter.Next(data)]
		if err := s.save(data, s.data.ID(data)); err != nil {
			return err
		}
	}
	return nil
}

// save puts a chunk into the repository and emits its extent.
func (s *scanner) save(data []byte, id ID) error {
	added, err := s.data.Save(s.ctx, id, data)
	if err != nil {
		return err
	}
	if added {
		s.added.Add(int64(len(data)))
		s.counters.Added.Add(int64(len(data)))
	}
	s.emit(Extent{Kind: Chunk, Blocks: blocksOf(len(data)), ID: id})
	return nil
}

// emit appends an extent; holes of one kind that meet become one.
func (s *scanner) emit(e Extent) {
	s.end = min(s.end+e.Blocks*Block, s.length)
	if last := len(s.extents) - 1; last >= 0 && e.Kind.hole() && s.extents[last].Kind == e.Kind {
		s.extents[last].Blocks += e.Blocks
		return
	}
	s.extents = append(s.extents, e)
}

// leaf saves the node of the segment's extents, unless the parent has the same.
func (s *scanner) leaf(parent child) (child, error) {
	if len(s.extents) == 1 && s.extents[0].Kind.hole() {
		return child{hole: s.extents[0].Kind}, nil
	}
	s.node = appendLeaf(s.node[:0], s.extents)
	id := s.data.ID(s.node)
	if id == parent.id {
		return parent, nil // it has just been read from the repository
	}
	s.treeMu.Lock()
	defer s.treeMu.Unlock()
	_, err := s.tree.Save(s.ctx, id, s.node)
	return child{id: id}, err
}

// count adds the segment to the totals.
func (s *scanner) count(parent []Extent) {
	var used, parts, chunks int64
	at := 0
	for i := range s.extents {
		n := min(s.extents[i].Blocks*Block, s.length-at)
		at += n
		if !s.extents[i].Kind.hole() {
			used += int64(n)
			chunks++
		}
		switch s.extents[i].Kind {
		case Part:
			parts += int64(n)
		case Free:
			s.free.Add(int64(n))
		case Excluded:
			s.excluded.Add(int64(n))
		}
	}
	if parent == nil {
		parent = []Extent{{Kind: Zero, Blocks: blocksOf(s.length)}}
	}
	changed := int64(0)
	diffExtents(parent, s.extents, s.length, func(r Range) { changed += r.Length })
	s.used.Add(used)
	s.parts.Add(parts)
	s.chunks.Add(chunks)
	s.changed.Add(changed)
	s.counters.Changed.Add(changed)
	s.counters.Scanned.Add(int64(s.length))
}
