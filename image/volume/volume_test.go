package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
	"varve/image/filesystem"
)

// A toy is a filesystem that begins with its name, and does what a test says.
type toy struct {
	info    func() filesystem.Info
	free    func(ctx context.Context, free func(filesystem.Range) error) error
	openErr error
	panics  bool // when it is opened
}

func (t toy) Info() filesystem.Info { return t.info() }

func (t toy) Free(ctx context.Context, free func(filesystem.Range) error) error {
	return t.free(ctx, free)
}

// toys are readers of toys by their names, of at most 8 bytes at offset 4000.
func toys(list map[string]toy) []reader {
	var readers []reader
	for name, t := range list {
		readers = append(readers, reader{name, func(r io.ReaderAt, size int64) (filesystem.Filesystem, error) {
			p := make([]byte, len(name))
			if _, err := r.ReadAt(p, 4000); err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			switch {
			case string(p) != name:
				return nil, filesystem.ErrUnknown
			case t.panics:
				panic("an index is out of range")
			case t.openErr != nil:
				return nil, t.openErr
			}
			if t.info == nil {
				t.info = func() filesystem.Info {
					return filesystem.Info{Type: name + "fs", Label: "label of " + name, Size: size, Used: -1}
				}
			}
			return t, nil
		}})
	}
	slices.SortFunc(readers, func(a, b reader) int { return strings.Compare(a.name, b.name) })
	return readers
}

// frees says that these runs, as offset and length, are free.
func frees(runs ...int64) func(context.Context, func(filesystem.Range) error) error {
	return func(_ context.Context, free func(filesystem.Range) error) error {
		for i := 0; i < len(runs); i += 2 {
			if err := free(filesystem.Range{Offset: runs[i], Length: runs[i+1]}); err != nil {
				return err
			}
		}
		return nil
	}
}

// A piece is a partition of an MBR, in sectors, with something on it.
type piece struct {
	start, sectors uint32
	kind           byte
	make           func(v []byte)
}

func named(name string) func([]byte) { return func(v []byte) { copy(v[4000:], name) } }

// disk makes a disk with partitions.
func disk(size int, pieces ...piece) []byte {
	d := make([]byte, size)
	copy(d[510:], "\x55\xaa")
	for i, p := range pieces {
		e := d[446+16*i:]
		e[4] = p.kind
		le.PutUint32(e[8:], p.start)
		le.PutUint32(e[12:], p.sectors)
		if p.make != nil {
			p.make(d[p.start*512:][:p.sectors*512])
		}
	}
	return d
}

// told is what is free of the volumes, and a line for each that is read in full.
func told(l *Layout) ([]Run, []string) { return toldWithin(context.Background(), l, budget) }

func toldWithin(ctx context.Context, l *Layout, budget time.Duration) (runs []Run, lines []string) {
	var c collector
	for i := range l.Volumes {
		v := &l.Volumes[i]
		why := v.Full
		if why == "" {
			why = v.free(ctx, budget, &c)
		}
		if why != "" {
			lines = append(lines, fmt.Sprintf("%s: read in full, because %s", v, why))
		}
	}
	return c.runs(), lines
}

func check[T any](t *testing.T, what string, got, want []T) {
	t.Helper()
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("%s: %+v\ninstead of %+v", what, got, want)
	}
}

