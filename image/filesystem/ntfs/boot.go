package ntfs

import (
	"math"
	"math/bits"

	"varve/image/filesystem"
)

const (
	bootSize   = 512     // bytes of the boot sector that are of use
	maxSector  = 4096    // bytes
	maxCluster = 2 << 20 // bytes
	maxRecord  = 4096    // bytes, of a record of $MFT
	maxBlock   = 1 << 16 // bytes, of an index block
	stride     = 512     // bytes for each fixup, whatever the sector has
)

// boot is the boot sector.
type boot struct {
	sector   int64 // bytes
	cluster  int64 // bytes
	sectors  int64 // of the filesystem, without the copy of the boot sector
	clusters int64
	record   int64 // bytes of a record of $MFT
	mft      int64 // first cluster of $MFT
	serial   uint64
}

// parseBoot parses a boot sector. The error is filesystem.ErrUnknown when it is not NTFS's.
func parseBoot(b []byte) (boot, error) {
	if string(b[3:11]) != "NTFS    " {
		return boot{}, filesystem.ErrUnknown
	}
	s := boot{
		sector:  int64(le.Uint16(b[11:])),
		sectors: int64(le.Uint64(b[40:])),
		mft:     int64(le.Uint64(b[48:])),
		serial:  le.Uint64(b[72:]),
	}
	if s.sector < 512 || s.sector > maxSector || s.sector&(s.sector-1) != 0 {
		return boot{}, filesystem.Corrupt("its sectors have %d bytes", s.sector)
	}
	switch n := b[13]; {
	case n > 0x80: // the logarithm, negative
		s.cluster = s.sector << min(256-int(n), 31)
	default:
		s.cluster = s.sector * int64(n)
	}
	if !powerOfTwo(s.cluster, s.sector, maxCluster) {
		return boot{}, filesystem.Corrupt("its clusters have %d sectors in the code of %#x", s.cluster/s.sector, b[13])
	}
	if s.sectors <= 0 || s.sectors > math.MaxInt64/s.sector-1 {
		return boot{}, filesystem.Corrupt("it has %d sectors", s.sectors)
	}
	s.clusters = s.sectors / (s.cluster / s.sector)
	switch n := int8(b[64]); {
	case n > 0:
		s.record = int64(n) * s.cluster
	default:
		s.record = 1 << min(-int(n), 31)
	}
	if !powerOfTwo(s.record, stride, maxRecord) {
		return boot{}, filesystem.Corrupt("the records of $MFT have the size %#x", b[64])
	}
	if s.mft <= 0 || s.mft >= s.clusters {
		return boot{}, filesystem.Corrupt("$MFT begins in cluster %d of %d", s.mft, s.clusters)
	}
	return s, nil
}

// powerOfTwo tells whether n is one, from low to high.
func powerOfTwo(n, low, high int64) bool {
	return n >= low && n <= high && bits.OnesCount64(uint64(n)) == 1
}

// fixUp checks that b is a record with the given magic that was written as a whole, and puts back what its fixups replaced.
func fixUp(b []byte, magic string) error {
	if string(b[:4]) != magic {
		return filesystem.Corrupt("there is %q, not %q", b[:4], magic)
	}
	at, count := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	if count != 1+len(b)/stride || at < 8 || at%2 != 0 || at+2*count > stride-2 {
		return filesystem.Corrupt("%d fixups at %d", count, at)
	}
	mark := le.Uint16(b[at:])
	for i := 1; i < count; i++ {
		end := b[i*stride-2:]
		if le.Uint16(end) != mark {
			return filesystem.Corrupt("a write was cut short: its part %d is of another time", i)
		}
		copy(end[:2], b[at+2*i:])
	}
	return nil
}
