package ext

import (
	"context"

	"varve/image/filesystem"
)

// Flags of a group. Without checksums of descriptors they mean nothing.
const (
	inodesUninitialised = 1 // the inode bitmap and table were never written
	blocksUninitialised = 2 // the block bitmap was never written: only structures are in use
)

// descriptor is what is known of a group.
type descriptor struct {
	blockBitmap, inodeBitmap, inodeTable int64
	freeClusters                         int64
	flags                                uint16
	sum                                  uint32 // of the block bitmap
}

// descriptor decodes the descriptor of a group and checks its checksum.
func (s *superblock) descriptor(group int64, raw []byte) (descriptor, error) {
	d := descriptor{
		blockBitmap:  int64(le.Uint32(raw)),
		inodeBitmap:  int64(le.Uint32(raw[4:])),
		inodeTable:   int64(le.Uint32(raw[8:])),
		freeClusters: int64(le.Uint16(raw[0xC:])),
		flags:        le.Uint16(raw[0x12:]),
		sum:          uint32(le.Uint16(raw[0x18:])),
	}
	if len(raw) >= 64 {
		d.blockBitmap |= int64(le.Uint32(raw[0x20:])) << 32
		d.inodeBitmap |= int64(le.Uint32(raw[0x24:])) << 32
		d.inodeTable |= int64(le.Uint32(raw[0x28:])) << 32
		d.freeClusters |= int64(le.Uint16(raw[0x2C:])) << 16
		d.sum |= uint32(le.Uint16(raw[0x38:])) << 16
	}
	number := le.AppendUint32(nil, uint32(group))
	is := le.Uint16(raw[0x1E:])
	switch {
	case s.blockSums:
		if uint16(crc32c(s.seed, number, raw[:0x1E], []byte{0, 0}, raw[0x20:])) != is {
			return d, filesystem.Corrupt("the descriptor of group %d has a wrong checksum", group)
		}
	case s.descriptorCRC16s:
		if crc16(0xFFFF, s.uuid[:], number, raw[:0x1E], raw[0x20:]) != is {
			return d, filesystem.Corrupt("the descriptor of group %d has a wrong checksum", group)
		}
	default:
		d.flags = 0
	}
	return d, nil
}

// groupStart returns the first block of a group.
func (s *superblock) groupStart(group int64) int64 { return s.firstBlock + group*s.groupBlocks }

// groupEnd returns the block after the last one of a group.
func (s *superblock) groupEnd(group int64) int64 { return min(s.groupStart(group+1), s.blocks) }

// hasSuper reports whether a copy of the superblock is in a group.
func (s *superblock) hasSuper(group int64) bool {
	switch {
	case group == 0:
		return true
	case s.compat&compatSparseSuper != 0:
		return group == s.copies[0] || group == s.copies[1]
	case group == 1 || s.readOnly&roSparseSuper == 0:
		return true
	}
	for _, base := range []int64{3, 5, 7} {
		power := base
		for power < group {
			power *= base
		}
		if power == group {
			return true
		}
	}
	return false
}

// tableBlock returns where block n of the descriptors lies.
func (s *superblock) tableBlock(n int64) int64 {
	if n < s.firstMeta {
		return superblockOffset/s.blockSize + 1 + n
	}
	group := n * (s.blockSize / s.descriptorSize)
	if group == 0 {
		return superblockOffset/s.blockSize + 1
	}
	at := s.groupStart(group)
	if s.hasSuper(group) {
		at++
	}
	return at
}

// headEnd returns the end of what lies at the start of a group: superblock, descriptors and the room for more of them.
func (s *superblock) headEnd(group int64) int64 {
	perBlock := s.blockSize / s.descriptorSize
	at := s.groupStart(group)
	if group == 0 {
		at = superblockOffset / s.blockSize // the first block, or the second with blocks of 1 KiB in clusters
	}
	if s.hasSuper(group) {
		at++
	}
	if group/perBlock < s.firstMeta {
		if s.hasSuper(group) {
			at += min(s.firstMeta, s.tableBlocks) + s.spareBlocks
		}
	} else if in := group % perBlock; in <= 1 || in == perBlock-1 {
		at++ // of the groups whose descriptors are in one block, the first two and the last have it
	}
	return at
}

// inodeBlocks returns how many blocks each inode table has.
func (s *superblock) inodeBlocks() int64 { return divideUp(s.groupInodes*s.inodeSize, s.blockSize) }

// readDescriptors calls each for all descriptors in order. What they say is checked against their checksums only.
func (f *FS) readDescriptors(ctx context.Context, each func(group int64, d descriptor) error) error {
	const most = 256 << 10 // bytes that are read at once
	perBlock := f.blockSize / f.descriptorSize
	buf := make([]byte, min(most, f.tableBlocks*f.blockSize))
	for n := int64(0); n < f.tableBlocks; {
		if err := ctx.Err(); err != nil {
			return err
		}
		first, count := f.tableBlock(n), int64(1)
		for n+count < f.tableBlocks && count < most/f.blockSize && f.tableBlock(n+count) == first+count {
			count++
		}
		raw := buf[:count*f.blockSize]
		if err := f.read(raw, first*f.blockSize); err != nil {
			return err
		}
		group := n * perBlock
		for ; len(raw) > 0 && group < f.groups; group++ {
			d, err := f.descriptor(group, raw[:f.descriptorSize])
			if err != nil {
				return err
			}
			if err := each(group, d); err != nil {
				return err
			}
			raw = raw[f.descriptorSize:]
		}
		n += count
	}
	return nil
}

// descriptorOf returns the descriptor of a group.
func (f *FS) descriptorOf(group int64) (descriptor, error) {
	perBlock := f.blockSize / f.descriptorSize
	b, err := f.block(f.tableBlock(group / perBlock))
	if err != nil {
		return descriptor{}, err
	}
	at := group % perBlock * f.descriptorSize
	return f.descriptor(group, b[at:at+f.descriptorSize])
}
