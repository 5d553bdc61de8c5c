package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"pgregory.net/rapid"
)

var le = binary.LittleEndian

// part is a partition of a GPT to be made.
type part struct {
	kind, id    string
	first, last uint64
	bits        uint64
	name        string
}

const linux = "0fc63daf-8483-4772-8e79-3d69d8477de4"

// layout is a GPT to be made.
type layout struct {
	sector  int
	sectors uint64
	count   int // of entries
	entry   int // bytes of one
	parts   map[int]part
}

func small() layout {
	return layout{sector: 512, sectors: 64, count: 8, entry: 128, parts: map[int]part{
		0: {linux, "11111111-2222-3333-4444-555555555555", 8, 15, 0, "first"},
		2: {microsoftData, "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", 16, 50, 1<<63 | 1, "Große 💾 Daten"},
	}}
}

func rawGUID(s string) []byte {
	var a uint32
	var b, c uint16
	var d, e []byte
	if _, err := fmt.Sscanf(s, "%08x-%04x-%04x-%04x-%12x", &a, &b, &c, &d, &e); err != nil {
		panic(err)
	}
	raw := le.AppendUint16(le.AppendUint16(le.AppendUint32(nil, a), b), c)
	return append(append(raw, d...), e...)
}

// make makes the disk.
func (l layout) make() []byte {
	disk := make([]byte, l.sectors*uint64(l.sector))
	setEntry(disk, 0, 0, typeProtective, 1, uint32(l.sectors-1))
	sign(disk)
	array := make([]byte, l.count*l.entry)
	for i, p := range l.parts {
		e := array[i*l.entry:]
		copy(e, rawGUID(p.kind))
		copy(e[16:], rawGUID(p.id))
		le.PutUint64(e[32:], p.first)
		le.PutUint64(e[40:], p.last)
		le.PutUint64(e[48:], p.bits)
		for j, u := range utf16.Encode([]rune(p.name)) {
			le.PutUint16(e[56+2*j:], u)
		}
	}
	n := uint64((len(array) + l.sector - 1) / l.sector)
	head := func(own, other, at uint64) {
		h := disk[own*uint64(l.sector):]
		copy(h, gptSignature)
		le.PutUint32(h[8:], 0x10000)
		le.PutUint32(h[12:], headerLength)
		le.PutUint64(h[24:], own)
		le.PutUint64(h[32:], other)
		le.PutUint64(h[40:], 2+n)
		le.PutUint64(h[48:], l.sectors-2-n)
		copy(h[56:], rawGUID("01234567-89ab-cdef-0123-456789abcdef"))
		le.PutUint64(h[72:], at)
		le.PutUint32(h[80:], uint32(l.count))
		le.PutUint32(h[84:], uint32(l.entry))
		le.PutUint32(h[88:], crc32.ChecksumIEEE(array))
		resum(h)
		copy(disk[at*uint64(l.sector):], array)
	}
	head(1, l.sectors-1, 2)
	head(l.sectors-1, 1, l.sectors-1-n)
	return disk
}

// resum makes the checksum of a header right.
func resum(h []byte) {
	clear(h[16:20])
	le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerLength]))
}

func sign(sector []byte) { sector[510], sector[511] = 0x55, 0xaa }

func setEntry(sector []byte, slot int, flag, kind byte, start, sectors uint32) {
	e := sector[446+16*slot:]
	e[0], e[4] = flag, kind
	le.PutUint32(e[8:], start)
	le.PutUint32(e[12:], sectors)
}

func read(t *testing.T, disk []byte, sector int) *Table {
	t.Helper()
	table, err := Read(bytes.NewReader(disk), int64(len(disk)), sector)
	if err != nil {
		t.Fatal(err)
	}
	sane(t, table, int64(len(disk)))
	return table
}

