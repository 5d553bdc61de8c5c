package partition

import (
	"slices"
	"testing"
)

// chain makes a disk of 64 sectors with one primary partition and an extended one from sector 16 on, with logical partitions of the
// given numbers of sectors.
func chain(logical ...uint32) []byte {
	disk := make([]byte, 64*512)
	le.PutUint32(disk[440:], 0x1234abcd)
	setEntry(disk, 0, flagActive, 0x83, 2, 14)
	setEntry(disk, 2, 0, 0x0f, 16, 48)
	sign(disk)
	at := uint32(16)
	for i, n := range logical {
		ebr := disk[at*512:]
		sign(ebr)
		setEntry(ebr, 0, 0, 0x82, 1, n)
		at += 1 + n
		if i+1 < len(logical) {
			setEntry(ebr, 1, 0, 0x05, at-16, 1+logical[i+1])
		}
	}
	return disk
}

func TestMBR(t *testing.T) {
	table := read(t, chain(5, 4, 3), 512)
	noted(t, table, "")
	logical := func(number int, start, length int64, id string) Partition {
		return Partition{Number: number, Start: start * 512, Length: length * 512, Type: "0x82", TypeName: "Linux swap", ID: id}
	}
	same(t, table.Partitions, []Partition{
		{
			Number: 1, Start: 2 * 512, Length: 14 * 512, Type: "0x83", TypeName: "Linux filesystem", ID: "1234abcd-01",
			Attributes: []string{"active"},
		},
		{Number: 3, Start: 16 * 512, Length: 48 * 512, Type: "0x0f", TypeName: "extended", ID: "1234abcd-03", Extended: true},
		logical(5, 17, 5, "1234abcd-05"), logical(6, 23, 4, "1234abcd-06"), logical(7, 28, 3, "1234abcd-07"),
	})
	if table.Scheme != MBR || table.ID != "1234abcd" || table.SectorSize != 512 || table.Doubt != "" {
		t.Errorf("%+v", table)
	}
	if !slices.Equal(table.Structures, []Range{{0, 512}, {16 * 512, 512}, {22 * 512, 512}, {27 * 512, 512}}) {
		t.Errorf("structures %v", table.Structures)
	}
}

