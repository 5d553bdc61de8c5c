package fat

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestFree(t *testing.T) {
	for _, bits := range widths {
		d := newDisk(t, bits)
		var want []uint32
		used := []uint32{7, 9, 10, 50, 64, 65, 66, 67, 97, 99, d.clusters + 1}
		d.storeIn(make([]byte, 512*5), 7, 50, 9, 10, d.clusters+1)
		d.storeIn(make([]byte, 512*5), 99, 64, 65, 66, 67)
		d.link(97, 0x0FFFFFF7) // bad
		for c := uint32(2); d.has(c); c++ {
			if !slices.Contains(used, c) && !(bits == 32 && c == d.rootCluster) {
				want = append(want, c)
			}
		}
		got, err := d.free()
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%d bits: free are %v, not %v: %v", bits, got, want, err)
		}
	}
}

func TestFullAndEmpty(t *testing.T) {
	for _, bits := range widths {
		d := newDisk(t, bits)
		got, err := d.free()
		if want := int(d.clusters) - (bits / 32); err != nil || len(got) != want {
			t.Errorf("%d bits, empty: %d clusters are free, not %d: %v", bits, len(got), want, err)
		}
		for c := d.next; d.has(c); c++ {
			d.link(c, 0x0FFFFFFF)
		}
		if got, err := d.free(); err != nil || len(got) > 0 {
			t.Errorf("%d bits, full: %v are free: %v", bits, got, err)
		}
	}
}

func TestUntrusted(t *testing.T) {
	state := func(d *disk) *byte {
		if d.bits == 32 {
			return &d.image[65]
		}
		return &d.image[37]
	}
	for _, c := range []struct {
		reason string
		bits   []int
		damage func(d *disk)
		dirty  bool
	}{
		{"was not unmounted", widths, func(d *disk) { *state(d) |= 1 }, true},
		{"has met errors of its disk", widths, func(d *disk) { *state(d) |= 2 }, true},
		{"was not unmounted", []int{16}, func(d *disk) { d.link(1, 0x7FFF) }, true},
		{"was not unmounted", []int{32}, func(d *disk) { d.link(1, 0x07FFFFFF) }, true},
		{"has met errors of its disk", []int{16}, func(d *disk) { d.link(1, 0xBFFF) }, true},
		{"has met errors of its disk", []int{32}, func(d *disk) { d.link(1, 0x0BFFFFFF) }, true},
		{"that of its medium", widths, func(d *disk) { d.link(0, 0x0FFFFFF0) }, false},
		{"that of its medium", widths, func(d *disk) { d.link(0, 0x00000EF8) }, false},
		{"does not call it", []int{12}, func(d *disk) { copy(d.image[54:], "FAT16") }, false},
		{"does not call it", []int{16}, func(d *disk) { copy(d.image[54:], "FAT12") }, false},
		{"does not call it", []int{32}, func(d *disk) { copy(d.image[82:], "FAT16") }, false},
		{"copies of the table", widths, func(d *disk) { setEntry(d.image[d.tables:], 77, 0x0FFFFFFF, d.bits) }, false},
		{"copies of the table", widths, func(d *disk) { setEntry(d.image[d.tables+d.tableSize:], d.clusters+1, 0x0FFFFFFF, d.bits) }, false},
		{"which it does not have", widths, func(d *disk) { d.link(90, d.clusters+2) }, false},
		{"which it does not have", widths, func(d *disk) { d.link(90, 1) }, false},
		{"belongs to two files", widths, func(d *disk) { d.link(90, 92); d.link(91, 92); d.link(92, 0x0FFFFFFF) }, false},
		{"marked as free", widths, func(d *disk) { d.link(90, 91) }, false},
		{"root folder is marked as free", []int{32}, func(d *disk) { d.link(2, 0) }, false},
		{"root folder is marked as free", []int{32}, func(d *disk) { d.image[44] = 0xFF }, false},
	} {
		for _, bits := range c.bits {
			d := sample(t, bits)
			if _, err := d.free(); err != nil {
				t.Fatal(err)
			}
			c.damage(d)
			list, err := d.free()
			if !isUntrusted(err) || !strings.Contains(err.Error(), c.reason) || len(list) > 0 {
				t.Errorf("%d bits: %d clusters are free and %v, where %q is expected", bits, len(list), err, c.reason)
			}
			if dirty := d.open().Info().Dirty; (dirty != "") != c.dirty {
				t.Errorf("%d bits: %s: dirty: %q", bits, c.reason, dirty)
			}
		}
	}
}

// TestActiveTable: where tables are not copies of each other, only the active one counts.
func TestActiveTable(t *testing.T) {
	d := sample(t, 32)
	want, err := d.free()
	if err != nil {
		t.Fatal(err)
	}
	first := d.image[d.tables : d.tables+d.tableSize]
	for i := range first[8:] {
		first[8+i] = byte(i)
	}
	if _, err := d.free(); !isUntrusted(err) {
		t.Error(err)
	}
	d.image[40] = 0x81 // not mirrored, table 1
	got, err := d.free()
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("free are %v, not %v: %v", got, want, err)
	}
	if entries, err := list(d.open(), d.find("FOLDER")); err != nil || len(entries) != 2 {
		t.Errorf("the folder has %v: %v", entries, err)
	}
	d.image[40] = 0x01 // mirrored: the number means nothing
	if _, err := d.free(); !isUntrusted(err) {
		t.Error(err)
	}
	d.image[40] = 0x82
	if _, err := Open(bytes.NewReader(d.image), int64(len(d.image))); !isCorrupt(err) {
		t.Error(err)
	}
}

// TestReservedBits: the upper 4 bits of an entry of a FAT32 are not part of it.
func TestReservedBits(t *testing.T) {
	d := sample(t, 32)
	want, err := d.free()
	if err != nil {
		t.Fatal(err)
	}
	for c := uint32(0); c < d.clusters+2; c++ {
		d.image[d.tables+4*int64(c)+3] |= 0xA0
		d.image[d.tables+d.tableSize+4*int64(c)+3] |= 0xA0
	}
	got, err := d.free()
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("free are %v, not %v: %v", got, want, err)
	}
	if entries, err := list(d.open(), d.find("FOLDER")); err != nil || len(entries) != 2 {
		t.Errorf("the folder has %v: %v", entries, err)
	}
}