// sane is what holds for every table of every disk.
func sane(t *testing.T, table *Table, size int64) {
	t.Helper()
	number := 0
	for _, p := range table.Partitions {
		if p.Start < 0 || p.Length <= 0 || p.Start > size-p.Length {
			t.Fatalf("%+v is not within %d bytes", p, size)
		}
		if p.Number <= number {
			t.Fatalf("partition %d comes after %d", p.Number, number)
		}
		number = p.Number
	}
	end := int64(-1)
	for _, r := range table.Structures {
		if r.Offset <= end || r.Length <= 0 || r.Offset > size-r.Length {
			t.Fatalf("structures %+v in %d bytes", table.Structures, size)
		}
		end = r.End()
	}
	if len(table.Notes) > maxNotes+1 {
		t.Fatalf("%d notes", len(table.Notes))
	}
	if table.Scheme == "" && (table.Partitions != nil || table.Structures != nil || table.ID != "") {
		t.Fatalf("there is no table, but %+v", table)
	}
	for i, p := range table.Partitions {
		for _, q := range table.Partitions[:i] {
			nested := p.Extended != q.Extended && (p.Number >= firstLogical || q.Number >= firstLogical)
			if p.Start < q.End() && q.Start < p.End() && !nested && (p.Doubt == "" || q.Doubt == "") {
				t.Fatalf("%+v and %+v overlap and nobody says so", p, q)
			}
		}
	}
}

// same fails the test when the partitions are not those that are wanted.
func same(t *testing.T, got, want []Partition) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("partitions\n%+v\ninstead of\n%+v", got, want)
	}
}

// noted fails the test when no note has text in it, or there is one and text is "".
func noted(t *testing.T, table *Table, text string) {
	t.Helper()
	if text == "" && len(table.Notes) == 0 {
		return
	}
	if text == "" || !slices.ContainsFunc(table.Notes, func(n string) bool { return strings.Contains(n, text) }) {
		t.Fatalf("notes %q, expected %q", table.Notes, text)
	}
}

func TestGPT(t *testing.T) {
	want := []Partition{
		{
			Number: 1, Start: 8 * 512, Length: 8 * 512, Type: linux, TypeName: "Linux filesystem",
			ID: "11111111-2222-3333-4444-555555555555", Name: "first",
		}, {
			Number: 3, Start: 16 * 512, Length: 35 * 512, Type: microsoftData, TypeName: "Microsoft basic data",
			ID: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", Name: "Große 💾 Daten", Attributes: []string{"required", "no automount"},
		},
	}
	for _, sector := range []int{0, 512} {
		table := read(t, small().make(), sector)
		noted(t, table, "")
		same(t, table.Partitions, want)
		if table.Scheme != GPT || table.SectorSize != 512 || table.ID != "01234567-89ab-cdef-0123-456789abcdef" || table.Doubt != "" {
			t.Errorf("%+v", table)
		}
		if !slices.Equal(table.Structures, []Range{{0, 4 * 512}, {61 * 512, 3 * 512}}) {
			t.Errorf("structures %v", table.Structures)
		}
	}
	if table := read(t, small().make(), 4096); table.Scheme != GPT || table.Partitions != nil || table.Doubt == "" {
		t.Errorf("with sectors of another size: %+v", table)
	}

	for _, sector := range []int{0, 4096} { // the same with larger sectors, and larger entries
		for _, entry := range []int{128, 256, 512} {
			l := small()
			l.sector, l.entry = 4096, entry
			table := read(t, l.make(), sector)
			noted(t, table, "")
			if len(table.Partitions) != 2 || table.Partitions[1].Start != 16*4096 || table.Partitions[1].Name != want[1].Name {
				t.Errorf("%+v", table)
			}
		}
	}
}

// TestDamagedLargeSectors: what is said of a GPT that is lost is said of the one that was there.
func TestDamagedLargeSectors(t *testing.T) {
	l := small()
	l.sector = 4096
	disk := l.make()
	disk[4096+60] ^= 1
	disk[63*4096+60] ^= 1
	table := read(t, disk, 0)
	noted(t, table, "the checksum of its header is wrong")
	if table.SectorSize != 4096 || table.Scheme != GPT || !slices.Equal(table.Structures, []Range{{0, 4096}}) {
		t.Errorf("%+v", table)
	}
}

