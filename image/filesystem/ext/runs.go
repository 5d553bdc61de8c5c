package ext

import (
	"encoding/binary"
	"fmt"

	"varve/image/filesystem"
)

var be = binary.BigEndian

// run is a run of blocks of a file that have a place on the disk.
type run struct {
	file, disk, length int64 // blocks
	unwritten          bool  // the blocks are set aside, and zeros are read
}

// runs calls each for the runs of a file that have a block from the one number to before the other, in order, cut to these bounds. Between
// them are holes. Time is bounded by the blocks of the map that are really there.
func (in *inode) runs(from, to int64, each func(run) error) error {
	var err error
	if in.flags&flagExtents != 0 {
		x := extents{inode: in, from: from, to: to, each: each}
		err = x.node(in.raw[0x28:0x64], x.depth(), 0, 1<<32)
	} else {
		m := blockMap{inode: in, from: from, to: to, each: each, seen: map[int64]bool{}}
		err = m.all()
	}
	if err != nil {
		return fmt.Errorf("inode %d: %w", in.number, err)
	}
	return nil
}

// extents goes through a tree of extents.
type extents struct {
	*inode
	from, to int64
	each     func(run) error
}

const (
	maxDepth     = 5     // of a tree of extents: it has all blocks that a file can have
	maxUnwritten = 32768 // longer extents are unwritten, and as much shorter
)

// depth returns that of the tree.
func (x *extents) depth() int { return int(le.Uint16(x.raw[0x28+6:])) }

// node goes through a node of the tree, of which all blocks of the file must be from low to before high. As the ranges of a node's children
// lie apart and none of them is empty, no node is met twice.
func (x *extents) node(b []byte, depth int, low, high int64) error {
	count, room := int(le.Uint16(b[2:])), int(le.Uint16(b[4:]))
	if le.Uint16(b) != 0xF30A || count > room || 12+12*room > len(b) || depth > maxDepth || int(le.Uint16(b[6:])) != depth {
		return filesystem.Corrupt("what should be a node of extents is none")
	}
	for i := range count {
		e := b[12+12*i:]
		at := int64(le.Uint32(e))
		if at < low {
			return filesystem.Corrupt("extents are not in order")
		}
		if at >= x.to {
			return nil
		}
		if depth == 0 {
			r := run{file: at, disk: int64(le.Uint16(e[6:]))<<32 | int64(le.Uint32(e[8:])), length: int64(le.Uint16(e[4:]))}
			if r.length > maxUnwritten {
				r.length, r.unwritten = r.length-maxUnwritten, true
			}
			low = at + r.length
			if r.length == 0 || low > high || r.disk == 0 || r.disk+r.length > x.present {
				return filesystem.Corrupt("an extent of %d blocks at %d", r.length, r.disk)
			}
			if err := x.cut(r); err != nil {
				return err
			}
			continue
		}
		end := high
		if i+1 < count {
			end = int64(le.Uint32(e[12:]))
		}
		low = at + 1
		if at >= high || end <= at || end > high {
			return filesystem.Corrupt("nodes of extents are not in order")
		}
		if end <= x.from {
			continue
		}
		child, err := x.child(int64(le.Uint16(e[8:]))<<32 | int64(le.Uint32(e[4:])))
		if err != nil {
			return err
		}
		if err := x.node(child, depth-1, at, end); err != nil {
			return err
		}
	}
	return nil
}

// child reads a node in a block of its own.
func (x *extents) child(n int64) ([]byte, error) {
	b, err := x.block(n)
	if err != nil {
		return nil, err
	}
	if le.Uint16(b[2:]) == 0 {
		return nil, filesystem.Corrupt("a node of extents is empty")
	}
	if end := 12 + 12*int(le.Uint16(b[4:])); x.blockSums && (end+4 > len(b) || crc32c(x.seed, b[:end]) != le.Uint32(b[end:])) {
		return nil, filesystem.Corrupt("a node of extents has a wrong checksum")
	}
	return b, nil
}

// cut calls each for what of a run is asked for.
func (x *extents) cut(r run) error {
	if before := x.from - r.file; before > 0 {
		r.file, r.disk, r.length = r.file+before, r.disk+before, r.length-before
	}
	r.length = min(r.length, x.to-r.file)
	if r.length <= 0 {
		return nil
	}
	return x.each(r)
}

// blockMap goes through the map of an inode without extents.
type blockMap struct {
	*inode
	from, to int64
	each     func(run) error
	run      run            // that each was not called for yet
	seen     map[int64]bool // indirect blocks
}

func (m *blockMap) all() error {
	const direct = 12
	at := int64(0)
	for i := range direct + 3 {
		level := max(0, i+1-direct)
		if err := m.walk(int64(le.Uint32(m.raw[0x28+4*i:])), level, at); err != nil {
			return err
		}
		at += m.reach(level)
	}
	if m.run.length == 0 {
		return nil
	}
	return m.each(m.run)
}

// reach returns how many blocks of a file one block of the map stands for.
func (m *blockMap) reach(level int) int64 {
	n := int64(1)
	for range level {
		n *= m.blockSize / 4
	}
	return n
}

// walk goes through one block of the map: at level 0 it is the file's block number at, above it points to those from there on.
func (m *blockMap) walk(n int64, level int, at int64) error {
	if n == 0 || at >= m.to || at+m.reach(level) <= m.from {
		return nil
	}
	if level == 0 {
		return m.add(n, at)
	}
	if m.seen[n] {
		return filesystem.Corrupt("block %d is in the map twice", n)
	}
	m.seen[n] = true
	b, err := m.block(n)
	if err != nil {
		return err
	}
	below := m.reach(level - 1)
	for i := max(0, (m.from-at)/below); i < m.blockSize/4; i++ {
		if at+i*below >= m.to {
			return nil
		}
		if err := m.walk(int64(le.Uint32(b[4*i:])), level-1, at+i*below); err != nil {
			return err
		}
	}
	return nil
}

// add takes a block of the file, as part of the run before where it lies behind that.
func (m *blockMap) add(n, at int64) error {
	if n >= m.present {
		return filesystem.Corrupt("block %d of %d", n, m.present)
	}
	r := &m.run
	if r.length > 0 && r.file+r.length == at && r.disk+r.length == n {
		r.length++
		return nil
	}
	before := m.run
	m.run = run{file: at, disk: n, length: 1}
	if before.length == 0 {
		return nil
	}
	return m.each(before)
}
