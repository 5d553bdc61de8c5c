package xfs_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"varve/image/filesystem"
	"varve/image/filesystem/xfs"
)

// A patched is a golden filesystem of which some bytes are others.
type patched struct {
	*golden
	bytes map[int64]byte
}

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.golden.ReadAt(b, off)
	for at, v := range p.bytes {
		if at >= off && at < off+int64(n) {
			b[at-off] = v
		}
	}
	return n, err
}

// set changes the bytes at off.
func (p *patched) set(off int64, b ...byte) {
	for i, v := range b {
		p.bytes[off+int64(i)] = v
	}
}

// A structure is a part of a filesystem that is not the content of a file.
type structure struct {
	off, length int64
	sum         int // where it has its checksum; 0 for none, in version 4
}

// structures returns those of a golden filesystem: version 4 with blocks of 512 bytes and inodes of 256, version 5 with 1 KiB and
// 512 bytes.
func (g *golden) structures(t testing.TB) []structure {
	t.Helper()
	// By the first bytes, or those at 8. Blocks of folders have 4 KiB in both.
	kinds := map[string]structure{
		"XFSB": {length: 512}, "XAGF": {length: 512}, "IN": {length: 256},
		"ABTB": {length: 512}, "ABTC": {length: 512}, "BMAP": {length: 512},
		"XD2B": {length: 4096}, "XD2D": {length: 4096}, "\xfe\xbe": {length: 512}, "\xfb\xee": {length: 512},
	}
	if g.name == "version5" {
		kinds = map[string]structure{
			"XFSB": {0, 512, 224}, "XAGF": {0, 512, 216}, "XAFL": {0, 512, 32}, "IN": {0, 512, 100},
			"AB3B": {0, 1024, 52}, "AB3C": {0, 1024, 52}, "BMA3": {0, 1024, 64}, "XSLM": {0, 1024, 12}, "XARM": {0, 1024, 12},
			"XDB3": {0, 4096, 4}, "XDD3": {0, 4096, 4}, "\x3e\xbe": {0, 1024, 12}, "\x3b\xee": {0, 1024, 12},
		}
	}
	var list []structure
	found := map[string]bool{}
	for _, n := range g.numbers() {
		for in := int64(0); in < goldenSector; in += kinds["IN"].length {
			b := g.sectors[n][in:]
			for _, magic := range []string{string(b[:4]), string(b[:2]), string(b[8:10])} {
				s, known := kinds[magic]
				s.off = n*goldenSector + in
				if !known || in > 0 && magic != "IN" || magic == "IN" && b[2] == 0 && b[3] == 0 || s.sum > 0 && !sumRight(g, s) {
					continue // something else begins like it, or an inode is free
				}
				found[magic] = true
				list = append(list, s)
				break
			}
		}
	}
	if len(found) != len(kinds) {
		t.Fatalf("%s has only structures of %d kinds of %d: %q", g.name, len(found), len(kinds), slices.Sorted(maps.Keys(found)))
	}
	return list
}

// sumOf returns the checksum that a structure has, and the one that it should.
func sumOf(r io.ReaderAt, s structure) (has, should uint32) {
	b := make([]byte, s.length)
	_, _ = r.ReadAt(b, s.off) // it is in memory
	has = binary.LittleEndian.Uint32(b[s.sum:])
	clear(b[s.sum:][:4])
	return has, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}

func sumRight(r io.ReaderAt, s structure) bool {
	has, should := sumOf(r, s)
	return has == should
}

// seal makes the checksums right again, so that what was changed is believed.
func (p *patched) seal(list []structure) {
	for _, s := range list {
		hit := false
		for at := range p.bytes {
			hit = hit || at >= s.off && at < s.off+s.length
		}
		if hit && s.sum > 0 {
			_, should := sumOf(p, s)
			p.set(s.off+int64(s.sum), binary.LittleEndian.AppendUint32(nil, should)...)
		}
	}
}