// TestFlippedBit: whatever bit of the primary GPT is wrong, its backup tells the same partitions; and the other way round.
func TestFlippedBit(t *testing.T) {
	disk := small().make()
	want := read(t, disk, 0)
	for _, area := range []struct {
		from, to int
		note     string
	}{
		{512, 512 + headerLength, "the primary GPT is damaged"},
		{512 + headerLength, 1024, ""},
		{1024, 2048, "the primary GPT is damaged (the checksum of its entries is wrong)"},
		{61 * 512, 63 * 512, "the backup GPT is damaged: the checksum of its entries is wrong"},
		{63 * 512, 63*512 + headerLength, "the backup GPT is damaged"},
	} {
		for bit := area.from * 8; bit < area.to*8; bit++ {
			disk[bit/8] ^= 1 << (bit % 8)
			table := read(t, disk, 0)
			if area.note != "" || len(table.Notes) > 0 {
				noted(t, table, area.note)
			}
			same(t, table.Partitions, want.Partitions)
			if table.ID != want.ID || !slices.Equal(table.Structures, want.Structures) {
				t.Fatalf("bit %d: %+v", bit, table)
			}
			if only := strings.HasPrefix(area.note, "the primary"); (table.Doubt != "") != only {
				t.Fatalf("bit %d: doubt %q", bit, table.Doubt)
			}
			disk[bit/8] ^= 1 << (bit % 8)
		}
	}
	for bit := range 512 * 8 { // without the MBR all may be different, but nothing breaks
		disk[bit/8] ^= 1 << (bit % 8)
		read(t, disk, 0)
		disk[bit/8] ^= 1 << (bit % 8)
	}
}

