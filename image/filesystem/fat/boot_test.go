package fat

import (
	"bytes"
	"errors"
	"testing"

	"varve/image/filesystem"
)

func TestNoFAT(t *testing.T) {
	for name, change := range map[string]func(s []byte){
		"zeros":                 func(s []byte) { clear(s[:512]) },
		"no signature":          func(s []byte) { s[511] = 0 },
		"no jump":               func(s []byte) { s[0] = 0x33 },
		"half a jump":           func(s []byte) { s[2] = 0 },
		"NTFS":                  func(s []byte) { copy(s[3:], "NTFS    ") },
		"exFAT":                 func(s []byte) { copy(s[3:], "EXFAT   ") },
		"BitLocker":             func(s []byte) { copy(s[3:], "-FVE-FS-") },
		"sectors of 256":        func(s []byte) { le.PutUint16(s[11:], 256) },
		"sectors of 8192":       func(s []byte) { le.PutUint16(s[11:], 8192) },
		"sectors of 513":        func(s []byte) { le.PutUint16(s[11:], 513) },
		"clusters of nothing":   func(s []byte) { s[13] = 0 },
		"clusters of 3 sectors": func(s []byte) { s[13] = 3 },
		"nothing reserved":      func(s []byte) { le.PutUint16(s[14:], 0) },
		"no table":              func(s []byte) { s[16] = 0 },
		"many tables":           func(s []byte) { s[16] = 5 },
		"no sectors":            func(s []byte) { le.PutUint16(s[19:], 0); le.PutUint32(s[32:], 0) },
		"few sectors":           func(s []byte) { le.PutUint16(s[19:], 5) },
		"another medium":        func(s []byte) { s[21] = 0xF1 },
		"empty tables":          func(s []byte) { le.PutUint16(s[22:], 0); le.PutUint32(s[36:], 0) },
		"both kinds of roots": func(s []byte) {
			if le.Uint16(s[17:]) == 0 {
				s[17] = 16
			} else {
				clear(s[17:19])
			}
		},
		"a boot loader": func(s []byte) { clear(s[11:90]) }, // as that of GRUB in the first sector of a disk
	} {
		for _, bits := range widths {
			d := sample(t, bits)
			change(d.image)
			if _, err := Open(bytes.NewReader(d.image), int64(len(d.image))); err != filesystem.ErrUnknown {
				t.Errorf("%s, %d bits: %v", name, bits, err)
			}
		}
	}
	for _, size := range []int64{0, 100, 511} {
		if _, err := Open(bytes.NewReader(make([]byte, size)), size); err != filesystem.ErrUnknown {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// TestNoName: an old FAT does not say so, and is told by its table.
func TestNoName(t *testing.T) {
	d := sample(t, 12)
	clear(d.image[36:62])
	info := d.open().Info()
	if info.Type != "fat12" || info.Label != "A DISK" || info.UUID != "" {
		t.Errorf("%+v", info)
	}
	le.PutUint32(d.image[39:], 77) // as any code is
	copy(d.image[43:], "SOME CODE  FAT16   ")
	if again := d.open().Info(); again != info {
		t.Errorf("%+v, not %+v", again, info)
	}
	d.image[38] = 0x28 // a serial number alone
	if info := d.open().Info(); info.UUID != "0000-004D" || info.Label != "A DISK" {
		t.Errorf("%+v", info)
	}
	d.link(0, 0x0FFFFFF0)
	if _, err := Open(bytes.NewReader(d.image), int64(len(d.image))); err != filesystem.ErrUnknown {
		t.Error(err)
	}
	d.image[21] = 0xF0
	d.open()
}

func TestDamagedBoot(t *testing.T) {
	open := func(d *disk) error {
		_, err := Open(bytes.NewReader(d.image), int64(len(d.image)))
		return err
	}
	d := sample(t, 16)
	d.image = d.image[:len(d.image)-tail-1]
	if err := open(d); !isCorrupt(err) {
		t.Errorf("with an end that is missing: %v", err)
	}
	clear(d.image[36:62])
	if err := open(d); err != filesystem.ErrUnknown {
		t.Errorf("with an end and a name that are missing: %v", err)
	}
	d = sample(t, 16)
	le.PutUint16(d.image[22:], 2)
	if err := open(d); !isCorrupt(err) {
		t.Errorf("with too small a table: %v", err)
	}
	var unsupported *filesystem.UnsupportedError
	d = sample(t, 32)
	d.image[42] = 1
	if err := open(d); !errors.As(err, &unsupported) {
		t.Errorf("another version: %v", err)
	}
	d = sample(t, 32)
	copy(d.image[424:], "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01")
	if err := open(d); !errors.As(err, &unsupported) {
		t.Errorf("BitLocker: %v", err)
	}
}

// TestType: the number of clusters decides.
func TestType(t *testing.T) {
	boot := func(bits int, clusters int64) []byte {
		s := bytes.Clone(newDisk(t, bits).image[:512])
		perTable := (tableBytes(uint32(clusters), bits) + 511) / 512
		sectors := int64(le.Uint16(s[14:])) + 2*perTable + int64(le.Uint16(s[17:]))/16 + clusters
		le.PutUint16(s[19:], 0)
		le.PutUint32(s[32:], uint32(sectors))
		if bits == 32 {
			le.PutUint32(s[36:], uint32(perTable))
		} else {
			le.PutUint16(s[22:], uint16(perTable))
		}
		return s
	}
	for _, c := range []struct {
		made     int
		clusters int64
		is       int // 0: no FAT
		misnamed bool
	}{
		{12, 1, 12, false},
		{12, 4084, 12, false},
		{12, 4085, 0, false}, // its table is too small for a FAT16
		{16, 4084, 12, true},
		{16, 4085, 16, false},
		{16, 65524, 16, false},
		{16, 65525, 0, false},
		{32, 1, 32, false}, // not what Microsoft's paper says, but how drivers read it
		{32, 65524, 32, false},
		{32, 65525, 32, false},
		{32, 0x0FFFFF00, 32, false},
	} {
		b, err := parseBoot(boot(c.made, c.clusters))
		if c.is == 0 {
			if err == nil {
				t.Errorf("%d clusters of %d bits are a FAT%d", c.clusters, c.made, b.bits)
			}
			continue
		}
		if err != nil || b.bits != c.is || int64(b.clusters) != c.clusters || b.misnamed != c.misnamed {
			t.Errorf("%d clusters of %d bits: %+v, %v", c.clusters, c.made, b, err)
		}
	}
	for clusters := int64(0x0FFFFFF5); clusters <= 0x0FFFFFF6; clusters++ {
		s := boot(32, 100)
		perTable := (tableBytes(0x0FFFFFF6, 32) + 511) / 512
		le.PutUint32(s[36:], uint32(perTable))
		s[16] = 1
		le.PutUint32(s[32:], uint32(3+perTable+clusters))
		if _, err := parseBoot(s); (err == nil) != (clusters == 0x0FFFFFF5) {
			t.Errorf("%#x clusters: %v", clusters, err)
		}
	}
}

func TestLabel(t *testing.T) {
	d := newDisk(t, 16)
	if label := d.open().Info().Label; label != "BOOT LABEL" {
		t.Errorf("%q", label)
	}
	copy(d.image[43:], "NO NAME    ")
	if label := d.open().Info().Label; label != "" {
		t.Errorf("%q", label)
	}
	d.add(short("A FILE     ", 0x20, 0, 0))
	if label := d.open().Info().Label; label != "" {
		t.Errorf("%q", label)
	}
	d.add(short("\xE5LD LABEL  ", 0x08, 0, 0), long("a name of 3 parts, at least", "FILE       "), short("FILE       ", 0x20, 0, 0),
		short("Gr\x81\xE1e      ", 0x28, 0, 0), short("ANOTHER    ", 0x08, 0, 0))
	if label := d.open().Info().Label; label != "Grüße" {
		t.Errorf("%q", label)
	}
	// A root folder that cannot be followed is no reason not to open.
	d = sample(t, 32)
	d.image[44] = 0xFF
	if label := d.open().Info().Label; label != "BOOT LABEL" {
		t.Errorf("%q", label)
	}
}

func TestUsed(t *testing.T) {
	for name, change := range map[string]func(s []byte){
		"unknown":      func(s []byte) { le.PutUint32(s[512+488:], 0xFFFFFFFF) },
		"too many":     func(s []byte) { le.PutUint32(s[512+488:], 121) },
		"no signature": func(s []byte) { s[512] = 0 },
		"none":         func(s []byte) { le.PutUint16(s[48:], 0) },
		"outside":      func(s []byte) { le.PutUint16(s[48:], 3) },
	} {
		d := sample(t, 32)
		if used := d.open().Info().Used; used < 0 {
			t.Fatal(used)
		}
		change(d.image)
		if used := d.open().Info().Used; used != -1 {
			t.Errorf("%s: %d", name, used)
		}
	}
}