func TestFind(t *testing.T) {
	d := disk(8<<20,
		piece{2048, 2048, 0x83, named("one")}, piece{4096, 2048, 0x83, func(v []byte) { volumes["luks2"].make(v) }},
		piece{6144, 2048, 0x83, nil}, piece{8192, 2048, 0x07, named("two")})
	readers := toys(map[string]toy{
		"one": {free: frees(0, 4096, 65536, 8192)},
		"two": {free: func(_ context.Context, free func(filesystem.Range) error) error {
			if err := free(filesystem.Range{Length: 1 << 20}); err != nil {
				return err
			}
			return filesystem.Untrusted("its journal has to be replayed")
		}},
	})
	l := find(bytes.NewReader(d), int64(len(d)), 512, readers)
	check(t, "notes", l.Notes, nil)
	var list []string
	for i := range l.Volumes {
		v := &l.Volumes[i]
		list = append(list, fmt.Sprintf("%v %d+%d %q %q %v %s", v, v.Start, v.Length, v.Info.Label, v.Info.UUID, v.FS != nil, v.Full))
	}
	check(t, "volumes", list, []string{
		`partition 1 (onefs) 1048576+1048576 "label of one" "" true `,
		`partition 2 (LUKS) 2097152+1048576 "secret" "` + uuid + `" false it is encrypted`,
		`partition 3 3145728+1048576 "" "" false no filesystem that is known was found`,
		`partition 4 (twofs) 4194304+1048576 "label of two" "" true `,
	})
	runs, lines := told(l)
	check(t, "free", runs, []Run{{1 << 20, 4096}, {1<<20 + 65536, 8192}})
	check(t, "lines", lines, []string{
		"partition 2 (LUKS): read in full, because it is encrypted",
		"partition 3: read in full, because no filesystem that is known was found",
		"partition 4 (twofs): read in full, because its journal has to be replayed",
	})

	whole := make([]byte, 1<<20+100)
	named("one")(whole)
	l = find(bytes.NewReader(whole), int64(len(whole)), 0, readers)
	runs, lines = told(l)
	check(t, "free", runs, []Run{{0, 4096}, {65536, 8192}})
	if v := l.Volumes[0]; lines != nil || len(l.Volumes) != 1 || v.String() != "the disk (onefs)" || v.Number != 1 || v.Length != 1<<20+100 || v.Partition != nil {
		t.Errorf("%+v, %q", v, lines)
	}
}

// TestFull: whatever speaks against a filesystem keeps it from being asked what is free.
func TestFull(t *testing.T) {
	one := piece{2048, 2048, 0x83, named("one")}
	both := func(make func([]byte), more ...func([]byte)) []byte {
		d := disk(8<<20, one, piece{4096, 2048, 0x83, nil})
		make(d)
		for _, f := range more {
			f(d)
		}
		return d
	}
	luks := volumes["luks1"].make
	for _, c := range []struct {
		name string
		disk []byte
		note string // one of them
		why  string // what is said of partition 1; "": it tells what is free
	}{
		{"nothing", disk(8<<20, one), "", ""},
		{"LVM in it", disk(8<<20, piece{2048, 2048, 0x83, func(v []byte) { named("one")(v); lvmLabel(v, 1) }}), "the marks of onefs and LVM", "it has the marks of onefs and LVM"},
		{"two filesystems", disk(8<<20, piece{2048, 2048, 0x83, named("oneone")}), "the marks of onefs and onesfs", "it has the marks of onefs and onesfs"},
		{"MD over the disk", both(func(d []byte) { mdSuper(d, 4096) }), "beside the partition table there are marks of RAID member", "beside the partition table there are marks of RAID member on the disk as a whole"},
		{"a filesystem over the disk", both(named("two")), "beside the partition table there are marks of twofs", "beside the partition table there are marks of twofs on the disk as a whole"},
		{"an ISO image with partitions", disk(8<<20, one, piece{40, 1000, 0xef, func(v []byte) { copy(v[32768-40*512:], "\x01CD001\x01") }}), "beside", "beside the partition table there are marks of ISO 9660 on the disk as a whole"},
		{"an encrypted disk", both(luks), "beside", "beside the partition table there are marks of LUKS on the disk as a whole"},
		{"the end of another partition", disk(8<<20, one, piece{4096, 16384 - 4096, 0xfd, volumes["md 0.90"].make}), "", ""},
		{"the end of the disk", disk(8<<20, one, piece{16384 - 128, 128, 0x83, volumes["md 0.90"].make}, piece{4096, 10, 0x83, nil}), "", ""},
		{"the end of the disk, behind the last partition", both(volumes["md 0.90"].make), "beside", "beside the partition table there are marks of RAID member on the disk as a whole"},
		{"overlaps", disk(8<<20, one, piece{3000, 2048, 0x83, nil}), "partitions 1 and 2 overlap", "it overlaps partition 2"},
		{"dynamic disk", disk(8<<20, piece{2048, 2048, 0x42, named("one")}), "", "it is a part of a dynamic disk"},
		{"too large", disk(8<<20, piece{2048, 2048, 0x83, named("large")}), "its filesystem of 1048577 bytes is larger", "its filesystem is larger than it"},
		{"damaged", disk(8<<20, piece{2048, 2048, 0x83, named("damaged")}), "partition 1: damaged: the filesystem is damaged: all wrong", "the filesystem is damaged: all wrong"},
		{"damaged beside another", disk(8<<20, piece{2048, 2048, 0x83, named("xyz")}), "the marks of xyfs and xyz", "it has the marks of xyfs and xyz"},
		{"a mistake", disk(8<<20, piece{2048, 2048, 0x83, named("opens")}), "its reader has a mistake: an index is out of range", "its reader has a mistake: an index is out of range"},
	} {
		t.Run(c.name, func(t *testing.T) {
			readers := toys(map[string]toy{
				"one": {free: frees(0, 4096)}, "oneo": {info: func() filesystem.Info { return filesystem.Info{Type: "onesfs", Size: 4096} }, free: frees(0, 4096)},
				"two":     {free: frees(0, 4096)},
				"large":   {info: func() filesystem.Info { return filesystem.Info{Size: 1<<20 + 1} }, free: frees(0, 4096)},
				"damaged": {openErr: filesystem.Corrupt("all wrong")},
				"xy":      {free: frees(0, 4096)},
				"xyz":     {openErr: filesystem.Unsupported("a new feature")},
				"opens":   {panics: true},
			})
			l := find(bytes.NewReader(c.disk), int64(len(c.disk)), 0, readers)
			if c.note != "" && !strings.Contains(strings.Join(l.Notes, "\n"), c.note) || c.note == "" && c.why == "" && l.Notes != nil {
				t.Errorf("notes %q", l.Notes)
			}
			runs, lines := told(l)
			if c.why == "" {
				check(t, "free", runs, []Run{{1 << 20, 4096}})
				return
			}
			check(t, "free", runs, nil)
			if len(lines) == 0 || !strings.HasPrefix(lines[0], "partition 1") || !strings.HasSuffix(lines[0], ": read in full, because "+c.why) {
				t.Errorf("%q", lines)
			}
		})
	}
}

