package exfat

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"varve/image/filesystem"
)

func TestFree(t *testing.T) {
	for _, used := range [][]uint32{
		{},
		{20, 22, 23, 64, 65, 66, 67, 97, 99, clusters + 1},
		{5, clusters - 1, clusters},
	} {
		d := newDisk(t)
		d.mark(true, used...)
		var want []uint32
		for c := uint32(5); c < clusters+2; c++ {
			if !slices.Contains(used, c) {
				want = append(want, c)
			}
		}
		for _, filled := range []byte{0, 0xC0} { // the bits behind the last cluster
			d.image[d.at(2)+clusters/8] |= filled
			if got, err := d.free(); err != nil || !slices.Equal(got, want) {
				t.Errorf("%v: free are %v, not %v: %v", used, got, want, err)
			}
		}
	}
}

func TestFull(t *testing.T) {
	d := newDisk(t)
	for c := uint32(2); c < clusters+2; c++ {
		d.mark(true, c)
	}
	if got, err := d.free(); err != nil || len(got) > 0 {
		t.Errorf("%v are free: %v", got, err)
	}
}

func TestUntrusted(t *testing.T) {
	for _, c := range []struct {
		reason string
		damage func(d *disk)
		dirty  bool
	}{
		{"was not unmounted", func(d *disk) { d.image[106] |= 2 }, true},
		{"has met errors of its disk", func(d *disk) { d.image[106] |= 4 }, true},
		{"its table begins", func(d *disk) { d.link(0, 0) }, false},
		{"its table begins", func(d *disk) { d.link(1, 0) }, false},
		{"second bitmap", func(d *disk) { d.add(structure(typeBitmap, 2, 16, 0)) }, false},
		{"second table of upper", func(d *disk) { d.add(structure(typeUpper, 3, 4, 0)) }, false},
		{"no bitmap", func(d *disk) { d.image[d.at(4)+32] &^= inUse }, false},
		{"no table of upper", func(d *disk) { d.image[d.at(4)+64] &^= inUse }, false},
		{"unknown type", func(d *disk) { d.add(structure(0x86, 2, 16, 0)) }, false},
		{"unknown type", func(d *disk) { d.add(structure(0x9F, 2, 16, 0)) }, false},
		{"has 15 bytes", func(d *disk) { d.image[d.at(4)+32+24] = 15 }, false},
		{"checksum", func(d *disk) { d.image[d.at(3)+2] ^= 1 }, false},
		{"has 0 bytes", func(d *disk) { d.image[d.at(4)+64+24] = 0 }, false},
		{"bytes", func(d *disk) { d.image[d.at(4)+64+24+3] = 1 }, false},
		{"in one place", func(d *disk) { d.image[d.at(4)+32+20] = 4 }, false},
		{"marked as free", func(d *disk) { d.mark(false, 2) }, false},
		{"marked as free", func(d *disk) { d.mark(false, 3) }, false},
		{"marked as free", func(d *disk) { d.mark(false, 6) }, false}, // the second cluster of the root folder
	} {
		d := sample(t)
		if _, err := d.free(); err != nil {
			t.Fatal(err)
		}
		c.damage(d)
		_, err := d.free()
		if !isUntrusted(err) || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%v, where %q is expected", err, c.reason)
		}
		if dirty := d.open().Info().Dirty; (dirty != "") != c.dirty {
			t.Errorf("%s: dirty: %q", c.reason, dirty)
		}
	}
	for name, damage := range map[string]func(d *disk){
		"a bitmap outside":        func(d *disk) { d.image[d.at(4)+32+20] = 200 },
		"a bitmap that ends":      func(d *disk) { le.PutUint32(d.image[d.at(4)+32+24:], 513) },
		"upper case letters that": func(d *disk) { le.PutUint32(d.image[d.at(4)+64+24:], 513) },
		"a root folder that ends": func(d *disk) { d.link(6, 0) },
		"a root folder in a ring": func(d *disk) { d.link(6, 4) },
	} {
		d := sample(t)
		damage(d)
		if list, err := d.free(); err == nil || len(list) > 0 {
			t.Errorf("%s: %v are free, and %v", name, list, err)
		}
	}
}

// TestBenignEntries: what may be ignored is: the identifier of the disk, and things of others.
func TestBenignEntries(t *testing.T) {
	d := sample(t)
	d.add(structure(0xA0, 50, 512, 0), structure(0xA5, 50, 512, 0))
	if _, err := d.free(); err != nil {
		t.Error(err)
	}
	if entries, err := list(d.open(), root); err != nil || len(entries) != 5 {
		t.Errorf("%v: %v", entries, err)
	}
}

