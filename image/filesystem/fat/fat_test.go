package fat

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
)

var widths = []int{12, 16, 32}

func TestSample(t *testing.T) {
	for _, bits := range widths {
		d := sample(t, bits)
		fsys := d.open()
		info := fsys.Info()
		want := filesystem.Info{
			Type: map[int]string{12: "fat12", 16: "fat16", 32: "fat32"}[bits], Label: "A DISK", UUID: "0123-ABCD", BlockSize: 512,
			Size: int64(len(d.image)) - tail, Used: -1,
		}
		if bits == 32 {
			want.Used = want.Size - 107*512
		}
		if info != want {
			t.Errorf("%d bits: %+v, not %+v", bits, info, want)
		}
		paths := map[string]filesystem.File{}
		if err := filesystemtest.Walk(fsys, func(path string, n filesystem.Number) (err error) {
			paths[path], err = fsys.Stat(n)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		content := strings.Repeat("0123456789abcdef", 100)
		for path, what := range map[string]string{
			"FILE.TXT": content, "a rather long name of a file": content, "FOLDER": "", "FOLDER/inside \U0001F600.txt": "hello\n", "FOLDER/EMPTY": "",
		} {
			file, ok := paths[path]
			if !ok {
				t.Fatalf("%d bits: %q is missing, there are %v", bits, path, paths)
			}
			delete(paths, path)
			if file.Size != int64(len(what)) || file.Mode.IsDir() != (path == "FOLDER") {
				t.Errorf("%d bits: %q is %+v", bits, path, file)
			}
			if file.Mode.IsDir() {
				continue
			}
			c, err := fsys.Open(file.Number, "")
			if err != nil {
				t.Fatal(err)
			}
			if err := filesystemtest.CompareContent(c, []byte(what)); err != nil {
				t.Errorf("%d bits: %q: %v", bits, path, err)
			}
		}
		if len(paths) > 0 {
			t.Errorf("%d bits: there are also %v", bits, paths)
		}
	}
}

func TestExtents(t *testing.T) {
	d := sample(t, 16)
	c, err := d.open().Open(d.find("a rather long name of a file"), "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.Extents()
	if err != nil {
		t.Fatal(err)
	}
	first := uint32(2 + 4 + 4)
	want := []filesystem.Extent{
		{Offset: 0, Length: 1024, Disk: d.at(first + 2), Stored: 1024},
		{Offset: 1024, Length: 512, Disk: d.at(first), Stored: 512},
		{Offset: 1536, Length: 512, Disk: d.at(first + 9), Stored: 512},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, not %+v", got, want)
	}
}

func TestNames(t *testing.T) {
	flags := func(e []byte, f byte) []byte { e[12] = f; return e }
	file := func(name string) []byte { return short(name, 0x20, 0, 0) }
	most, three := strings.Repeat("x", 255), "a name of three parts, each of 13"
	part := func(number byte) []byte {
		e := long("a long name", "ALONGN~1TXT")
		e[0] = number
		return e
	}
	for _, c := range []struct {
		want    string
		entries [][]byte
	}{
		{"README.TXT", [][]byte{file("README  TXT")}},
		{"NOEXT", [][]byte{file("NOEXT      ")}},
		{"A B.C", [][]byte{file("A B     C  ")}},
		{"readme.TXT", [][]byte{flags(file("README  TXT"), 0x08)}},
		{"README.txt", [][]byte{flags(file("README  TXT"), 0x10)}},
		{"readme.txt", [][]byte{flags(file("README  TXT"), 0x18)}},
		{"σX.TXT", [][]byte{file("\x05X      TXT")}},
		{"ÄÖÜß", [][]byte{file("\x8E\x99\x9A\xE1       ")}},
		{"äöüß", [][]byte{flags(file("\x8E\x99\x9A\xE1       "), 0x08)}},
		{"a long name.text", [][]byte{long("a long name.text", "ALONGN~1TEX"), file("ALONGN~1TEX")}},
		{"13 letters...", [][]byte{long("13 letters...", "13LETT~1   "), file("13LETT~1   ")}},
		{most, [][]byte{long(most, "XXXXXX~1   "), file("XXXXXX~1   ")}},
		{"face-\U0001F600-\U0001F680", [][]byte{long("face-\U0001F600-\U0001F680", "FACE-~1    "), file("FACE-~1    ")}},
		{"twelve.....\U0001F600 and so on", [][]byte{long("twelve.....\U0001F600 and so on", "TWELVE~1   "), file("TWELVE~1   ")}}, // a pair in two entries
		{"ALONGN~1.TXT", [][]byte{long("another name", "OTHER~1 TXT"), file("ALONGN~1TXT")}},
		{"ALONGN~1.TXT", [][]byte{long("a name of two parts", "ALONGN~1TXT")[32:], file("ALONGN~1TXT")}},
		{"ALONGN~1.TXT", [][]byte{long("a name of two parts", "ALONGN~1TXT")[:32], file("ALONGN~1TXT")}},
		{"ALONGN~1.TXT", [][]byte{long("a long name", "ALONGN~1TXT"), file("\xE5LONGN~1TXT"), file("ALONGN~1TXT")}},
		{"ALONGN~1.TXT", [][]byte{long("a long name", "ALONGN~1TXT"), short("LABEL      ", 0x08, 0, 0), file("ALONGN~1TXT")}},
		{"ALONGN~1.TXT", [][]byte{long(three, "ALONGN~1TXT")[:32], long(three, "ALONGN~1TXT")[64:], file("ALONGN~1TXT")}},
		{"ALONGN~1.TXT", [][]byte{long(three, "ALONGN~1TXT")[:64], long(three, "ALONGN~1TXT")[32:], file("ALONGN~1TXT")}},
		{"ALONGN~1.TXT", [][]byte{long(three, "ALONGN~1TXT")[:32], long(three, "OTHER~1 TXT")[32:64], long(three, "ALONGN~1TXT")[64:], file("ALONGN~1TXT")}},
		{"ALONGN~1.TXT", [][]byte{part(0x40), file("ALONGN~1TXT")}},
		{"ALONGN~1.TXT", [][]byte{part(0x40 | 21), file("ALONGN~1TXT")}},
		{"ALONGN~1.TXT", [][]byte{long("a/b", "ALONGN~1TXT"), file("ALONGN~1TXT")}},
		{"ALONGN~1.TXT", [][]byte{long("..", "ALONGN~1TXT"), file("ALONGN~1TXT")}},
	} {
		for _, bits := range widths {
			d := newDisk(t, bits)
			d.add(c.entries...)
			d.add(file("LAST       "))
			got, err := list(d.open(), root)
			if want := []string{c.want, "LAST"}; err != nil || !slices.Equal(names(got), want) {
				t.Errorf("%d bits: %q, not %q: %v", bits, names(got), want, err)
			}
		}
	}
}

func TestWrongNames(t *testing.T) {
	for _, name := range []string{"A/B        ", "           ", "A\x00B        ", "A\x1FB        "} {
		d := newDisk(t, 12)
		d.add(short("FIRST      ", 0x20, 0, 0), short(name, 0x20, 0, 0), short("LAST       ", 0x20, 0, 0))
		got, err := list(d.open(), root)
		if want := []string{"FIRST", "LAST"}; !isCorrupt(err) || !slices.Equal(names(got), want) {
			t.Errorf("with %q: %q and %v", name, names(got), err)
		}
	}
}

// TestBehindTheEnd: what a folder has after its last entry was there before.
func TestBehindTheEnd(t *testing.T) {
	d := newDisk(t, 32)
	d.add(short("FILE       ", 0x20, 0, 0), make([]byte, 32), short("OLD        ", 0x20, 0, 0), short("OLD LABEL  ", 0x08, 0, 0))
	got, err := list(d.open(), root)
	if err != nil || !slices.Equal(names(got), []string{"FILE"}) {
		t.Errorf("%q: %v", names(got), err)
	}
	if label := d.open().Info().Label; label != "BOOT LABEL" {
		t.Errorf("%q", label)
	}
}

// TestHighWord: only a FAT32 has more than 16 bits of a cluster in an entry.
func TestHighWord(t *testing.T) {
	for _, bits := range widths {
		d := newDisk(t, bits)
		d.add(short("FILE       ", 0x20, d.storeIn(make([]byte, 5), 60)|0x10000, 5))
		_, err := d.open().Open(d.find("FILE"), "")
		if (err == nil) != (bits != 32) {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
}

// TestManyPieces has a file and a folder in more pieces than a ring is looked for in.
func TestManyPieces(t *testing.T) {
	d := newDisk(t, 16)
	var clusters []uint32
	for i := range uint32(100) {
		clusters = append(clusters, 1000-7*i)
	}
	content := bytes.Repeat([]byte("0123456789"), 100*51)
	d.add(short("FILE       ", 0x20, d.storeIn(content, clusters...), len(content)))
	c, err := d.open().Open(d.find("FILE"), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := filesystemtest.CompareContent(c, content); err != nil {
		t.Error(err)
	}
}

// TestLongestFolder: a folder ends after 2 MiB, of which all is read.
func TestLongestFolder(t *testing.T) {
	d := newDisk(t, 16)
	d.next = 10
	inner := bytes.Repeat(short("\xE5          ", 0x20, 0, 0), maxFolder/32+16)
	copy(inner[maxFolder-32:], short("LAST       ", 0x20, 0, 0))
	copy(inner[maxFolder:], short("BEHIND     ", 0x20, 0, 0))
	first := d.store(inner)
	d.add(short("FOLDER     ", 0x10, first, 0))
	folder := d.find("FOLDER")
	entries, err := list(d.open(), folder)
	if !isCorrupt(err) || !slices.Equal(names(entries), []string{"LAST"}) {
		t.Errorf("%q: %v", names(entries), err)
	}
	d.link(first+maxFolder/512-1, 0x0FFFFFFF)
	entries, err = list(d.open(), folder)
	if err != nil || !slices.Equal(names(entries), []string{"LAST"}) {
		t.Errorf("%q: %v", names(entries), err)
	}
}

func TestStat(t *testing.T) {
	e := short("FILE       ", 0x20, 0, 0)
	e[13] = 199
	le.PutUint16(e[14:], 23<<11|59<<5|28) // 23:59:56
	le.PutUint16(e[16:], 127<<9|12<<5|31) // 31 December 2107
	le.PutUint16(e[18:], 0<<9|1<<5|1)     // 1 January 1980
	none := short("NONE       ", 0x21, 0, 0)
	clear(none[13:26])
	le.PutUint16(none[24:], 44<<9|13<<5|1) // a month 13
	d := newDisk(t, 12)
	d.add(e, none, short("FOLDER     ", 0x11, 20, 77))
	fsys := d.open()
	for name, want := range map[string]filesystem.File{
		"FILE": {
			Mode: 0o644, Links: 1, Modified: time.Date(2024, 2, 29, 12, 34, 56, 0, time.UTC),
			Created:  time.Date(2107, 12, 31, 23, 59, 57, 990_000_000, time.UTC),
			Accessed: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC),
		},
		"NONE":   {Mode: 0o444, Links: 1},
		"FOLDER": {Mode: fs.ModeDir | 0o755, Links: 1, Modified: time.Date(2024, 2, 29, 12, 34, 56, 0, time.UTC)},
	} {
		want.Number = d.find(name)
		got, err := fsys.Stat(want.Number)
		if err != nil || got != want {
			t.Errorf("%s is %+v, not %+v: %v", name, got, want, err)
		}
	}
	got, err := fsys.Stat(fsys.Root())
	if want := (filesystem.File{Number: root, Mode: fs.ModeDir | 0o755, Links: 1}); err != nil || got != want {
		t.Errorf("the root is %+v, not %+v: %v", got, want, err)
	}
}

// TestWrongNumbers: what ReadDir did not give is refused.
func TestWrongNumbers(t *testing.T) {
	for _, bits := range widths {
		d := sample(t, bits)
		fsys := d.open()
		first := filesystem.Number(fsys.data)
		if bits != 32 {
			first = filesystem.Number(fsys.rootOffset)
		}
		for _, n := range []filesystem.Number{0, 2, 32, first, first + 1, 1 << 40, ^filesystem.Number(0), filesystem.Number(len(d.image)-tail) &^ 31} {
			_, statErr := fsys.Stat(n) // the first entry is a label
			_, openErr := fsys.Open(n, "")
			_, dirErr := list(fsys, n)
			if statErr == nil || openErr == nil || dirErr == nil {
				t.Errorf("%d bits: number %d: %v, %v, %v", bits, n, statErr, openErr, dirErr)
			}
		}
		file, folder := d.find("FILE.TXT"), d.find("FOLDER")
		if _, err := list(fsys, file); err == nil {
			t.Error("a file is read as a folder")
		}
		if _, err := fsys.Open(folder, ""); err == nil {
			t.Error("a folder is read as a file")
		}
		if _, err := fsys.Open(root, ""); err == nil {
			t.Error("the root folder is read as a file")
		}
		if _, err := fsys.Open(file, "stream"); err == nil {
			t.Error("a file has a stream")
		}
	}
}

func TestChains(t *testing.T) {
	for name, damage := range map[string]func(d *disk){
		"a ring":         func(d *disk) { d.link(5, 3); d.link(80, 80) },
		"a short chain":  func(d *disk) { d.link(4, 0x0FFFFFFF); d.link(80, 0) },
		"a free cluster": func(d *disk) { d.link(4, 0); d.link(80, 0) },
		"a bad cluster":  func(d *disk) { d.link(4, 0x0FFFFFF7); d.link(80, 0x0FFFFFF7) },
		"cluster 1":      func(d *disk) { d.link(4, 1); d.link(80, 1) },
		"outside":        func(d *disk) { d.link(4, d.clusters+2); d.link(80, d.clusters+2) },
	} {
		for _, bits := range widths {
			d := newDisk(t, bits)
			if bits == 32 {
				d.link(2, 0x0FFFFFFF)
			}
			d.storeIn(make([]byte, 512*6), 3, 4, 5, 6, 7, 8)
			d.storeIn(slices.Concat(short("INSIDE     ", 0x20, 0, 0), bytes.Repeat(short("\xE5          ", 0x20, 0, 0), 15)), 80)
			d.add(short("FILE       ", 0x20, 3, 512*6), short("FOLDER     ", 0x10, 80, 0), short("NOWHERE    ", 0x10, 0, 0))
			damage(d)
			fsys := d.open()
			if _, err := fsys.Open(d.find("FILE"), ""); !isCorrupt(err) {
				t.Errorf("%d bits, %s: the file: %v", bits, name, err)
			}
			entries, err := list(fsys, d.find("FOLDER"))
			if !isCorrupt(err) && name != "a short chain" || len(entries) > 1 {
				t.Errorf("%d bits, %s: the folder: %v and %v", bits, name, entries, err)
			}
			if name != "a ring" && len(entries) != 1 {
				t.Errorf("%d bits, %s: what can be read of the folder is not", bits, name)
			}
			if _, err := list(fsys, d.find("NOWHERE")); !isCorrupt(err) {
				t.Errorf("%d bits, %s: the folder nowhere: %v", bits, name, err)
			}
			if _, err := d.free(); !isUntrusted(err) && !slices.Contains([]string{"a ring", "a short chain", "a bad cluster"}, name) {
				t.Errorf("%d bits, %s: free clusters: %v", bits, name, err)
			}
		}
	}
}

// TestLongerThanItNeeds: clusters behind the size of a file are no damage. Some systems set them aside.
func TestLongerThanItNeeds(t *testing.T) {
	d := newDisk(t, 12)
	d.add(short("FILE       ", 0x20, d.storeIn(bytes.Repeat([]byte("x"), 1536), 10, 20, 11), 513))
	c, err := d.open().Open(d.find("FILE"), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := filesystemtest.CompareContent(c, bytes.Repeat([]byte("x"), 513)); err != nil {
		t.Error(err)
	}
	if extents, _ := c.Extents(); len(extents) != 2 {
		t.Errorf("extents %+v", extents)
	}
}

func TestTooLarge(t *testing.T) {
	d := newDisk(t, 12)
	d.add(short("FILE       ", 0x20, 10, 0xFFFFFFFF))
	if _, err := d.open().Open(d.find("FILE"), ""); !isCorrupt(err) {
		t.Error(err)
	}
}

// broken cannot be read from one offset to another.
type broken struct {
	io.ReaderAt
	from, to int64
}

var errBroken = errors.New("broken")

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off < b.to && off+int64(len(p)) > b.from {
		return 0, errBroken
	}
	return b.ReaderAt.ReadAt(p, off)
}

func TestUnreadable(t *testing.T) {
	d := newDisk(t, 16)
	d.next = 100
	first := d.store(bytes.Repeat(short("\xE5          ", 0x20, 0, 0), 2*readSize/32))
	inner := d.at(first) + 2*readSize - 32 // its last entries lie behind what cannot be read
	copy(d.image[inner:], short("LAST       ", 0x20, 0, 0))
	copy(d.image[d.at(first):], short("FIRST      ", 0x20, 0, 0))
	d.add(short("FOLDER     ", 0x10, first, 0), short("FILE       ", 0x20, d.store(make([]byte, 2048)), 2048))
	folder, file := d.find("FOLDER"), d.find("FILE")
	at := d.at(first)
	open := func(from, to int64) (*FS, error) {
		return Open(broken{bytes.NewReader(d.image), from, to}, int64(len(d.image)))
	}
	for _, at := range []int64{0, d.tables, d.rootOffset} {
		if _, err := open(at, at+1); !errors.Is(err, errBroken) {
			t.Errorf("unreadable at %d: %v", at, err)
		}
	}
	for _, at := range []int64{d.tables + 8, d.tables + d.tableSize} {
		fsys, err := open(at, at+1)
		if err != nil {
			t.Fatal(err)
		}
		err = fsys.Free(context.Background(), func(filesystem.Range) error { return nil })
		if !errors.Is(err, errBroken) || isUntrusted(err) {
			t.Errorf("unreadable at %d: free clusters: %v", at, err)
		}
	}
	if _, err := open(int64(file), int64(file)+1); err == nil {
		t.Fatal("an entry before the label is not read")
	}
	wide := sample(t, 32)
	if _, err := Open(broken{bytes.NewReader(wide.image), 512, 513}, int64(len(wide.image))); !errors.Is(err, errBroken) {
		t.Errorf("an unreadable FSInfo: %v", err)
	}
	fsys, err := open(at, at+32)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fsys.Stat(filesystem.Number(at)); !errors.Is(err, errBroken) {
		t.Errorf("an unreadable entry: %v", err)
	}
	fsys, err = open(d.tables+8, d.tables+9)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fsys.Open(file, ""); !errors.Is(err, errBroken) {
		t.Errorf("a file with an unreadable chain: %v", err)
	}
	if fsys, err = open(at+readSize-1, at+readSize); err != nil {
		t.Fatal(err)
	}
	entries, err := list(fsys, folder)
	if !errors.Is(err, errBroken) || !slices.Equal(names(entries), []string{"LAST"}) {
		t.Errorf("an unreadable part of a folder: %q, %v", names(entries), err)
	}
	at = d.at(uint32(le.Uint16(d.image[int64(file)+26:])))
	if fsys, err = open(at+700, at+701); err != nil {
		t.Fatal(err)
	}
	c, err := fsys.Open(file, "")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.ReadAt(make([]byte, 2048), 0); n != 0 || !errors.Is(err, errBroken) {
		t.Errorf("an unreadable part of a file: %d bytes, %v", n, err)
	}
	if n, err := c.ReadAt(make([]byte, 500), 0); n != 500 || err != nil {
		t.Errorf("before an unreadable part of a file: %d bytes, %v", n, err)
	}
	if n, err := c.ReadAt(make([]byte, 1), 5000); n != 0 || err != io.EOF {
		t.Errorf("far behind the end of a file: %d bytes, %v", n, err)
	}
	if _, err := c.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("a negative offset is read")
	}
	// A disk that ends too early.
	short, err := Open(io.NewSectionReader(bytes.NewReader(d.image), 0, at+600), int64(len(d.image)))
	if err != nil {
		t.Fatal(err)
	}
	if c, err = short.Open(file, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadAt(make([]byte, 2048), 0); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		t.Errorf("behind the end of the disk: %v", err)
	}
}

func TestStopsWhenTold(t *testing.T) {
	d := sample(t, 32)
	fsys := d.open()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := fsys.ReadDir(ctx, root, func(filesystem.Entry) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("ReadDir: %v", err)
	}
	if err := fsys.Free(ctx, func(filesystem.Range) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Free: %v", err)
	}
	calls := 0
	stop := errors.New("stop")
	if err := fsys.ReadDir(context.Background(), root, func(filesystem.Entry) error { calls++; return stop }); err != stop || calls != 1 {
		t.Errorf("ReadDir after an error: %v, %d calls", err, calls)
	}
	calls = 0
	if err := fsys.Free(context.Background(), func(filesystem.Range) error { calls++; return stop }); err != stop || calls != 1 {
		t.Errorf("Free after an error: %v, %d calls", err, calls)
	}
	if _, err := fsys.Readlink(d.find("FILE.TXT")); err == nil {
		t.Error("a file is a link")
	}
}
