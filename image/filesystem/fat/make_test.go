package fat

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"unicode/utf16"

	"varve/image/filesystem"
)

// disk is a small FAT that is made by hand: sectors and clusters of 512 bytes, two tables.
type disk struct {
	t     testing.TB
	image []byte
	boot
	next uint32 // cluster that was not given out yet
	main []byte // the root folder
}

const tail = 100 // bytes behind the filesystem

func newDisk(t testing.TB, bits int) *disk {
	t.Helper()
	clusters := map[int]int{12: 100, 16: 4200, 32: 120}[bits]
	perTable := (int(tableBytes(uint32(clusters), bits)) + 511) / 512
	reserved, rootSectors := 1, 4
	if bits == 32 {
		reserved, rootSectors = 3, 0
	}
	sectors := reserved + 2*perTable + rootSectors + clusters
	d := &disk{t: t, image: make([]byte, sectors*512+tail), next: 2}
	s := d.image
	copy(s, "\xEB\x3C\x90MSDOS5.0")
	le.PutUint16(s[11:], 512)
	s[13] = 1
	le.PutUint16(s[14:], uint16(reserved))
	s[16] = 2
	le.PutUint16(s[17:], uint16(rootSectors*16))
	le.PutUint16(s[19:], uint16(sectors))
	s[21] = 0xF8
	extended := s[36:]
	if bits == 32 {
		le.PutUint16(s[19:], 0)
		le.PutUint32(s[32:], uint32(sectors))
		le.PutUint32(s[36:], uint32(perTable))
		le.PutUint32(s[44:], 2)
		le.PutUint16(s[48:], 1)
		le.PutUint16(s[50:], 2)
		info := s[512:]
		le.PutUint32(info, 0x41615252)
		le.PutUint32(info[484:], 0x61417272)
		le.PutUint32(info[488:], 107) // as many as sample leaves
		le.PutUint16(info[510:], 0xAA55)
		extended = s[64:]
	} else {
		le.PutUint16(s[22:], uint16(perTable))
	}
	extended[2] = 0x29
	le.PutUint32(extended[3:], 0x0123ABCD)
	copy(extended[7:], "BOOT LABEL FAT")
	extended[21], extended[22] = byte('0'+bits/10), byte('0'+bits%10)
	copy(extended[23:], "   ")
	s[510], s[511] = 0x55, 0xAA
	var err error
	if d.boot, err = parseBoot(s); err != nil {
		t.Fatal(err)
	}
	d.link(0, 0x0FFFFFF8)
	d.link(1, 0x0FFFFFFF)
	if bits == 32 {
		d.next = 3
		d.link(2, 0x0FFFFFFF)
	}
	return d
}

// link sets an entry of both tables.
func (d *disk) link(c, value uint32) {
	for i := range int64(2) {
		setEntry(d.image[d.tables+i*d.tableSize:], c, value, d.bits)
	}
}

func setEntry(table []byte, c, value uint32, bits int) {
	switch bits {
	case 12:
		at := table[c*3/2:]
		if c%2 == 0 {
			le.PutUint16(at, le.Uint16(at)&0xF000|uint16(value&0xFFF))
		} else {
			le.PutUint16(at, le.Uint16(at)&0x000F|uint16(value<<4))
		}
	case 16:
		le.PutUint16(table[2*c:], uint16(value))
	default:
		le.PutUint32(table[4*c:], value)
	}
}

// store writes data into clusters of their own, and returns the first.
func (d *disk) store(data []byte) uint32 {
	var list []uint32
	for range (len(data) + 511) / 512 {
		list = append(list, d.next)
		d.next++
	}
	return d.storeIn(data, list...)
}

func (d *disk) storeIn(data []byte, clusters ...uint32) uint32 {
	if len(clusters) == 0 {
		return 0
	}
	for i, c := range clusters {
		copy(d.image[d.at(c):d.at(c)+512], data[i*512:])
		next := uint32(0x0FFFFFFF)
		if i+1 < len(clusters) {
			next = clusters[i+1]
		}
		d.link(c, next)
	}
	return clusters[0]
}

// add adds entries to the root folder.
func (d *disk) add(entries ...[]byte) {
	d.main = append(d.main, slices.Concat(entries...)...)
	if d.bits == 32 {
		var clusters []uint32
		for i := range (len(d.main) + 511) / 512 {
			c := uint32(2)
			if i > 0 {
				c = uint32(100 + i)
			}
			clusters = append(clusters, c)
		}
		d.storeIn(d.main, clusters...)
		return
	}
	copy(d.image[d.rootOffset:d.rootOffset+d.rootSize], d.main)
}