// TestBitmapInPieces: the bitmap has a chain like any file.
func TestBitmapInPieces(t *testing.T) {
	const many = 3 * 512 * 8
	d := newDisk(t)
	const tableSectors = (many + 2 + 127) / 128
	bitmap := make([]byte, 3*512)
	image := make([]byte, (24+tableSectors+many)*512)
	copy(image, d.image[:24*512])
	le.PutUint64(image[72:], 24+tableSectors+many)
	le.PutUint32(image[84:], tableSectors)
	le.PutUint32(image[88:], 24+tableSectors)
	le.PutUint32(image[92:], many)
	copy(image[24*512:], d.image[24*512:25*512])
	copy(image[(24+tableSectors)*512:], d.image[25*512:30*512])
	big := &disk{t: t, image: image}
	big.seal()
	var err error
	if big.boot, err = parseBoot(image, int64(len(image))); err != nil {
		t.Fatal(err)
	}
	clear(big.image[big.at(2):big.at(3)])
	entry := structure(typeBitmap, 1000, len(bitmap), 0)
	copy(big.image[big.at(4)+32:], entry)
	for i := range bitmap {
		bitmap[i] = 0xFF
	}
	bitmap[0] &^= 0x80               // cluster 9
	bitmap[512] &^= 0x01             // cluster 4098
	bitmap[511] &^= 0x80             // cluster 4097
	bitmap[len(bitmap)-1] &^= 0x81   // the last, and one before
	big.mark(true, 1000, 1001, 1500) // in cluster 2, which is no longer the bitmap
	clear(big.image[big.at(2):big.at(3)])
	for i, c := range []uint32{1000, 1500, 1001} {
		copy(big.image[big.at(c):], bitmap[i*512:(i+1)*512])
		next := uint32(endOfChain)
		if i < 2 {
			next = []uint32{1500, 1001}[i]
		}
		big.link(c, next)
	}
	got, err := big.free()
	if want := []uint32{9, 4097, 4098, many - 6, many + 1}; err != nil || !slices.Equal(got, want) {
		t.Errorf("free are %v, not %v: %v", got, want, err)
	}
}

func TestBoot(t *testing.T) {
	open := func(d *disk) error {
		_, err := Open(bytes.NewReader(d.image), int64(len(d.image)))
		return err
	}
	corrupt, unsupported := isCorrupt, isUnsupported
	unknown := func(err error) bool { return err == filesystem.ErrUnknown }
	for name, c := range map[string]struct {
		is     func(error) bool
		change func(s []byte)
	}{
		"zeros":               {unknown, func(s []byte) { clear(s[:512]) }},
		"no jump":             {unknown, func(s []byte) { s[1] = 0x58 }},
		"no name":             {unknown, func(s []byte) { s[4] = 'X' + 1 }},
		"NTFS":                {unknown, func(s []byte) { copy(s[3:], "NTFS    ") }},
		"no signature":        {unknown, func(s []byte) { s[511] = 0 }},
		"values of a FAT":     {unknown, func(s []byte) { s[11] = 1 }},
		"sectors of 256":      {corrupt, func(s []byte) { s[108] = 8 }},
		"sectors of 8192":     {corrupt, func(s []byte) { s[108] = 13 }},
		"clusters of 64 MB":   {corrupt, func(s []byte) { s[109] = 17 }},
		"clusters of 2^264":   {corrupt, func(s []byte) { s[109] = 255 }},
		"version 2":           {unsupported, func(s []byte) { s[105] = 2 }},
		"two tables":          {unsupported, func(s []byte) { s[110] = 2 }},
		"no table":            {corrupt, func(s []byte) { s[110] = 0 }},
		"another active":      {corrupt, func(s []byte) { s[106] = 1 }},
		"too long":            {corrupt, func(s []byte) { s[72]++ }},
		"far too long":        {corrupt, func(s []byte) { le.PutUint64(s[72:], 1<<63) }},
		"no clusters":         {corrupt, func(s []byte) { le.PutUint32(s[92:], 0) }},
		"many clusters":       {corrupt, func(s []byte) { le.PutUint32(s[92:], 127) }},
		"all clusters":        {corrupt, func(s []byte) { le.PutUint32(s[92:], 0xFFFFFFFF) }},
		"a table too early":   {corrupt, func(s []byte) { s[80] = 23 }},
		"a table too late":    {corrupt, func(s []byte) { s[80] = 25 }},
		"a table too long":    {corrupt, func(s []byte) { le.PutUint32(s[84:], 0xFFFFFFFF) }},
		"no room for a table": {corrupt, func(s []byte) { s[84] = 0 }},
		"clusters too late":   {corrupt, func(s []byte) { s[88]++ }},
		"BitLocker": {unsupported, func(s []byte) {
			copy(s[424:], "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01")
		}},
	} {
		d := sample(t)
		c.change(d.image)
		d.seal()
		if err := open(d); !c.is(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, size := range []int64{0, 100, 511} {
		if _, err := Open(bytes.NewReader(make([]byte, size)), size); err != filesystem.ErrUnknown {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	d := sample(t)
	for _, at := range []int{300, 4000, 11*512 + 8, 12*512 - 1} {
		d.image[at] ^= 1
		if err := open(d); !isCorrupt(err) {
			t.Errorf("with another byte at %d: %v", at, err)
		}
		d.image[at] ^= 1
	}
	d.image[112] ^= 50 // how full it is belongs not to what is summed up
	if err := open(d); err != nil {
		t.Error(err)
	}
	d.image[d.at(4)] = 0x03 // no label
	if label := d.open().Info().Label; label != "" {
		t.Errorf("%q", label)
	}
}
