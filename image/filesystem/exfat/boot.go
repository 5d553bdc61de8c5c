package exfat

import (
	"bytes"
	"fmt"

	"varve/image/filesystem"
)

const sectorSize = 512 // the shortest sector

// boot is what the boot sector (section 3.1) says. Sizes and offsets are in bytes.
type boot struct {
	sector   int64
	cluster  int64
	clusters uint32 // numbered from 2 on
	size     int64
	table    int64 // where it begins
	data     int64 // where cluster 2 lies
	root     uint32
	serial   uint32
	flags    uint16
}

// Bits of the flags of the boot sector (section 3.1.13).
const (
	flagSecondTable = 1 << iota
	flagDirty
	flagMediaFailure
)

// The identifiers of BitLocker (libbde, "BitLocker Drive Encryption (BDE) format", volume header). A disk that is encrypted for use on
// other machines looks like one that is not to those that do not know it.
var bitLocker = [][]byte{
	{0x3B, 0xD6, 0x67, 0x49, 0x29, 0x2E, 0xD8, 0x4A, 0x83, 0x99, 0xF6, 0xA3, 0x39, 0xE3, 0xD0, 0x01},
	{0x3B, 0x4D, 0xA8, 0x92, 0x80, 0xDD, 0x0E, 0x4D, 0x9E, 0x4E, 0xB1, 0xE3, 0x28, 0x4E, 0xAE, 0xD8},
}

// parseBoot reads the boot sector of a filesystem that lies on size bytes.
func parseBoot(s []byte, size int64) (boot, error) {
	var b boot
	sectorShift, clusterShift, tables := s[108], s[109], s[110]
	switch {
	case string(s[:11]) != "\xEB\x76\x90EXFAT   " || s[510] != 0x55 || s[511] != 0xAA:
		return b, filesystem.ErrUnknown
	case len(bytes.Trim(s[11:64], "\x00")) > 0: // where a FAT has its values
		return b, filesystem.ErrUnknown
	case sectorShift < 9 || sectorShift > 12 || clusterShift > 25-sectorShift:
		return b, filesystem.Corrupt("its sectors are 2^%d bytes, and its clusters 2^%d sectors", sectorShift, clusterShift)
	}
	b.sector = 1 << sectorShift
	b.cluster = b.sector << clusterShift
	sectors := le.Uint64(s[72:])
	tableAt, tableLength, dataAt := uint64(le.Uint32(s[80:])), uint64(le.Uint32(s[84:])), uint64(le.Uint32(s[88:]))
	b.clusters = le.Uint32(s[92:])
	b.root = le.Uint32(s[96:])
	b.serial = le.Uint32(s[100:])
	version := le.Uint16(s[104:])
	b.flags = le.Uint16(s[106:])
	for _, id := range bitLocker {
		if bytes.Contains(s, id) {
			return b, filesystem.Unsupported("it is encrypted by BitLocker")
		}
	}
	switch {
	case version>>8 != 1:
		return b, filesystem.Unsupported("version %d.%d of exFAT", version>>8, version&0xFF)
	case tables == 2:
		return b, filesystem.Unsupported("an exFAT with two tables")
	case tables != 1 || b.flags&flagSecondTable != 0:
		return b, filesystem.Corrupt("it has %d tables, and its flags are %#x", tables, b.flags)
	case sectors > uint64(size)>>sectorShift:
		return b, filesystem.Corrupt("it has %d sectors of %d bytes, and there are %d bytes", sectors, b.sector, size)
	case b.clusters == 0 || b.clusters > 0xFFFFFFF5:
		return b, filesystem.Corrupt("it has %d clusters", b.clusters)
	case tableAt < 24 || tableLength<<sectorShift < (uint64(b.clusters)+2)*4:
		return b, filesystem.Corrupt("its table for %d clusters has %d sectors at sector %d", b.clusters, tableLength, tableAt)
	case dataAt < tableAt+tableLength || dataAt+uint64(b.clusters)<<clusterShift > sectors:
		return b, filesystem.Corrupt("its %d clusters at sector %d do not fit between its table and its end", b.clusters, dataAt)
	}
	b.size = int64(sectors) << sectorShift
	b.table = int64(tableAt) << sectorShift
	b.data = int64(dataAt) << sectorShift
	return b, nil
}

// sound says whether the checksum of the boot region, of 12 sectors, is right (section 3.4).
func sound(region []byte) bool {
	sector := len(region) / 12
	sum := bootChecksum(region[:11*sector])
	for at := 11 * sector; at < len(region); at += 4 {
		if le.Uint32(region[at:]) != sum {
			return false
		}
	}
	return true
}

// bootChecksum leaves out the flags and how full it is, which change often.
func bootChecksum(sectors []byte) (sum uint32) {
	for i, b := range sectors {
		if i != 106 && i != 107 && i != 112 {
			sum = sum>>1 | sum<<31
			sum += uint32(b)
		}
	}
	return sum
}

// dirty says why it is not at rest.
func (b *boot) dirty() string {
	switch {
	case b.flags&flagDirty != 0:
		return "was not unmounted"
	case b.flags&flagMediaFailure != 0:
		return "has met errors of its disk and was not checked since"
	}
	return ""
}

// uuid is its serial number as blkid writes it.
func (b *boot) uuid() string { return fmt.Sprintf("%04X-%04X", b.serial>>16, b.serial&0xFFFF) }

// has says whether there is a cluster of this number.
func (b *boot) has(c uint32) bool { return c >= 2 && c-2 < b.clusters }

// at is where a cluster lies.
func (b *boot) at(c uint32) int64 { return b.data + int64(c-2)*b.cluster }
