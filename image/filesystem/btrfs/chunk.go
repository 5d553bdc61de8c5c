package btrfs

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"varve/image/filesystem"
)

// Kinds of chunks. A chunk of mixed kind holds data and trees.
const (
	chunkData     = 1 << 0
	chunkSystem   = 1 << 1 // the chunk tree
	chunkMetadata = 1 << 2
	chunkKinds    = chunkData | chunkSystem | chunkMetadata
	chunkDUP      = 1 << 5 // two copies on one device; the other bits are several devices
)

const (
	chunkObject   = 256 // of all keys of chunks
	chunkItemSize = 48  // before the stripes
	stripeSize    = 32
	maxChunks     = 1 << 20 // a chunk has up to 10 GiB
)

// A chunk is a run of addresses.
//
//	length 8, owner 8, length of a stripe 8, kind 8, alignment 4 + 4, sector 4, stripes 2, sub-stripes 2, then for each stripe:
//	device 8, offset on it 8, uuid of the device 16
type chunk struct {
	logical, length uint64
	kind            uint64
	copies          []int64 // where each lies on the partition
}

func (c *chunk) end() uint64 { return c.logical + c.length }

// parseChunk parses the item of the chunk at logical. Its numbers are whole sectors, and all copies are on the device.
func parseChunk(s *superblock, logical uint64, b []byte) (chunk, error) {
	le := binary.LittleEndian
	c := chunk{logical: logical}
	if len(b) < chunkItemSize {
		return c, filesystem.Corrupt("the item of the chunk at %d has %d bytes", logical, len(b))
	}
	c.length, c.kind = le.Uint64(b), le.Uint64(b[24:])
	stripes := int(le.Uint16(b[44:]))
	sector := uint64(s.sectorSize)
	switch {
	case len(b) != chunkItemSize+stripes*stripeSize:
		return c, filesystem.Corrupt("the item of the chunk at %d has %d bytes, with %d stripes", logical, len(b), stripes)
	case c.length == 0 || c.length%sector != 0 || logical%sector != 0 || c.length > math.MaxInt64 || logical > math.MaxInt64-c.length:
		return c, filesystem.Corrupt("a chunk of %d bytes at %d", c.length, logical)
	case c.kind&chunkKinds == 0:
		return c, filesystem.Corrupt("the chunk at %d is of kind %#x", logical, c.kind)
	case c.kind&^(chunkKinds|chunkDUP) != 0:
		return c, filesystem.Unsupported("chunks of kind %#x (RAID)", c.kind)
	case c.kind&chunkDUP != 0 && stripes != 2 || c.kind&chunkDUP == 0 && stripes != 1:
		return c, filesystem.Corrupt("the chunk at %d, of kind %#x, has %d stripes", logical, c.kind, stripes)
	}
	for b := b[chunkItemSize:]; len(b) > 0; b = b[stripeSize:] {
		if id := le.Uint64(b); id != s.device.id || uuid(b[16:]) != s.device.uuid {
			return c, filesystem.Unsupported("a chunk on another device (%d)", id)
		}
		off := le.Uint64(b[8:])
		if size := uint64(s.device.size); c.length > size || off > size-c.length || off%sector != 0 {
			return c, filesystem.Corrupt("the chunk at %d lies at %d, on a device of %d bytes", logical, off, size)
		}
		c.copies = append(c.copies, int64(off))
	}
	return c, nil
}

// A chunkMap has the chunks by their addresses. None overlaps another, neither by address nor on the partition.
type chunkMap []chunk

// newChunkMap sorts list.
func newChunkMap(list []chunk) (chunkMap, error) {
	m := chunkMap(list)
	slices.SortFunc(m, func(a, b chunk) int { return cmp.Compare(a.logical, b.logical) })
	for i := 1; i < len(m); i++ {
		if m[i-1].end() > m[i].logical {
			return nil, filesystem.Corrupt("the chunks at %d and %d overlap", m[i-1].logical, m[i].logical)
		}
	}
	stripes := m.stripes()
	for i := 1; i < len(stripes); i++ {
		if a, b := stripes[i-1], stripes[i]; a.off+int64(a.chunk.length) > b.off {
			return nil, filesystem.Corrupt("the chunks at %d and %d lie one over the other", a.chunk.logical, b.chunk.logical)
		}
	}
	return m, nil
}

