package catalogue

import (
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"io/fs"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
	"varve/image/filesystem"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares data with the hexadecimal text of a file.
func golden(t *testing.T, name string, data []byte) {
	t.Helper()
	path := "testdata/" + name + ".golden"
	if *update {
		if err := os.WriteFile(path, []byte(hex.Dump(data)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.Dump(data); got != string(want) {
		t.Errorf("%s changed: catalogues could not be read any more; got\n%s\nwant\n%s", name, got, want)
	}
}

func idOf(b byte) (id ID) {
	for i := range id {
		id[i] = b
	}
	return id
}

// encode returns the page of some entries.
func encode(entries ...Entry) []byte {
	data := []byte{entryPage}
	var b before
	for i := range entries {
		data = appendEntry(data, &b, &entries[i])
	}
	return data
}

// decode returns the entries of a page.
func decode(data []byte) ([]Entry, error) {
	var entries []Entry
	c := newCursor(data)
	for c.next() {
		entries = append(entries, c.entry(string(c.name)))
	}
	return entries, c.err
}

// encodeIndex returns an index page.
func encodeIndex(level byte, children ...child) []byte {
	data := []byte{indexPage, level}
	var name []byte
	for _, c := range children {
		data = appendChild(data, &name, c)
	}
	return data
}

// all has one entry of each kind.
var all = []Entry{
	{Name: "bin", Number: 12, Mode: fs.ModeSymlink | 0o777, Links: 1, Size: 7, Target: "usr/bin", Modified: time.Unix(1_700_000_000, 0).UTC(), Changed: time.Unix(1_700_000_000, 0).UTC()},
	{Name: "boot", Number: 13, Mode: fs.ModeDir | 0o700, Links: 3, ID: idOf(5), Files: 300, Bytes: 1 << 33, Modified: time.Unix(1_700_000_100, 123_456_789).UTC(), Changed: time.Unix(1_700_000_200, 1).UTC()},
	{Name: "broken", Number: 3, Mode: fs.ModeIrregular, Incomplete: true},
	{Name: "empty", Number: 14, Mode: fs.ModeDir | fs.ModeSticky | 0o777, Links: 2},
	{Name: "file", Number: 1 << 40, Mode: 0o644 | fs.ModeSetuid, UID: 1000, GID: 100, Links: 2, Size: 4096, Digest: Digest{1, 2, 3}, Modified: time.Unix(-5, 999_999_999).UTC()},
	{Name: "pipe", Number: 15, Mode: fs.ModeNamedPipe | 0o600, UID: 1000, GID: 100, Links: 1, Changed: time.Unix(0, 0).UTC()},
	{Name: "sda", Number: 16, Mode: fs.ModeDevice | 0o660, GID: 6, Links: 1, Device: 8 << 32},
	{Name: "socket", Number: 17, Mode: fs.ModeSocket | fs.ModeSetgid, Links: 1},
	{Name: "tty", Number: 18, Mode: fs.ModeDevice | fs.ModeCharDevice | 0o666, Links: 1, Device: 5 << 32},
	{Name: "Ünïcode \xff", Number: 19, Mode: fs.ModeIrregular, Size: 9},
}

var allChildren = []child{{"bin", idOf(1)}, {"boot", idOf(2)}, {"zz", idOf(1)}}

func TestPageGolden(t *testing.T) {
	golden(t, "entries", encode(all...))
	golden(t, "index", encodeIndex(2, allChildren...))
	golden(t, "root", encode(Entry{Mode: fs.ModeDir | 0o755, Number: 2, Links: 20, ID: idOf(9), Files: 3, Bytes: 5}))
}

// drawEntry draws an entry as Build makes it, without a name.
func drawEntry(t *rapid.T) Entry {
	e := Entry{Mode: fs.FileMode(rapid.IntRange(0, 0o777).Draw(t, "permissions")), UID: rapid.Uint32().Draw(t, "uid"), GID: rapid.Uint32().Draw(t, "gid"),
		Links: rapid.IntRange(0, math.MaxInt32).Draw(t, "links"), Modified: drawTime(t), Changed: drawTime(t), Incomplete: rapid.Bool().Draw(t, "incomplete")}
	number := rapid.OneOf(rapid.Int64Range(0, 300), rapid.Int64Range(0, math.MaxInt64), rapid.Just(int64(math.MaxInt64)))
	e.Mode |= rapid.SampledFrom([]fs.FileMode{0, fs.ModeSetuid, fs.ModeSetgid | fs.ModeSticky}).Draw(t, "bits")
	switch rapid.IntRange(0, 4).Draw(t, "type") {
	case 0:
		e.Size, e.Digest[rapid.IntRange(0, 15).Draw(t, "at")] = number.Draw(t, "size"), rapid.Byte().Draw(t, "digest")
	case 1:
		e.Mode |= fs.ModeDir
		if rapid.Bool().Draw(t, "full") {
			e.ID, e.Files, e.Bytes = idOf(7), number.Draw(t, "files"), number.Draw(t, "bytes")
		}
	case 2:
		e.Mode |= fs.ModeSymlink
		e.Target = strings.Repeat("x", rapid.IntRange(0, 300).Draw(t, "target"))
		e.Size = int64(len(e.Target))
	case 3:
		e.Mode |= rapid.SampledFrom([]fs.FileMode{fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice}).Draw(t, "device type")
		e.Device = rapid.Uint64().Draw(t, "device")
	case 4:
		e.Mode |= rapid.SampledFrom([]fs.FileMode{fs.ModeIrregular, fs.ModeNamedPipe, fs.ModeSocket}).Draw(t, "other type")
		if e.Mode&fs.ModeIrregular != 0 {
			e.Size = number.Draw(t, "size")
		}
	}
	return e
}

func TestPageRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.OneOf(rapid.StringMatching(`[a-c]{1,4}`), rapid.StringMatching(`[^\x00/]{3,40}`)), 1, 20, rapid.ID).Draw(t, "names")
		slices.Sort(names)
		var entries []Entry
		for _, name := range names {
			e := drawEntry(t)
			e.Name, e.Number = name, filesystem.Number(rapid.Uint64().Draw(t, "number"))
			entries = append(entries, e)
		}
		data := encode(entries...)
		got, err := decode(data)
		if err != nil || !slices.Equal(got, entries) {
			t.Fatalf("%v: got %+v, want %+v", err, got, entries)
		}
		for n := range data { // a page ends behind any entry, but nowhere else
			if part, err := decode(data[:n]); err == nil && !bytes.Equal(encode(part...), data[:n]) {
				t.Fatalf("the first %d bytes of %x are accepted", n, data)
			}
		}
	})
}

func TestIndexRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-c]{1,4}`), 1, 20, rapid.ID).Draw(t, "names")
		slices.Sort(names)
		var children []child
		for _, name := range names {
			children = append(children, child{name, idOf(rapid.Byte().Draw(t, "id"))})
		}
		data := encodeIndex(3, children...)
		got, err := decodeIndex(data)
		if err != nil || !slices.Equal(got, children) || pageLevel(data) != 3 {
			t.Fatalf("%v: got %+v, want %+v", err, got, children)
		}
		if _, err := decodeIndex(append(data, 0)); err == nil {
			t.Fatal("a byte too many is accepted")
		}
	})
}

// TestBadPages: what Build would not have written is not accepted.
func TestBadPages(t *testing.T) {
	file := func(name string) Entry { return Entry{Name: name, Mode: 0o644} }
	good := encode(file("abc"), file("abd"))
	if _, err := decode(good); err != nil {
		t.Fatal(err)
	}
	second := bytes.LastIndexByte(good, 'd') - 2 // where the second entry begins
	put := func(data []byte, at int, b ...byte) []byte {
		data = slices.Clone(data)
		copy(data[at:], b)
		return data
	}
	start := []byte{entryPage, 0, 1, 'a', 0, 0, 0xa4, 0x83, 0x02, 0, 0, 0} // of a regular file without times, up to its size
	dated := put(start, 4, flagModified)
	for _, c := range []struct {
		want string // in the error
		data []byte
	}{
		{"ends in the middle", nil},
		{"no entries", []byte{entryPage}},
		{"not a page of entries", []byte{5, 0, 0}},
		{"not a page of entries", encodeIndex(1, allChildren...)},
		{"bytes", append(bytes.Clone(good), make([]byte, maxPage)...)},
		{"not in order", encode(file("b"), file("a"))},
		{"empty or too long", put(good, second, 3, 0)}, // the same name again
		{"not in order", slices.Concat(good[:second], []byte{1, 2, 'b', 'd'}, good[second+3:])},
		{"more than 3", put(good, second, 4)},
		{"empty or too long", encode(file(""))},
		{"this folder", encode(file("."))},
		{"this folder", encode(file(".."))},
		{"a slash", encode(file("a/b"))},
		{"a slash", encode(file("a\x00"))},
		{"more than 1024", encode(file(strings.Repeat("a", maxName+1)))},
		{"empty or too long", encode(file(strings.Repeat("a", maxName)), file(strings.Repeat("a", maxName)+"b"))},
		{"unknown flags", put(good, 6, 16)},
		{"content where there is none", slices.Concat(put(good[:second], 6, flagContent), make([]byte, 16))},
		{"content where there is none", slices.Concat(put(encode(Entry{Name: "abc", Mode: fs.ModeDir}), 6, flagContent), make([]byte, 34))},
		{"content where there is none", put(encode(Entry{Name: "abc", Mode: fs.ModeNamedPipe}), 6, flagContent)},
		{"unknown type", []byte{entryPage, 0, 1, 'a', 0, 0, 0x80, 0x60, 0, 0, 0, 0}},
		{"more than 65535", []byte{entryPage, 0, 1, 'a', 0, 0, 0x80, 0x80, 0x04, 0, 0, 0, 0}},
		{"no owner -1", slices.Concat(put(start, 9, 1), []byte{0})},
		{"shortest form", []byte{entryPage, 0, 1, 'a', 0, 0x80, 0x00, 0xa4, 0x83, 0x02, 0, 0, 0, 0}},
		{"not in the years", encode(Entry{Name: "a", Mode: 0o644, Modified: time.Unix(firstSecond-1, 0)})},
		{"not in the years", slices.Concat(dated, appendDelta(nil, firstSecond), []byte{0, 0})}, // is no time at all
		{"not in the years", encode(Entry{Name: "a", Mode: 0o644, Changed: time.Unix(lastSecond+1, 0)})},
		{"more than 999999999", slices.Concat(dated, []byte{0, 0x80, 0x94, 0xeb, 0xdc, 0x03, 0})},
		{"more than 9223372036854775807", encode(Entry{Name: "a", Mode: 0o644, Size: -1})},
		{"more than 65536", encode(Entry{Name: "a", Mode: fs.ModeSymlink, Target: strings.Repeat("x", maxTarget+1)})},
		{"ends in the middle", start},
	} {
		if entries, err := decode(c.data); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%x… is decoded as %+v, %v, want %q", c.data[:min(len(c.data), 40)], entries, err, c.want)
		}
		if _, err := Children(c.data); err == nil && pageLevel(c.data) == 0 {
			t.Errorf("%x… has children, where %q", c.data[:min(len(c.data), 40)], c.want)
		}
	}
	if entries, err := decode(append(start, 0)); err != nil || len(entries) != 1 {
		t.Errorf("what the bad ones are made of is not good: %+v, %v", entries, err)
	}
	index := encodeIndex(1, allChildren...)
	for what, data := range map[string][]byte{
		"nothing":       {},
		"no level":      {indexPage},
		"no children":   {indexPage, 1},
		"level 0":       put(index, 1, 0),
		"level 17":      put(index, 1, maxLevel+1),
		"cut off":       index[:len(index)-1],
		"another order": encodeIndex(1, allChildren[1], allChildren[0]),
		"too long":      append(index, make([]byte, maxPage)...),
		"entries":       good,
	} {
		if children, err := decodeIndex(data); err == nil {
			t.Errorf("%s: %x is accepted as %v", what, data[:min(len(data), 40)], children)
		}
	}
	root := encode(Entry{Mode: fs.ModeDir})
	if _, err := decodeRoot(root); err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string][]byte{
		"nothing":     {},
		"a name":      encode(Entry{Name: "a", Mode: fs.ModeDir}),
		"a file":      encode(Entry{Mode: 0o644}),
		"two entries": encode(Entry{Mode: fs.ModeDir}, Entry{Name: "a", Mode: 0o644}),
		"cut off":     root[:len(root)-1],
	} {
		if e, err := decodeRoot(data); err == nil {
			t.Errorf("%s is accepted as a root: %+v", what, e)
		}
	}
}

// TestBadPlaces: pages that are good, but not where they are, are noticed by all who read.
func TestBadPlaces(t *testing.T) {
	s := newMemory()
	file := func(name string) Entry { return Entry{Name: name, Mode: 0o644} }
	ab, cd := s.put(encode(file("a"), file("b"))), s.put(encode(file("c"), file("d")))
	index := s.put(encodeIndex(1, child{"b", ab}, child{"d", cd}))
	for what, c := range map[string]struct {
		id   ID
		name string // that Lookup finds damaged as well; "": it cannot notice
	}{
		"the other page":               {s.put(encodeIndex(1, child{"b", cd}, child{"d", ab})), ""},
		"a last name that is not":      {s.put(encodeIndex(1, child{"b", ab}, child{"e", cd})), ""},
		"names before":                 {s.put(encodeIndex(1, child{"c", ab}, child{"d", cd})), ""},
		"a page at a higher level":     {s.put(encodeIndex(2, child{"b", ab}, child{"d", cd})), "a"},
		"an index at a lower level":    {s.put(encodeIndex(1, child{"d", index})), "a"},
		"an index that does not fit":   {s.put(encodeIndex(2, child{"e", index})), ""},
		"an index that comes too late": {s.put(encodeIndex(2, child{"a", s.put(encodeIndex(1, child{"a", s.put(encode(file("a")))}))}, child{"d", index})), ""},
		"the page of a root":           {s.put(encode(Entry{Mode: fs.ModeDir})), "a"},
		"no page":                      {s.put([]byte{1, 2, 3}), "a"},
		"a missing page":               {ID{1}, "a"},
	} {
		folder := Entry{Name: "f", Mode: fs.ModeDir, ID: c.id}
		cat := Open(s, Root{ID: PageID(s.put(encode(Entry{Mode: fs.ModeDir, ID: c.id})))})
		none := func(Entry) error { return nil }
		if err := cat.List(context.Background(), folder, none); err == nil {
			t.Errorf("%s: listed", what)
		}
		if err := cat.Walk(context.Background(), folder, func(string, Entry) error { return nil }); err == nil {
			t.Errorf("%s: walked", what)
		}
		if _, err := cat.Lookup(context.Background(), "/"+c.name); err == nil && c.name != "" {
			t.Errorf("%s: %s is found", what, c.name)
		}
	}
	two := s.put(encodeIndex(1, child{"a", ab}, child{"d", cd}))
	m := merge{load: s}
	if err := m.open(context.Background(), []top{{index, []int{0}}, {two, []int{1}}}); err == nil {
		t.Error("two index pages that do not agree on a page are accepted")
	}
}

// FuzzPage: what is accepted encodes to the same bytes, and whatever refers to it comes to an end.
func FuzzPage(f *testing.F) {
	f.Add(encode(all...))
	f.Add(encodeIndex(2, allChildren...))
	f.Add(encode(Entry{Mode: fs.ModeDir | 0o755, Number: 2, Links: 20, ID: idOf(9), Files: 3, Bytes: 5}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if entries, err := decode(data); err == nil && !bytes.Equal(encode(entries...), data) {
			t.Errorf("%x is accepted, and is not what would be written", data)
		}
		if e, err := decodeRoot(data); err == nil && !bytes.Equal(encode(e), data) {
			t.Errorf("%x is accepted as a root, and is not what would be written", data)
		}
		if children, err := decodeIndex(data); err == nil && !bytes.Equal(encodeIndex(data[1], children...), data) {
			t.Errorf("%x is accepted as an index, and is not what would be written", data)
		}
		if _, err := Children(data); err == nil && !IsPage(data) {
			t.Errorf("%x has children, and is no page", data)
		}
		c := Open(always(data), Root{})
		c.List(context.Background(), Entry{Mode: fs.ModeDir, ID: idOf(1)}, func(e Entry) error { return checkName(e.Name) })
		c.Lookup(context.Background(), "/bin/boot")
	})
}

// always is a store in which every page is the same.
type always []byte

func (a always) Load(context.Context, ID, []byte) ([]byte, error) { return a, nil }
