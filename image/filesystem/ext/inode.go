package ext

import (
	"fmt"
	"io/fs"
	"time"

	"varve/image/filesystem"
)

const rootInode = 2

// Flags of an inode.
const (
	flagEncrypted = 0x800
	flagIndexed   = 0x1000 // a folder whose names are found by hashes
	flagExtents   = 0x80000
	flagInline    = 0x10000000
)

// Types, in the upper bits of an inode's mode.
const (
	typeMask   = 0xF000
	typePipe   = 0x1000
	typeChar   = 0x2000
	typeFolder = 0x4000
	typeBlock  = 0x6000
	typeFile   = 0x8000
	typeLink   = 0xA000
	typeSocket = 0xC000
)

// inode is one inode, whose checksum is right.
type inode struct {
	*FS
	number int64
	disk   int64  // byte of the partition where it lies
	raw    []byte // not to be changed
	mode   uint16
	flags  uint32
	size   int64
	extra  int64  // bytes behind the first 128 that are fields
	seed   uint32 // of checksums of what belongs to it
}

// inode reads any inode that is in use, also one that is no file.
func (f *FS) inode(n int64) (*inode, error) {
	if n < 1 || n > f.inodes || (n-1)/f.groupInodes >= f.groups {
		return nil, filesystem.Corrupt("inode %d of %d", n, f.inodes)
	}
	group, index := (n-1)/f.groupInodes, (n-1)%f.groupInodes
	d, err := f.descriptorOf(group)
	if err != nil {
		return nil, err
	}
	if d.flags&inodesUninitialised != 0 {
		return nil, filesystem.Corrupt("inode %d is not in use", n)
	}
	block, at := d.inodeTable+index*f.inodeSize/f.blockSize, index*f.inodeSize%f.blockSize
	b, err := f.block(block)
	if err != nil {
		return nil, fmt.Errorf("reading inode %d: %w", n, err)
	}
	in := &inode{FS: f, number: n, disk: block*f.blockSize + at, raw: b[at : at+f.inodeSize]}
	return in, in.parse()
}

func (in *inode) parse() error {
	raw := in.raw
	in.mode, in.flags = le.Uint16(raw), le.Uint32(raw[0x20:])
	if le.Uint16(raw[0x1A:]) == 0 || in.mode == 0 {
		return filesystem.Corrupt("inode %d is not in use", in.number)
	}
	if in.inodeSize > 128 {
		in.extra = int64(le.Uint16(raw[0x80:]))
		if in.extra > in.inodeSize-128 || in.extra%4 != 0 {
			return filesystem.Corrupt("inode %d has %d more bytes", in.number, in.extra)
		}
	}
	in.seed = crc32c(in.FS.seed, le.AppendUint32(nil, uint32(in.number)), raw[0x64:0x68])
	if in.blockSums {
		sum, is := crc32c(in.seed, raw[:0x7C], []byte{0, 0}, raw[0x7E:0x80]), uint32(le.Uint16(raw[0x7C:]))
		if in.has(0x82, 2) {
			sum = crc32c(sum, raw[0x80:0x82], []byte{0, 0}, raw[0x84:])
			is |= uint32(le.Uint16(raw[0x82:])) << 16
		} else {
			sum = crc32c(sum, raw[0x80:]) & 0xFFFF
		}
		if sum != is {
			return filesystem.Corrupt("inode %d has a wrong checksum", in.number)
		}
	}
	in.size = int64(le.Uint32(raw[4:]))
	if in.kind() == typeFile || in.incompat&incompatLargeDir != 0 {
		in.size |= int64(le.Uint32(raw[0x6C:])) << 32
	}
	if in.size < 0 || in.size > in.blockSize<<32 {
		return filesystem.Corrupt("inode %d has %d bytes", in.number, uint64(in.size))
	}
	return nil
}

// has reports whether the field of n bytes at offset is one that the inode has.
func (in *inode) has(offset, n int64) bool { return offset+n <= 128+in.extra }