// TestCountUsed: what is not free is in use, where the filesystem keeps no count and can be relied on.
func TestCountUsed(t *testing.T) {
	d := disk(8<<20, piece{2048, 2048, 0x83, named("one")}, piece{4096, 2048, 0x83, named("two")}, piece{6144, 2048, 0x83, named("three")})
	l := find(bytes.NewReader(d), int64(len(d)), 512, toys(map[string]toy{
		"one":   {free: frees(0, 512, 4096, 1000)}, // also what is no whole block
		"two":   {free: func(context.Context, func(filesystem.Range) error) error { return filesystem.Untrusted("in doubt") }},
		"three": {free: frees(0, 4096), info: func() filesystem.Info { return filesystem.Info{Type: "three", Size: 1 << 20, Used: 77} }},
	}))
	var used []int64
	for i := range l.Volumes {
		l.Volumes[i].CountUsed(t.Context())
		used = append(used, l.Volumes[i].Info.Used)
	}
	check(t, "used", used, []int64{1<<20 - 1512, -1, 77})
}

// TestNoVolumes: also then it is noted why nothing is free.
func TestNoVolumes(t *testing.T) {
	gpt := disk(8<<20, piece{1, 16383, 0xee, nil})
	only := disk(8<<20, piece{2048, 2048, 0x05, nil})
	for _, c := range []struct {
		disk io.ReaderAt
		note string
	}{
		{bytes.NewReader(gpt), "damaged"},
		{bytes.NewReader(only), "ends early"},
		{failing{bytes.NewReader(only), 0, 1}, "medium error"},
	} {
		l := find(c.disk, 8<<20, 512, nil)
		runs, lines := told(l)
		check(t, "free", runs, nil)
		check(t, "lines", lines, nil)
		if len(l.Notes) != 1 || !strings.Contains(l.Notes[0], c.note) {
			t.Errorf("notes %q instead of %q", l.Notes, c.note)
		}
	}
}

