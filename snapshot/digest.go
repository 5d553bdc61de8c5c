package snapshot

import (
	"context"
	"encoding/binary"
	"sync"

	"github.com/zeebo/blake3"
)

// Digester tells the contents of ranges of a disk apart by what the disk's tree refers to there: nothing of the disk is read.
// Equal digests mean equal bytes. The same bytes may have several digests: when they were cut into other chunks, or lie
// elsewhere on the disk.
type Digester struct {
	ctx  context.Context
	tree *tree

	mu     sync.Mutex
	leaves map[int64][]piece
	kept   int // pieces in leaves
}

// piece is an extent as a digest sees it.
type piece struct {
	ref    uint64 // the start of the chunk's id, which is a keyed hash; 0 for a hole
	first  int32  // block of the chunk
	blocks int32
}

// keptPieces bounds what a Digester keeps of leaves: 32 MB.
const keptPieces = 2 << 20

// NewDigester returns a Digester of d, which ends with ctx.
func NewDigester(ctx context.Context, load Loader, d *Disk) *Digester {
	return &Digester{ctx: ctx, tree: newTree(load, ID(d.Root), d.Size), leaves: map[int64][]piece{}}
}

// Digest returns the digest of the bytes in ranges, one after the other: the start of the BLAKE3 of a list of (ref, offset in the
// chunk, length) in bytes, in which runs that continue each other are one. What lies behind the end of the disk is a hole. It may be
// called concurrently.
func (d *Digester) Digest(ranges []Range) (sum [16]byte, err error) {
	var encoded []byte
	var ref uint64
	var from, length int64 // the run that is open
	flush := func() {
		if length > 0 {
			encoded = binary.LittleEndian.AppendUint64(encoded, ref)
			encoded = binary.AppendUvarint(encoded, uint64(from))
			encoded = binary.AppendUvarint(encoded, uint64(length))
		}
	}
	add := func(r uint64, at, n int64) {
		if r == ref && length > 0 && (r == 0 || at == from+length) {
			length += n
			return
		}
		flush()
		ref, from, length = r, at, n
		if r == 0 {
			from = 0
		}
	}
	for _, r := range ranges {
		inside := max(0, min(r.End(), d.tree.size)-r.Offset)
		for at := r.Offset; at < r.Offset+inside; {
			i := at / Segment
			leaf, err := d.leaf(i)
			if err != nil {
				return sum, err
			}
			end := min(r.Offset+inside, (i+1)*Segment)
			start := i * Segment
			for _, p := range leaf {
				next := start + int64(p.blocks)*Block
				if next > at && at < end {
					n := min(next, end) - at
					add(p.ref, int64(p.first)*Block+at-start, n)
					at += n
				}
				start = next
			}
		}
		if outside := r.Length - inside; outside > 0 {
			add(0, 0, outside)
		}
	}
	flush()
	whole := blake3.Sum256(encoded)
	copy(sum[:], whole[:])
	return sum, nil
}

// leaf returns the pieces of segment i.
func (d *Digester) leaf(i int64) ([]piece, error) {
	d.mu.Lock()
	leaf, found := d.leaves[i]
	d.mu.Unlock()
	if found {
		return leaf, nil
	}
	extents, err := d.tree.segment(d.ctx, i)
	if err != nil {
		return nil, err
	}
	leaf = make([]piece, len(extents))
	for k := range extents {
		e := &extents[k]
		leaf[k] = piece{first: int32(e.First), blocks: int32(e.Blocks)}
		if !e.Kind.hole() {
			leaf[k].ref = binary.LittleEndian.Uint64(e.ID[:]) | 1 // never that of a hole
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for old, pieces := range d.leaves { // any will do
		if d.kept+len(leaf) <= keptPieces {
			break
		}
		d.kept -= len(pieces)
		delete(d.leaves, old)
	}
	d.leaves[i] = leaf
	d.kept += len(leaf)
	return leaf, nil
}
