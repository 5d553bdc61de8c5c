package xfs

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"varve/image/filesystem"
)

// What the format allows.
const (
	minSector      = 512
	maxSector      = 32 << 10
	minBlockLog    = 9
	maxBlockLog    = 16
	minInodeLog    = 8
	maxInodeLog    = 11
	minGroupBlocks = 64
)

// Bits of sb_versionnum.
const (
	versionMask     = 0x000f
	versionShared   = 0x0200 // nobody knows what it was for
	versionDir2     = 0x2000
	versionMoreBits = 0x8000
)

// Bits of sb_features2, which versions that have versionMoreBits have.
const (
	features2Lazy       = 0x0002 // the superblock counts at unmount only, and AGFs count the blocks of their trees
	features2Attributes = 0x0008 // where attributes begin in an inode is not fixed
	features2Project32  = 0x0080
	features2CRC        = 0x0100
	features2Ftype      = 0x0200 // entries of folders tell types

	features2Known = features2Lazy | features2Attributes | features2Project32 | features2CRC | features2Ftype
)

// Bits of the features of version 5.
const (
	roFreeInodes  = 1 << 0
	roOwners      = 1 << 1 // a tree of who owns what, the rmapbt
	roShared      = 1 << 2 // blocks that several files share
	roInodeBlocks = 1 << 3 // counts of the blocks of trees of inodes

	roKnown = roFreeInodes | roOwners | roShared | roInodeBlocks

	incompatFtype       = 1 << 0
	incompatSparse      = 1 << 1 // chunks of inodes with gaps
	incompatMetaUUID    = 1 << 2 // blocks have another uuid than the one that is shown to people
	incompatBigTime     = 1 << 3 // each inode tells whether it uses it
	incompatNeedsRepair = 1 << 4
	incompatBigCount    = 1 << 5 // of extents; each inode tells whether it uses it
	incompatExchange    = 1 << 6 // of ranges of files: new records of the log
	incompatParent      = 1 << 7 // attributes that lead to the folders of a file

	incompatKnown = incompatFtype | incompatSparse | incompatMetaUUID | incompatBigTime | incompatNeedsRepair |
		incompatBigCount | incompatExchange | incompatParent

	logAttributes = 1 << 0 // records of attributes

	logKnown = logAttributes
)

// uuid is written as blkid writes it.
type uuid [16]byte

func (u uuid) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// A superblock is the part of the superblock (xfs_dsb) that matters here. parseSuperblock has checked it: logarithms are
// those of the sizes, and the number of bytes fits an int64.
type superblock struct {
	v5             bool
	blockLog       uint
	sectorSize     int64
	inodeLog       uint
	inodesLog      uint // log2 of inodes in a block
	folderLog      uint // log2 of blocks in a block of a folder
	blocks         uint64
	groupBlocks    uint32
	groups         uint32
	groupLog       uint // bits of the number of a block in a group
	root           uint64
	logStart       uint64 // number of the first block; 0 for a log on another device
	logBlocks      uint32
	freeBlocks     uint64
	label          [12]byte
	uuid, metaUUID uuid

	ftype, lazy, owners bool

	unreadable string // why its files cannot be read
	untrusted  string // why its trees of free runs cannot be relied on, completing "…, because"
}

// parseSuperblock parses the superblock at the start of b, which has at least minSector bytes.
func parseSuperblock(b []byte) (superblock, error) {
	be := binary.BigEndian
	version := be.Uint16(b[100:])
	s := superblock{
		v5:          version&versionMask == 5,
		blockLog:    uint(b[120]),
		sectorSize:  int64(be.Uint16(b[102:])),
		inodeLog:    uint(b[122]),
		inodesLog:   uint(b[123]),
		folderLog:   uint(b[192]),
		blocks:      be.Uint64(b[8:]),
		groupBlocks: be.Uint32(b[84:]),
		groups:      be.Uint32(b[88:]),
		groupLog:    uint(b[124]),
		root:        be.Uint64(b[56:]),
		logStart:    be.Uint64(b[48:]),
		logBlocks:   be.Uint32(b[96:]),
		freeBlocks:  be.Uint64(b[144:]),
		label:       [12]byte(b[108:]),
		uuid:        uuid(b[32:]),
		metaUUID:    uuid(b[32:]),
	}
	if v := version & versionMask; v != 4 && v != 5 {
		return s, filesystem.Unsupported("XFS of version %d", v)
	}
	if s.sectorSize < minSector || s.sectorSize > maxSector || s.sectorSize != 1<<b[121] || s.sectorSize > int64(len(b)) {
		return s, filesystem.Corrupt("sectors of %d bytes", s.sectorSize)
	}
	if s.v5 && !checksumRight(b[:s.sectorSize], 224) {
		return s, filesystem.Corrupt("the checksum of the superblock is wrong")
	}
	if err := s.checkGeometry(b); err != nil {
		return s, err
	}
	s.readFeatures(b, version)
	if b[126] != 0 {
		s.untrusted = "it was not made to the end"
	}
	return s, nil
}