// exercise asks for all that can be asked. It panics when an answer is not allowed, and returns the first error.
func exercise(r io.ReaderAt, size int64) (first error) {
	note := func(err error) {
		if err != nil && first == nil {
			first = err
		}
	}
	f, err := xfs.Open(r, size)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	end := int64(0)
	note(f.Free(ctx, func(r filesystem.Range) error {
		if r.Offset < end || r.Length <= 0 || r.Length > size || r.End() > min(size, f.Info().Size) {
			panic(fmt.Sprintf("%+v is free behind %d, of %d bytes", r, end, size))
		}
		end = r.End()
		return nil
	}))
	buf := make([]byte, 10_000)
	seen := map[filesystem.Number]bool{f.Root(): true}
	for queue := []filesystem.Number{f.Root()}; len(queue) > 0 && len(seen) < 2000; queue = queue[1:] {
		n := queue[0]
		file, err := f.Stat(n)
		note(err)
		_, err = f.Attributes(n)
		note(err)
		switch {
		case file.Mode.IsDir():
			note(f.ReadDir(ctx, n, func(e filesystem.Entry) error {
				if e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00") {
					panic(fmt.Sprintf("a folder has an entry %q", e.Name))
				}
				if !seen[e.Number] {
					seen[e.Number] = true
					queue = append(queue, e.Number)
				}
				return nil
			}))
		case file.Mode&fs.ModeSymlink != 0:
			_, err = f.Readlink(n)
			note(err)
		case file.Mode.IsRegular():
			c, err := f.Open(n, "")
			if note(err); err != nil {
				continue
			}
			extents, err := c.Extents()
			note(err)
			at := int64(0)
			for _, e := range extents {
				if e.Offset != at || e.Length <= 0 || e.Stored > 0 && (e.Disk <= 0 || e.Disk > size-e.Stored) {
					panic(fmt.Sprintf("extent %+v at %d", e, at))
				}
				at += e.Length
			}
			if at < c.Size() {
				panic(fmt.Sprintf("extents end at %d of %d", at, c.Size()))
			}
			for _, off := range []int64{0, c.Size() / 2, c.Size() - 10} {
				if _, err = c.ReadAt(buf, max(0, off)); !errors.Is(err, io.EOF) {
					note(err)
				}
			}
		}
	}
	if ctx.Err() != nil {
		panic("it takes too long")
	}
	return first
}

// TestSealedDamage changes bytes and makes the checksums right again.
func TestSealedDamage(t *testing.T) {
	for _, name := range goldenNames {
		g := readGolden(t, name)
		if err := exercise(g, g.size); err != nil {
			t.Fatalf("%s, whole: %v", name, err)
		}
		list := g.structures(t)
		noticed := 0
		for round := range 300 {
			random := rand.New(rand.NewPCG(uint64(round), 11))
			p := &patched{golden: g, bytes: map[int64]byte{}}
			for range 1 + random.IntN(4) {
				s := list[random.IntN(len(list))]
				p.set(s.off+random.Int64N(s.length), byte(random.Uint32()))
			}
			p.seal(list)
			if exercise(p, g.size) != nil {
				noticed++
			}
		}
		if noticed == 0 {
			t.Errorf("%s: no damage was noticed", name)
		}
		t.Logf("%s: %d noticed", name, noticed)
	}
}

// FuzzFilesystem changes bytes of golden filesystems. The input is: which of them, whether to seal, and for each change, which
// structure, which byte of it, and its value.
func FuzzFilesystem(f *testing.F) {
	var all []*golden
	var lists [][]structure
	for _, name := range goldenNames {
		g := readGolden(f, name)
		all, lists = append(all, g), append(lists, g.structures(f))
	}
	f.Add([]byte{0})
	f.Add([]byte{1})
	f.Add([]byte{2, 0, 0, 0, 84, 0}) // the superblock
	f.Add([]byte{3, 0, 1, 0, 16, 9}) // a root in the AGF
	f.Add([]byte{3, 0, 20, 0, 4, 1, 0, 30, 0, 80, 255})
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) == 0 || len(in) > 1+5*100 {
			return
		}
		g, list := all[in[0]&1], lists[in[0]&1]
		p := &patched{golden: g, bytes: map[int64]byte{}}
		for rest := in[1:]; len(rest) >= 5; rest = rest[5:] {
			s := list[int(binary.BigEndian.Uint16(rest))%len(list)]
			p.set(s.off+int64(binary.BigEndian.Uint16(rest[2:]))%s.length, rest[4])
		}
		if in[0]&2 != 0 {
			p.seal(list)
		}
		_ = exercise(p, g.size) // what is damaged may be noticed
	})
}

// FuzzSuperblock opens what is nothing but the given bytes.
func FuzzSuperblock(f *testing.F) {
	for _, name := range goldenNames {
		g := readGolden(f, name)
		head := make([]byte, 4096)
		_, err := g.ReadAt(head, 0)
		check(f, err)
		f.Add(head, g.size)
	}
	f.Fuzz(func(t *testing.T, head []byte, size int64) {
		if len(head) > 1<<20 || size < int64(len(head)) {
			return
		}
		g := &golden{size: size, sectors: map[int64][]byte{}}
		for at := 0; at < len(head); at += goldenSector {
			sector := make([]byte, goldenSector)
			copy(sector, head[at:])
			g.sectors[int64(at/goldenSector)] = sector
		}
		_ = exercise(g, size)
	})
}
