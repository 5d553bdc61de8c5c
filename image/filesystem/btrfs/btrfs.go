// Package btrfs reads btrfs on one device: which blocks are free, and the files of all subvolumes.
//
// What is on the disk, after "Btrfs on-disk format" (btrfs.readthedocs.io) and linux/btrfs_tree.h. All numbers are
// little-endian.
//
//	partition   ├ nothing ┼ superblock, 64 KiB ┼ … ┼ copy, 64 MiB ┼ … ┼ copy, 256 GiB ┼ … ┤
//	            between and behind them chunks, which overlap no copy's 64 KiB in what they give out
//
//	superblock  4096 bytes: checksum 32, fsid 16, its own offset 8, flags 8, "_BHRfS_M", generation 8, then the roots of two
//	            trees: superblock.go
//	chunk       a run of logical addresses, and where it lies: once (single), or twice on the same device (DUP).
//	            All other addresses on the disk are logical ones: chunk.go
//	extent      a run of addresses in a chunk that is in use, with an item in the extent tree
//
//	tree block  checksum 32, fsid 16, its own address 8, flags 8, uuid of the chunk tree 16, generation 8, owner 8,
//	            items 4, level 1; then, by ascending keys:
//	 leaf       key 17, offset of its data 4, its length 4     the data grow from the end of the block towards these
//	 node       key 17, address 8, generation 8                the key is the first of the block below
//	 key        object 8, kind 1, offset 8
//
//	chunk tree  (3)   (256, CHUNK_ITEM, address): the chunks. Those of the trees' own kind are in the superblock too
//	root tree   (1)   (tree, ROOT_ITEM, …): the root of each other tree
//	extent tree (2)   (address, EXTENT_ITEM, length), (address, METADATA_ITEM, level), (address, BLOCK_GROUP_ITEM, length)
//	device tree (4)   (device, DEV_EXTENT, offset on it): what lies there
//	checksums   (7)   (-10, EXTENT_CSUM, address): of each sector of data
//	free space  (10)  what the extent tree leaves, once more: free_space.go
//	block groups (11) where the BLOCK_GROUP_ITEMs are when there is such a tree
//	subvolumes  (5, 256 and more), one tree each:
//	 (inode, INODE_ITEM, 0)              what Stat tells: inode.go
//	 (inode, XATTR_ITEM, hash)           attributes
//	 (folder, DIR_INDEX, n)              a name: folder.go
//	 (inode, EXTENT_DATA, offset)        a run of a file: content.go
//
// Every tree block says which one it is, of which filesystem, when it was written and for which tree. All of that is checked, and
// where it is wrong the other copy is read. There is no mark that tells whether it is mounted: what is on the disk is always the
// state of the last commit, and trees are never overwritten in place.
package btrfs

import (
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"varve/image/filesystem"
)

// FS is a btrfs filesystem. All methods may be called at the same time.
type FS struct {
	r     io.ReaderAt
	size  int64 // bytes of r
	super *superblock

	mu     sync.Mutex
	loaded *volume // nil until the chunks have been read
}

var _ filesystem.Tree = (*FS)(nil)

// Open opens the filesystem in the size bytes of r. It reads the superblock and its copies, nothing else. The error is
// filesystem.ErrUnknown when there is no btrfs.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	super, err := readSuperblock(r, size)
	if err != nil {
		return nil, err
	}
	return &FS{r: r, size: size, super: super}, nil
}

// Info says what the superblock says. Used counts what is there in two copies once.
func (f *FS) Info() filesystem.Info {
	s := f.super
	return filesystem.Info{
		Type:      "btrfs",
		Label:     s.label,
		UUID:      s.fsid.String(),
		BlockSize: int(s.sectorSize),
		Size:      s.device.size,
		Used:      int64(min(s.used, uint64(s.device.size))),
		Dirty:     s.dirty,
	}
}

// Root is the folder of the subvolume in which all others are.
func (f *FS) Root() filesystem.Number {
	return filesystem.Number(topTree<<inodeBits | rootInode)
}

// Streams returns nil: there is nothing beside the content.
func (f *FS) Streams(filesystem.Number) ([]filesystem.Stream, error) { return nil, nil }

// What caches hold at most.
const (
	blocksInMemory   = 8 << 20 // bytes of tree blocks
	extentsDecoded   = 16      // of maxDecoded bytes
	zstdDecodersIdle = 4       // that a filesystem keeps
)

// A volume reads by logical addresses.
type volume struct {
	r      io.ReaderAt
	super  *superblock
	chunks chunkMap

	blocks  *cache[uint64, *block]
	decoded *cache[storedExtent, []byte]
	zstd    *zstd.Decoder
}

// volume reads the chunk tree, once.
func (f *FS) volume() (*volume, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.loaded != nil {
		return f.loaded, nil
	}
	if f.super.unreadable != "" {
		return nil, filesystem.Unsupported("%s", f.super.unreadable)
	}
	v := &volume{
		r:       f.r,
		super:   f.super,
		blocks:  newCache[uint64, *block](blocksInMemory / int(f.super.nodeSize)),
		decoded: newCache[storedExtent, []byte](extentsDecoded),
	}
	var err error
	if v.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(zstdDecodersIdle), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxDecoded)); err != nil {
		return nil, err
	}
	if v.chunks, err = v.readChunks(); err != nil {
		return nil, err
	}
	f.loaded = v
	return v, nil
}
