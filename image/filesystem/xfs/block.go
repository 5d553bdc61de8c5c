package xfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"varve/image/filesystem"
)

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

// A header says where a structure of version 5 has what identifies it: offsets in bytes, 0 for what it does not have.
type header struct{ crc, uuid, sector, owner int }

var (
	groupTree   = header{crc: 52, uuid: 32, sector: 16}            // its owner has 4 bytes, and is checked by who reads it
	extentTree  = header{crc: 64, uuid: 40, sector: 24, owner: 56} // xfs_btree_block, long form
	folderBlock = header{crc: 4, uuid: 24, sector: 8, owner: 40}   // xfs_dir3_blk_hdr
	hashTree    = header{crc: 12, uuid: 32, sector: 16, owner: 48} // xfs_da3_blkinfo
	remoteBlock = header{crc: 12, uuid: 16, sector: 40, owner: 32} // xfs_dsymlink_hdr, xfs_attr3_rmt_hdr
	groupHead   = header{crc: 216, uuid: 64}                       // xfs_agf
	groupList   = header{crc: 32, uuid: 8}                         // xfs_agfl
	inodeCore   = header{crc: 100, uuid: 160, owner: 152}          // xfs_dinode, whose "owner" is its own number
)

// identify checks that b, of version 5, was read from off and is owner's.
func (f *FS) identify(b []byte, h header, off int64, owner uint64) error {
	be := binary.BigEndian
	switch {
	case !checksumRight(b, h.crc):
		return filesystem.Corrupt("the checksum of the %d bytes at %d is wrong", len(b), off)
	case uuid(b[h.uuid:]) != f.super.metaUUID:
		return filesystem.Corrupt("what lies at %d is of another filesystem", off)
	case h.sector != 0 && be.Uint64(b[h.sector:]) != uint64(off)/512:
		return filesystem.Corrupt("what lies at %d says it is sector %d", off, be.Uint64(b[h.sector:]))
	case h.owner != 0 && be.Uint64(b[h.owner:]) != owner:
		return filesystem.Corrupt("what lies at %d is of inode %d, not %d", off, be.Uint64(b[h.owner:]), owner)
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksumRight tells whether the checksum of b, at offset at in b, is that of b.
func checksumRight(b []byte, at int) bool {
	return checksum(b, at) == binary.LittleEndian.Uint32(b[at:])
}

// checksum is the checksum of b with four zeros at offset at.
func checksum(b []byte, at int) uint32 {
	sum := crc32.Update(0, castagnoli, b[:at])
	sum = crc32.Update(sum, castagnoli, []byte{0, 0, 0, 0})
	return crc32.Update(sum, castagnoli, b[at+4:])
}
