package ext

import (
	"encoding/binary"
	"math/bits"

	"varve/image/filesystem"
)

const (
	superblockOffset = 1024
	superblockSize   = 1024
)

var le = binary.LittleEndian

// Features that any system may ignore.
const (
	compatJournal     = 0x4
	compatSparseSuper = 0x200 // version 2: copies are in two groups
)

// Features that a system must know to read.
const (
	incompatFileType   = 0x2
	incompatRecover    = 0x4 // the journal is not empty
	incompatJournal    = 0x8 // this is no filesystem but the journal of one
	incompatMetaBG     = 0x10
	incompatExtents    = 0x40
	incompat64Bit      = 0x80
	incompatMMP        = 0x100
	incompatFlexBG     = 0x200
	incompatEAInode    = 0x400
	incompatSeed       = 0x2000
	incompatLargeDir   = 0x4000
	incompatInlineData = 0x8000
	incompatEncrypt    = 0x10000
	incompatCaseFold   = 0x20000

	incompatKnown = incompatFileType | incompatRecover | incompatMetaBG | incompatExtents | incompat64Bit | incompatMMP | incompatFlexBG |
		incompatEAInode | incompatSeed | incompatLargeDir | incompatInlineData | incompatEncrypt | incompatCaseFold
	incompatOfExt3 = incompatFileType | incompatRecover | incompatMetaBG
)

// Features that a system must know to write, and so to say what is free.
const (
	roSparseSuper = 0x1
	roLargeFile   = 0x2
	roBtreeDir    = 0x4
	roHugeFile    = 0x8
	roDescSum     = 0x10 // a CRC-16 of descriptors; bitmaps may be uninitialised (gdt_csum, uninit_bg)
	roDirNlink    = 0x20
	roExtraIsize  = 0x40
	roQuota       = 0x100
	roBigAlloc    = 0x200
	roSum         = 0x400 // metadata_csum: a CRC-32C of everything
	roReadOnly    = 0x1000
	roProject     = 0x2000
	roShared      = 0x4000 // files may have blocks in common; nothing is written any more
	roVerity      = 0x8000
	roOrphans     = 0x10000 // the orphan file is not empty

	roKnown = roSparseSuper | roLargeFile | roBtreeDir | roHugeFile | roDescSum | roDirNlink | roExtraIsize | roQuota | roBigAlloc | roSum |
		roReadOnly | roProject | roShared | roVerity | roOrphans
	roOfExt3 = roSparseSuper | roLargeFile | roBtreeDir
)

// Bits of the state.
const (
	stateClean   = 1
	stateErrors  = 2
	stateOrphans = 4
)

// superblock is what it says, checked as far as it can be without reading anything else.
type superblock struct {
	raw                         []byte
	compat, incompat, readOnly  uint32
	state                       uint16
	revision                    uint32
	uuid                        [16]byte
	seed                        uint32 // of all checksums but its own
	blockSize                   int64  // bytes
	clusterBlocks               int64  // blocks of a cluster
	blocks, freeBlocks          int64
	firstBlock                  int64 // of the first group
	groupBlocks, groupClusters  int64 // of each group, but the last
	groups                      int64
	inodes, groupInodes         int64
	inodeSize, firstInode       int64
	descriptorSize              int64
	tableBlocks                 int64 // of all descriptors together
	spareBlocks                 int64 // that are set aside behind the descriptors
	firstMeta                   int64 // block of descriptors from which on they lie as meta_bg has it
	journalInode                int64
	mmpBlock                    int64
	copies                      [2]int64 // groups, with compatSparseSuper
	blockSums, descriptorCRC16s bool
}

// parse fills in s.
func (s *superblock) parse(raw []byte) error {
	if le.Uint16(raw[0x38:]) != 0xEF53 {
		return filesystem.ErrUnknown
	}
	*s = superblock{
		raw:           raw,
		state:         le.Uint16(raw[0x3A:]),
		revision:      le.Uint32(raw[0x4C:]),
		compat:        le.Uint32(raw[0x5C:]),
		incompat:      le.Uint32(raw[0x60:]),
		readOnly:      le.Uint32(raw[0x64:]),
		uuid:          [16]byte(raw[0x68:0x78]),
		blocks:        int64(le.Uint32(raw[4:])),
		freeBlocks:    int64(le.Uint32(raw[0xC:])),
		firstBlock:    int64(le.Uint32(raw[0x14:])),
		groupBlocks:   int64(le.Uint32(raw[0x20:])),
		inodes:        int64(le.Uint32(raw)),
		groupInodes:   int64(le.Uint32(raw[0x28:])),
		clusterBlocks: 1,
		spareBlocks:   int64(le.Uint16(raw[0xCE:])),
		journalInode:  int64(le.Uint32(raw[0xE0:])),
		copies:        [2]int64{int64(le.Uint32(raw[0x24C:])), int64(le.Uint32(raw[0x250:]))},
	}
	s.blockSums = s.readOnly&roSum != 0
	s.descriptorCRC16s = s.readOnly&roDescSum != 0 && !s.blockSums
	if s.blockSums {
		if kind := raw[0x175]; kind != 1 {
			return filesystem.Unsupported("checksums of type %d", kind)
		}
		if crc32c(^uint32(0), raw[:0x3FC]) != le.Uint32(raw[0x3FC:]) {
			return filesystem.Corrupt("the superblock has a wrong checksum")
		}
	}
	s.seed = crc32c(^uint32(0), s.uuid[:])
	if s.incompat&incompatSeed != 0 {
		s.seed = le.Uint32(raw[0x270:])
	}
	if s.incompat&incompatJournal != 0 {
		return filesystem.Unsupported("a journal of another filesystem")
	}
	if s.incompat&incompatMMP != 0 {
		s.mmpBlock = int64(le.Uint64(raw[0x168:]) & (1<<63 - 1))
	}
	if err := s.parseBlocks(); err != nil {
		return err
	}
	return s.parseInodes()
}