func TestGPTLeft(t *testing.T) {
	whole := small().make()
	want := read(t, whole, 0).Partitions
	for _, c := range []struct {
		name   string
		change func(disk []byte) []byte
		note   string
		doubt  bool
		count  int // of partitions
	}{
		{"as it is", func(d []byte) []byte { return d }, "", false, 2},
		{"grown", func(d []byte) []byte { return append(d, make([]byte, 10_000)...) }, "the backup GPT is not at the end of the disk", false, 2},
		{"cut", func(d []byte) []byte { return d[:60*512] }, "the backup GPT is missing", true, 2},
		{"cut by a sector", func(d []byte) []byte { return d[:63*512] }, "the backup GPT is missing", true, 2},
		{"cut deep", func(d []byte) []byte { return d[:30*512+100] }, "partition 3 reaches behind the end", true, 2},
		{"cut deeper", func(d []byte) []byte { return d[:10*512] }, "partition 3 lies behind the end", true, 1},
		{"only the backup", func(d []byte) []byte { clear(d[512:2048]); return d }, "it has no signature", true, 2},
		{"only the backup, grown", func(d []byte) []byte { clear(d[512:2048]); return append(d, make([]byte, 10_000)...) }, "not at the end", true, 2},
		{"only the backup, and the MBR says nothing", func(d []byte) []byte {
			clear(d[512:2048])
			setEntry(d, 0, 0, typeProtective, 1, 0xffffffff)
			return d
		}, "it has no signature", true, 2},
		{"and the MBR not to be trusted", func(d []byte) []byte {
			d[600] ^= 1 // in the header, which still knows where its backup is
			setEntry(d, 0, 0, typeProtective, 1, 0xffffffff)
			return append(d, make([]byte, 10_000)...)
		}, "not at the end", true, 2},
		{"none", func(d []byte) []byte { d[600] ^= 1; d[63*512+80] ^= 1; return d }, "and so is its backup", true, 0},
		{"no room for it", func(d []byte) []byte { return d[:512] }, "it lies behind the end of the disk", true, 0},
		{"no MBR", func(d []byte) []byte { clear(d[:512]); return d }, "no MBR that names it", false, 0},
		{"another MBR", func(d []byte) []byte { setEntry(d, 0, 0, 0x83, 1, 60); return d }, "a GPT, which the MBR does not name", false, 1},
		{"hybrid", func(d []byte) []byte { setEntry(d, 1, 0x80, 0x07, 16, 35); return d }, "hybrid", false, 2},
		{"hybrid, the other order", func(d []byte) []byte {
			setEntry(d, 0, 0x80, 0x07, 16, 35)
			setEntry(d, 3, 0, typeProtective, 1, 7)
			return d
		}, "hybrid", false, 2},
		{"copies differ", func(d []byte) []byte { d[63*512+56]++; resum(d[63*512:]); return d }, "the primary was read", false, 2},
		{"its own backup", func(d []byte) []byte { le.PutUint64(d[512+32:], 1); resum(d[512:]); return d }, "names no backup", false, 2},
		{"far backup", func(d []byte) []byte { le.PutUint64(d[512+32:], 1<<63); resum(d[512:]); return d }, "behind the end", true, 2},
		{"moved", func(d []byte) []byte { le.PutUint64(d[512+24:], 2); resum(d[512:]); return d }, "copied from another place", true, 2},
		{"too many entries", func(d []byte) []byte { le.PutUint32(d[512+80:], maxEntries+1); resum(d[512:]); return d }, "it has 4097 entries", true, 2},
		{"many entries", func(d []byte) []byte { le.PutUint32(d[512+80:], maxEntries); resum(d[512:]); return d }, "it lies behind the end", true, 2},
		{"odd entries", func(d []byte) []byte { le.PutUint32(d[512+84:], 136); resum(d[512:]); return d }, "its entries have 136 bytes", true, 2},
		{"large entries", func(d []byte) []byte { le.PutUint32(d[512+84:], 8192); resum(d[512:]); return d }, "its entries have 8192 bytes", true, 2},
		{"small entries", func(d []byte) []byte { le.PutUint32(d[512+84:], 64); resum(d[512:]); return d }, "its entries have 64 bytes", true, 2},
		{"entries far away", func(d []byte) []byte { le.PutUint64(d[512+72:], 1<<62); resum(d[512:]); return d }, "reading its entries", true, 2},
		{"short header", func(d []byte) []byte { le.PutUint32(d[512+12:], 91); return d }, "its header has 91 bytes", true, 2},
		{"long header", func(d []byte) []byte { le.PutUint32(d[512+12:], 1<<31); return d }, "its header has 2147483648 bytes", true, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := read(t, c.change(bytes.Clone(whole)), 0)
			noted(t, table, c.note)
			if (table.Doubt != "") != c.doubt || len(table.Partitions) != c.count {
				t.Errorf("%+v", table)
			}
			if c.count == 2 && !strings.HasPrefix(c.name, "cut") {
				same(t, table.Partitions, want)
			}
		})
	}
}

// TestEntries: what is wrong with an entry concerns nobody else.
func TestEntries(t *testing.T) {
	for _, c := range []struct {
		name  string
		part  part
		note  string
		doubt string // of it
	}{
		{"orderly", part{linux, linux, 51, 60, 0, ""}, "", ""},
		{"overlaps one", part{linux, linux, 50, 55, 0, ""}, "partitions 3 and 5 overlap", "it overlaps partition 3"},
		{"overlaps all", part{linux, linux, 4, 60, 0, ""}, "partitions 1 and 5 overlap", "it overlaps partition 1"},
		{"overlaps the table", part{linux, linux, 51, 61, 0, ""}, "partition 5 overlaps the partition table", "it overlaps the partition table"},
		{"is the table", part{linux, linux, 1, 1, 0, ""}, "partition 5 overlaps the partition table", "it overlaps the partition table"},
		{"the other way round", part{linux, linux, 56, 51, 0, ""}, "partition 5 ends before it begins", "-"},
		{"all there is", part{linux, linux, 0, 1<<64 - 1, 0, ""}, "partition 5 ends before it begins", "-"},
		{"far", part{linux, linux, 1 << 63, 1<<64 - 1, 0, ""}, "partition 5 lies behind the end", "-"},
		{"long", part{linux, linux, 51, 1<<64 - 1, 0, ""}, "partition 5 reaches behind the end", "it overlaps the partition table"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := small()
			l.parts[4] = c.part
			table := read(t, l.make(), 0)
			noted(t, table, c.note)
			doubt := "-"
			for _, p := range table.Partitions {
				if p.Number == 5 {
					doubt = p.Doubt
				}
			}
			if doubt != c.doubt {
				t.Errorf("doubt %q", doubt)
			}
		})
	}
}

