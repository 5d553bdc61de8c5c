// Package ext reads ext2, ext3 and ext4, as the kernel's documentation (Documentation/filesystems/ext4) and e2fsprogs have them.
//
// A filesystem is blocks of 1 to 64 KiB in groups. Numbers are little-endian; those of the journal are big-endian.
//
//	1024  superblock, 1024 bytes
//	group     ├ superblock copy ┼ descriptors copy ┼ room for more ┼ block bitmap ┼ inode bitmap ┼ inode table ┼ data … ┤
//	           (the first three in some groups only; with flex_bg, bitmaps and tables lie in other groups, too)
//
//	superblock    0x00 inodes 4 | blocks 4 | 0x0C free blocks 4 | 0x14 first data block 4 | log block size 4 | log cluster size 4
//	              0x20 blocks per group 4 | clusters per group 4 | inodes per group 4 | 0x38 0xEF53 2 | state 2
//	              0x4C revision 4 | 0x54 first inode 4 | inode size 2 | 0x5C features: compat 4, incompat 4, ro_compat 4
//	              0x68 UUID 16 | label 16 | 0xCE spare descriptor blocks 2 | 0xE0 journal inode 4 | 0xFE descriptor size 2
//	              0x104 first meta_bg 4 | 0x150 blocks, upper half 4 | 0x158 free blocks, upper half 4 | 0x168 MMP block 8
//	              0x175 checksum type 1 | 0x24C groups with copies 8 | 0x270 checksum seed 4 | 0x3FC crc32c 4
//	descriptor    block bitmap 4 | inode bitmap 4 | inode table 4 | free blocks 2 | 0x12 flags 2 | 0x18 bitmap checksum 2
//	              0x1E checksum 2 | upper halves of the three places 12 | of free blocks 2 | 0x38 of the bitmap checksum 2
//	inode         0x00 mode 2 | uid 2 | size 4 | times 16 | gid 2 | links 2 | 0x20 flags 4 | 0x28 map 60 | generation 4
//	              0x68 attribute block 4 | size, upper half 4 | 0x76 attribute block, uid, gid: upper halves 2 each | checksum 2
//	              0x80 extra size 2 | checksum, upper half 2 | rest of times | attributes
//	map           12 blocks, an indirect, a double and a triple indirect block; or an extent node; or content; or a link's target
//	extent node   0xF30A 2 | entries 2 | room 2 | depth 2 | generation 4 | entry… | in a block of its own: checksum 4
//	  of a leaf   first block of the file 4 | length 2, 32768 more when unwritten | block, upper half 2 | block 4
//	  above       first block of the file 4 | node 4 | upper half 2 | zero 2
//	folder block  inode 4 | length 2 | length of the name 1 | type 1 | name …; at its end, as an entry without a name, a checksum
//	attributes    length of the name 1 | prefix 1 | place of the value 2 | inode of the value 4 | its length 4 | hash 4 | name …
//
// # Which blocks are free
//
// Free goes by the block bitmaps, and relies on them when everything agrees: the state is clean and the journal is empty (of a
// snapshot of a mounted filesystem too, when it was frozen for it, as LVM does), no multiple-mount protection is held, all
// features are known, checksums of superblock, descriptors and bitmaps are right where the features have them, structures
// lie apart and are marked in the bitmaps, and each bitmap has as many free clusters as its descriptor says, and all together as
// many as the superblock. The superblock's count lags behind while a filesystem is mounted for writing; then it is not
// trusted anyway, and when it is unmounted, frozen or mounted for reading only, the count is right.
//
// Files that were removed while open (orphans) have their blocks in the bitmaps until they are cleaned up, so they do no harm.
// Compatible features that are unknown do none either: by their definition any system may take the blocks that the bitmaps
// call free.
//
// # Files
//
// Files can be read whether or not the map is trusted. A journal is not replayed: what is in it and not yet in its place is not
// seen. Where there are checksums of inodes, extents, folders and attributes, they are checked. Encrypted content cannot be read; the
// names in an encrypted folder are in base64url without padding (RFC 4648, section 5), as they may hold any bytes.
package ext

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"varve/image/filesystem"
)

// FS is one filesystem. It implements filesystem.Tree.
type FS struct {
	superblock
	r       io.ReaderAt
	size    int64 // bytes of r
	present int64 // blocks that are whole in it
	cache   cache
}

var _ filesystem.Tree = (*FS)(nil)

// Open opens the filesystem that begins at the start of r, a partition of size bytes. The error is filesystem.ErrUnknown when there is
// no superblock, a CorruptError when it is damaged, an UnsupportedError when it is that of another filesystem's journal.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	f := &FS{r: r, size: size}
	if size < superblockOffset+superblockSize {
		return nil, filesystem.ErrUnknown
	}
	raw, err := f.readSuperblock()
	if err != nil {
		return nil, err
	}
	if err := f.parse(raw); err != nil {
		return nil, err
	}
	f.present = min(f.blocks, size/f.blockSize)
	f.cache = newCache(f.blockSize)
	return f, nil
}

func (f *FS) readSuperblock() ([]byte, error) {
	raw := make([]byte, superblockSize)
	if err := f.read(raw, superblockOffset); err != nil {
		return nil, fmt.Errorf("reading the superblock: %w", err)
	}
	return raw, nil
}

// Info says what the superblock says. The unit of blocks is the cluster.
func (f *FS) Info() filesystem.Info {
	info := filesystem.Info{
		Type:      f.kind(),
		Label:     string(untilZero(f.raw[0x78:0x88])),
		UUID:      fmt.Sprintf("%x-%x-%x-%x-%x", f.uuid[:4], f.uuid[4:6], f.uuid[6:8], f.uuid[8:10], f.uuid[10:]),
		BlockSize: int(f.clusterBlocks * f.blockSize),
		Size:      min(f.blocks*f.blockSize, f.size),
		Used:      -1,
		Dirty:     f.dirty(),
	}
	if f.freeBlocks >= 0 && f.freeBlocks <= f.blocks {
		info.Used = (f.blocks - f.freeBlocks) * f.blockSize
	}
	if f.uuid == [16]byte{} {
		info.UUID = ""
	}
	return info
}

func untilZero(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// read fills p with what is at off. The end of the partition is an error as any other.
func (f *FS) read(p []byte, off int64) error {
	if off < 0 || off > f.size || int64(len(p)) > f.size-off {
		return filesystem.Corrupt("%d bytes at %d lie beyond the end of the partition", len(p), off)
	}
	n, err := f.r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("%d bytes at %d of the partition: %w", len(p), off, io.ErrUnexpectedEOF)
	}
	return err
}

// block returns a block of the filesystem, which must not be changed.
func (f *FS) block(n int64) ([]byte, error) {
	if n < 0 || n >= f.blocks {
		return nil, filesystem.Corrupt("block %d of %d", n, f.blocks)
	}
	if b := f.cache.get(n); b != nil {
		return b, nil
	}
	b := make([]byte, f.blockSize)
	if err := f.read(b, n*f.blockSize); err != nil {
		return nil, err
	}
	f.cache.put(n, b)
	return b, nil
}
