package xfs_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"varve/image/filesystem"
	"varve/image/filesystem/xfs"
)

// TestTrust changes golden filesystems, with right checksums, so that what they say of their free blocks must not be relied on.
func TestTrust(t *testing.T) {
	be := binary.BigEndian
	const agf, agfl = 512, 3 * 512
	// at returns where the structure n of a kind begins.
	at := func(g *golden, magic string) int64 {
		for _, n := range g.numbers() {
			if string(g.sectors[n][:len(magic)]) == magic {
				return n * goldenSector
			}
		}
		t.Fatalf("%s has no %q", g.name, magic)
		return 0
	}
	number := func(g *golden, off int64) uint32 {
		b := make([]byte, 4)
		_, err := g.ReadAt(b, off)
		check(t, err)
		return be.Uint32(b)
	}
	add := func(off int64, n uint32) func(*patched) {
		return func(p *patched) { p.set(off, be.AppendUint32(nil, number(p.golden, off)+n)...) }
	}
	set := func(off int64, b ...byte) func(*patched) { return func(p *patched) { p.set(off, b...) } }
	firstRun := func(p *patched) uint32 { return number(p.golden, leafOf(p.golden, at(p.golden, "AB3B"))) }
	for _, c := range []struct {
		what, golden string
		change       func(*patched)
		want         string // part of the reason
	}{
		{"being made", "version5", set(126, 1), "not made to the end"},
		{"unknown ro_compat", "version5", set(212, 0x80), "ro_compat 0x80000000"},
		{"unknown incompat", "version5", set(216, 0x80), "incompat 0x80000000"},
		{"unknown log_incompat", "version5", set(220, 0x80), "log_incompat 0x80000000"},
		{"needs repair", "version5", set(219, 0x3b), "in need of repair"},
		{"log elsewhere", "version5", set(48, make([]byte, 8)...), "another device"},
		{"shared bit", "version4", set(100, 0xb6), "not known (0x200, 0x0)"},
		{"unknown features2", "version4", set(200, 0x40), "not known (0x0, 0x40000000)"},
		{"log in use", "version4", func(p *patched) { p.set(at(p.golden, "\xfe\xed\xba\xbe")+512+9, 0) }, "was not unmounted"},
		{"last record of the log", "version5", func(p *patched) { p.set(at(p.golden, "\xfe\xed\xba\xbe")+512+9, 0) }, "checksum of the last record"},
		{"log of another", "version4", func(p *patched) { p.set(at(p.golden, "\xfe\xed\xba\xbe")+304, 99) }, "of another filesystem"},
		{"log with a gap", "version5", func(p *patched) { p.set(at(p.golden, "\xfe\xed\xba\xbe")-10*512+3, 0) }, "is of round"},
		{"log with something behind its head", "version5", func(p *patched) { p.set(at(p.golden, "\xfe\xed\xba\xbe")+20*512+3, 1) }, "is of round"},
		{"free blocks of the AGF", "version5", add(agf+52, 1), "counts"},
		{"free blocks of the AGF", "version4", add(agf+52, 1), "counts"},
		{"longest run of the AGF", "version5", add(agf+56, 1), "counts"},
		{"blocks of trees of the AGF", "version5", add(agf+60, 1), "blocks of trees"},
		{"blocks of the tree of owners of the AGF", "version5", add(agf+80, 1), "blocks of trees"},
		{"length of the AGF", "version4", add(agf+12, 1), "the superblock"},
		{"number of the AGF", "version5", add(agf+8, 1), "no AGF"},
		{"uuid of the AGF", "version5", set(agf+64, 99), "of another filesystem"},
		{"count of the AGFL", "version5", add(agf+48, 1), "keeps"},
		{"AGFL leads to a free block", "version5", func(p *patched) {
			p.set(agfl+36+4*int64(number(p.golden, agf+40)), be.AppendUint32(nil, firstRun(p))...)
		}, "free and in use"},
		{"AGFL leads to the superblock", "version4", func(p *patched) {
			p.set(agfl+4*int64(number(p.golden, agf+40)), 0, 0, 0, 0)
		}, "two uses"},
		{"roots swapped", "version5", func(p *patched) {
			p.set(agf+16, be.AppendUint32(be.AppendUint32(nil, number(p.golden, agf+20)), number(p.golden, agf+16))...)
		}, "not level"},
		{"a run by block", "version5", func(p *patched) { add(leafOf(p.golden, at(p.golden, "AB3B"))+4, 1)(p) }, ""},
		{"a run by length", "version5", func(p *patched) { add(leafOf(p.golden, at(p.golden, "AB3C"))+4, 1)(p) }, ""},
		{"a run by block", "version4", func(p *patched) { add(leafOf(p.golden, at(p.golden, "ABTB")), 1)(p) }, ""},
		{"a sibling", "version4", func(p *patched) { add(at(p.golden, "ABTB")+12, 1)(p) }, ""},
		{"the place of a tree", "version5", func(p *patched) { add(at(p.golden, "AB3B")+20, 1)(p) }, "says it is sector"},
		{"the owner of a tree", "version5", func(p *patched) { add(at(p.golden, "AB3B")+48, 1)(p) }, "that of group"},
	} {
		t.Run(c.golden+" "+c.what, func(t *testing.T) {
			p := &patched{golden: readGolden(t, c.golden), bytes: map[int64]byte{}}
			c.change(p)
			if p.name == "version5" {
				p.seal(p.golden.structures(t))
			}
			f, err := xfs.Open(p, p.size)
			check(t, err)
			err = f.Free(context.Background(), func(filesystem.Range) error { return nil })
			var untrusted *filesystem.UntrustedError
			var corrupt *filesystem.CorruptError
			if !errors.As(err, &untrusted) && !errors.As(err, &corrupt) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Free returns %v", err)
			}
			if _, err := f.Stat(f.Root()); (err != nil) != (c.what == "unknown incompat") {
				t.Errorf("its root: %v", err)
			}
		})
	}
}