// TestAttributes: the bits above 47 mean what the type of the partition says.
func TestAttributes(t *testing.T) {
	for kind, want := range map[string]string{
		microsoftData:                          "[required no block io bootable bit 47 bit 59 read-only shadow copy hidden no automount]",
		linux:                                  "[required no block io bootable bit 47 grow filesystem read-only bit 61 bit 62 no automount]",
		"21686148-6449-6e6f-744e-656564454649": "[required no block io bootable bit 47 bit 59 bit 60 bit 61 bit 62 bit 63]",
	} {
		if got := fmt.Sprint(attributes(kind, 0x1f<<59|1<<47|7)); got != want {
			t.Errorf("%s: %s", kind, got)
		}
	}
}

// TestManyNotes: a table that is wrong everywhere is told about, but not at any length.
func TestManyNotes(t *testing.T) {
	l := small()
	l.sectors, l.count = 5000, maxEntries
	for i := range l.count {
		l.parts[i] = part{linux, linux, 2000, 1999, 0, ""}
	}
	if table := read(t, l.make(), 0); len(table.Notes) != maxNotes+1 {
		t.Errorf("%d notes", len(table.Notes))
	}
	for i := range l.count {
		l.parts[i] = part{linux, linux, 2000, 2100, 0, ""}
	}
	if table := read(t, l.make(), 0); len(table.Notes) != maxNotes+1 || len(table.Partitions) != maxEntries {
		t.Errorf("%d partitions, %d notes", len(table.Partitions), len(table.Notes))
	}
}

// failing cannot read some bytes.
type failing struct {
	io.ReaderAt
	off, end int64
}

var errMedium = errors.New("medium error")

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off < f.end && f.off < off+int64(len(p)) {
		return 0, errMedium
	}
	return f.ReaderAt.ReadAt(p, off)
}

func TestReadErrors(t *testing.T) {
	disk := small().make()
	want := read(t, disk, 0).Partitions
	at := func(off, end int64) (*Table, error) {
		return Read(failing{bytes.NewReader(disk), off, end}, int64(len(disk)), 0)
	}
	if _, err := at(0, 1); !errors.Is(err, errMedium) {
		t.Errorf("the first sector: %v", err)
	}
	for _, c := range []struct {
		off, end int64
		note     string
	}{
		{512, 1024, "the primary GPT is damaged (medium error)"},
		{1024, 1025, "the primary GPT is damaged (reading its entries: medium error)"},
		{63 * 512, 64 * 512, "the backup GPT is damaged: medium error"},
		{61 * 512, 62 * 512, "the backup GPT is damaged: reading its entries: medium error"},
	} {
		table, err := at(c.off, c.end)
		if err != nil {
			t.Fatal(err)
		}
		noted(t, table, c.note)
		same(t, table.Partitions, want)
	}

	if _, err := Read(bytes.NewReader(disk[:100]), 512, 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a disk that is shorter than it says: %v", err)
	}
	for _, sector := range []int{-1, 1, 511, 520, 8192} {
		if _, err := Read(bytes.NewReader(disk), int64(len(disk)), sector); err == nil {
			t.Errorf("%d is taken as the size of a sector", sector)
		}
	}
	if _, err := Read(bytes.NewReader(nil), -1, 0); err == nil {
		t.Error("-1 is taken as the size of a disk")
	}
	for _, size := range []int{0, 1, 511, 512, 513} {
		if table := read(t, make([]byte, size), 0); table.Scheme != "" || table.Notes != nil {
			t.Errorf("%d bytes: %+v", size, table)
		}
	}
}

