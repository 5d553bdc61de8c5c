package xfs_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
	"varve/image/filesystem/xfs"
)

// goldenNames are small filesystems in testdata, which hold each format of each structure, with what the kernel that made them says is
// in them. They stand for version 4 where the kernel does not know it any more. In their logs only what tells that they are empty is
// left. golden_linux_test.go makes them.
var goldenNames = []string{"version4", "version5"}

// A golden is the sectors of a small filesystem.
type golden struct {
	name    string
	sectors map[int64][]byte // by number, those that are not zero
	size    int64
}

const goldenSector = 512

func (g *golden) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < g.size {
		in := off % goldenSector
		part := p[n:min(len(p), n+int(min(goldenSector-in, g.size-off)))]
		clear(part)
		if s := g.sectors[off/goldenSector]; s != nil {
			copy(part, s[in:])
		}
		n, off = n+len(part), off+int64(len(part))
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readGolden reads a golden filesystem: compressed, its size 8, then for each sector its number 4 and the sector.
func readGolden(t testing.TB, name string) *golden {
	t.Helper()
	packed, err := os.ReadFile(filepath.Join("testdata", name+".gz"))
	check(t, err)
	unpacker, err := gzip.NewReader(bytes.NewReader(packed))
	check(t, err)
	b, err := io.ReadAll(unpacker)
	check(t, err)
	g := &golden{name: name, sectors: map[int64][]byte{}, size: int64(binary.BigEndian.Uint64(b))}
	for b = b[8:]; len(b) > 0; b = b[4+goldenSector:] {
		g.sectors[int64(binary.BigEndian.Uint32(b))] = b[4:][:goldenSector]
	}
	return g
}

// numbers are the numbers of the sectors that are not zero, in order, but those of which only the cycle of the log is left.
func (g *golden) numbers() []int64 {
	list := make([]int64, 0, len(g.sectors))
	for n, s := range g.sectors {
		if len(bytes.Trim(s[4:], "\x00")) > 0 {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list
}

func TestGolden(t *testing.T) {
	for _, name := range goldenNames {
		t.Run(name, func(t *testing.T) {
			g := readGolden(t, name)
			f, err := xfs.Open(g, g.size)
			check(t, err)
			want, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
			check(t, err)
			if got := describe(t, f); got != string(want) {
				t.Errorf("there is:\n%s\nnot:\n%s", got, want)
			}
		})
	}
}

// describe writes down a filesystem: how much of it is free, and all that is known of each file, which is a line of its own.
func describe(t testing.TB, f *xfs.FS) string {
	t.Helper()
	info := f.Info()
	free := filesystemtest.Free(t, f)
	lines := []string{fmt.Sprintf("%s %q %s: %d blocks of %d, free %d in %d runs", info.Type, info.Label, info.UUID, info.Size/int64(info.BlockSize),
		info.BlockSize, filesystemtest.Sum(free)/int64(info.BlockSize), len(free))}
	check(t, filesystemtest.Walk(f, func(path string, n filesystem.Number) error {
		file, err := f.Stat(n)
		if err != nil {
			return err
		}
		content := ""
		switch {
		case file.Mode.IsRegular():
			c, err := f.Open(n, "")
			if err != nil {
				return err
			}
			b, err := io.ReadAll(io.NewSectionReader(c, 0, c.Size()))
			if err != nil {
				return err
			}
			content = digest(b)
		case file.Mode&fs.ModeSymlink != 0:
			if content, err = f.Readlink(n); err != nil {
				return err
			}
		}
		attributes, err := f.Attributes(n)
		if err != nil {
			return err
		}
		lines = append(lines, line(path, file, content, attributes))
		return nil
	}))
	slices.Sort(lines[1:])
	return strings.Join(lines, "\n") + "\n"
}

// line writes down a file. content is the target of a link, and a digest of anything else.
func line(path string, file filesystem.File, content string, attributes []filesystem.Attribute) string {
	s := fmt.Sprintf("%s: %d %v %d names %d:%d %d bytes", path, file.Number, file.Mode, file.Links, file.UID, file.GID, file.Size)
	if file.Device != 0 {
		s += fmt.Sprintf(" device %d:%d", file.Device>>32, uint32(file.Device))
	}
	s += " " + file.Modified.Format(time.RFC3339Nano) + " " + file.Changed.Format(time.RFC3339Nano)
	if content != "" {
		s += " = " + content
	}
	list := make([]string, 0, len(attributes))
	for _, a := range attributes {
		list = append(list, a.Name+"="+digest(a.Value))
	}
	slices.Sort(list)
	return strings.Join(append([]string{s}, list...), " ")
}

// digest is short, but enough to notice another content: the content itself, where it is short.
func digest(b []byte) string {
	if len(b) <= 8 {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))[:16]
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
