package xfs

import (
	"encoding/binary"
	"io/fs"
	"math"
	"time"

	"varve/image/filesystem"
)

// Formats of a fork.
const (
	formatDevice  = 0
	formatLocal   = 1
	formatExtents = 2
	formatTree    = 3
)

// Bits of di_flags and di_flags2.
const (
	flagRealtime   = 1 << 0
	flags2BigTime  = 1 << 3
	flags2BigCount = 1 << 4 // of extents
)

// Types of files in di_mode, and in entries of folders.
var (
	modeTypes = map[uint16]fs.FileMode{
		0x1000: fs.ModeNamedPipe,
		0x2000: fs.ModeDevice | fs.ModeCharDevice,
		0x4000: fs.ModeDir,
		0x6000: fs.ModeDevice,
		0x8000: 0,
		0xa000: fs.ModeSymlink,
		0xc000: fs.ModeSocket,
	}
	entryTypes = map[byte]fs.FileMode{
		1: 0,
		2: fs.ModeDir,
		3: fs.ModeDevice | fs.ModeCharDevice,
		4: fs.ModeDevice,
		5: fs.ModeNamedPipe,
		6: fs.ModeSocket,
		7: fs.ModeSymlink,
	}
)

// inode is an inode as it is on the disk.
type inode struct {
	f      *FS
	number uint64
	b      []byte // core and forks
	mode   fs.FileMode
	size   int64
}

// inode reads an inode that is in use.
func (f *FS) inode(n filesystem.Number) (*inode, error) {
	if f.super.unreadable != "" {
		return nil, filesystem.Unsupported("%s", f.super.unreadable)
	}
	off, ok := f.super.inode(uint64(n))
	if !ok {
		return nil, filesystem.Corrupt("there is no place for an inode %d", n)
	}
	i := &inode{f: f, number: uint64(n), b: make([]byte, 1<<f.super.inodeLog)}
	if err := f.read(i.b, off); err != nil {
		return nil, err
	}
	be := binary.BigEndian
	version := i.b[4]
	if string(i.b[:2]) != "IN" || version == 0 || f.super.v5 != (version == 3) || version > 3 {
		return nil, filesystem.Corrupt("there is no inode %d", n)
	}
	if f.super.v5 {
		if err := f.identify(i.b, inodeCore, off, i.number); err != nil {
			return nil, err
		}
	}
	mode := be.Uint16(i.b[2:])
	if mode == 0 {
		return nil, filesystem.Corrupt("inode %d is not in use", n)
	}
	kind, ok := modeTypes[mode&0xf000]
	if !ok {
		return nil, filesystem.Corrupt("inode %d is of type %#x", n, mode&0xf000)
	}
	i.mode = kind | fs.FileMode(mode&0o777)
	for bit, meaning := range map[uint16]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			i.mode |= meaning
		}
	}
	// More than this cannot be rounded up to a block.
	if size := be.Uint64(i.b[56:]); size <= math.MaxInt64-1<<maxBlockLog {
		i.size = int64(size)
	} else {
		return nil, filesystem.Corrupt("inode %d has %d bytes", n, size)
	}
	return i, nil
}

// Stat reads an inode.
func (f *FS) Stat(n filesystem.Number) (filesystem.File, error) {
	i, err := f.inode(n)
	if err != nil {
		return filesystem.File{}, err
	}
	be := binary.BigEndian
	file := filesystem.File{
		Number:   n,
		Mode:     i.mode,
		Links:    int(be.Uint32(i.b[16:])),
		UID:      be.Uint32(i.b[8:]),
		GID:      be.Uint32(i.b[12:]),
		Accessed: i.time(32),
		Modified: i.time(40),
		Changed:  i.time(48),
	}
	if i.b[4] == 1 {
		file.Links = int(be.Uint16(i.b[6:]))
	}
	if f.super.v5 {
		file.Created = i.time(144)
	}
	switch {
	case i.mode.IsRegular() || i.mode&fs.ModeSymlink != 0:
		file.Size = i.size
	case i.mode&fs.ModeDevice != 0:
		data, _, err := i.forks()
		if err != nil {
			return filesystem.File{}, err
		}
		if data.format != formatDevice || len(data.b) < 4 {
			return filesystem.File{}, filesystem.Corrupt("inode %d of a device has format %d", n, data.format)
		}
		device := be.Uint32(data.b) // as in System V: 14 bits, 18 bits
		file.Device = uint64(device>>18)<<32 | uint64(device&(1<<18-1))
	}
	return file, nil
}

// flags2 returns di_flags2, which version 5 has.
func (i *inode) flags2() uint64 {
	if !i.f.super.v5 {
		return 0
	}
	return binary.BigEndian.Uint64(i.b[120:])
}

// time returns the time at offset at: seconds and nanoseconds, or, with big times, nanoseconds since 1901.
func (i *inode) time(at int) time.Time {
	be := binary.BigEndian
	if i.flags2()&flags2BigTime != 0 {
		t := be.Uint64(i.b[at:])
		return time.Unix(int64(t/1e9)+math.MinInt32, int64(t%1e9)).UTC()
	}
	return time.Unix(int64(int32(be.Uint32(i.b[at:]))), int64(be.Uint32(i.b[at+4:]))).UTC()
}

// A fork is one of the two parts of an inode behind its core: data, or attributes.
type fork struct {
	i       *inode
	format  byte
	b       []byte
	extents uint64 // that it says to have
}

// forks returns both forks. That of attributes has no bytes where there is none.
func (i *inode) forks() (data, attributes fork, err error) {
	be := binary.BigEndian
	core := 100
	if i.f.super.v5 {
		core = 176
	}
	room := i.b[core:]
	data = fork{i: i, format: i.b[5], b: room, extents: uint64(be.Uint32(i.b[76:]))}
	attributes = fork{i: i, format: i.b[83], extents: uint64(be.Uint16(i.b[80:]))}
	if i.flags2()&flags2BigCount != 0 {
		data.extents, attributes.extents = be.Uint64(i.b[24:]), uint64(be.Uint32(i.b[76:]))
	}
	if at := int(i.b[82]) * 8; at != 0 {
		if at >= len(room) {
			return data, attributes, filesystem.Corrupt("inode %d has attributes at %d of %d bytes", i.number, at, len(room))
		}
		data.b, attributes.b = room[:at], room[at:]
	}
	return data, attributes, nil
}
