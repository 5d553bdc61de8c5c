// Package ntfs reads NTFS: which clusters are free, and the files.
//
// What is on the disk, after [MS-FSCC], [MS-XCA], and what ntfs-3g documents in its headers. All numbers are little-endian.
//
//	partition  ├ boot sector ┼ clusters of 512 bytes to 2 MiB, the boot sector in the first ┼ rest ┼ copy of the boot sector ┤
//
//	$MFT       an array of records, of 1 KiB mostly, 4 KiB on sectors of 4 KiB; each is a file, or more room for one
//	record     "FILE", fixups, sequence number, names, offset of the attributes, flags, …, the file that it makes room for
//	attribute  type 4, length 4, elsewhere 1, name's length 1, name's offset 2, flags 2, instance 2
//	 here      length of the value 4, its offset 2
//	 elsewhere first and last cluster of the value 8+8, offset of the runs 2, clusters of a compression unit 1 (a power of two),
//	           bytes that are set aside 8, bytes 8, bytes that have been written 8
//	 run       lengths of the two numbers 1, clusters, distance from the last run's first cluster (none: a hole)
//
//	folder     $INDEX_ROOT, a list of entries, and where it is longer: blocks of entries ("INDX") in $INDEX_ALLOCATION, those in
//	           use in $BITMAP. Together a tree in the order of names, which is of no use here
//	entry      file 8, length 2, length of the key 2, flags 4, key: folder, times, sizes, flags, name
//
// Records and blocks end each 512 bytes in a number that is the same all over; what it replaced is in a list in front, the fixups.
// What does not fit into a record is in others, and $ATTRIBUTE_LIST in the first tells where each attribute is. A file is named
// by the number of its record and a sequence number, which tells it from those that had the record before: together its Number.
//
// Files that a system writes for itself (pagefile.sys, hiberfil.sys, swapfile.sys) are in the root folder. Names are told as they
// are stored, and those of Windows mean the same in any case: who looks for one compares accordingly.
package ntfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"varve/image/filesystem"
)

// Records of $MFT that have a meaning of their own. Those below firstUser are the filesystem's, and not shown in the root folder.
const (
	recordMFT    = 0
	recordLog    = 2
	recordVolume = 3
	recordRoot   = 5
	recordBitmap = 6
	recordUpCase = 10
	recordExtend = 11
	firstUser    = 16
)

// FS is an NTFS filesystem. All methods may be called at the same time.
type FS struct {
	r    io.ReaderAt
	size int64 // bytes of r
	boot boot
	mft  *stream

	version [2]byte // major, minor
	label   string
	dirty   string // why it is not at rest, as Info says it
}

var _ filesystem.Tree = (*FS)(nil)

var le = binary.LittleEndian

// Open opens the filesystem in the size bytes of r. It reads what tells whether it is at rest: the boot sector, where $MFT is, $Volume,
// the beginning of $LogFile, and the names in the root folder. The error is filesystem.ErrUnknown when there is no NTFS.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	f := &FS{r: r, size: size}
	if size < bootSize {
		return nil, filesystem.ErrUnknown
	}
	head := make([]byte, bootSize)
	if err := f.read(head, 0); err != nil {
		return nil, fmt.Errorf("reading the boot sector: %w", err)
	}
	var err error
	if f.boot, err = parseBoot(head); err != nil {
		return nil, err
	}
	if f.mft, err = f.openMFT(); err != nil {
		return nil, fmt.Errorf("reading $MFT: %w", err)
	}
	if err := f.readVolume(); err != nil {
		return nil, fmt.Errorf("reading $Volume: %w", err)
	}
	return f, nil
}

// Info says what the boot sector and $Volume say. NTFS does not count what is in use.
func (f *FS) Info() filesystem.Info {
	return filesystem.Info{
		Type:      "ntfs",
		Label:     f.label,
		UUID:      fmt.Sprintf("%016X", f.boot.serial),
		BlockSize: int(f.boot.cluster),
		Size:      min(f.size, (f.boot.sectors+1)*f.boot.sector), // the last sector is the copy of the boot sector
		Used:      -1,
		Dirty:     f.dirty,
	}
}

// Root is the record of the root folder.
func (f *FS) Root() filesystem.Number { return recordRoot }

// read fills p with what lies at off.
func (f *FS) read(p []byte, off int64) error {
	if off < 0 || off > f.size-int64(len(p)) {
		return filesystem.Corrupt("%d bytes at %d are outside of %d", len(p), off, f.size)
	}
	n, err := f.r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading %d bytes at %d: %w", len(p), off, err)
}
