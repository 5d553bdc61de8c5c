package btrfs

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"

	"varve/image/filesystem"
)

const (
	keySize     = 17
	headerSize  = 101
	itemSize    = 25
	childSize   = 33
	blockFlag   = 1 // it was written
	levelOffset = 100
)

// A key is what the items of a tree are ordered by.
type key struct {
	object uint64
	kind   byte
	offset uint64
}

func (k key) String() string { return fmt.Sprintf("(%d %d %d)", k.object, k.kind, k.offset) }

// compare compares by object, then kind, then offset.
func (k key) compare(o key) int {
	return cmp.Or(cmp.Compare(k.object, o.object), cmp.Compare(k.kind, o.kind), cmp.Compare(k.offset, o.offset))
}

// parseKey parses the key at the start of b.
func parseKey(b []byte) key {
	return key{binary.LittleEndian.Uint64(b), b[8], binary.LittleEndian.Uint64(b[9:])}
}

// A pointer says where a tree block is and which it must be.
type pointer struct {
	logical, generation uint64
	level               byte
}

// A block is a tree block. parseBlock has checked it: keys ascend, data are within it and do not overlap.
type block struct {
	pointer
	owner    uint64
	physical int64 // where the copy lies that was read
	count    int   // items, or blocks below
	data     []byte
}

// parseBlock parses the tree block at the address logical. data is kept.
func parseBlock(s *superblock, logical uint64, data []byte) (*block, error) {
	le := binary.LittleEndian
	if !s.checksum.covers(data) {
		return nil, filesystem.Corrupt("the checksum of the tree block at address %d is wrong", logical)
	}
	b := &block{
		pointer: pointer{logical: le.Uint64(data[48:]), generation: le.Uint64(data[80:]), level: data[levelOffset]},
		owner:   le.Uint64(data[88:]),
		data:    data,
	}
	count := le.Uint32(data[96:])
	entry := uint32(itemSize)
	if b.level > 0 {
		entry = childSize
	}
	switch {
	case b.logical != logical:
		return nil, filesystem.Corrupt("the tree block at address %d says it is at %d", logical, b.logical)
	case uuid(data[32:]) != s.blockUUID:
		return nil, filesystem.Corrupt("the tree block at address %d is of another filesystem", logical)
	case le.Uint64(data[56:])&blockFlag == 0 || b.level > maxLevel:
		return nil, filesystem.Corrupt("the tree block at address %d has level %d and flags %#x", logical, b.level, data[56:64])
	case count > (uint32(len(data))-headerSize)/entry || count == 0 && b.level > 0:
		return nil, filesystem.Corrupt("the tree block at address %d has %d items", logical, count)
	}
	b.count = int(count)
	for i := 1; i < b.count; i++ {
		if b.key(i-1).compare(b.key(i)) >= 0 {
			return nil, filesystem.Corrupt("item %d in the tree block at address %d is not in order", i, logical)
		}
	}
	if b.level > 0 {
		return b, nil
	}
	end := uint32(len(data)) // of the data of the next item
	for i := range b.count {
		at, size := b.itemData(i)
		if size > end || at != end-size || at < uint32(headerSize+b.count*itemSize) {
			return nil, filesystem.Corrupt("item %d in the tree block at address %d has %d bytes at %d", i, logical, size, at)
		}
		end = at
	}
	return b, nil
}

func (b *block) key(i int) key {
	if b.level > 0 {
		return parseKey(b.data[headerSize+i*childSize:])
	}
	return parseKey(b.data[headerSize+i*itemSize:])
}

// itemData returns where the data of item i of a leaf are in it.
func (b *block) itemData(i int) (at, size uint32) {
	entry := b.data[headerSize+i*itemSize+keySize:]
	at, size = binary.LittleEndian.Uint32(entry), binary.LittleEndian.Uint32(entry[4:])
	if at > uint32(len(b.data)) { // offsets count from the end of the header
		return at, size
	}
	return at + headerSize, size
}

// item returns item i of a leaf.
func (b *block) item(i int) item {
	at, size := b.itemData(i)
	return item{key: b.key(i), data: b.data[at : at+size : at+size], physical: b.physical + int64(at)}
}

// child returns what is said of the block below entry i of a node.
func (b *block) child(i int) pointer {
	entry := b.data[headerSize+i*childSize+keySize:]
	return pointer{logical: binary.LittleEndian.Uint64(entry), generation: binary.LittleEndian.Uint64(entry[8:]), level: b.level - 1}
}

// floor returns the last entry whose key is not behind k; -1 when there is none.
func (b *block) floor(k key) int {
	return sort.Search(b.count, func(i int) bool { return b.key(i).compare(k) > 0 }) - 1
}

// wanted is what must be true of a tree block.
type wanted struct {
	pointer
	tree       uint64
	first, end *key // its first key, and one that all of its keys come before; nil: any
}

// check tells what is wrong with b.
func (w wanted) check(b *block) error {
	switch {
	case b.generation != w.generation:
		return filesystem.Corrupt("the tree block at address %d is of generation %d, not %d", w.logical, b.generation, w.generation)
	case b.level != w.level:
		return filesystem.Corrupt("the tree block at address %d is of level %d, not %d", w.logical, b.level, w.level)
	// Subvolumes share blocks with those that they are snapshots of.
	case b.owner != w.tree && !(isSubvolume(w.tree) && isSubvolume(b.owner)):
		return filesystem.Corrupt("the tree block at address %d is of tree %d, not %d", w.logical, int64(b.owner), int64(w.tree))
	case w.first != nil && (b.count == 0 || b.key(0) != *w.first):
		return filesystem.Corrupt("the tree block at address %d does not begin with %v", w.logical, *w.first)
	case w.end != nil && b.count > 0 && b.key(b.count-1).compare(*w.end) >= 0:
		return filesystem.Corrupt("the tree block at address %d ends behind %v", w.logical, *w.end)
	}
	return nil
}

// block returns the tree block that is wanted, from whichever copy is right.
func (v *volume) block(w wanted) (*block, error) {
	if b, ok := v.blocks.get(w.logical); ok && w.check(b) == nil {
		return b, nil
	}
	places, err := v.chunks.places(w.logical, uint64(v.super.nodeSize))
	if err != nil {
		return nil, err
	}
	var first error
	for _, at := range places {
		b, err := v.readBlock(w, at)
		if err == nil {
			v.blocks.put(w.logical, b)
			return b, nil
		}
		first = cmp.Or(first, err)
	}
	return nil, first
}

// readBlock reads the copy of a tree block that lies at off.
func (v *volume) readBlock(w wanted, off int64) (*block, error) {
	data := make([]byte, v.super.nodeSize)
	if err := readFull(v.r, data, off); err != nil {
		return nil, fmt.Errorf("reading the tree block at address %d: %w", w.logical, err)
	}
	b, err := parseBlock(v.super, w.logical, data)
	if err != nil {
		return nil, err
	}
	b.physical = off
	return b, w.check(b)
}

// readFull fills p with what lies at off.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%d bytes at %d: %w", len(p), off, err)
}
