package partition

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Numbers of partitions as Linux gives them.
const (
	firstLogical = 5
	lastLogical  = 255 // a disk has no more in Linux
)

// maxLinks is how many EBRs in a row are followed, also empty ones.
const maxLinks = 1024

const (
	flagActive     = 0x80
	typeProtective = 0xee
)

// entry is one of the four entries of an MBR or EBR.
type entry struct {
	flag, kind     byte
	start, sectors uint64 // LBA, relative in an EBR
}

func (e entry) empty() bool { return e.sectors == 0 }

func (e entry) extended() bool { return e.kind == 0x05 || e.kind == 0x0f || e.kind == 0x85 }

func (e entry) partition(number int, signature uint32) Partition {
	p := Partition{
		Number:   number,
		Extended: e.extended(),
		Type:     fmt.Sprintf("0x%02x", e.kind),
		TypeName: mbrTypes[e.kind],
	}
	if signature != 0 {
		p.ID = fmt.Sprintf("%08x-%02x", signature, number)
	}
	if e.flag == flagActive {
		p.Attributes = []string{"active"}
	}
	return p
}

// boot is the first sector of a disk, or an EBR.
type boot struct {
	signed    bool // it ends in 55 AA
	signature uint32
	entries   [4]entry
	volume    bool // it looks like the first sector of a filesystem of DOS or Windows, which also ends in 55 AA
}

func parseBoot(sector []byte) boot {
	b := boot{
		signed:    sector[510] == 0x55 && sector[511] == 0xaa,
		signature: binary.LittleEndian.Uint32(sector[440:]),
		volume:    bootsVolume(sector),
	}
	for i := range b.entries {
		e := sector[446+16*i:]
		b.entries[i] = entry{
			flag:    e[0],
			kind:    e[4],
			start:   uint64(binary.LittleEndian.Uint32(e[8:])),
			sectors: uint64(binary.LittleEndian.Uint32(e[12:])),
		}
	}
	return b
}

// bootsVolume reports whether a sector begins as that of FAT, exFAT, NTFS, ReFS or BitLocker does. That an MBR has the jump and even
// the fields of FAT is possible: boot loaders leave room for them, and a disk may have been one FAT filesystem before.
func bootsVolume(sector []byte) bool {
	for _, maker := range []string{"NTFS    ", "EXFAT   ", "ReFS\x00\x00\x00\x00", "-FVE-FS-"} {
		if bytes.Equal(sector[3:11], []byte(maker)) {
			return true
		}
	}
	le := binary.LittleEndian
	perSector, perCluster, media := le.Uint16(sector[11:]), sector[13], sector[21]
	return (sector[0] == 0xeb && sector[2] == 0x90 || sector[0] == 0xe9) &&
		perSector >= 512 && perSector <= 4096 && perSector&(perSector-1) == 0 &&
		perCluster != 0 && perCluster&(perCluster-1) == 0 &&
		le.Uint16(sector[14:]) != 0 && // reserved sectors
		sector[16] >= 1 && sector[16] <= 4 && // FATs
		(media == 0xf0 || media >= 0xf8) &&
		(le.Uint16(sector[19:]) != 0 || le.Uint32(sector[32:]) != 0) // sectors in all
}

// protective reports whether the disk has a GPT, as Linux decides it.
func (b boot) protective() bool {
	for _, e := range b.entries {
		if b.signed && e.kind == typeProtective && e.start == 1 {
			return true
		}
	}
	return false
}

// plausible reports whether b is an MBR, and not the first sector of a filesystem, when a sector of the disk is one of d.
func (b boot) plausible(d disk) bool {
	if !b.signed {
		return false
	}
	total := d.sectors()
	begins := false // a partition, on the disk
	for i, e := range b.entries {
		if e.flag != 0 && e.flag != flagActive || e.kind == typeProtective {
			return false
		}
		if e.empty() {
			continue
		}
		begins = begins || e.start < total
		if !b.volume {
			continue
		}
		// A disk can be both only where somebody has made an orderly table.
		if e.kind == 0 || e.start == 0 || e.start >= total || e.sectors > total-e.start {
			return false
		}
		for _, other := range b.entries[:i] {
			if !other.empty() && e.start < other.start+other.sectors && other.start < e.start+e.sectors {
				return false
			}
		}
	}
	return begins
}

// hasLogical reports whether there is an extended partition in which a list of logical ones begins.
func (d disk) hasLogical(b boot) bool {
	for _, e := range b.entries {
		if e.empty() || !e.extended() {
			continue
		}
		if sector, err := d.read(e.start, 512); err == nil && parseBoot(sector).signed {
			return true
		}
	}
	return false
}

// readMBR reads the partitions of a plausible MBR.
func (d disk) readMBR(b boot) *Table {
	t := &Table{Scheme: MBR, SectorSize: int(d.sector)}
	if b.signature != 0 {
		t.ID = fmt.Sprintf("%08x", b.signature)
	}
	t.structure(d, 0, d.sector)
	if b.volume {
		t.doubt("its first sector is also that of a filesystem", "the first sector is that of a partition table and of a filesystem")
	}
	for i, e := range b.entries {
		if !e.empty() {
			t.add(d, e.partition(i+1, b.signature), e.start, e.sectors)
		}
	}
	next := firstLogical
	for _, e := range b.entries {
		if !e.empty() && e.extended() {
			next = t.logical(d, b.signature, e, next)
		}
	}
	return t.finish()
}

// logical adds the logical partitions of an extended one, beginning with number next, and returns the number after them.
// It does as Linux does, which also takes a third and fourth entry where they are within their bounds.
func (t *Table) logical(d disk, signature uint32, extended entry, next int) int {
	stop := func(format string, a ...any) int {
		t.note("the list of logical partitions ends early: "+format, a...)
		return next
	}
	here := entry{start: extended.start, sectors: extended.sectors}
	seen := map[uint64]bool{}
	for {
		switch {
		case seen[here.start]:
			return stop("it goes round in circles")
		case len(seen) == maxLinks:
			return stop("it has more than %d links", maxLinks)
		case here.start >= d.sectors():
			return stop("sector %d is behind the end of the disk", here.start)
		}
		seen[here.start] = true
		sector, err := d.read(here.start, 512)
		if err != nil {
			return stop("reading sector %d: %v", here.start, err)
		}
		ebr := parseBoot(sector)
		if !ebr.signed {
			return stop("there is none in sector %d", here.start)
		}
		t.structure(d, here.start, d.sector)
		link, linked := entry{}, false
		for i, e := range ebr.entries {
			switch {
			case e.empty():
				continue
			case e.extended():
				if !linked {
					link, linked = e, true
				}
				continue
			}
			first := here.start + e.start
			if i >= 2 && (e.start+e.sectors > here.sectors || first < extended.start || first+e.sectors > extended.start+extended.sectors) {
				continue // garbage is usual there
			}
			if next > lastLogical {
				return stop("there are more than %d partitions", lastLogical)
			}
			if first+e.sectors > extended.start+extended.sectors {
				t.note("partition %d reaches behind the end of its extended partition", next)
			}
			t.add(d, e.partition(next, signature), first, e.sectors)
			next++
		}
		if !linked {
			return next
		}
		here = entry{start: extended.start + link.start, sectors: link.sectors}
	}
}