// A stripe is a copy of a chunk.
type stripe struct {
	off   int64 // on the partition
	copy  int
	chunk *chunk
}

// stripes lists the copies of all chunks in the order of the partition.
func (m chunkMap) stripes() []stripe {
	list := make([]stripe, 0, 2*len(m))
	for i := range m {
		for k, off := range m[i].copies {
			list = append(list, stripe{off, k, &m[i]})
		}
	}
	slices.SortFunc(list, func(a, b stripe) int { return cmp.Compare(a.off, b.off) })
	return list
}

// find returns the chunk in which all of a run of addresses is.
func (m chunkMap) find(logical, length uint64) (*chunk, error) {
	i, found := slices.BinarySearchFunc(m, logical, func(c chunk, at uint64) int { return cmp.Compare(c.logical, at) })
	if !found {
		i--
	}
	if i < 0 || logical-m[i].logical >= m[i].length || length > m[i].length-(logical-m[i].logical) {
		return nil, filesystem.Corrupt("%d bytes at address %d are in no chunk", length, logical)
	}
	return &m[i], nil
}

// places returns where the copies of a run of addresses are on the partition.
func (m chunkMap) places(logical, length uint64) ([]int64, error) {
	c, err := m.find(logical, length)
	if err != nil {
		return nil, err
	}
	places := slices.Clone(c.copies)
	for i := range places {
		places[i] += int64(logical - c.logical)
	}
	return places, nil
}

// readChunks reads the chunks of the superblock, and with them the chunk tree. It is called before v is used.
func (v *volume) readChunks() (chunkMap, error) {
	list, err := parseSystemChunks(v.super)
	if err != nil {
		return nil, err
	}
	if v.chunks, err = newChunkMap(list); err != nil {
		return nil, err
	}
	var all []chunk
	tree := tree{v, chunkTree, v.super.chunkRoot}
	for item, err := range tree.items(key{chunkObject, chunkKind, 0}, key{chunkObject, chunkKind, math.MaxUint64}) {
		if err != nil {
			return nil, err
		}
		c, err := parseChunk(v.super, item.key.offset, item.data)
		if err != nil {
			return nil, err
		}
		if all = append(all, c); len(all) > maxChunks {
			return nil, filesystem.Unsupported("more than %d chunks", maxChunks)
		}
	}
	m, err := newChunkMap(all)
	if err != nil {
		return nil, err
	}
	for _, c := range v.chunks {
		if found, err := m.find(c.logical, c.length); err != nil || !slices.Equal(found.copies, c.copies) || found.length != c.length {
			return nil, filesystem.Corrupt("superblock and chunk tree disagree about the chunk at %d", c.logical)
		}
	}
	return m, nil
}

// parseSystemChunks parses the chunks in the superblock: keys, each with its item.
func parseSystemChunks(s *superblock) ([]chunk, error) {
	var list []chunk
	for b := s.chunks; len(b) > 0; {
		if len(b) < keySize+chunkItemSize {
			return nil, filesystem.Corrupt("%d bytes are left in the chunks of the superblock", len(b))
		}
		k := parseKey(b)
		size := chunkItemSize + stripeSize*int(binary.LittleEndian.Uint16(b[keySize+44:]))
		if k.object != chunkObject || k.kind != chunkKind || size > len(b)-keySize {
			return nil, filesystem.Corrupt("the chunks of the superblock have a key %v", k)
		}
		c, err := parseChunk(s, k.offset, b[keySize:keySize+size])
		if err != nil {
			return nil, err
		}
		list = append(list, c)
		b = b[keySize+size:]
	}
	return list, nil
}
