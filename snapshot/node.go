package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"

	"varve/image"
)

// Kind says what an extent holds. The values are stored: they never change.
type Kind byte

const (
	Sparse     Kind = 1  // a hole: not allocated where the disk was kept
	Zero       Kind = 2  // a hole: read, and all zero
	Free       Kind = 3  // a hole: free in its filesystem, not read
	Excluded   Kind = 4  // a hole: left out because the user said so
	Unreadable Kind = 5  // a hole: could not be read
	Chunk      Kind = 16 // a whole chunk
	Part       Kind = 17 // a run of blocks inside a chunk
)

func (k Kind) hole() bool { return k >= Sparse && k <= Unreadable }

// leftOut reports whether a hole may be anything on the disk itself: it was not read.
func leftOut(k Kind) bool { return k == Free || k == Excluded }

var kindNames = map[Kind]string{Sparse: "sparse", Zero: "zero", Free: "free", Excluded: "excluded", Unreadable: "unreadable", Chunk: "data", Part: "data"}

func (k Kind) String() string { return kindNames[k] }

// holeOf translates what an image says of a range that need not be read.
func holeOf(k image.Kind) Kind {
	switch k {
	case image.Free:
		return Free
	case image.Excluded:
		return Excluded
	case image.Unreadable:
		return Unreadable
	case image.Zero:
		return Zero
	}
	return Sparse
}

// Extent is a run of blocks of a segment.
type Extent struct {
	Kind   Kind
	Blocks int // the last one of a disk may be shorter than Block
	ID     ID  // of the chunk (Chunk, Part)
	First  int // the first block of the run inside the chunk (Part)
	Digest ID  // keyed BLAKE3 of the run, by which a scan recognises it without the chunk (Part)
}

// A leaf node lists the extents of one segment, which cover it from its start. All numbers are unsigned varints, as in
// encoding/binary:
//
//	leaf    1 | extent…
//	extent  kind | blocks                              kinds 1 to 5: holes
//	        16   | blocks | chunk id 32                a whole chunk
//	        17   | blocks | chunk id 32 | first block | digest 32
//
// An inner node has up to Fanout children, in runs of equal ones. A child is a node one level below (level 0 is a leaf),
// or a hole that takes its whole place:
//
//	inner   2 | level | run…
//	run     0    | count | node id 32
//	        kind | count                               kinds 1 to 5
const (
	leafNode  = 1
	innerNode = 2
	nodeRun   = 0
)

const (
	// Block is the unit of extents, in bytes.
	Block = 4096
	// Segment is how much of a disk one leaf covers, in bytes.
	Segment = 16 << 20
	// Fanout is the number of children of an inner node.
	Fanout = 256

	segmentBlocks  = Segment / Block
	maxChunkBlocks = (1 << 20) / Block
)

// appendLeaf appends the encoding of a leaf.
func appendLeaf(buf []byte, extents []Extent) []byte {
	buf = append(buf, leafNode)
	for i := range extents {
		e := &extents[i]
		buf = append(buf, byte(e.Kind))
		buf = binary.AppendUvarint(buf, uint64(e.Blocks))
		if e.Kind.hole() {
			continue
		}
		buf = append(buf, e.ID[:]...)
		if e.Kind == Part {
			buf = binary.AppendUvarint(buf, uint64(e.First))
			buf = append(buf, e.Digest[:]...)
		}
	}
	return buf
}

