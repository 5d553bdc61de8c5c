package exfat

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"unicode/utf16"

	"varve/image/filesystem"
)

// disk is a small exFAT that is made by hand: sectors and clusters of 512 bytes. Cluster 2 is the bitmap, 3 the table of upper case letters, and 4
// begins the root folder.
type disk struct {
	t     testing.TB
	image []byte
	boot
	next uint32 // cluster that was not given out yet
	main []byte // the root folder
}

const (
	clusters = 126
	tail     = 100 // bytes behind the filesystem
)

func newDisk(t testing.TB) *disk {
	t.Helper()
	const sectors = 24 + 1 + clusters
	d := &disk{t: t, image: make([]byte, sectors*512+tail), next: 20}
	s := d.image
	copy(s, "\xEB\x76\x90EXFAT   ")
	le.PutUint64(s[72:], sectors)
	le.PutUint32(s[80:], 24)
	le.PutUint32(s[84:], 1)
	le.PutUint32(s[88:], 25)
	le.PutUint32(s[92:], clusters)
	le.PutUint32(s[96:], 4)
	le.PutUint32(s[100:], 0x0123ABCD)
	le.PutUint16(s[104:], 0x0100)
	s[108], s[109], s[110], s[111] = 9, 0, 1, 0x80
	for sector := range 9 {
		le.PutUint32(s[sector*512+508:], 0xAA550000)
	}
	d.seal()
	var err error
	if d.boot, err = parseBoot(s, int64(len(s))); err != nil {
		t.Fatal(err)
	}
	d.link(0, 0xFFFFFFF8)
	d.link(1, 0xFFFFFFFF)
	d.storeIn(nil, 2)
	upper := make([]byte, 4) // a run of letters that are upper case: all of them
	le.PutUint16(upper, 0xFFFF)
	le.PutUint16(upper[2:], 0xFFFF)
	d.storeIn(upper, 3)
	sum := uint32(0)
	for _, b := range upper {
		sum = sum>>1 | sum<<31
		sum += uint32(b)
	}
	labelled := make([]byte, 32)
	labelled[0], labelled[1] = typeLabel, 3
	le.PutUint16(labelled[2:], 'L')
	le.PutUint16(labelled[4:], 0x00E4)
	le.PutUint16(labelled[6:], 'b')
	d.add(labelled, structure(typeBitmap, 2, (clusters+7)/8, 0), structure(typeUpper, 3, len(upper), sum))
	return d
}

// structure is an entry of the root folder for the bitmap or the table of letters.
func structure(kind byte, first uint32, length int, sum uint32) []byte {
	e := make([]byte, 32)
	e[0] = kind
	le.PutUint32(e[4:], sum)
	le.PutUint32(e[20:], first)
	le.PutUint64(e[24:], uint64(length))
	return e
}

// seal makes the checksums of both boot regions right.
func (d *disk) seal() {
	sum := bootChecksum(d.image[:11*512])
	for at := 11 * 512; at < 12*512; at += 4 {
		le.PutUint32(d.image[at:], sum)
	}
	copy(d.image[12*512:], d.image[:12*512])
}

func (d *disk) link(c, value uint32) { le.PutUint32(d.image[d.table+4*int64(c):], value) }

// mark marks clusters as used.
func (d *disk) mark(used bool, clusters ...uint32) {
	for _, c := range clusters {
		b := &d.image[d.at(2)+int64(c-2)/8]
		if *b &^= 1 << ((c - 2) % 8); used {
			*b |= 1 << ((c - 2) % 8)
		}
	}
}

// storeIn writes data into clusters, with a chain of them.
func (d *disk) storeIn(data []byte, clusters ...uint32) uint32 {
	d.mark(true, clusters...)
	for i, c := range clusters {
		copy(d.image[d.at(c):d.at(c)+512], data[min(i*512, len(data)):])
		d.link(c, endOfChain)
		if i > 0 {
			d.link(clusters[i-1], c)
		}
	}
	return clusters[0]
}

