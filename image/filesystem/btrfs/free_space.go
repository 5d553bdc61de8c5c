package btrfs

import (
	"encoding/binary"
	"iter"
	"math"
	"math/bits"

	"varve/image/filesystem"
)

// The tree of free space (10) has for each chunk
//
//	(address, FREE_SPACE_INFO, length)      runs 4, flags 4 (1: they are in bitmaps)
//	(address, FREE_SPACE_EXTENT, length)    a run, without data
//	(address, FREE_SPACE_BITMAP, length)    a bit for each sector that is free, the lowest of a byte first
//
// Two runs never touch, but in bitmaps one may go on in the next.

const inBitmaps = 1

// listed yields the runs of a chunk that the tree of free space has; none when there is no such tree.
func (a *audit) listed(c *chunk) iter.Seq2[run, error] {
	return func(yield func(run, error) bool) {
		if a.spaces == nil {
			return
		}
		l := lister{chunk: c, sector: uint64(a.volume.super.sectorSize), yield: yield}
		for item, err := range a.spaces.items(key{object: c.logical}, key{c.end() - 1, math.MaxUint8, math.MaxUint64}) {
			if err == nil {
				err = l.item(item)
			}
			if err != nil {
				yield(run{}, err)
				return
			}
			if l.done {
				return
			}
		}
		l.flush()
		if !l.done && (!l.known || l.count != l.declared) {
			yield(run{}, filesystem.Untrusted("the tree of free space has %d runs of the chunk at %d, and counts %d", l.count, c.logical, l.declared))
		}
	}
}

// A lister joins the runs of one chunk.
type lister struct {
	chunk   *chunk
	sector  uint64
	yield   func(run, error) bool
	pending run
	done    bool // no more are wanted

	known           bool // the info has come
	bitmaps         bool
	declared, count uint32 // runs
}

// item takes the next item.
func (l *lister) item(item item) error {
	k := item.key
	wrong := filesystem.Untrusted("the tree of free space has an item %v of %d bytes", k, len(item.data))
	if k.kind == freeSpaceInfoKind {
		if l.known || k.object != l.chunk.logical || k.offset != l.chunk.length || len(item.data) != 8 {
			return wrong
		}
		l.known = true
		l.declared = binary.LittleEndian.Uint32(item.data)
		l.bitmaps = binary.LittleEndian.Uint32(item.data[4:])&inBitmaps != 0
		return nil
	}
	if !l.known || k.object < l.chunk.logical || k.object >= l.chunk.end() || k.offset == 0 || k.offset > l.chunk.end()-k.object || (k.object|k.offset)%l.sector != 0 || k.object < l.pending.logical+l.pending.length {
		return wrong
	}
	switch {
	case k.kind == freeSpaceExtentKind && !l.bitmaps && len(item.data) == 0:
		l.add(k.object, k.offset)
	case k.kind == freeSpaceBitmapKind && l.bitmaps && uint64(len(item.data)) == (k.offset/l.sector+7)/8:
		if spare := uint(uint64(len(item.data))*8 - k.offset/l.sector); bits.LeadingZeros8(item.data[len(item.data)-1]) < int(spare) {
			return wrong // bits behind the end
		}
		for i, b := range item.data {
			for ; b != 0; b &= b - 1 {
				l.add(k.object+(uint64(i)*8+uint64(bits.TrailingZeros8(b)))*l.sector, l.sector)
			}
		}
	default:
		return wrong
	}
	return nil
}

// add notes a run behind all others, which may go on where the last ended.
func (l *lister) add(logical, length uint64) {
	if l.pending.length > 0 && l.pending.logical+l.pending.length == logical {
		l.pending.length += length
		return
	}
	l.flush()
	l.pending = run{logical, length}
}

// flush tells the last run.
func (l *lister) flush() {
	if l.pending.length > 0 && !l.done {
		l.count++
		l.done = !l.yield(l.pending, nil)
	}
}
