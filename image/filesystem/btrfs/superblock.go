package btrfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/bits"

	"varve/image/filesystem"
)

// Where superblocks are. Each keeps superblockRoom for itself, also inside of a chunk.
const (
	superblockSize = 4096
	superblockRoom = 64 << 10
	startRoom      = 1 << 20 // that is not given out at the start: boot loaders use it
)

var superblockOffsets = []int64{64 << 10, 64 << 20, 256 << 30}

const magic = "_BHRfS_M"

// What the format allows.
const (
	minSector = 4096
	maxSector = 64 << 10
	maxNode   = 64 << 10
	maxLevel  = 7
)

// Flags of a superblock. Others say that a tool was rewriting something when it was stopped, or that this is the dump of a
// filesystem without its data.
const (
	flagWritten = 1 << 0
	flagError   = 1 << 2 // the kernel stopped writing because of an inconsistency
)

// Features that change what is read here. The rest of those that are known do not.
const (
	roFreeSpaceTree      = 1 << 0
	roFreeSpaceTreeValid = 1 << 1
	roVerity             = 1 << 2 // files have hashes
	roBlockGroupTree     = 1 << 3
	roKnown              = roFreeSpaceTree | roFreeSpaceTreeValid | roVerity | roBlockGroupTree

	incompatMixedBackref = 1 << 0 // always there since 2009; before, the extent tree was another
	incompatMetadataUUID = 1 << 10
	incompatKnown        = incompatMixedBackref | 1<<1 /* default subvolume */ | 1<<2 /* mixed block groups */ | 1<<3 /* lzo */ |
		1<<4 /* zstd */ | 1<<5 /* nodes larger than a page */ | 1<<6 /* extended references */ |
		1<<8 /* METADATA_ITEM */ | 1<<9 /* no items for holes */ | incompatMetadataUUID
	// RAID5 and 6, RAID1 with three and four copies, simple quotas: they change the chunks, which tell themselves, and the
	// extent tree, but no file.
	incompatReadable = incompatKnown | 1<<7 | 1<<11 | 1<<16
)

// uuid is written as blkid writes it.
type uuid [16]byte

func (u uuid) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// A superblock is the part of the superblock that matters here. parseSuperblock has checked it.
type superblock struct {
	checksum   checksum
	fsid       uuid // the one shown to people
	blockUUID  uuid // the one in tree blocks
	generation uint64
	root       pointer // of the root tree
	chunkRoot  pointer // of the chunk tree
	used       uint64  // bytes of all extents
	sectorSize int64
	nodeSize   int64
	device     device
	label      string
	chunks     []byte // keys and items of the chunks in which the chunk tree is

	freeSpaceTree, blockGroupTree bool

	dirty      string // why it is not at rest, as Info says it
	unreadable string // why its files cannot be read
	untrusted  string // why its extent tree cannot be relied on, completing "…, because"
}

// A device is what the superblock says of the device on which it lies.
type device struct {
	id   uint64
	uuid uuid
	size int64 // bytes, rounded down to sectors
	used uint64
}

// readSuperblock reads the superblock of a partition of size bytes, and its copies. One that is damaged is replaced by its newest copy.
func readSuperblock(r io.ReaderAt, size int64) (*superblock, error) {
	b := make([]byte, superblockSize)
	if size < superblockOffsets[0]+superblockSize {
		return nil, filesystem.ErrUnknown
	}
	if err := readFull(r, b, superblockOffsets[0]); err != nil {
		return nil, fmt.Errorf("reading the superblock: %w", err)
	}
	if string(b[0x40:0x48]) != magic {
		return nil, filesystem.ErrUnknown
	}
	fsid := uuid(b[0x20:])
	s, first := parseSuperblock(b, superblockOffsets[0])
	var newest *superblock
	for _, at := range superblockOffsets[1:] {
		if at > size-superblockSize {
			break
		}
		// A copy that cannot be read or is damaged says nothing; the kernel does not look at it either.
		if err := readFull(r, b, at); err != nil || string(b[0x40:0x48]) != magic || uuid(b[0x20:]) != fsid {
			continue
		}
		if mirror, err := parseSuperblock(b, at); err == nil && (newest == nil || mirror.generation > newest.generation) {
			newest = mirror
		}
	}
	switch {
	case first == nil && newest != nil && newest.generation > s.generation:
		s.untrusted = "a copy of its superblock is newer than the superblock"
	case first != nil && newest != nil:
		s = newest
		s.untrusted = "its superblock is damaged, only a copy of it is left"
	case first != nil:
		return nil, first
	}
	if s.device.size > size {
		return nil, filesystem.Corrupt("it has %d bytes, and the partition only %d", s.device.size, size)
	}
	return s, nil
}