// TestManyNotes: a disk that is wrong everywhere is told about, but not at any length.
func TestManyNotes(t *testing.T) {
	var l Layout
	for i := range 3 * maxNotes {
		l.note("%d", i)
	}
	if len(l.Notes) != maxNotes+1 || l.Notes[maxNotes-1] != "99" || l.Notes[maxNotes] != "and more" {
		t.Errorf("%q", l.Notes)
	}
}

// TestUnreadable: what cannot be looked at is not trusted.
func TestUnreadable(t *testing.T) {
	readers := toys(map[string]toy{"one": {free: frees(0, 4096)}})
	d := disk(8<<20, piece{2048, 2048, 0x83, named("one")})
	for _, c := range []struct {
		off  int64
		line string
	}{
		{1<<20 + 4000, "partition 1: read in full, because what is on it cannot be read: medium error"},
		{1<<20 + 32768, "partition 1 (onefs): read in full, because what is on it cannot be read: reading 6 bytes at 32768: medium error"},
		{4000, "partition 1 (onefs): read in full, because what is on the disk beside its partitions cannot be read: medium error"},
		{1<<20 + 200000, ""}, // nobody looks there
	} {
		l := find(failing{bytes.NewReader(d), c.off, c.off + 1}, int64(len(d)), 512, readers)
		runs, lines := told(l)
		if c.line == "" {
			check(t, "free", runs, []Run{{1 << 20, 4096}})
			continue
		}
		check(t, "free", runs, nil)
		check(t, "lines", lines, []string{c.line})
		if len(l.Notes) == 0 {
			t.Errorf("%s: it is not noted", c.line)
		}
	}
}

// TestFreeFails: of a filesystem that fails on the way nothing is free; of the others all.
func TestFreeFails(t *testing.T) {
	for _, c := range []struct {
		name string
		free func(context.Context, func(filesystem.Range) error) error
		why  string
	}{
		{"an error", func(ctx context.Context, free func(filesystem.Range) error) error {
			return errors.Join(frees(0, 8192)(ctx, free), filesystem.Corrupt("a bitmap"))
		}, "the filesystem is damaged: a bitmap"},
		{"a panic", func(ctx context.Context, free func(filesystem.Range) error) error {
			_ = frees(0, 8192)(ctx, free)
			return []error{}[len(free(filesystem.Range{Offset: 8192, Length: 1}).Error())]
		}, "its reader has a mistake: runtime error: invalid memory address or nil pointer dereference"},
		{"out of order", frees(8192, 4096, 0, 4096), "its reader has a mistake: 4096 bytes from 0 cannot be free, after 12288 and within 1048576"},
		{"twice", frees(0, 4096, 4095, 4096), "its reader has a mistake: 4096 bytes from 4095 cannot be free, after 4096 and within 1048576"},
		{"empty", frees(0, 0), "its reader has a mistake: 0 bytes from 0 cannot be free, after 0 and within 1048576"},
		{"negative", frees(-4096, 4096), "its reader has a mistake: 4096 bytes from -4096 cannot be free, after 0 and within 1048576"},
		{"too far", frees(1<<20-4096, 4097), "its reader has a mistake: 4097 bytes from 1044480 cannot be free, after 0 and within 1048576"},
		{"very far", frees(1<<63-1, 1<<63-1), "its reader has a mistake: 9223372036854775807 bytes from 9223372036854775807 cannot be free, after 0 and within 1048576"},
		{"an error of the system", func(context.Context, func(filesystem.Range) error) error { return errMedium }, "medium error"},
		{"endless", func(ctx context.Context, _ func(filesystem.Range) error) error { <-ctx.Done(); return ctx.Err() }, "its map of what is free cannot be read within 20ms"},
		{"deaf", func(_ context.Context, free func(filesystem.Range) error) error {
			for at := int64(0); ; at += 2 {
				if err := free(filesystem.Range{Offset: at % 1000000, Length: 1}); err != nil {
					return err
				}
				time.Sleep(time.Millisecond)
			}
		}, "its map of what is free cannot be read within 20ms"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := disk(8<<20, piece{2048, 2048, 0x83, named("one")}, piece{4096, 2048, 0x83, named("two")}, piece{6144, 2048, 0x83, named("one")})
			l := find(bytes.NewReader(d), int64(len(d)), 512, toys(map[string]toy{"one": {free: frees(0, 4096)}, "two": {free: c.free}}))
			runs, lines := toldWithin(context.Background(), l, 20*time.Millisecond)
			check(t, "free", runs, []Run{{1 << 20, 4096}, {3 << 20, 4096}})
			check(t, "lines", lines, []string{"partition 2 (twofs): read in full, because " + c.why})
		})
	}
}

