package exfat

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

func TestSample(t *testing.T) {
	d := sample(t)
	fsys := d.open()
	want := filesystem.Info{
		Type: "exfat", Label: "Läb", UUID: "0123-ABCD", BlockSize: 512, Size: int64(len(d.image)) - tail, Used: -1,
	}
	if info := fsys.Info(); info != want {
		t.Errorf("%+v, not %+v", info, want)
	}
	paths := map[string]filesystem.File{}
	if err := filesystemtest.Walk(fsys, func(path string, n filesystem.Number) (err error) {
		paths[path], err = fsys.Stat(n)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	content := strings.Repeat("0123456789abcdef", 100)
	files := map[string]string{
		"piece.bin": content, "fragments.bin": content, "partly written": content[:700] + strings.Repeat("\x00", 900),
		"folder": "", "folder of a chain": "",
	}
	for _, folder := range []string{"folder/", "folder of a chain/"} {
		files[folder+"inside \U0001F600.txt"] = "hello\n"
		for _, name := range []string{"empty", "a name of some length", "b name of some length", "c name of some length"} {
			files[folder+name] = ""
		}
	}
	for path, what := range files {
		file, ok := paths[path]
		if !ok {
			t.Fatalf("%q is missing, there are %v", path, paths)
		}
		delete(paths, path)
		if file.Size != int64(len(what)) || file.Mode.IsDir() != (path == "folder" || path == "folder of a chain") {
			t.Errorf("%q is %+v", path, file)
		}
		if file.Mode.IsDir() {
			continue
		}
		c, err := fsys.Open(file.Number, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := filesystemtest.CompareContent(c, []byte(what)); err != nil {
			t.Errorf("%q: %v", path, err)
		}
	}
	if len(paths) > 0 {
		t.Errorf("there are also %v", paths)
	}
}

func TestExtents(t *testing.T) {
	d := newDisk(t)
	d.storeIn(make([]byte, 2048), 42, 43, 40, 49)
	for _, c := range []struct {
		size, written int
		want          []filesystem.Extent
	}{
		{1600, 1600, []filesystem.Extent{
			{Offset: 0, Length: 1024, Disk: d.at(42), Stored: 1024},
			{Offset: 1024, Length: 512, Disk: d.at(40), Stored: 512},
			{Offset: 1536, Length: 512, Disk: d.at(49), Stored: 512},
		}},
		{1600, 700, []filesystem.Extent{
			{Offset: 0, Length: 700, Disk: d.at(42), Stored: 700},
			{Kind: filesystem.Hole, Offset: 700, Length: 324, Disk: d.at(42) + 700, Stored: 324},
			{Kind: filesystem.Hole, Offset: 1024, Length: 512, Disk: d.at(40), Stored: 512},
			{Kind: filesystem.Hole, Offset: 1536, Length: 512, Disk: d.at(49), Stored: 512},
		}},
		{1024, -1, []filesystem.Extent{
			{Kind: filesystem.Hole, Offset: 0, Length: 1024, Disk: d.at(42), Stored: 1024},
		}},
		{100, 100, []filesystem.Extent{{Offset: 0, Length: 512, Disk: d.at(42), Stored: 512}}},
		{0, 0, nil},
	} {
		one := *d
		one.image, one.main = bytes.Clone(d.image), slices.Clone(d.main)
		one.add(made{name: "file", first: 42, size: c.size, chain: true, change: func(s set) {
			le.PutUint64(s.stream()[8:], uint64(max(0, c.written)))
		}}.set())
		content, err := one.open().Open(one.find("file"), "")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := content.Extents(); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%d of %d bytes: %+v, not %+v: %v", c.written, c.size, got, c.want, err)
		}
	}
}

func TestNames(t *testing.T) {
	vendor := make([]byte, 64)
	vendor[0], vendor[32] = 0xE0, 0xE1
	for _, m := range []made{
		{name: "a"},
		{name: "fifteen letters"},
		{name: "sixteen letters."},
		{name: strings.Repeat("x", 255)},
		{name: "fourteen......\U0001F600 in two entries"},
		{name: "Grüße 日本語 " + strings.Repeat("\U0001F680", 50)},
		{name: " leading, trailing. "},
		{name: "with things of others", more: vendor},
	} {
		d := newDisk(t)
		d.add(m.set(), made{name: "last"}.set())
		got, err := list(d.open(), root)
		if want := []string{m.name, "last"}; err != nil || !slices.Equal(names(got), want) {
			t.Errorf("%q, not %q: %v", names(got), want, err)
			continue
		}
		for _, e := range got {
			if file, err := d.open().Stat(e.Number); err != nil || file.Number != e.Number {
				t.Errorf("%q: %+v, %v", e.Name, file, err)
			}
		}
	}
}

// TestPlacesOfSets puts sets everywhere in folders with and without a chain.
func TestPlacesOfSets(t *testing.T) {
	for _, chain := range []bool{false, true} {
		for before := range 20 {
			d := newDisk(t)
			var inner []byte
			for range before {
				inner = append(inner, 0x05)
				inner = append(inner, make([]byte, 31)...)
			}
			most := made{name: strings.Repeat("y", 240), first: d.store([]byte("hello\n")), size: 6}
			inner = slices.Concat(inner, most.set(), most.set())
			inner = append(inner, make([]byte, 2048-len(inner))...)
			folder := made{name: "folder", attributes: 0x10, size: 2048, chain: chain}
			if chain {
				folder.first = d.storeIn(inner, 90, 80, 81, 70)
			} else {
				folder.first = d.store(inner)
			}
			d.add(folder.set())
			fsys := d.open()
			entries, err := list(fsys, d.find("folder"))
			if err != nil || len(entries) != 2 {
				t.Fatalf("%v: %v", entries, err)
			}
			for _, e := range entries {
				c, err := fsys.Open(e.Number, "")
				if err != nil {
					t.Fatal(err)
				}
				if err := filesystemtest.CompareContent(c, []byte("hello\n")); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// TestManyPieces has a file in more pieces than a ring is looked for in.
func TestManyPieces(t *testing.T) {
	d := newDisk(t)
	var clusters []uint32
	for i := range uint32(50) {
		clusters = append(clusters, 125-2*i)
	}
	content := bytes.Repeat([]byte("0123456789"), 50*51)
	d.add(made{name: "file", first: d.storeIn(content, clusters...), size: len(content), chain: true}.set())
	c, err := d.open().Open(d.find("file"), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := filesystemtest.CompareContent(c, content); err != nil {
		t.Error(err)
	}
}

// TestBehindTheEnd: what a folder has after its last entry was there before.
func TestBehindTheEnd(t *testing.T) {
	d := newDisk(t)
	d.add(made{name: "file"}.set(), make([]byte, 32), made{name: "old"}.set())
	got, err := list(d.open(), root)
	if err != nil || !slices.Equal(names(got), []string{"file"}) {
		t.Errorf("%q: %v", names(got), err)
	}
	d.add(structure(0x86, 2, 16, 0))
	if _, err := d.free(); err != nil {
		t.Error(err)
	}
}

func TestWrongSets(t *testing.T) {
	good := made{name: "good"}.set()
	unknown := make([]byte, 32)
	unknown[0] = 0xC2
	broken := func(change func(s set)) set {
		s := made{name: "a name of two parts"}.set()
		change(s)
		return s
	}
	sealed := func(change func(s set)) set { return made{name: "a name of two parts", change: change}.set() }
	for what, s := range map[string]set{
		"a flipped bit":           broken(func(s set) { s[77] ^= 4 }),
		"cut off":                 good[:64],
		"a hole":                  broken(func(s set) { s[64] &^= inUse }),
		"only a file":             good[:32],
		"no followers":            broken(func(s set) { s[1] = 0 })[:32],
		"too many followers":      sealed(func(s set) { s[1] = 19 }),
		"no stream":               sealed(func(s set) { s[32] = typeName }),
		"no name":                 sealed(func(s set) { s[64] = 0xE0; s[96] = 0xE0 }),
		"half a name":             sealed(func(s set) { s[96] = 0xE0 }),
		"a shorter name":          sealed(func(s set) { s[35] = 16 + 15 }),
		"an empty name":           sealed(func(s set) { s[35] = 0; s[64] = 0xE0; s[96] = 0xE0 }),
		"a slash":                 made{name: "a/b"}.set(),
		"a zero":                  made{name: "a\x00b"}.set(),
		"a dot":                   made{name: "."}.set(),
		"two dots":                made{name: ".."}.set(),
		"of more than 2^63 bytes": sealed(func(s set) { le.PutUint64(s[56:], 1<<63) }),
		"more written than there": sealed(func(s set) { le.PutUint64(s[40:], 1) }),
		"without room":            sealed(func(s set) { le.PutUint64(s[56:], 1); s[33] = 0 }),
		"too long a folder":       sealed(func(s set) { s[4] = 0x10; le.PutUint64(s[56:], maxFolder+1) }),
		"an unknown part":         made{name: "with something else", more: unknown}.set(),
	} {
		d := newDisk(t)
		d.add(made{name: "first"}.set(), s, made{name: "last"}.set())
		entries, err := list(d.open(), root)
		if !isCorrupt(err) && !(isUnsupported(err) && what == "an unknown part") || !slices.Equal(names(entries), []string{"first", "last"}) {
			t.Errorf("%s: %q and %v", what, names(entries), err)
		}
	}
}

func TestStat(t *testing.T) {
	stamp := func(s set, at int, day, clock uint32) { le.PutUint32(s[at:], day<<16|clock) }
	d := newDisk(t)
	d.add(made{name: "zones", change: func(s set) {
		stamp(s, 8, 127<<9|12<<5|31, 23<<11|59<<5|28)
		s[20], s[22] = 199, 0x80|8        // two hours east
		s[21], s[23] = 50, 0x80|(0x80-22) // five and a half west
		s[24] = 8                         // not valid
	}}.set(), made{name: "none", attributes: 0x21, change: func(s set) { clear(s[8:25]) }}.set(),
		made{name: "folder", attributes: 0x11, first: 50, size: 512}.set())
	fsys := d.open()
	day := time.Date(2024, 2, 29, 12, 34, 56, 0, time.UTC)
	for name, want := range map[string]filesystem.File{
		"zones": {
			Mode: 0o644, Links: 1, Created: time.Date(2107, 12, 31, 21, 59, 57, 990_000_000, time.UTC),
			Modified: day.Add(5*time.Hour + 30*time.Minute + 500*time.Millisecond), Accessed: day,
		},
		"none":   {Mode: 0o444, Links: 1},
		"folder": {Mode: fs.ModeDir | 0o755, Links: 1, Created: day, Modified: day, Accessed: day},
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
	d := sample(t)
	fsys := d.open()
	file, folder := d.find("piece.bin"), d.find("folder")
	for _, n := range []filesystem.Number{
		0, 2, 32, file + 32, file + 2, filesystem.Number(d.data), 1 << 40, ^filesystem.Number(0), filesystem.Number(d.data + clusters*512),
	} {
		_, statErr := fsys.Stat(n)
		_, openErr := fsys.Open(n, "")
		_, dirErr := list(fsys, n)
		if statErr == nil || openErr == nil || dirErr == nil {
			t.Errorf("number %d: %v, %v, %v", n, statErr, openErr, dirErr)
		}
	}
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
	if _, err := fsys.Readlink(file); err == nil {
		t.Error("a file is a link")
	}
}

func TestChains(t *testing.T) {
	for name, damage := range map[string]func(d *disk){
		"a ring":         func(d *disk) { d.link(52, 50); d.link(80, 80) },
		"a short chain":  func(d *disk) { d.link(51, endOfChain); d.link(80, endOfChain) },
		"a free cluster": func(d *disk) { d.link(51, 0); d.link(80, 0) },
		"a bad cluster":  func(d *disk) { d.link(51, 0xFFFFFFF7); d.link(80, 0xFFFFFFF7) },
		"cluster 1":      func(d *disk) { d.link(51, 1); d.link(80, 1) },
		"outside":        func(d *disk) { d.link(51, clusters+2); d.link(80, clusters+2) },
	} {
		d := newDisk(t)
		d.storeIn(make([]byte, 512*6), 50, 51, 52, 53, 54, 55)
		inner := append(made{name: "inside"}.set(), bytes.Repeat(append([]byte{5}, make([]byte, 31)...), 29)...)
		d.storeIn(inner, 80, 81)
		d.add(made{name: "file", first: 50, size: 512 * 6, chain: true}.set(), made{name: "folder", attributes: 0x10, first: 80, size: 1024, chain: true}.set())
		fsys := d.open()
		if entries, err := list(fsys, d.find("folder")); err != nil || len(entries) != 1 {
			t.Fatalf("%v: %v", entries, err)
		}
		damage(d)
		if _, err := fsys.Open(d.find("file"), ""); !isCorrupt(err) {
			t.Errorf("%s: the file: %v", name, err)
		}
		entries, err := list(fsys, d.find("folder"))
		if want := map[bool]int{true: 0, false: 1}[name == "a ring"]; !isCorrupt(err) || len(entries) != want {
			t.Errorf("%s: the folder: %v and %v", name, entries, err)
		}
	}
	for _, m := range []made{
		{name: "file", first: 126, size: 1025}, // in one piece, and beyond the end
		{name: "file", first: 1, size: 1},
		{name: "file", first: 0, size: 1},
		{name: "file", first: 50, size: 1 << 62},
		{name: "file", first: 50, size: 512*clusters + 1},
		{name: "file", first: 50, size: 512*clusters + 1, chain: true},
		{name: "file", first: 0xFFFFFFFF, size: 512},
	} {
		d := newDisk(t)
		d.add(m.set())
		if _, err := d.open().Open(d.find("file"), ""); !isCorrupt(err) {
			t.Errorf("%+v: %v", m, err)
		}
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
	d := sample(t)
	open := func(at int64) (*FS, error) {
		return Open(broken{bytes.NewReader(d.image), at, at + 1}, int64(len(d.image)))
	}
	for _, at := range []int64{0, 11 * 512, d.at(4), d.table + 16} {
		if _, err := open(at); !errors.Is(err, errBroken) {
			t.Errorf("unreadable at %d: %v", at, err)
		}
	}
	for _, at := range []int64{d.at(2), d.at(3), d.at(6)} { // the bitmap, the upper case letters, the second cluster of the root
		fsys, err := open(at)
		if err != nil {
			t.Fatal(err)
		}
		err = fsys.Free(context.Background(), func(filesystem.Range) error { return nil })
		if !errors.Is(err, errBroken) || isUntrusted(err) {
			t.Errorf("unreadable at %d: free clusters: %v", at, err)
		}
	}
	piece, chain := d.find("piece.bin"), d.find("folder of a chain")
	fsys, err := open(d.at(110))
	if err != nil {
		t.Fatal(err)
	}
	if entries, err := list(fsys, chain); !errors.Is(err, errBroken) || len(entries) == 0 {
		t.Errorf("an unreadable part of a folder: %q, %v", names(entries), err)
	}
	if fsys, err = open(int64(piece)); err == nil {
		_, err = fsys.Stat(piece)
	}
	if !errors.Is(err, errBroken) {
		t.Errorf("an unreadable set: %v", err)
	}
	if fsys, err = open(d.at(20) + 700); err != nil {
		t.Fatal(err)
	}
	c, err := fsys.Open(piece, "")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.ReadAt(make([]byte, 1600), 0); n != 0 || !errors.Is(err, errBroken) {
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
	short, err := Open(io.NewSectionReader(bytes.NewReader(d.image), 0, d.at(20)+600), int64(len(d.image)))
	if err != nil {
		t.Fatal(err)
	}
	if c, err = short.Open(piece, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadAt(make([]byte, 1600), 0); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		t.Errorf("behind the end of the disk: %v", err)
	}
}

func TestStopsWhenTold(t *testing.T) {
	fsys := sample(t).open()
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
}