func (in *inode) kind() uint16 { return in.mode & typeMask }

// file returns the inode of a file: of the root, or of one that a folder may name.
func (f *FS) file(n filesystem.Number) (*inode, error) {
	if err := f.readable(); err != nil {
		return nil, err
	}
	if n != rootInode && n < filesystem.Number(f.firstInode) || n > filesystem.Number(f.inodes) {
		return nil, filesystem.Corrupt("inode %d is no file", n)
	}
	return f.inode(int64(n))
}

// Root is the same for all.
func (f *FS) Root() filesystem.Number { return rootInode }

// Stat says what the inode says. Of an encrypted link, the size is that of the encrypted target.
func (f *FS) Stat(n filesystem.Number) (filesystem.File, error) {
	in, err := f.file(n)
	if err != nil {
		return filesystem.File{}, err
	}
	raw := in.raw
	file := filesystem.File{
		Number:   n,
		Mode:     modeOf(in.kind()) | fs.FileMode(in.mode&0o777),
		Size:     in.size,
		Links:    int(le.Uint16(raw[0x1A:])),
		UID:      uint32(le.Uint16(raw[2:])) | uint32(le.Uint16(raw[0x78:]))<<16,
		GID:      uint32(le.Uint16(raw[0x18:])) | uint32(le.Uint16(raw[0x7A:]))<<16,
		Accessed: in.time(8, 0x8C),
		Changed:  in.time(0xC, 0x84),
		Modified: in.time(0x10, 0x88),
	}
	for i, mode := range [...]fs.FileMode{fs.ModeSticky, fs.ModeSetgid, fs.ModeSetuid} {
		if in.mode&(0o1000<<i) != 0 {
			file.Mode |= mode
		}
	}
	if in.has(0x90, 4) && (le.Uint32(raw[0x90:]) != 0 || in.has(0x94, 4) && le.Uint32(raw[0x94:]) != 0) {
		file.Created = in.time(0x90, 0x94)
	}
	switch in.kind() {
	case typeFile, typeLink:
	case typeChar, typeBlock:
		file.Device = in.device()
		file.Size = 0
	case typeFolder, typePipe, typeSocket:
		file.Size = 0
	default:
		return file, filesystem.Corrupt("inode %d has the unknown mode 0x%x", n, in.mode)
	}
	return file, nil
}

// modeOf returns the mode of a type, or fs.ModeIrregular.
func modeOf(kind uint16) fs.FileMode {
	switch kind {
	case typeFile:
		return 0
	case typeFolder:
		return fs.ModeDir
	case typeLink:
		return fs.ModeSymlink
	case typeChar:
		return fs.ModeDevice | fs.ModeCharDevice
	case typeBlock:
		return fs.ModeDevice
	case typePipe:
		return fs.ModeNamedPipe
	case typeSocket:
		return fs.ModeSocket
	}
	return fs.ModeIrregular
}

// time returns the time whose seconds are at the one offset. At the other, where the inode has it, are two more bits of them, and
// nanoseconds.
func (in *inode) time(seconds, rest int64) time.Time {
	s, ns := int64(int32(le.Uint32(in.raw[seconds:]))), int64(0)
	if in.has(rest, 4) {
		r := le.Uint32(in.raw[rest:])
		s += int64(r&3) << 32
		ns = int64(r >> 2)
	}
	return time.Unix(s, ns).UTC()
}

// device returns the number of a device node, which is in the first word in 8 bits each, or else in the second in 12 and 20.
func (in *inode) device() uint64 {
	if old := uint64(le.Uint32(in.raw[0x28:])); old != 0 {
		return old>>8&0xFF<<32 | old&0xFF
	}
	is := uint64(le.Uint32(in.raw[0x2C:]))
	return is>>8&0xFFF<<32 | is>>12&0xFFF00 | is&0xFF
}