// decodeLeaf is the inverse of appendLeaf for a leaf that covers blocks blocks. It accepts nothing else. 0: as many as it has.
func decodeLeaf(data []byte, blocks int) ([]Extent, error) {
	unknown := blocks == 0
	if unknown {
		blocks = segmentBlocks
	}
	d := decoder{data: data}
	if d.byte() != leafNode {
		return nil, errors.New("it is not a leaf")
	}
	const chunkExtent = 35 // bytes, of most: kind, blocks, id
	extents := make([]Extent, 0, len(d.data)/chunkExtent+1)
	covered := 0
	for len(d.data) > 0 && d.err == nil {
		e := Extent{Kind: Kind(d.byte()), Blocks: d.count(segmentBlocks)}
		switch {
		case e.Kind.hole():
		case e.Kind == Chunk || e.Kind == Part:
			e.ID = d.id()
			if e.Kind == Part {
				e.First = d.count(maxChunkBlocks)
				e.Digest = d.id()
			}
			if e.First+e.Blocks > maxChunkBlocks {
				return nil, fmt.Errorf("an extent of %d blocks is larger than any chunk", e.Blocks)
			}
		default:
			return nil, fmt.Errorf("unknown kind of extent %d: a newer varve is needed", e.Kind)
		}
		if e.Blocks == 0 {
			return nil, errors.New("an extent is empty")
		}
		if covered += e.Blocks; covered > blocks {
			return nil, fmt.Errorf("extents cover more than %d blocks", blocks)
		}
		extents = append(extents, e)
	}
	if d.err != nil {
		return nil, d.err
	}
	if covered != blocks && (!unknown || covered == 0) {
		return nil, fmt.Errorf("extents cover %d of %d blocks", covered, blocks)
	}
	return extents, nil
}

// child is one child of an inner node: a node, or a hole.
type child struct {
	hole Kind // 0: it is the node id
	id   ID
}

// appendInner appends the encoding of an inner node at a level of 1 or more.
func appendInner(buf []byte, level int, children []child) []byte {
	buf = append(buf, innerNode, byte(level))
	for len(children) > 0 {
		c, n := children[0], 1
		for n < len(children) && children[n] == c {
			n++
		}
		buf = append(buf, byte(c.hole))
		buf = binary.AppendUvarint(buf, uint64(n))
		if c.hole == 0 {
			buf = append(buf, c.id[:]...)
		}
		children = children[n:]
	}
	return buf
}

// decodeInner is the inverse of appendInner for a node of count children at level. It accepts nothing else. 0 children: as
// many as it has.
func decodeInner(data []byte, level, count int) ([]child, error) {
	d := decoder{data: data}
	unknown := count == 0
	if unknown {
		count = Fanout
	}
	if d.byte() != innerNode || int(d.byte()) != level {
		return nil, fmt.Errorf("it is not an inner node of level %d", level)
	}
	children := make([]child, 0, min(count, Fanout))
	for len(d.data) > 0 && d.err == nil {
		c := child{hole: Kind(d.byte())}
		n := d.count(Fanout)
		if c.hole == nodeRun {
			c.id = d.id()
		} else if !c.hole.hole() {
			return nil, fmt.Errorf("unknown kind of child %d: a newer varve is needed", c.hole)
		}
		if n == 0 || len(children)+n > count {
			return nil, fmt.Errorf("it does not have %d children", count)
		}
		for range n {
			children = append(children, c)
		}
	}
	if d.err != nil {
		return nil, d.err
	}
	if len(children) != count && (!unknown || len(children) == 0) {
		return nil, fmt.Errorf("it has %d of %d children", len(children), count)
	}
	return children, nil
}

// decoder takes values off the front of data; after the first failure all are zero.
type decoder struct {
	data []byte
	err  error
}

var errShort = errors.New("it ends in the middle of a value")

func (d *decoder) byte() byte {
	if len(d.data) == 0 {
		d.fail(errShort)
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return b
}

func (d *decoder) count(limit int) int {
	v, n := binary.Uvarint(d.data)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	if v > uint64(limit) {
		d.fail(fmt.Errorf("a count of %d is more than %d", v, limit))
		return 0
	}
	if n > 1 && d.data[n-1] == 0 {
		d.fail(errors.New("a number is not in its shortest form"))
		return 0
	}
	d.data = d.data[n:]
	return int(v)
}

func (d *decoder) id() (id ID) {
	if len(d.data) < len(id) {
		d.fail(errShort)
		return id
	}
	copy(id[:], d.data)
	d.data = d.data[len(id):]
	return id
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.data = nil
}