// parseBlocks fills in what has to do with blocks, groups and their descriptors.
func (s *superblock) parseBlocks() error {
	logBlock, logCluster := le.Uint32(s.raw[0x18:]), le.Uint32(s.raw[0x1C:])
	if logBlock > 6 {
		return filesystem.Corrupt("blocks of 2^%d bytes", uint64(logBlock)+10)
	}
	s.blockSize = 1024 << logBlock
	s.groupClusters = s.groupBlocks
	if s.readOnly&roBigAlloc != 0 {
		if logCluster < logBlock || logCluster > 20 {
			return filesystem.Corrupt("clusters of 2^%d bytes", uint64(logCluster)+10)
		}
		s.clusterBlocks = 1 << (logCluster - logBlock)
		s.groupClusters = int64(le.Uint32(s.raw[0x24:]))
	}
	// Groups have a bit for each cluster in one block of bitmap, and a checksum is of whole bytes. The least is that of mkfs.
	if s.groupClusters > s.blockSize*8 || s.groupClusters%8 != 0 || s.groupBlocks < 256 || s.groupBlocks != s.groupClusters*s.clusterBlocks {
		return filesystem.Corrupt("groups of %d blocks in %d clusters", s.groupBlocks, s.groupClusters)
	}
	s.descriptorSize = 32
	if s.incompat&incompat64Bit != 0 {
		s.blocks |= int64(le.Uint32(s.raw[0x150:])) << 32
		s.freeBlocks |= int64(le.Uint32(s.raw[0x158:])) << 32
		s.descriptorSize = int64(le.Uint16(s.raw[0xFE:]))
		if s.descriptorSize < 64 || s.descriptorSize > 1024 || bits.OnesCount64(uint64(s.descriptorSize)) != 1 {
			return filesystem.Corrupt("group descriptors of %d bytes", s.descriptorSize)
		}
	}
	if s.blocks > 1<<48 || s.blocks < 0 {
		return filesystem.Corrupt("2^48 blocks, or more")
	}
	first := int64(0) // only clusters of 1 KiB begin behind the boot sector
	if s.blockSize*s.clusterBlocks == 1024 {
		first = 1
	}
	if s.blocks > 1<<62/s.blockSize || s.firstBlock >= s.blocks || s.firstBlock != first {
		return filesystem.Corrupt("%d blocks of %d bytes, from block %d on", s.blocks, s.blockSize, s.firstBlock)
	}
	s.groups = divideUp(s.blocks-s.firstBlock, s.groupBlocks)
	s.tableBlocks = divideUp(s.groups*s.descriptorSize, s.blockSize)
	s.firstMeta = s.tableBlocks
	if s.incompat&incompatMetaBG != 0 {
		s.firstMeta = int64(le.Uint32(s.raw[0x104:]))
	}
	return nil
}

func (s *superblock) parseInodes() error {
	s.inodeSize, s.firstInode = 128, 11
	if s.revision > 0 {
		s.inodeSize, s.firstInode = int64(le.Uint16(s.raw[0x58:])), int64(le.Uint32(s.raw[0x54:]))
	}
	if s.inodeSize < 128 || s.inodeSize > s.blockSize || bits.OnesCount64(uint64(s.inodeSize)) != 1 {
		return filesystem.Corrupt("inodes of %d bytes", s.inodeSize)
	}
	if s.groupInodes == 0 || s.groupInodes > s.blockSize*8 {
		return filesystem.Corrupt("%d inodes in each group", s.groupInodes)
	}
	return nil
}

func divideUp(a, b int64) int64 { return (a + b - 1) / b }

// kind returns the name that blkid gives it.
func (s *superblock) kind() string {
	switch {
	case s.incompat&^incompatOfExt3 != 0 || s.readOnly&^roOfExt3 != 0:
		return "ext4"
	case s.compat&compatJournal != 0:
		return "ext3"
	}
	return "ext2"
}

// dirty returns why the filesystem is not at rest, completing "the filesystem …", or "".
func (s *superblock) dirty() string {
	switch {
	case s.state&stateErrors != 0:
		return "has errors that it noticed itself and that nobody has repaired"
	case s.incompat&incompatRecover != 0:
		return "was not unmounted: its journal is not empty"
	case s.state&stateOrphans != 0:
		return "was being repaired"
	case s.state&stateClean == 0:
		return "was not unmounted"
	case s.state != stateClean:
		return "is in an unknown state"
	}
	return ""
}

// readable returns an error when files cannot be read.
func (s *superblock) readable() error {
	if unknown := s.incompat &^ incompatKnown; unknown != 0 {
		return filesystem.Unsupported("a filesystem with features 0x%x", unknown)
	}
	return nil
}