func TestMBRLeft(t *testing.T) {
	all := []int{1, 3, 5, 6, 7}
	for _, c := range []struct {
		name    string
		change  func(disk []byte) []byte
		note    string
		numbers []int
		doubt   bool
	}{
		{"as it is", func(d []byte) []byte { return d }, "", all, false},
		{"without a signature", func(d []byte) []byte { clear(d[440:444]); return d }, "", all, false},
		{"unsigned", func(d []byte) []byte { d[511] = 0; return d }, "", nil, false},
		{"a wrong flag", func(d []byte) []byte { d[446+3*16] = 1; return d }, "", nil, false},
		{"empty", func(d []byte) []byte { clear(d[446:510]); return d }, "", nil, false},
		{"everything is far away", func(d []byte) []byte {
			clear(d[446:510])
			setEntry(d, 0, 0, 0x83, 64, 10)
			return d
		}, "", nil, false},
		{"protective only by its type", func(d []byte) []byte { setEntry(d, 1, 0, typeProtective, 3, 4); return d }, "", nil, false},
		{"one begins at the end", func(d []byte) []byte { setEntry(d, 3, 0, 7, 64, 1); return d }, "partition 4 lies behind the end of the disk", all, true},
		{"cut", func(d []byte) []byte { return d[:30*512] }, "partition 7 reaches behind the end of the disk", all, true},
		{"cut deep", func(d []byte) []byte { return d[:27*512] }, "sector 27 is behind the end of the disk", []int{1, 3, 5, 6}, true},
		{"cut deeper", func(d []byte) []byte { return d[:10*512] }, "partition 3 lies behind the end", []int{1}, true},
		{"round in a circle", func(d []byte) []byte {
			setEntry(d[27*512:], 1, 0, 0x05, 6, 5)
			return d
		}, "it goes round in circles", all, false},
		{"round in one step", func(d []byte) []byte { setEntry(d[16*512:], 1, 0, 0x05, 0, 5); return d }, "circles", []int{1, 3, 5}, false},
		{"broken off", func(d []byte) []byte { d[22*512+510] = 0; return d }, "there is none in sector 22", []int{1, 3, 5}, false},
		{"far link", func(d []byte) []byte { setEntry(d[16*512:], 1, 0, 0x05, 1<<32-1, 1<<32-1); return d }, "behind the end", []int{1, 3, 5}, false},
		{"the link first", func(d []byte) []byte {
			clear(d[16*512+446 : 16*512+510])
			setEntry(d[16*512:], 0, 0, 0x85, 6, 5)
			return d
		}, "", []int{1, 3, 5, 6}, false},
		{"garbage in the third entry", func(d []byte) []byte { setEntry(d[22*512:], 2, 7, 7, 1, 1<<32-1); return d }, "", all, false},
		{"garbage in the fourth entry", func(d []byte) []byte { setEntry(d[22*512:], 3, 7, 7, 1<<32-2, 3); return d }, "", all, false},
		{"a third entry that is one", func(d []byte) []byte {
			setEntry(d[16*512:], 1, 0, 0x05, 6, 30)
			setEntry(d[22*512:], 2, 0, 7, 20, 2)
			return d
		}, "", []int{1, 3, 5, 6, 7, 8}, false},
		{"long", func(d []byte) []byte {
			setEntry(d, 2, 0, 0x05, 16, 14)
			return d
		}, "partition 7 reaches behind the end of its extended partition", all, false},
		{"overlaps", func(d []byte) []byte { setEntry(d, 1, 0, 7, 14, 5); return d }, "partitions 1 and 2 overlap", []int{1, 2, 3, 5, 6, 7}, false},
		{"in the table", func(d []byte) []byte { setEntry(d, 0, 0, 0x17, 0, 10); return d }, "partition 1 overlaps the partition table", all, false},
		{"two extended ones", func(d []byte) []byte {
			setEntry(d, 2, 0, 0x05, 16, 16)
			setEntry(d, 3, 0, 0x05, 40, 10)
			sign(d[40*512:])
			setEntry(d[40*512:], 0, 0, 0x83, 1, 9)
			return d
		}, "", []int{1, 3, 4, 5, 6, 7, 8}, false},
		{"like FAT", func(d []byte) []byte { fat(d); return d }, "that of a partition table and of a filesystem", all, true},
		{"like FAT, and begins with it", func(d []byte) []byte {
			fat(d)
			clear(d[446:510])
			setEntry(d, 0, 0x80, 0x0c, 0, 64)
			return d
		}, "", nil, false},
		{"like FAT, and overlaps", func(d []byte) []byte { fat(d); setEntry(d, 1, 0, 7, 14, 5); return d }, "", nil, false},
		{"like FAT, and has no type", func(d []byte) []byte { fat(d); setEntry(d, 0, 0, 0, 2, 14); return d }, "", nil, false},
		{"like NTFS, and too long", func(d []byte) []byte {
			copy(d[3:], "NTFS    ")
			setEntry(d, 0, 0, 7, 2, 1000)
			return d
		}, "", nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := read(t, c.change(chain(5, 4, 3)), 0)
			noted(t, table, c.note)
			var numbers []int
			for _, p := range table.Partitions {
				numbers = append(numbers, p.Number)
			}
			if !slices.Equal(numbers, c.numbers) || (table.Doubt != "") != c.doubt {
				t.Errorf("partitions %v, doubt %q, notes %q", numbers, table.Doubt, table.Notes)
			}
		})
	}
}

// fat makes a sector look like the first one of FAT.
func fat(sector []byte) {
	copy(sector, "\xeb\x58\x90mkfs.fat\x00\x02\x01\x20\x00\x02\x00\x00\x00\x08\xf8")
}

