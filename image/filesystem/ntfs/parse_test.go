package ntfs

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"varve/image/filesystem"
)

func TestBoot(t *testing.T) {
	whole := smallImage(t)[:bootSize]
	b, err := parseBoot(whole)
	if err != nil || b.sector != 512 || b.cluster != 512 || b.record != 1024 || b.clusters != b.sectors {
		t.Fatalf("%+v, %v", b, err)
	}
	for _, c := range []struct {
		name   string
		change func(b []byte)
		want   func(b boot) bool // nil: an error
	}{
		{"sectors of 4096", func(b []byte) { le.PutUint16(b[11:], 4096) }, func(b boot) bool { return b.cluster == 4096 }},
		{"clusters of 2 MiB", func(b []byte) { b[13] = 0xf4 }, func(b boot) bool { return b.cluster == 2<<20 && b.clusters == 1<<18 }},
		{"clusters of 64 KiB", func(b []byte) { b[13] = 128 }, func(b boot) bool { return b.cluster == 64<<10 }},
		{"records of 4 clusters", func(b []byte) { b[64] = 4 }, func(b boot) bool { return b.record == 2048 }},
		{"no sectors", func(b []byte) { le.PutUint16(b[11:], 0) }, nil},
		{"sectors of 768", func(b []byte) { le.PutUint16(b[11:], 768) }, nil},
		{"clusters of 3", func(b []byte) { b[13] = 3 }, nil},
		{"clusters of none", func(b []byte) { b[13] = 0 }, nil},
		{"clusters of 4 MiB", func(b []byte) { b[13] = 0xf3 }, nil},
		{"clusters of 2^127", func(b []byte) { b[13] = 0x81 }, nil},
		{"records of 2^128", func(b []byte) { b[64] = 0x80 }, nil},
		{"records of 256", func(b []byte) { b[64] = 0xf8 }, nil},
		{"records of 3 clusters", func(b []byte) { b[64] = 3 }, nil},
		{"too many sectors", func(b []byte) { le.PutUint64(b[40:], math.MaxInt64/512) }, nil},
		{"negative sectors", func(b []byte) { le.PutUint64(b[40:], 1<<63) }, nil},
		{"$MFT outside", func(b []byte) { le.PutUint64(b[48:], 1<<40) }, nil},
		{"$MFT in the boot sector", func(b []byte) { le.PutUint64(b[48:], 0) }, nil},
	} {
		changed := bytes.Clone(whole)
		le.PutUint64(changed[40:], 1<<30) // room for large clusters
		changed[64] = 0xf6                // records of 1 KiB
		c.change(changed)
		b, err := parseBoot(changed)
		var corrupt *filesystem.CorruptError
		switch {
		case c.want == nil && !errors.As(err, &corrupt):
			t.Errorf("%s: %+v, %v", c.name, b, err)
		case c.want != nil && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want != nil && !c.want(b):
			t.Errorf("%s: %+v", c.name, b)
		}
	}
}