// checkGeometry checks that sizes and counts agree.
func (s *superblock) checkGeometry(b []byte) error {
	be := binary.BigEndian
	switch {
	case s.blockLog < minBlockLog || s.blockLog > maxBlockLog || be.Uint32(b[4:]) != 1<<s.blockLog:
		return filesystem.Corrupt("blocks of %d bytes", be.Uint32(b[4:]))
	case s.inodeLog < minInodeLog || s.inodeLog > maxInodeLog || s.inodeLog > s.blockLog ||
		be.Uint16(b[104:]) != 1<<s.inodeLog || s.inodesLog != s.blockLog-s.inodeLog:
		return filesystem.Corrupt("inodes of %d bytes in blocks of %d", be.Uint16(b[104:]), s.blockSize())
	case s.folderLog > maxBlockLog-s.blockLog:
		return filesystem.Corrupt("blocks of folders of %d blocks", uint64(1)<<s.folderLog)
	case s.groupBlocks < minGroupBlocks || s.groupBlocks > 1<<31 || s.groupLog != uint(bits.Len32(s.groupBlocks-1)):
		return filesystem.Corrupt("allocation groups of %d blocks, which take %d bits", s.groupBlocks, s.groupLog)
	case s.blocks > math.MaxInt64>>s.blockLog:
		return filesystem.Corrupt("it has %d blocks", s.blocks)
	}
	// The last group may be shorter, but none is without its four sectors.
	all := uint64(s.groups) * uint64(s.groupBlocks)
	if s.groups == 0 || s.blocks > all || all-s.blocks >= uint64(s.groupBlocks) || s.groupLength(s.groups-1) <= s.headerBlocks() {
		return filesystem.Corrupt("it has %d blocks in %d allocation groups of %d", s.blocks, s.groups, s.groupBlocks)
	}
	if s.logStart != 0 {
		if _, ok := s.run(s.logStart, uint64(s.logBlocks)); !ok || s.logBlocks == 0 {
			return filesystem.Corrupt("its log has %d blocks at %d", s.logBlocks, s.logStart)
		}
	}
	return nil
}

// readFeatures notes what the bits of features tell.
func (s *superblock) readFeatures(b []byte, version uint16) {
	be := binary.BigEndian
	features2 := uint32(0)
	if version&versionMoreBits != 0 {
		features2 = be.Uint32(b[200:]) | be.Uint32(b[204:]) // old kernels wrote the one or the other
	}
	if !s.v5 {
		s.lazy = features2&features2Lazy != 0
		s.ftype = features2&features2Ftype != 0
		if version&versionDir2 == 0 {
			s.unreadable = "folders of version 1"
		}
		if unknown := features2 &^ features2Known; unknown != 0 || version&versionShared != 0 {
			s.untrusted = fmt.Sprintf("it has features that are not known (%#x, %#x)", version&versionShared, unknown)
		}
		return
	}
	ro, incompat, log := be.Uint32(b[212:]), be.Uint32(b[216:]), be.Uint32(b[220:])
	s.lazy = true
	s.ftype = incompat&incompatFtype != 0
	s.owners = ro&roOwners != 0
	if incompat&incompatMetaUUID != 0 {
		s.metaUUID = uuid(b[248:])
	}
	if unknown := incompat &^ incompatKnown; unknown != 0 {
		s.unreadable = fmt.Sprintf("features %#x of XFS", unknown)
	}
	unknown := []uint32{ro &^ roKnown, incompat &^ incompatKnown, log &^ logKnown}
	if !slices.Equal(unknown, []uint32{0, 0, 0}) {
		s.untrusted = fmt.Sprintf("it has features that are not known (ro_compat %#x, incompat %#x, log_incompat %#x)", unknown[0], unknown[1], unknown[2])
	} else if incompat&incompatNeedsRepair != 0 {
		s.untrusted = "it is marked as in need of repair"
	}
}

func (s *superblock) blockSize() int64 { return 1 << s.blockLog }

// bytes is the length of the filesystem.
func (s *superblock) bytes() int64 { return int64(s.blocks) << s.blockLog }

// groupLength is the number of blocks of a group.
func (s *superblock) groupLength(group uint32) uint32 {
	return uint32(min(uint64(s.groupBlocks), s.blocks-uint64(group)*uint64(s.groupBlocks)))
}

// headerBlocks is the number of blocks that the superblock, AGF, AGI and AGFL take in each group.
func (s *superblock) headerBlocks() uint32 {
	return uint32((4*s.sectorSize + s.blockSize() - 1) >> s.blockLog)
}

// run returns the offset of a run of blocks, and whether there is such a run within one group.
func (s *superblock) run(block, count uint64) (int64, bool) {
	group, in := block>>s.groupLog, block&(1<<s.groupLog-1)
	if group >= uint64(s.groups) {
		return 0, false
	}
	length := uint64(s.groupLength(uint32(group)))
	if count > length || in > length-count {
		return 0, false
	}
	return int64(group*uint64(s.groupBlocks)+in) << s.blockLog, true
}

// inode returns the offset of an inode, and whether there is room for one of this number.
func (s *superblock) inode(number uint64) (int64, bool) {
	off, ok := s.run(number>>s.inodesLog, 1)
	return off + int64(number&(1<<s.inodesLog-1))<<s.inodeLog, ok
}