// TestCancelled: who breaks off gets nothing.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	d := disk(8<<20, piece{2048, 2048, 0x83, named("one")}, piece{4096, 2048, 0x83, named("two")})
	l := find(bytes.NewReader(d), int64(len(d)), 512, toys(map[string]toy{
		"one": {free: frees(0, 4096)},
		"two": {free: func(ctx context.Context, free func(filesystem.Range) error) error {
			cancel()
			return frees(0, 4096)(ctx, free)
		}},
	}))
	out, err := l.LeaveOut(ctx, Leave{Free: true}, func(_ *Volume, why string) { t.Error(why) })
	if !errors.Is(err, context.Canceled) || out.Runs != nil {
		t.Errorf("%v, %v", out, err)
	}
}

// TestFreeRandom: a block of the disk is free when all of it lies in one free run of one filesystem.
func TestFreeRandom(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const size = 1<<20 + 1536
		var pieces []piece
		list := map[string]toy{}
		model := make([]int, size) // which filesystem says that a byte is free
		at := uint32(rapid.IntRange(1, 70).Draw(rt, "first"))
		for i := range rapid.IntRange(1, 3).Draw(rt, "partitions") {
			sectors := uint32(rapid.IntRange(10, 600).Draw(rt, "sectors"))
			name := string(rune('a' + i))
			start, length := int64(at)*512, int64(sectors)*512
			var runs []int64
			for off := int64(0); off < length; {
				n := min(rapid.Int64Range(1, 20000).Draw(rt, "length"), length-off)
				if rapid.Bool().Draw(rt, "free") {
					runs = append(runs, off, n)
					for b := start + off; b < start+off+n; b++ {
						model[b] = len(runs) + 1000*i
					}
				}
				off += n + 1
			}
			list[name] = toy{free: frees(runs...)}
			pieces = append(pieces, piece{at, sectors, 0x83, named(name)})
			at += sectors + uint32(rapid.IntRange(0, 9).Draw(rt, "gap"))
		}
		d := disk(size, pieces...)
		runs, lines := told(find(bytes.NewReader(d), size, 512, toys(list)))
		if lines != nil {
			rt.Fatalf("%q", lines)
		}
		free := make([]bool, size/Block)
		last := int64(-1)
		for _, r := range runs {
			if r.Offset <= last || r.Length <= 0 || r.Offset%Block != 0 || r.Length%Block != 0 || r.End() > size {
				rt.Fatalf("runs %v", runs)
			}
			last = r.End()
			for b := r.Offset / Block; b < r.End()/Block; b++ {
				free[b] = true
			}
		}
		for b := range free {
			bytes := model[b*Block : (b+1)*Block]
			want := bytes[0] != 0 && !slices.ContainsFunc(bytes, func(of int) bool { return of != bytes[0] })
			if free[b] != want {
				rt.Fatalf("block %d is free: %v; runs %v", b, free[b], runs)
			}
		}
	})
}

