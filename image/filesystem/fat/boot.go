package fat

import (
	"bytes"
	"fmt"
	"strings"

	"varve/image/filesystem"
)

const sectorSize = 512 // bytes that are read of a boot sector, however long sectors are

// boot is what the boot sector says. Sizes and offsets are in bytes.
type boot struct {
	bits     int // of an entry of the table, as it is stored: 12, 16, 32
	sector   int64
	cluster  int64
	clusters uint32 // numbered from 2 on
	size     int64
	media    byte
	state    byte

	reserved   int64 // sectors
	infoSector int64

	tables    int64 // where they begin
	tableSize int64
	copies    int // of the table, all told
	active    int
	mirrored  bool // all tables are the same

	rootOffset  int64 // of FAT12 and FAT16
	rootSize    int64
	rootCluster uint32 // of FAT32
	data        int64  // where cluster 2 lies

	named    bool // it calls itself a FAT
	misnamed bool // and of another type than its clusters are
	serial   uint32
	label    string
}

// The identifiers of BitLocker (libbde, "BitLocker Drive Encryption (BDE) format", volume header). A disk that is encrypted for use on
// other machines looks like a FAT to those that do not know it.
var bitLocker = [][]byte{
	{0x3B, 0xD6, 0x67, 0x49, 0x29, 0x2E, 0xD8, 0x4A, 0x83, 0x99, 0xF6, 0xA3, 0x39, 0xE3, 0xD0, 0x01},
	{0x3B, 0x4D, 0xA8, 0x92, 0x80, 0xDD, 0x0E, 0x4D, 0x9E, 0x4E, 0xB1, 0xE3, 0x28, 0x4E, 0xAE, 0xD8},
}

// others are the names by which filesystems that begin like a FAT call themselves.
var others = []string{"NTFS    ", "EXFAT   ", "-FVE-FS-", "ReFS\x00\x00\x00\x00"}

// parseBoot reads a boot sector. Many things are no FAT and begin with 55 AA at 510, or even with a jump: each
// field has to have one of the values that it can have.
func parseBoot(s []byte) (boot, error) {
	var b boot
	if s[510] != 0x55 || s[511] != 0xAA || !(s[0] == 0xEB && s[2] == 0x90 || s[0] == 0xE9) {
		return b, filesystem.ErrUnknown
	}
	for _, name := range others {
		if string(s[3:11]) == name {
			return b, filesystem.ErrUnknown
		}
	}
	b.sector = int64(le.Uint16(s[11:]))
	perCluster := int64(s[13])
	b.reserved = int64(le.Uint16(s[14:]))
	b.copies = int(s[16])
	rootEntries := int64(le.Uint16(s[17:]))
	sectors := int64(le.Uint16(s[19:]))
	if sectors == 0 {
		sectors = int64(le.Uint32(s[32:]))
	}
	b.media = s[21]
	perTable := int64(le.Uint16(s[22:]))
	wide := perTable == 0
	if wide {
		perTable = int64(le.Uint32(s[36:]))
	}
	switch {
	case b.sector < 512 || b.sector > 4096 || b.sector&(b.sector-1) != 0:
	case perCluster == 0 || perCluster&(perCluster-1) != 0:
	case b.reserved == 0 || b.copies == 0 || b.copies > 4 || perTable == 0:
	case b.media != 0xF0 && b.media < 0xF8:
	case wide != (rootEntries == 0):
	default:
		return b, b.lay(s, wide, sectors, perCluster, perTable, rootEntries)
	}
	return b, filesystem.ErrUnknown
}

// lay finds out what lies where. From here on it is a FAT, perhaps a damaged one.
func (b *boot) lay(s []byte, wide bool, sectors, perCluster, perTable, rootEntries int64) error {
	for _, id := range bitLocker {
		if bytes.Contains(s, id) {
			return filesystem.Unsupported("it is encrypted by BitLocker")
		}
	}
	b.size = sectors * b.sector
	b.cluster = perCluster * b.sector
	b.tables = b.reserved * b.sector
	b.tableSize = perTable * b.sector
	b.rootOffset = b.tables + int64(b.copies)*b.tableSize
	b.rootSize = rootEntries * entrySize
	b.data = b.rootOffset + (b.rootSize+b.sector-1)/b.sector*b.sector
	if b.data >= b.size {
		return filesystem.ErrUnknown // too short for its own tables
	}
	clusters := (b.size - b.data) / b.cluster
	b.mirrored = true
	extended := s[36:62]
	switch {
	case wide:
		b.bits = 32
		extended = s[64:90]
		flags := le.Uint16(s[40:])
		if flags&0x80 != 0 {
			b.mirrored, b.active = false, int(flags&0xF)
		}
		b.rootCluster = le.Uint32(s[44:])
		b.infoSector = int64(le.Uint16(s[48:]))
		if version := le.Uint16(s[42:]); version != 0 {
			return filesystem.Unsupported("version %#x of FAT32", version)
		}
	case clusters < 4085:
		b.bits = 12
	default:
		b.bits = 16
	}
	if most := map[int]int64{12: 4084, 16: 65524, 32: 0x0FFFFFF5}[b.bits]; clusters == 0 || clusters > most {
		return filesystem.ErrUnknown
	}
	b.clusters = uint32(clusters)
	switch {
	case tableBytes(b.clusters, b.bits) > b.tableSize:
		return filesystem.Corrupt("its table of %d bytes is too small for %d clusters", b.tableSize, clusters)
	case b.active >= b.copies:
		return filesystem.Corrupt("table %d is the active one of %d", b.active, b.copies)
	}
	b.state = extended[1]
	if extended[2] == 0x28 || extended[2] == 0x29 {
		b.serial = le.Uint32(extended[3:])
	}
	if extended[2] == 0x29 {
		name := string(extended[18:26])
		b.named = strings.HasPrefix(name, "FAT")
		b.misnamed = b.named && name != "FAT     " && !strings.EqualFold(strings.TrimSpace(name), b.typeName())
		if label := text437(extended[7:18]); label != "NO NAME" {
			b.label = label
		}
	}
	return nil
}

// typeName is its type as filesystem.Info has it.
func (b *boot) typeName() string { return fmt.Sprintf("fat%d", b.bits) }

// uuid is its serial number as blkid writes it.
func (b *boot) uuid() string {
	if b.serial == 0 {
		return ""
	}
	return fmt.Sprintf("%04X-%04X", b.serial>>16, b.serial&0xFFFF)
}

// has says whether there is a cluster of this number.
func (b *boot) has(c uint32) bool { return c >= 2 && c-2 < b.clusters }

// at is where a cluster lies.
func (b *boot) at(c uint32) int64 { return b.data + int64(c-2)*b.cluster }