// store writes data into clusters in one piece, without a chain.
func (d *disk) store(data []byte) uint32 {
	first := d.next
	for at := 0; at < len(data); at += 512 {
		copy(d.image[d.at(d.next):d.at(d.next)+512], data[at:])
		d.mark(true, d.next)
		d.link(d.next, 0x00ABCDEF) // what was there before
		d.next++
	}
	return first
}

// add adds entries to the root folder, whose clusters are apart.
func (d *disk) add(entries ...[]byte) {
	d.main = append(d.main, slices.Concat(entries...)...)
	var clusters []uint32
	for i := range (len(d.main) + 511) / 512 {
		clusters = append(clusters, uint32(4+2*i))
	}
	d.storeIn(d.main, clusters...)
}

// made says what a set is made of.
type made struct {
	name       string
	attributes uint16
	first      uint32
	size       int
	written    int // size when 0
	chain      bool
	change     func(s set) // before the checksum is made
	more       []byte      // entries behind it
}

func (m made) set() set {
	letters := utf16.Encode([]rune(m.name))
	names := (len(letters) + 14) / 15
	s := make(set, (2+names)*32, (2+names)*32+len(m.more))
	s[0], s[1] = typeFile, byte(1+names+len(m.more)/32)
	le.PutUint16(s[4:], m.attributes)
	le.PutUint32(s[8:], (44<<9|2<<5|29)<<16|12<<11|34<<5|28)
	le.PutUint32(s[12:], (44<<9|2<<5|29)<<16|12<<11|34<<5|28) // 29 February 2024, 12:34:56
	le.PutUint32(s[16:], (44<<9|2<<5|29)<<16|12<<11|34<<5|28)
	s[32], s[33] = typeStream, 3
	if m.chain {
		s[33] = 1
	}
	s[35] = byte(len(letters))
	written := m.size
	if m.written != 0 {
		written = m.written
	}
	le.PutUint64(s[40:], uint64(written))
	le.PutUint32(s[52:], m.first)
	le.PutUint64(s[56:], uint64(m.size))
	for i, letter := range letters {
		at := (2 + i/15) * 32
		s[at] = typeName
		le.PutUint16(s[at+2+i%15*2:], letter)
	}
	s = append(s, m.more...)
	if m.change != nil {
		m.change(s)
	}
	le.PutUint16(s[2:], setChecksum(s))
	return s
}

// sample is a disk with something of everything.
func sample(t testing.TB) *disk {
	d := newDisk(t)
	content := bytes.Repeat([]byte("0123456789abcdef"), 100) // 1600 bytes
	piece := d.store(content)
	d.next += 4
	fragments := d.storeIn(content, d.next+2, d.next+3, d.next, d.next+9)
	d.next += 10
	inner := slices.Concat(made{name: "inside \U0001F600.txt", attributes: 0x20, first: d.store([]byte("hello\n")), size: 6}.set(),
		made{name: "empty", attributes: 0x21}.set())
	for i := range 3 {
		gone := made{name: "gone"}.set()
		for at := 0; at < len(gone); at += 32 {
			gone[at] &^= inUse
		}
		inner = append(inner, gone...)
		inner = append(inner, made{name: string(rune('a'+i)) + " name of some length", attributes: 0x20}.set()...)
	}
	inner = append(inner, make([]byte, 1024-len(inner))...)
	d.add(made{name: "piece.bin", attributes: 0x20, first: piece, size: len(content)}.set(),
		made{name: "fragments.bin", attributes: 0x20, first: fragments, size: len(content), chain: true}.set(),
		made{name: "partly written", attributes: 0x20, first: d.store(content), size: 1600, written: 700}.set(),
		made{name: "folder", attributes: 0x10, first: d.store(inner), size: 1024}.set(),
		made{name: "folder of a chain", attributes: 0x10, first: d.storeIn(inner, 110, 103), size: 1024, chain: true}.set())
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

// find returns the number of the entry of a name in the root folder.
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

func isUnsupported(err error) bool {
	var unsupported *filesystem.UnsupportedError
	return errors.As(err, &unsupported)
}

func isUntrusted(err error) bool {
	var untrusted *filesystem.UntrustedError
	return errors.As(err, &untrusted)
}
