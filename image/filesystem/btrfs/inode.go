package btrfs

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"math"
	"time"

	"varve/image/filesystem"
)

// A file is called by the number of its tree and its inode in there. A snapshot of a subvolume in which there is another subvolume has
// only the empty folder that marks its place: it has no inode, and is called by the tree it is in and the one it is not.
//
//	bit 63         it is such a folder
//	bits 40 to 62  tree
//	bits 0 to 39   inode, or the other tree
const (
	inodeBits = 40
	treeBits  = 23
	absentBit = 1 << 63
)

const rootInode = 256 // of each subvolume

// numberOf returns the number of a file; ok is false when there is none that large.
func numberOf(tree, inode uint64, absent bool) (n filesystem.Number, ok bool) {
	if tree>>treeBits != 0 || inode>>inodeBits != 0 {
		return 0, false
	}
	n = filesystem.Number(tree<<inodeBits | inode)
	if absent {
		n |= absentBit
	}
	return n, true
}

// place is the inverse of numberOf.
func place(n filesystem.Number) (tree, inode uint64, absent bool) {
	return uint64(n&^absentBit) >> inodeBits, uint64(n) & (1<<inodeBits - 1), n&absentBit != 0
}

// Bits of the mode of an inode.
const (
	modeType   = 0o170000
	modePipe   = 0o010000
	modeChar   = 0o020000
	modeFolder = 0o040000
	modeBlock  = 0o060000
	modeFile   = 0o100000
	modeLink   = 0o120000
	modeSocket = 0o140000
	modeSetuid = 0o4000
	modeSetgid = 0o2000
	modeSticky = 0o1000
)

const (
	inodeItemSize       = 160
	inodeWithoutSums    = 1 << 0 // flag: its data have no checksums
	inodeDeviceMinorLen = 20     // bits of the minor number of a device node
)

// An inode is where a file's items are, and its INODE_ITEM:
//
//	generation 8, transaction 8, size 8, bytes 8, block group 8, names 4, uid 4, gid 4, mode 4, device 8, flags 8, sequence 8,
//	nothing 32, then seconds 8 and nanoseconds 4 of: access, change, modification, creation
type inode struct {
	tree   tree
	number uint64
	data   []byte
}

func (i *inode) mode() uint32      { return binary.LittleEndian.Uint32(i.data[52:]) }
func (i *inode) size() uint64      { return binary.LittleEndian.Uint64(i.data[16:]) }
func (i *inode) withoutSums() bool { return i.data[64]&inodeWithoutSums != 0 }

// time returns the time at off; what never was set is zero.
func (i *inode) time(off int) time.Time {
	seconds, nanoseconds := binary.LittleEndian.Uint64(i.data[off:]), binary.LittleEndian.Uint32(i.data[off+8:])
	if seconds == 0 && nanoseconds == 0 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), int64(nanoseconds)).UTC()
}

// key returns the key of one of the file's items.
func (i *inode) key(kind byte, offset uint64) key { return key{i.number, kind, offset} }

// inode reads the inode of a file that has one.
func (f *FS) inode(n filesystem.Number) (*inode, error) {
	v, err := f.volume()
	if err != nil {
		return nil, err
	}
	id, number, absent := place(n)
	if absent || !isSubvolume(id) {
		return nil, fmt.Errorf("file %d: %w", n, fs.ErrNotExist)
	}
	t, err := v.tree(id)
	if err != nil {
		return nil, err
	}
	i := &inode{tree: t, number: number}
	found, ok, err := t.last(i.key(inodeKind, 0), i.key(inodeKind, 0))
	switch {
	case err != nil:
		return nil, fmt.Errorf("looking for inode %d of subvolume %d: %w", number, id, err)
	case !ok:
		return nil, fmt.Errorf("inode %d of subvolume %d: %w", number, id, fs.ErrNotExist)
	case len(found.data) < inodeItemSize:
		return nil, filesystem.Corrupt("inode %d of subvolume %d has %d bytes", number, id, len(found.data))
	}
	i.data = found.data
	if i.size() > math.MaxInt64-maxSector {
		return nil, filesystem.Corrupt("inode %d of subvolume %d has a content of %d bytes", number, id, i.size())
	}
	return i, nil
}

// Stat reads the inode of a file. Of the folder in place of a subvolume that is not there, nothing is known.
func (f *FS) Stat(n filesystem.Number) (filesystem.File, error) {
	if _, _, absent := place(n); absent {
		return filesystem.File{Number: n, Mode: fs.ModeDir | 0o755, Links: 1}, nil
	}
	i, err := f.inode(n)
	if err != nil {
		return filesystem.File{}, err
	}
	le := binary.LittleEndian
	file := filesystem.File{
		Number:   n,
		Mode:     fileMode(i.mode()),
		Size:     int64(i.size()),
		Links:    int(le.Uint32(i.data[40:])),
		UID:      le.Uint32(i.data[44:]),
		GID:      le.Uint32(i.data[48:]),
		Accessed: i.time(112),
		Changed:  i.time(124),
		Modified: i.time(136),
		Created:  i.time(148),
	}
	if file.Mode.IsDir() {
		file.Size = 0
	}
	if file.Mode&fs.ModeDevice != 0 {
		number := le.Uint64(i.data[56:])
		file.Device = number>>inodeDeviceMinorLen<<32 | number&(1<<inodeDeviceMinorLen-1)
	}
	return file, nil
}

// fileMode translates a mode.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & modeType {
	case modeFile:
	case modeFolder:
		m |= fs.ModeDir
	case modeLink:
		m |= fs.ModeSymlink
	case modePipe:
		m |= fs.ModeNamedPipe
	case modeSocket:
		m |= fs.ModeSocket
	case modeBlock:
		m |= fs.ModeDevice
	case modeChar:
		m |= fs.ModeDevice | fs.ModeCharDevice
	default:
		m |= fs.ModeIrregular
	}
	if mode&modeSetuid != 0 {
		m |= fs.ModeSetuid
	}
	if mode&modeSetgid != 0 {
		m |= fs.ModeSetgid
	}
	if mode&modeSticky != 0 {
		m |= fs.ModeSticky
	}
	return m
}
