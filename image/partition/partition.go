// Package partition reads partition tables: GPT (UEFI specification, chapter 5) and MBR with logical partitions, as Linux
// numbers and names them. It only looks at the disk, never writes, and believes nothing: every place that a table names is
// checked against the disk, every list is bounded, and chains that go round in circles end.
//
// An MBR is the first sector. LBA counts sectors from the start of the disk:
//
//	440  4      disk signature
//	446  4*16   partitions: flag (0x80 bootable), CHS, type, CHS, 4 first LBA, 4 sectors
//	510  2      55 AA
//
// One partition may be extended (0x05, 0x0f, 0x85). It begins with a sector like an MBR, the EBR: its first entry is a logical
// partition, counted from the EBR itself, its second one links to the next EBR, counted from the start of the extended one:
//
//	├MBR┤ ├── sda1 ──┤ ├──────────────────── sda2, extended ───────────────────┤
//	                   ├EBR┤ ├── sda5 ──┤ ├EBR┤ ├─── sda6 ───┤ ├EBR┤ ├── sda7 ─┤
//
// A GPT is kept twice. Its MBR has an entry of type 0xee, so that programs which know no GPT keep off:
//
//	LBA  ├─0─┼───1────┼─2──┬─────┼─── partitions ───┼─────┬────┼─ last ─┤
//	     │MBR│ header │ entries  │                  │ entries  │ header │
//
//	header    0 "EFI PART"   12 bytes of it   16 CRC-32 of it    24 own LBA    32 LBA of the other header
//	         40 first, 48 last LBA for partitions   56 disk GUID   72 LBA of the entries   80 how many   84 bytes of one
//	         88 CRC-32 of all entries
//	entry     0 type GUID   16 its own GUID   32 first, 40 last LBA   48 attributes   56 name in UTF-16, 72 bytes
package partition

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Schemes of tables.
const (
	GPT = "gpt"
	MBR = "mbr"
)

// Range is a run of bytes of the disk.
type Range struct{ Offset, Length int64 }

// End is the offset after the last byte.
func (r Range) End() int64 { return r.Offset + r.Length }

// Table is what a disk says of its partitions.
type Table struct {
	Scheme     string // GPT, MBR, or "": the disk has no table, and may be one filesystem as a whole
	SectorSize int    // bytes, by which the table counts; without a table what Read was given
	ID         string // GUID of the disk, or the signature of an MBR in 8 digits, as blkid writes its PTUUID; "" where it is zero

	Partitions []Partition // by number
	Structures []Range     // the bytes of the tables: MBR, both GPTs, every EBR; in order, adjacent ones as one

	// Doubt says why the table must not be relied on for more than showing it, completing "because …": the disk was made smaller,
	// or this is one of several disks of an array, or only the backup of the table is left. "" when there is no doubt.
	Doubt string
	Notes []string // what is not as it should be, for people
}

// Partition is a part of the disk. All of its bytes are within the disk, also where the table says otherwise.
type Partition struct {
	Number   int   // as Linux counts: sda1 is 1; logical ones begin at 5
	Start    int64 // bytes from the start of the disk
	Length   int64 // bytes
	Extended bool  // it only holds logical partitions, which are in the list, too

	Type       string   // GUID, or "0x83"
	TypeName   string   // of Type, for people; "" when unknown
	ID         string   // its PARTUUID, as Linux and blkid write it; "" when the table has none
	Name       string   // its name in a GPT
	Attributes []string // for people: bootable, active, required, hidden, read-only, …

	// Doubt says why its bytes may be another's too, completing "because …": it overlaps another partition or the table. "" when
	// they are its own.
	Doubt string
}

// End is the offset after the last byte.
func (p Partition) End() int64 { return p.Start + p.Length }

// Read reads the table of a disk of size bytes. Where sectorSize, the bytes of a logical sector, is 0, it tries 512 and then
// 4096. A disk without a table is no error, and neither is one of which the table is damaged: that one has no partitions and
// a note. An error says that the first sector cannot be read, or that the arguments are wrong.
func Read(r io.ReaderAt, size int64, sectorSize int) (*Table, error) {
	sizes := []int64{512, 4096}
	switch {
	case size < 0:
		return nil, fmt.Errorf("reading a partition table: %d is no size of a disk", size)
	case sectorSize == 0:
	case sectorSize < 512 || sectorSize > 4096 || sectorSize&(sectorSize-1) != 0:
		return nil, fmt.Errorf("reading a partition table: %d is no size of a sector", sectorSize)
	default:
		sizes = []int64{int64(sectorSize)}
	}
	if size < sizes[0] {
		return &Table{SectorSize: sectorSize}, nil
	}
	first := make([]byte, 512)
	if err := readFull(r, first, 0); err != nil {
		return nil, fmt.Errorf("reading the first sector: %w", err)
	}
	boot := parseBoot(first)
	if boot.protective() {
		return readGPT(r, size, sizes, boot), nil
	}
	var likely []disk
	for _, sector := range sizes {
		if d := (disk{r, size, sector}); boot.plausible(d) {
			likely = append(likely, d)
		}
	}
	if len(likely) > 1 && !likely[0].hasLogical(boot) && likely[1].hasLogical(boot) {
		likely = likely[1:]
	}
	if len(likely) > 0 {
		t := likely[0].readMBR(boot)
		if likely[0].hasGPT() {
			t.note("there is also a GPT, which the MBR does not name: it was not read")
		}
		return t, nil
	}
	t := &Table{SectorSize: sectorSize}
	for _, sector := range sizes {
		if (disk{r, size, sector}).hasGPT() {
			t.note("there is a GPT, but no MBR that names it: it was not read, as Linux does not")
		}
	}
	return t, nil
}