// TestRandomGPT: what was written is read.
func TestRandomGPT(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := layout{
			sector: rapid.SampledFrom([]int{512, 4096}).Draw(rt, "sector"),
			count:  rapid.IntRange(1, 64).Draw(rt, "count"),
			entry:  rapid.SampledFrom([]int{128, 256, 512}).Draw(rt, "entry"),
			parts:  map[int]part{},
		}
		n := uint64((l.count*l.entry + l.sector - 1) / l.sector)
		at := 2 + n
		var want []Partition
		for i := range l.count {
			at += rapid.Uint64Range(0, 2).Draw(rt, "gap")
			if !rapid.Bool().Draw(rt, "used") {
				continue
			}
			length := rapid.Uint64Range(1, 4).Draw(rt, "length")
			p := part{linux, fmt.Sprintf("%08x-0000-0000-0000-000000000000", i), at, at + length - 1, 0, fmt.Sprint("part ", i)}
			l.parts[i] = p
			want = append(want, Partition{
				Number: i + 1, Start: int64(at) * int64(l.sector), Length: int64(length) * int64(l.sector),
				Type: linux, TypeName: "Linux filesystem", ID: p.id, Name: p.name,
			})
			at += length
		}
		l.sectors = at + n + 2
		disk := l.make()
		if rapid.Bool().Draw(rt, "only the backup") {
			clear(disk[l.sector : 2*l.sector])
		}
		table, err := Read(bytes.NewReader(disk), int64(len(disk)), 0)
		if err != nil || !reflect.DeepEqual(table.Partitions, want) || table.SectorSize != l.sector {
			rt.Fatalf("%v: %+v\ninstead of %+v", err, table, want)
		}
	})
}

// FuzzRead: any bytes give a table that is within the disk, or none. A header that was damaged gets a right checksum, as who
// attacks would give it.
func FuzzRead(f *testing.F) {
	// Small ones: the fuzzer is slow with large inputs.
	l := layout{sector: 512, sectors: 9, count: 4, entry: 128, parts: map[int]part{
		0: {linux, linux, 3, 3, 4, "a"}, 3: {microsoftData, linux, 4, 5, 1 << 63, "b"},
	}}
	f.Add(l.make(), uint32(0), uint8(0), true)
	f.Add(l.make()[:6*512], uint32(3*512), uint8(1), true)
	f.Add(append(l.make()[:512], l.make()[6*512:]...), uint32(0), uint8(1), false)
	l.sector = 4096
	f.Add(l.make()[:2*4096+512], uint32(7*4096), uint8(2), true)
	disk := chain(1, 1, 1)
	f.Add(append(disk[:512], disk[16*512:]...)[:7*512], uint32(100*512), uint8(0), false)
	setEntry(disk, 2, 0, 0x05, 1, 20)
	f.Add(append(disk[:512], disk[16*512:]...)[:7*512], uint32(100*512), uint8(1), false)
	f.Fuzz(func(t *testing.T, disk []byte, more uint32, sector uint8, repair bool) {
		if len(disk) > 1<<20 {
			return
		}
		disk = bytes.Clone(disk)
		if repair {
			for _, size := range []int{512, 4096} {
				for _, at := range []int{size, len(disk)/size*size - size} {
					if at < size || at+headerLength > len(disk) || !bytes.HasPrefix(disk[at:], []byte(gptSignature)) {
						continue
					}
					h := disk[at:]
					array, n := le.Uint64(h[72:]), uint64(le.Uint32(h[80:]))*uint64(le.Uint32(h[84:]))
					if from := array * uint64(size); array < 1<<20 && n < 1<<20 && from+n <= uint64(len(disk)) {
						le.PutUint32(h[88:], crc32.ChecksumIEEE(disk[from:from+n]))
					}
					resum(h)
				}
			}
		}
		size := int64(len(disk)) + int64(more)
		table, err := Read(longer{disk}, size, []int{0, 512, 4096}[sector%3])
		if err != nil {
			t.Fatal(err)
		}
		sane(t, table, size)
	})
}

// longer is a disk that goes on with zeros.
type longer struct{ data []byte }

func (l longer) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(l.data)) {
		copy(p, l.data[off:])
	}
	return len(p), nil
}
