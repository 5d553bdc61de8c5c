package xfs

import (
	"encoding/binary"
	"math"

	"varve/image/filesystem"
)

// extent is a run of blocks of a fork.
type extent struct {
	offset    uint64 // in the fork, in blocks
	count     uint64 // blocks
	disk      int64  // offset on the partition, in bytes
	unwritten bool   // set aside, and reads as zeros
}

// extentList is the extents of a fork, in the order of the fork.
type extentList struct {
	i      *inode
	list   []extent
	blocks uint64 // of all
}

// read returns the extents of a fork that is a list of them or a tree.
func (k fork) read() (*extentList, error) {
	l := &extentList{i: k.i}
	switch k.format {
	case formatExtents:
		if k.extents > uint64(len(k.b)/16) {
			return nil, filesystem.Corrupt("inode %d has %d extents in %d bytes", k.i.number, k.extents, len(k.b))
		}
		if err := l.add(k.b[:k.extents*16]); err != nil {
			return nil, err
		}
	case formatTree:
		if err := l.root(k.b); err != nil {
			return nil, err
		}
	default:
		return nil, filesystem.Corrupt("inode %d has format %d", k.i.number, k.format)
	}
	if uint64(len(l.list)) != k.extents {
		return nil, filesystem.Corrupt("inode %d says it has %d extents, and has %d", k.i.number, k.extents, len(l.list))
	}
	return l, nil
}

// readOnce is read for a fork none of whose blocks is another's, so that there are no more of them than the filesystem has.
func (k fork) readOnce() ([]extent, error) {
	l, err := k.read()
	if err != nil {
		return nil, err
	}
	if l.blocks > k.i.f.super.blocks {
		return nil, filesystem.Corrupt("inode %d has %d blocks", k.i.number, l.blocks)
	}
	return l.list, nil
}

// add adds the records in b.
func (l *extentList) add(b []byte) error {
	s := &l.i.f.super
	for ; len(b) >= 16; b = b[16:] {
		high, low := binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])
		e := extent{unwritten: high>>63 != 0, offset: high << 1 >> 10, count: low & (1<<21 - 1)}
		block := high&(1<<9-1)<<43 | low>>21
		off, ok := s.run(block, e.count)
		e.disk = off
		if !ok || e.count == 0 {
			return filesystem.Corrupt("inode %d has %d blocks at %d", l.i.number, e.count, block)
		}
		if e.offset+e.count > math.MaxInt64>>s.blockLog {
			return filesystem.Corrupt("inode %d has blocks at %d", l.i.number, e.offset)
		}
		if n := len(l.list); n > 0 && e.offset < l.list[n-1].offset+l.list[n-1].count {
			return filesystem.Corrupt("inode %d has its blocks at %d twice", l.i.number, e.offset)
		}
		l.list = append(l.list, e)
		l.blocks += e.count
	}
	return nil
}

// root reads a tree whose root is in the inode: level 2, entries 2, then room for as many keys of 8 bytes as for pointers.
func (l *extentList) root(b []byte) error {
	be := binary.BigEndian
	if len(b) < 4 {
		return filesystem.Corrupt("inode %d has no room for a tree", l.i.number)
	}
	level, entries := int(be.Uint16(b)), int(be.Uint16(b[2:]))
	if level == 0 || level >= maxLevels {
		return filesystem.Corrupt("inode %d has a tree of %d levels", l.i.number, level+1)
	}
	return l.node(b[4:], entries, level)
}

// node reads what is below a node. It ends, because extents never go back, and each leaf has one.
func (l *extentList) node(b []byte, entries, level int) error {
	room := len(b) / 16
	if entries == 0 || entries > room {
		return filesystem.Corrupt("inode %d has a node of %d entries", l.i.number, entries)
	}
	for i := range entries {
		if err := l.block(binary.BigEndian.Uint64(b[room*8+i*8:]), level-1); err != nil {
			return err
		}
	}
	return nil
}

// block reads a block of the tree.
func (l *extentList) block(number uint64, level int) error {
	f := l.i.f
	be := binary.BigEndian
	off, ok := f.super.run(number, 1)
	if !ok {
		return filesystem.Corrupt("inode %d has block %d in its tree", l.i.number, number)
	}
	b := make([]byte, f.super.blockSize())
	if err := f.read(b, off); err != nil {
		return err
	}
	magic, size := "BMAP", 24
	if f.super.v5 {
		magic, size = "BMA3", 72
		if err := f.identify(b, extentTree, off, l.i.number); err != nil {
			return err
		}
	}
	entries := int(be.Uint16(b[6:]))
	if string(b[:4]) != magic || int(be.Uint16(b[4:])) != level {
		return filesystem.Corrupt("block %d is not level %d of the tree of inode %d", number, level, l.i.number)
	}
	b = b[size:]
	if level > 0 {
		return l.node(b, entries, level)
	}
	if entries == 0 || entries > len(b)/16 {
		return filesystem.Corrupt("block %d of the tree of inode %d has %d entries", number, l.i.number, entries)
	}
	return l.add(b[:entries*16])
}