// disk is what is read.
type disk struct {
	io.ReaderAt
	size   int64
	sector int64 // bytes
}

// sectors is how many whole sectors the disk has.
func (d disk) sectors() uint64 { return uint64(d.size / d.sector) }

// read returns n bytes from sector lba on. They must be within the disk.
func (d disk) read(lba uint64, n int64) ([]byte, error) {
	if lba >= d.sectors() || n > d.size-int64(lba)*d.sector {
		return nil, errors.New("it lies behind the end of the disk")
	}
	p := make([]byte, n)
	return p, readFull(d, p, int64(lba)*d.sector)
}

// readFull fills p. The end of the disk is an error, too: who calls has looked where it is.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

// maxNotes bounds what a disk full of nonsense has to say.
const maxNotes = 50

func (t *Table) note(format string, a ...any) {
	switch {
	case len(t.Notes) < maxNotes:
		t.Notes = append(t.Notes, fmt.Sprintf(format, a...))
	case len(t.Notes) == maxNotes:
		t.Notes = append(t.Notes, "and more")
	}
}

// doubt notes something that makes the whole table doubtful.
func (t *Table) doubt(reason, format string, a ...any) {
	t.note(format, a...)
	if t.Doubt == "" {
		t.Doubt = reason
	}
}

// tooSmall is the doubt about a table that was made for a larger disk.
const tooSmall = "the disk is smaller than its partition table says"

// add adds a partition of the sectors from first on. It is cut at the end of the disk; what lies behind it is left out.
func (t *Table) add(d disk, p Partition, first, sectors uint64) {
	total := d.sectors()
	if first >= total {
		t.doubt(tooSmall, "partition %d lies behind the end of the disk", p.Number)
		return
	}
	if sectors > total-first {
		t.doubt(tooSmall, "partition %d reaches behind the end of the disk", p.Number)
		sectors = total - first
	}
	p.Start, p.Length = int64(first)*d.sector, int64(sectors)*d.sector
	t.Partitions = append(t.Partitions, p)
}

// structure adds the bytes of length from sector lba on to the structures, as far as they are on the disk.
func (t *Table) structure(d disk, lba uint64, length int64) {
	if lba >= d.sectors() {
		return
	}
	off := int64(lba) * d.sector
	length = (length + d.sector - 1) / d.sector * d.sector
	t.Structures = append(t.Structures, Range{off, min(length, d.size-off)})
}

// finish brings all lists into order and finds what overlaps.
func (t *Table) finish() *Table {
	slices.SortFunc(t.Structures, func(a, b Range) int { return cmp.Compare(a.Offset, b.Offset) })
	merged := t.Structures[:0]
	for _, r := range t.Structures {
		if last := len(merged) - 1; last >= 0 && r.Offset <= merged[last].End() {
			merged[last].Length = max(merged[last].End(), r.End()) - merged[last].Offset
			continue
		}
		merged = append(merged, r)
	}
	t.Structures = merged

	slices.SortStableFunc(t.Partitions, func(a, b Partition) int { return a.Number - b.Number })
	t.overlaps(func(p *Partition) bool { return !p.Extended })                     // logical ones lie in their extended one
	t.overlaps(func(p *Partition) bool { return p.Number < 5 || t.Scheme == GPT }) // and it beside the primary ones
	for i := range t.Partitions {
		p := &t.Partitions[i]
		for _, s := range t.Structures {
			if !p.Extended && p.Doubt == "" && p.Start < s.End() && s.Offset < p.End() {
				p.Doubt = "it overlaps the partition table"
				t.note("partition %d overlaps the partition table", p.Number)
			}
		}
	}
	return t
}

// overlaps finds overlaps among the partitions for which which is true.
func (t *Table) overlaps(which func(*Partition) bool) {
	var list []*Partition
	for i := range t.Partitions {
		if p := &t.Partitions[i]; which(p) {
			list = append(list, p)
		}
	}
	slices.SortStableFunc(list, func(a, b *Partition) int { return cmp.Compare(a.Start, b.Start) })
	var far *Partition // of those before, the one that reaches farthest
	for _, p := range list {
		if far != nil && p.Start < far.End() && (p.Doubt == "" || far.Doubt == "") {
			a, b := far, p
			if a.Number > b.Number {
				a, b = b, a
			}
			t.note("partitions %d and %d overlap", a.Number, b.Number)
			for _, pair := range [][2]*Partition{{a, b}, {b, a}} {
				if pair[0].Doubt == "" {
					pair[0].Doubt = fmt.Sprintf("it overlaps partition %d", pair[1].Number)
				}
			}
		}
		if far == nil || p.End() > far.End() {
			far = p
		}
	}
}