// short is an entry; name has 11 letters.
func short(name string, attributes byte, first uint32, size int) []byte {
	e := make([]byte, 32)
	if copy(e, name) != 11 {
		panic(name)
	}
	e[11] = attributes
	le.PutUint16(e[20:], uint16(first>>16))
	le.PutUint16(e[26:], uint16(first))
	le.PutUint32(e[28:], uint32(size))
	le.PutUint16(e[22:], 12<<11|34<<5|28) // 12:34:56
	le.PutUint16(e[24:], 44<<9|2<<5|29)   // 29 February 2024
	return e
}

// long are the entries of a long name, for the file with a short one.
func long(name, shortName string) []byte {
	letters := utf16.Encode([]rune(name))
	if len(letters)%13 != 0 {
		letters = append(letters, 0)
	}
	for len(letters)%13 != 0 {
		letters = append(letters, 0xFFFF)
	}
	var all []byte
	for part := len(letters) / 13; part > 0; part-- {
		e := make([]byte, 32)
		e[0] = byte(part)
		if part == len(letters)/13 {
			e[0] |= 0x40
		}
		e[11], e[13] = 0x0F, checksum([]byte(shortName))
		for i, letter := range letters[(part-1)*13 : part*13] {
			at := 1 + 2*i
			if i >= 5 {
				at += 3
			}
			if i >= 11 {
				at += 2
			}
			le.PutUint16(e[at:], letter)
		}
		all = append(all, e...)
	}
	return all
}

// sample is a disk with something of everything.
func sample(t testing.TB, bits int) *disk {
	d := newDisk(t, bits)
	content := bytes.Repeat([]byte("0123456789abcdef"), 100) // 1600 bytes
	file := d.store(content)
	d.next += 4
	fragments := d.storeIn(content, d.next+2, d.next+3, d.next, d.next+9)
	d.next += 10
	hello := d.store([]byte("hello\n"))
	inner := slices.Concat(short(".          ", 0x10, d.next, 0), short("..         ", 0x10, 0, 0),
		long("inside \U0001F600.txt", "INSIDE~1TXT"), short("INSIDE~1TXT", 0x20, hello, 6))
	for range 20 {
		inner = append(inner, short("\xE5ONE    TXT", 0x20, 0, 0)...)
	}
	inner = append(inner, short("EMPTY      ", 0x21, 0, 0)...)
	d.add(short("A DISK     ", 0x08, 0, 0),
		short("FILE    TXT", 0x20, file, len(content)),
		long("a rather long name of a file", "ARATHE~1   "), short("ARATHE~1   ", 0x20, fragments, len(content)),
		short("FOLDER     ", 0x10, d.store(inner), 0))
	d.link(50, 0x0FFFFFF7)
	return d
}

func (d *disk) open() *FS {
	d.t.Helper()
	fs, err := Open(bytes.NewReader(d.image), int64(len(d.image)))
	if err != nil {
		d.t.Fatal(err)
	}
	return fs
}

// free returns the free clusters.
func (d *disk) free() ([]uint32, error) {
	d.t.Helper()
	fs := d.open()
	var list []uint32
	err := fs.Free(context.Background(), func(r filesystem.Range) error {
		for at := r.Offset; at < r.End(); at += fs.cluster {
			list = append(list, uint32((at-fs.data)/fs.cluster)+2)
		}
		return nil
	})
	return list, err
}

// list returns the entries of a folder, also with an error.
func list(tree filesystem.Tree, folder filesystem.Number) (entries []filesystem.Entry, err error) {
	err = tree.ReadDir(context.Background(), folder, func(e filesystem.Entry) error {
		entries = append(entries, e)
		return nil
	})
	return entries, err
}

func names(entries []filesystem.Entry) (list []string) {
	for _, e := range entries {
		list = append(list, e.Name)
	}
	return list
}

// find returns the number of the entry of a name.
func (d *disk) find(name string) filesystem.Number {
	d.t.Helper()
	entries, err := list(d.open(), root)
	for _, e := range entries {
		if e.Name == name {
			return e.Number
		}
	}
	d.t.Fatalf("there is no %q: %v", name, err)
	return 0
}

func isCorrupt(err error) bool {
	var corrupt *filesystem.CorruptError
	return errors.As(err, &corrupt)
}

func isUntrusted(err error) bool {
	var untrusted *filesystem.UntrustedError
	return errors.As(err, &untrusted)
}