// leafOf returns where the first record of the leftmost leaf of a tree of free runs is, whose root or leaf is at off.
func leafOf(g *golden, off int64) int64 {
	head, block := int64(16), int64(512)
	if g.name == "version5" {
		head, block = 56, 1024
	}
	for {
		b := make([]byte, block)
		if _, err := g.ReadAt(b, off); err != nil {
			panic(err)
		}
		if b[5] == 0 {
			return off + head
		}
		room := (block - head) / 12
		off = int64(binary.BigEndian.Uint32(b[head+room*8:])) * block // all of that is in the first group
	}
}

// failing fails to read some sectors.
type failing struct {
	io.ReaderAt
	from, to int64
}

var errBroken = errors.New("broken")

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if off < f.to && off+int64(len(p)) > f.from {
		return 0, errBroken
	}
	return f.ReaderAt.ReadAt(p, off)
}

// TestReadErrors: what cannot be read is an error, wherever it is.
func TestReadErrors(t *testing.T) {
	for _, name := range goldenNames {
		g := readGolden(t, name)
		if _, err := xfs.Open(&failing{g, 0, 512}, g.size); !errors.Is(err, errBroken) {
			t.Errorf("%s: opening without a superblock: %v", name, err)
		}
		seen := &noting{ReaderAt: g}
		check(t, exercise(seen, g.size))
		tried := 0
		for _, s := range g.structures(t) {
			// Copies of the superblock and indexes of folders, for example, are not read.
			if s.off == 0 || !seen.has(s.off) {
				continue
			}
			tried++
			if err := exercise(&failing{g, s.off, s.off + 512}, g.size); !errors.Is(err, errBroken) {
				t.Errorf("%s: without what is at %d: %v", name, s.off, err)
			}
		}
		if tried < 50 {
			t.Errorf("%s: only %d structures were tried", name, tried)
		}
	}
}

// noting notes what is read.
type noting struct {
	io.ReaderAt
	list []filesystem.Range
}

func (n *noting) has(off int64) bool {
	return slices.ContainsFunc(n.list, func(r filesystem.Range) bool { return off < r.End() && off+512 > r.Offset })
}

func (n *noting) ReadAt(p []byte, off int64) (int, error) {
	n.list = append(n.list, filesystem.Range{Offset: off, Length: int64(len(p))})
	return n.ReaderAt.ReadAt(p, off)
}

func TestUnknown(t *testing.T) {
	g := readGolden(t, "version5")
	p := &patched{golden: g, bytes: map[int64]byte{}}
	p.set(0, 'Y')
	for size, r := range map[int64]io.ReaderAt{0: g, 511: g, g.size: p} {
		if _, err := xfs.Open(r, size); !errors.Is(err, filesystem.ErrUnknown) {
			t.Errorf("of %d bytes: %v", size, err)
		}
	}
	var corrupt *filesystem.CorruptError
	if _, err := xfs.Open(g, g.size-1024); !errors.As(err, &corrupt) {
		t.Errorf("cut off: %v", err)
	}
	p = &patched{golden: g, bytes: map[int64]byte{}}
	p.set(101, 3) // the version
	p.seal(g.structures(t))
	var unsupported *filesystem.UnsupportedError
	if _, err := xfs.Open(p, g.size); !errors.As(err, &unsupported) {
		t.Errorf("of version 3: %v", err)
	}
}

// TestStops: an error of who is called ends Free and ReadDir and is returned; so does the end of a context.
func TestStops(t *testing.T) {
	stop := errors.New("enough")
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	for _, name := range goldenNames {
		g := readGolden(t, name)
		f, err := xfs.Open(g, g.size)
		check(t, err)
		calls := 0
		if err := f.Free(context.Background(), func(filesystem.Range) error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
			t.Errorf("%s: Free returns %v after %d calls", name, err, calls)
		}
		if err := f.Free(canceled, func(filesystem.Range) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Free, canceled, returns %v", name, err)
		}
		var folders []filesystem.Number
		check(t, f.ReadDir(context.Background(), f.Root(), func(e filesystem.Entry) error {
			if strings.HasPrefix(e.Name, "folder of") && e.Name != "folder of 0" {
				folders = append(folders, e.Number)
			}
			return nil
		}))
		for _, n := range append(folders, f.Root()) {
			calls := 0
			if err := f.ReadDir(context.Background(), n, func(filesystem.Entry) error { calls++; return stop }); err != stop || calls != 1 {
				t.Errorf("%s: ReadDir returns %v after %d calls", name, err, calls)
			}
		}
	}
}
