// Package xfs reads XFS, versions 4 and 5 (with checksums): which blocks are free, and the files.
//
// What is on the disk, after "XFS Algorithms & Data Structures" (kernel.org, xfs_filesystem_structure). All numbers are
// big-endian but checksums, which are CRC-32C, little-endian, with four zeros in their own place.
//
//	partition  ├─ group 0 ─┼─ group 1 ─┼ … ┼─ last, shorter ─┤     sb_agblocks blocks each, at least 64
//	group      ├ superblock ┼ AGF ┼ AGI ┼ AGFL ┤                   one sector each, then blocks of any kind
//
//	AGF        the roots of the trees of free runs and their counts:
//	           by block (bnobt, "ABTB", "AB3B") and by length (cntbt, "ABTC", "AB3C"), with the same records
//	AGFL       a ring of blocks that are kept for these trees: neither free nor in a tree
//	log        runs of sectors in one group, or another device: superblock.go, log.go
//
//	block of a tree      magic 4, level 2, records 2, siblings 2 × 4
//	                     version 5 goes on: sector of itself 8, lsn 8, uuid 16, owner 4, crc 4
//	 leaf                first block 4, blocks 4                       for each run
//	 node                keys as in a leaf, room for as many as go in, then as many pointers of 4
//
//	number of a block    group << sb_agblklog | block in the group
//	number of an inode   number of its block << sb_inopblog | place in the block
//	inode                core (100 bytes, version 5: 176), data fork, from di_forkoff × 8 on attribute fork
//	 fork                local: the bytes themselves; extents: a list of them; btree: the root of a tree of them ("BMAP", "BMA3")
//	 extent              16 bytes: unwritten 1 bit, offset in the file 54, number of the block 52, blocks 21
//
//	folder               in the inode; or blocks of entries ("XD2B", "XD2D", "XDB3", "XDD3") in the first 32 GiB of the file,
//	                     behind which there are indexes that are of no use here: folder.go
//	attributes           in the inode; or a tree of leaves, with values in the leaves or in blocks of their own: attribute.go
//
// In version 5 each block says which one it is, of which filesystem, and whose; all of that is checked.
package xfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"varve/image/filesystem"
)

// FS is an XFS filesystem. All methods may be called at the same time.
type FS struct {
	r     io.ReaderAt
	size  int64 // bytes of r
	super superblock
	dirty string // why it is not at rest, as Info says it
}

var _ filesystem.Tree = (*FS)(nil)

// Open opens the filesystem in the size bytes of r. It reads the superblock and what tells whether the log is empty, some MB
// at most. The error is filesystem.ErrUnknown when there is no XFS, an UnsupportedError when it is older than version 4.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	f := &FS{r: r, size: size}
	head := make([]byte, minSector)
	if size < minSector {
		return nil, filesystem.ErrUnknown
	}
	if err := f.read(head, 0); err != nil {
		return nil, fmt.Errorf("reading the superblock: %w", err)
	}
	if string(head[:4]) != "XFSB" {
		return nil, filesystem.ErrUnknown
	}
	if sector := int64(binary.BigEndian.Uint16(head[102:])); sector > minSector && sector <= min(maxSector, size) {
		head = make([]byte, sector)
		if err := f.read(head, 0); err != nil {
			return nil, fmt.Errorf("reading the superblock: %w", err)
		}
	}
	var err error
	if f.super, err = parseSuperblock(head); err != nil {
		return nil, err
	}
	if f.super.bytes() > size {
		return nil, filesystem.Corrupt("it has %d bytes, and the partition only %d", f.super.bytes(), size)
	}
	f.dirty = f.logState()
	return f, nil
}

// Info says what the superblock says. The count of used bytes is as old as the last unmount.
func (f *FS) Info() filesystem.Info {
	s := &f.super
	info := filesystem.Info{
		Type:      "xfs",
		Label:     string(bytes.TrimRight(s.label[:], "\x00")),
		UUID:      s.uuid.String(),
		BlockSize: int(s.blockSize()),
		Size:      s.bytes(),
		Used:      -1,
		Dirty:     f.dirty,
	}
	if s.freeBlocks <= s.blocks {
		info.Used = int64(s.blocks-s.freeBlocks) << s.blockLog
	}
	return info
}

// Root is the inode of the root folder.
func (f *FS) Root() filesystem.Number { return filesystem.Number(f.super.root) }

// Streams returns nil: there is nothing beside the content.
func (f *FS) Streams(filesystem.Number) ([]filesystem.Stream, error) { return nil, nil }