func TestRuns(t *testing.T) {
	for _, c := range []struct {
		bytes       string
		first, last int64
		want        []run // nil: an error
	}{
		{"00", 0, -1, []run{}},
		{"21 18 34 56 00", 0, 0x17, []run{{0, 0x5634, 0x18}}},
		{"11 30 20 01 60 11 10 30 00", 0, 0x9f, []run{{0, 0x20, 0x30}, {0x30, hole, 0x60}, {0x90, 0x50, 0x10}}},
		{"31 38 73 25 34 32 14 01 e5 11 02 31 42 aa 00 03 00", 0, 0x18d, []run{{0, 0x342573, 0x38}, {0x38, 0x363758, 0x114}, {0x14c, 0x393802, 0x42}}},
		{"11 10 50 11 08 e0 00", 100, 0x17 + 100, []run{{100, 0x50, 0x10}, {0x74, 0x30, 8}}}, // back
		{"11 10 50", 0, 15, []run{{0, 0x50, 0x10}}},                                          // to the end of the attribute
		{"11 10", 0, 15, nil},
		{"11 10 50 00", 0, 16, nil},
		{"11 10 50 00", 0, 14, nil},
		{"10 50 00", 0, 15, nil},
		{"19 10 50 00", 0, 15, nil},
		{"11 00 50 00", 0, -1, nil},
		{"11 f0 50 00", 0, 15, nil},          // negative length
		{"11 10 80 00", 0, 15, nil},          // before the partition
		{"41 10 f8 ff 3f 00 00", 0, 15, nil}, // over its end
		{"11 10 50 81 10 ff ff ff ff ff ff ff 7f 00", 0, 31, nil},
		{"81 10 00 00 00 00 00 00 00 80 00", 0, 15, nil},
		{"08 ff ff ff ff ff ff ff 7f 00", 0, math.MaxInt64 / maxCluster, nil},
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(c.bytes, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseRuns(b, c.first, c.last, 0x400000)
		if c.want == nil && err == nil || c.want != nil && (err != nil || len(got) != len(c.want) || len(got) > 0 && !reflect.DeepEqual(got, c.want)) {
			t.Errorf("%s: %v, %v", c.bytes, got, err)
		}
	}
}

func TestDecompress(t *testing.T) {
	unit := func(chunks ...string) []byte {
		var b []byte
		for _, c := range chunks {
			b = le.AppendUint16(b, 0xb000|uint16(len(c)-1))
			b = append(b, c...)
		}
		return b
	}
	plain := string(bytes.Repeat([]byte("0123456789abcdef"), 256))
	for _, c := range []struct {
		name, want string
		src        []byte
		bad        bool
	}{
		{name: "nothing", src: nil},
		{name: "an end", src: []byte{0, 0, 1, 2, 3}},
		{name: "bytes", src: unit("\x00abc"), want: "abc"},
		{name: "a byte over and over", src: unit("\x02a\xfc\x0f"), want: strings.Repeat("a", 4096)},
		{name: "two chunks", src: unit("\x02a\xfc\x0f", "\x00xyz"), want: strings.Repeat("a", 4096) + "xyz"},
		{name: "a short chunk and another", src: unit("\x00abc", "\x00xyz"), want: "abc" + string(make([]byte, 4093)) + "xyz"},
		{name: "not compressed", src: append([]byte{0xff, 0x3f}, plain...), want: plain},
		{name: "a distance that is too far", src: unit("\x02a\x00\x10"), bad: true},
		{name: "a repetition of nothing", src: unit("\x01\x00\x00"), bad: true},
		{name: "too long", src: unit("\x02a\xfd\x0f"), bad: true},
		{name: "too many bytes", src: unit("\x06a\xfc\x0f\x00\x00"), bad: true},
		{name: "half a repetition", src: unit("\x02a\xfc"), bad: true},
		{name: "another format", src: []byte{0x03, 0xa0, 0, 'a', 'b', 'c'}, bad: true},
		{name: "a chunk that is cut off", src: []byte{0x10, 0xb0, 0, 'a'}, bad: true},
	} {
		dst := bytes.Repeat([]byte("?"), 3*4096)
		err := decompress(dst, c.src)
		if (err != nil) != c.bad {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil && string(dst) != c.want+string(make([]byte, len(dst)-len(c.want))) {
			t.Errorf("%s: %q", c.name, bytes.TrimRight(dst, "\x00"))
		}
	}
}

func TestText(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "",
		"a\x00b\x00":               "ab",
		"\xfc\x00":                 "ü",
		"\xac\x20":                 "€",
		"\x3d\xd8\x00\xde":         "😀",
		"\x3d\xd8":                 "\xed\xa0\xbd",
		"\x3d\xd8a\x00":            "\xed\xa0\xbda",
		"\x00\xdea\x00":            "\xed\xb8\x80a",
		"\x3d\xd8\x3d\xd8\x00\xde": "\xed\xa0\xbd😀",
		"a\x00b":                   "a",
	} {
		if got := text([]byte(in)); got != want {
			t.Errorf("%q becomes %q, not %q", in, got, want)
		}
	}
}

func TestMoment(t *testing.T) {
	at := func(n int64) time.Time { return moment(le.AppendUint64(nil, uint64(n))) }
	for n, want := range map[int64]string{
		116_444_736_000_000_000:     "1970-01-01T00:00:00Z",
		116_444_736_000_000_000 - 1: "1969-12-31T23:59:59.9999999Z",
		132_378_804_005_000_001:     "2020-06-29T05:00:00.5000001Z",
		1:                           "1601-01-01T00:00:00.0000001Z",
		-10_000_000:                 "1600-12-31T23:59:59Z",
	} {
		if got := at(n).Format(time.RFC3339Nano); got != want {
			t.Errorf("%d is %s, not %s", n, got, want)
		}
	}
	if !at(0).IsZero() {
		t.Error("no time is one")
	}
}

func TestReparse(t *testing.T) {
	for _, c := range []struct {
		name string
		b    []byte
		want form
		bad  bool
	}{
		{"relative", reparsePoint(tagSymlink, windowsData(`..\a\b`, 1)), form{kind: fs.ModeSymlink, target: "../a/b"}, false},
		{"volume", reparsePoint(tagMountPoint, mountData(`\??\Volume{01234567}\`)), form{kind: fs.ModeSymlink, target: "Volume{01234567}/"}, false},
		{"device", reparsePoint(tagLinuxChar, ""), form{kind: fs.ModeDevice | fs.ModeCharDevice, device: 7}, false},
		{"unknown", reparsePoint(0x12345678, "12345678901234567890"), form{kind: fs.ModeDir, tag: 0x12345678}, false},
		{"too short", []byte("1234567"), form{}, true},
		{"cut off", reparsePoint(tagSymlink, windowsData(`..\a\b`, 1))[:30], form{}, true},
		{"target outside", reparsePoint(tagMountPoint, "\x00\x00\x10\x00\x00\x00\x00\x00"), form{}, true},
		{"no header", reparsePoint(tagMountPoint, "\x00\x00"), form{}, true},
		{"another version", reparsePoint(tagLinuxLink, "\x01\x00\x00\x00target"), form{}, true},
	} {
		got, err := parseReparse(c.b, fs.ModeDir, linux{device: 7})
		if (err != nil) != c.bad || err == nil && got != c.want {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

func TestExtendedAttributes(t *testing.T) {
	whole := []byte(extendedAttributes("A", "", "LONGER", "value"))
	list, err := parseEA(whole)
	want := []filesystem.Attribute{{Name: "A", Value: []byte{}}, {Name: "LONGER", Value: []byte("value")}}
	if err != nil || !reflect.DeepEqual(list, want) {
		t.Errorf("%q, %v", list, err)
	}
	le.PutUint32(whole[12:], 0) // the last may say that there is no next one
	if list, err := parseEA(whole); err != nil || !reflect.DeepEqual(list, want) {
		t.Errorf("%q, %v", list, err)
	}
	for _, n := range []int{1, 7, 11, 13, 20, 30} {
		if _, err := parseEA(whole[:n]); err == nil {
			t.Errorf("%d bytes of %d: no error", n, len(whole))
		}
	}
	whole[5] = 0
	if _, err := parseEA(whole); err == nil {
		t.Error("no name: no error")
	}
}

// TestUnits: units of a compressed file that begin and end within runs.
func TestUnits(t *testing.T) {
	const cluster = 512
	disk := make([]byte, 100*cluster)
	for i := range disk {
		disk[i] = byte(i/cluster) | 0x80
	}
	f := &FS{r: bytes.NewReader(disk), size: int64(len(disk)), boot: boot{cluster: cluster, clusters: 100}}
	packed := []byte{0x03, 0xb0, 0x02, 'z', 0xfc, 0x0f} // 4096 times z
	copy(disk[30*cluster:], packed)
	copy(disk[33*cluster:], packed)
	c := &compressed{stream: &stream{f: f, size: 60*cluster - 100, initialized: 60*cluster - 100, unit: 8, clusters: 60, runs: []run{
		{0, 10, 20},    // two units and a half
		{20, 50, 4},    // the half's other half
		{24, 30, 1},    // a compressed unit
		{25, hole, 15}, // its rest, and a hole
		{40, 33, 1},    // a compressed unit in two pieces
		{41, 40, 1},
		{42, hole, 6},
		{48, 60, 12}, // a unit and a last one that is cut off
	}}}
	want := make([]byte, 0, c.size)
	want = append(want, disk[10*cluster:30*cluster]...)
	want = append(want, disk[50*cluster:54*cluster]...)
	want = append(want, bytes.Repeat([]byte("z"), 4096)...)
	want = append(want, make([]byte, 8*cluster)...)
	want = append(want, bytes.Repeat([]byte("z"), 4096)...)
	want = append(want, disk[60*cluster:68*cluster]...)
	got := make([]byte, len(want))
	if _, err := c.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("it reads otherwise: %v", err)
	}
	if _, err := c.ReadAt(got[:1], 56*cluster); err == nil {
		t.Error("a last unit with something else than LZNT1 in it is read")
	}
	extents, err := c.Extents()
	if err != nil {
		t.Fatal(err)
	}
	if want := []filesystem.Extent{
		{Kind: filesystem.Plain, Offset: 0, Length: 20 * cluster, Disk: 10 * cluster, Stored: 20 * cluster},
		{Kind: filesystem.Plain, Offset: 20 * cluster, Length: 4 * cluster, Disk: 50 * cluster, Stored: 4 * cluster},
		{Kind: filesystem.Encoded, Offset: 24 * cluster, Length: 8 * cluster, Disk: 30 * cluster, Stored: cluster},
		{Kind: filesystem.Hole, Offset: 32 * cluster, Length: 8 * cluster},
		{Kind: filesystem.Encoded, Offset: 40 * cluster, Length: cluster, Disk: 33 * cluster, Stored: cluster},
		{Kind: filesystem.Encoded, Offset: 41 * cluster, Length: 7 * cluster, Disk: 40 * cluster, Stored: cluster},
		{Kind: filesystem.Plain, Offset: 48 * cluster, Length: 8 * cluster, Disk: 60 * cluster, Stored: 8 * cluster},
		{Kind: filesystem.Encoded, Offset: 56 * cluster, Length: 4 * cluster, Disk: 68 * cluster, Stored: 4 * cluster},
	}; !reflect.DeepEqual(extents, want) {
		t.Errorf("it lies in\n%+v, not\n%+v", extents, want)
	}
	c.runs = []run{{0, hole, 4}, {4, 10, 4}}
	if _, err := c.part(0); err == nil {
		t.Error("a unit that begins with a hole is read")
	}
}