// TestBootsVolume: every field of FAT's first sector has to be possible.
func TestBootsVolume(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(s []byte)
		is     bool
	}{
		{"as it is", func([]byte) {}, true},
		{"a long jump", func(s []byte) { s[0], s[2] = 0xe9, 0 }, true},
		{"no jump", func(s []byte) { s[0] = 0xfa }, false},
		{"half a jump", func(s []byte) { s[2] = 0 }, false},
		{"4096 bytes a sector", func(s []byte) { s[12] = 0x10 }, true},
		{"8192 bytes a sector", func(s []byte) { s[12] = 0x20 }, false},
		{"256 bytes a sector", func(s []byte) { s[12] = 1 }, false},
		{"1536 bytes a sector", func(s []byte) { s[12] = 6 }, false},
		{"no sectors a cluster", func(s []byte) { s[13] = 0 }, false},
		{"3 sectors a cluster", func(s []byte) { s[13] = 3 }, false},
		{"nothing reserved", func(s []byte) { s[14] = 0 }, false},
		{"no FAT", func(s []byte) { s[16] = 0 }, false},
		{"one FAT", func(s []byte) { s[16] = 1 }, true},
		{"four FATs", func(s []byte) { s[16] = 4 }, true},
		{"five FATs", func(s []byte) { s[16] = 5 }, false},
		{"on a floppy disk", func(s []byte) { s[21] = 0xf0 }, true},
		{"on something else", func(s []byte) { s[21] = 0xf7 }, false},
		{"no sectors", func(s []byte) { s[20] = 0 }, false},
		{"many sectors", func(s []byte) { s[20], s[35] = 0, 1 }, true},
	} {
		sector := make([]byte, 512)
		fat(sector)
		if c.change(sector); bootsVolume(sector) != c.is {
			t.Errorf("%s: %v", c.name, !c.is)
		}
	}
}

// TestManyLogical: there are no more partitions than Linux has numbers for, and a list without any is not followed for ever.
func TestManyLogical(t *testing.T) {
	disk := make([]byte, 4000*512)
	setEntry(disk, 0, 0, 0x05, 1, 3999)
	sign(disk)
	for i := range uint32(1999) {
		ebr := disk[(1+2*i)*512:]
		sign(ebr)
		setEntry(ebr, 0, 0, 0x83, 1, 1)
		setEntry(ebr, 1, 0, 0x05, 2*(i+1), 2)
	}
	table := read(t, disk, 0)
	noted(t, table, "there are more than 255 partitions")
	if n := len(table.Partitions); n != 1+251 || table.Partitions[n-1].Number != 255 {
		t.Errorf("%d partitions", n)
	}
	for i := range uint32(1999) {
		setEntry(disk[(1+2*i)*512:], 0, 0, 0, 0, 0)
	}
	table = read(t, disk, 0)
	noted(t, table, "it has more than 1024 links")
	if len(table.Partitions) != 1 {
		t.Errorf("%+v", table.Partitions)
	}
}

// TestSectorSizeOfMBR: an MBR does not say how large a sector is, but where its lists begin does.
func TestSectorSizeOfMBR(t *testing.T) {
	small := chain(5, 4, 3)
	large := make([]byte, 64*4096)
	for at := range 64 {
		copy(large[at*4096:], small[at*512:][:512])
	}
	for _, sector := range []int{0, 4096} {
		table := read(t, large, sector)
		noted(t, table, "")
		if table.SectorSize != 4096 || len(table.Partitions) != 5 || table.Partitions[4].Start != 28*4096 {
			t.Errorf("%+v", table)
		}
		if !slices.Equal(table.Structures, []Range{{0, 4096}, {16 * 4096, 4096}, {22 * 4096, 4096}, {27 * 4096, 4096}}) {
			t.Errorf("structures %v", table.Structures)
		}
	}
}