// parseSuperblock parses the superblockSize bytes of a superblock that was read from off.
func parseSuperblock(b []byte, off int64) (*superblock, error) {
	le := binary.LittleEndian
	kind := le.Uint16(b[0xc4:])
	if int(kind) >= len(checksums) {
		return nil, filesystem.Unsupported("checksums of type %d", kind)
	}
	s := &superblock{
		checksum:   checksums[kind],
		fsid:       uuid(b[0x20:]),
		blockUUID:  uuid(b[0x20:]),
		generation: le.Uint64(b[0x48:]),
		root:       pointer{logical: le.Uint64(b[0x50:]), generation: le.Uint64(b[0x48:]), level: b[0xc6]},
		chunkRoot:  pointer{logical: le.Uint64(b[0x58:]), generation: le.Uint64(b[0xa4:]), level: b[0xc7]},
		used:       le.Uint64(b[0x78:]),
		sectorSize: int64(le.Uint32(b[0x90:])),
		nodeSize:   int64(le.Uint32(b[0x94:])),
	}
	if !s.checksum.covers(b) {
		return nil, filesystem.Corrupt("the checksum of the superblock at %d is wrong", off)
	}
	label, _, _ := bytes.Cut(b[0x12b:0x12b+256], []byte{0})
	s.label = string(label)
	used := le.Uint32(b[0xa0:])
	room := b[0x32b : 0x32b+2048]
	switch {
	case le.Uint64(b[0x30:]) != uint64(off):
		return nil, filesystem.Corrupt("the superblock at %d says it is at %d", off, le.Uint64(b[0x30:]))
	case s.sectorSize < minSector || s.sectorSize > maxSector || bits.OnesCount64(uint64(s.sectorSize)) != 1:
		return nil, filesystem.Corrupt("sectors of %d bytes", s.sectorSize)
	case s.nodeSize < s.sectorSize || s.nodeSize > maxNode || bits.OnesCount64(uint64(s.nodeSize)) != 1:
		return nil, filesystem.Corrupt("nodes of %d bytes", s.nodeSize)
	case used > uint32(len(room)):
		return nil, filesystem.Corrupt("%d bytes of chunks in the superblock", used)
	case s.root.level > maxLevel || s.chunkRoot.level > maxLevel:
		return nil, filesystem.Corrupt("trees of %d and %d levels", s.root.level, s.chunkRoot.level)
	}
	s.chunks = bytes.Clone(room[:used])
	if err := s.parseDevice(b[0xc9 : 0xc9+98]); err != nil {
		return nil, err
	}
	s.readFeatures(b)
	return s, nil
}

// parseDevice parses the DEV_ITEM of the device itself.
func (s *superblock) parseDevice(b []byte) error {
	le := binary.LittleEndian
	size := le.Uint64(b[8:])
	s.device = device{id: le.Uint64(b), uuid: uuid(b[66:]), size: int64(size &^ uint64(s.sectorSize-1)), used: le.Uint64(b[16:])}
	if size > math.MaxInt64 || s.device.size < startRoom {
		return filesystem.Corrupt("a device of %d bytes", size)
	}
	return nil
}

// readFeatures notes what flags and features tell.
func (s *superblock) readFeatures(b []byte) {
	le := binary.LittleEndian
	flags, devices := le.Uint64(b[0x38:]), le.Uint64(b[0x88:])
	compat, ro, incompat := le.Uint64(b[0xac:]), le.Uint64(b[0xb4:]), le.Uint64(b[0xbc:])
	if incompat&incompatMetadataUUID != 0 {
		s.blockUUID = uuid(b[0x23b:])
	}
	s.freeSpaceTree = ro&roFreeSpaceTree != 0 && ro&roFreeSpaceTreeValid != 0
	s.blockGroupTree = ro&roBlockGroupTree != 0

	if log := le.Uint64(b[0x60:]); log != 0 {
		s.dirty = "was not unmounted: it has a log of files"
		s.untrusted = "it was not unmounted: it has a log of files"
	}
	if flags&flagError != 0 {
		s.dirty = "has noted an error"
		s.untrusted = "it has noted an error"
	}
	if unknown := flags &^ (flagWritten | flagError); unknown != 0 {
		s.untrusted = fmt.Sprintf("its superblock has flags that are not known (%#x)", unknown)
	}
	unknown := [3]uint64{compat, ro &^ roKnown, incompat &^ incompatKnown}
	if unknown != [3]uint64{} {
		s.untrusted = fmt.Sprintf("it has features that are not known (compat %#x, ro_compat %#x, incompat %#x)", unknown[0], unknown[1], unknown[2])
	}
	if incompat&incompatMixedBackref == 0 {
		s.untrusted = "its extent tree is of a form from before 2009"
	}
	if unknown := incompat &^ incompatReadable; unknown != 0 {
		s.unreadable = fmt.Sprintf("features %#x of btrfs", unknown)
	}
	if devices != 1 {
		s.untrusted = fmt.Sprintf("it is spread over %d devices", devices)
		s.unreadable = fmt.Sprintf("btrfs on %d devices", devices)
	}
}
