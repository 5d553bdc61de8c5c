package catalogue

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"varve/image/filesystem"
)

// generated is a filesystem of folders in a root folder, with as many files in each, that takes no memory.
type generated struct {
	filesystem.Tree
	folders, files int
}

func (g generated) Root() filesystem.Number { return 1 }

// number of folder i, or of file k in it; folders in the root begin at 0.
func (g generated) number(i, k int) filesystem.Number {
	return filesystem.Number(2 + i*(g.files+1) + k)
}

func (g generated) Stat(n filesystem.Number) (filesystem.File, error) {
	f := filesystem.File{Number: n, Mode: fs.ModeDir | 0o755, Links: 1, UID: 1000, GID: 1000, Modified: time.Unix(1_700_000_000+int64(n)*7919%1_000_000, int64(n)*104729%1_000_000_000)}
	f.Changed = f.Modified
	if n > 1 && int(n-2)%(g.files+1) > 0 {
		f.Mode, f.Size = 0o644, int64(n)*7919%100_000
	}
	return f, nil
}

func (g generated) ReadDir(_ context.Context, n filesystem.Number, f func(filesystem.Entry) error) error {
	if n == 1 {
		for i := range g.folders {
			if err := f(filesystem.Entry{Name: fmt.Sprintf("folder%06d", i), Number: g.number(i, 0)}); err != nil {
				return err
			}
		}
		return nil
	}
	for k := range g.files {
		// As on a disk, in the order of nothing.
		if err := f(filesystem.Entry{Name: fmt.Sprintf("IMG_%07d.jpg", k*7919%g.files), Number: n + 1 + filesystem.Number(k)}); err != nil {
			return err
		}
	}
	return nil
}

func (g generated) Open(n filesystem.Number, _ string) (filesystem.Content, error) {
	return extent(n), nil
}

// extent is content in one piece.
type extent filesystem.Number

func (extent) ReadAt([]byte, int64) (int, error) { return 0, fs.ErrInvalid }
func (e extent) Size() int64                     { return int64(e)*7919%100_000 + 1 }
func (e extent) Extents() ([]filesystem.Extent, error) {
	return []filesystem.Extent{{Length: 4096, Disk: int64(e) << 20}}, nil
}

// mixedDigest has bytes that do not compress, as those of a hash.
func mixedDigest(extents []filesystem.Extent) (d Digest, err error) {
	binary.LittleEndian.PutUint64(d[:], uint64(extents[0].Disk)*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint64(d[8:], uint64(extents[0].Disk)*0xd6e8feb86659fd93)
	return d, nil
}

func benchmarkBuild(b *testing.B, g generated) {
	var s *memory
	var root Root
	for b.Loop() {
		s = newMemory()
		var err error
		if root, err = Build(context.Background(), g, s, BuildOptions{Digest: mixedDigest}); err != nil {
			b.Fatal(err)
		}
	}
	total := 0
	for _, data := range s.pages {
		total += len(data)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(root.Files), "ns/file")
	b.ReportMetric(float64(total)/float64(root.Files), "bytes/file")
	b.ReportMetric(float64(len(s.pages)), "pages")
}

func BenchmarkBuildMillionInFolders(b *testing.B) {
	benchmarkBuild(b, generated{folders: 50_000, files: 20})
}
func BenchmarkBuildMillionInOneFolder(b *testing.B) {
	benchmarkBuild(b, generated{folders: 1, files: 1_000_000})
}
func BenchmarkBuildFolder(b *testing.B) { benchmarkBuild(b, generated{folders: 1, files: 100_000}) }

// built is a catalogue of g, and the entry of its first folder.
func built(b *testing.B, g generated) (s *memory, root Root, folder Entry) {
	s = newMemory()
	root, err := Build(context.Background(), g, s, BuildOptions{Digest: mixedDigest})
	if err != nil {
		b.Fatal(err)
	}
	if folder, err = Open(s, root).Lookup(context.Background(), "/folder000000"); err != nil {
		b.Fatal(err)
	}
	return s, root, folder
}

func BenchmarkListFolder(b *testing.B) {
	s, root, folder := built(b, generated{folders: 1, files: 100_000})
	for b.Loop() {
		n := 0
		if err := Open(s, root).List(context.Background(), folder, func(Entry) error { n++; return nil }); err != nil || n != 100_000 {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100_000, "ns/file")
}

func BenchmarkWalkMillion(b *testing.B) {
	s, root, _ := built(b, generated{folders: 50_000, files: 20})
	for b.Loop() {
		n := 0
		c := Open(s, root)
		e, err := c.Root(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Walk(context.Background(), e, func(string, Entry) error { n++; return nil }); err != nil || n != 1_050_000 {
			b.Fatal(n, err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1_050_000, "ns/file")
}

func BenchmarkLookup(b *testing.B) {
	s, root, _ := built(b, generated{folders: 1, files: 1_000_000})
	for b.Loop() {
		if _, err := Open(s, root).Lookup(context.Background(), "/folder000000/IMG_0500000.jpg"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPattern(b *testing.B) {
	for _, text := range []string{"*.jpg", "/home/**/*.jpg"} {
		p, err := ParsePattern(text)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("%q", text), func(b *testing.B) {
			for b.Loop() {
				if !p.Match("/home/user/Pictures/2026/05/IMG_0500000.jpg") {
					b.Fatal("no match")
				}
			}
		})
	}
}