// TestAdjacent: what is free at the end of one partition and at the begin of the next is one run.
func TestAdjacent(t *testing.T) {
	d := disk(8<<20, piece{4096, 2048, 0x83, named("one")}, piece{2048, 2048, 0x83, named("two")})
	l := find(bytes.NewReader(d), int64(len(d)), 512, toys(map[string]toy{"one": {free: frees(0, 8192)}, "two": {free: frees(4096, 1<<20-4096)}}))
	runs, _ := told(l)
	check(t, "free", runs, []Run{{1<<20 + 4096, 1<<20 - 4096 + 8192}})
}

// TestManyRuns: of more runs than can be kept the longest stay; and those of a filesystem that fails in the end do not stay.
func TestManyRuns(t *testing.T) {
	const size, n = 1 << 40, 3 * maxRuns
	many := func(end error) func(context.Context, func(filesystem.Range) error) error {
		return func(_ context.Context, free func(filesystem.Range) error) error {
			at := int64(0)
			for i := range int64(n) {
				length := int64(Block)
				if i%1000 == 999 {
					length = 16 * Block
				}
				if err := free(filesystem.Range{Offset: at, Length: length}); err != nil {
					return err
				}
				at += length + Block
			}
			return end
		}
	}
	d := disk(1<<20, piece{2048, 0, 0x83, nil}, piece{2048 + 1<<28, 0, 0x83, nil})
	le.PutUint32(d[446+12:], 1<<28)
	le.PutUint32(d[446+16+12:], 1<<28)
	r := layered{layered{zeros{}, d, 1<<20 + 4000, "one"}, nil, 1<<20 + 1<<37 + 4000, "two"}
	for _, c := range []struct {
		one, two func(context.Context, func(filesystem.Range) error) error
		want     int
		length   int64
	}{
		{many(nil), frees(0, 64*Block, 65*Block, Block), n/1000 + 1, 16 * Block}, // also what comes later has to be long
		{frees(0, 3*Block, 4*Block, Block, 6*Block, 5*Block), many(errMedium), 2, 3 * Block},
	} {
		l := find(r, size, 512, toys(map[string]toy{"one": {free: c.one}, "two": {free: c.two}}))
		runs, _ := told(l)
		if len(runs) != c.want {
			t.Fatalf("%d runs instead of %d", len(runs), c.want)
		}
		for _, r := range runs {
			if r.Length < c.length {
				t.Fatalf("%+v", r)
			}
		}
	}
}

// layered is a disk with something at its begin and a name in it.
type layered struct {
	io.ReaderAt
	begin []byte
	at    int64
	name  string
}

func (l layered) ReadAt(p []byte, off int64) (int, error) {
	n, err := l.ReaderAt.ReadAt(p, off)
	if off < int64(len(l.begin)) {
		copy(p, l.begin[off:])
	}
	if off <= l.at && l.at+int64(len(l.name)) <= off+int64(len(p)) {
		copy(p[l.at-off:], l.name)
	}
	return n, err
}

// FuzzFind: no disk brings it down, nor makes it say that something is free that no filesystem has.
func FuzzFind(f *testing.F) {
	f.Add(disk(8192, piece{1, 15, 0x83, named("one")}), uint32(0))
	f.Add(disk(8192, piece{1, 10, 0x83, named("two")}, piece{11, 5, 7, nil}), uint32(1<<20))
	f.Add(disk(8192, piece{1, 4, 5, func(v []byte) { copy(v, disk(512, piece{1, 2, 0x83, nil})) }}), uint32(4096))
	f.Add(make([]byte, 5000), uint32(0))
	readers := toys(map[string]toy{"one": {free: frees(0, 4096, 4096, 5000)}, "two": {panics: true}})
	f.Fuzz(func(t *testing.T, data []byte, more uint32) {
		if len(data) > 1<<20 {
			return
		}
		size := int64(len(data)) + int64(more)
		l := find(layered{zeros{}, data, 0, ""}, size, 0, readers)
		runs, _ := told(l)
		for _, run := range runs {
			in := func(v Volume) bool { return v.FS != nil && run.Offset >= v.Start && run.End() <= v.End() }
			if !slices.ContainsFunc(l.Volumes, in) {
				t.Fatalf("%+v of %d bytes: %+v", run, size, l.Volumes)
			}
		}
	})
}
