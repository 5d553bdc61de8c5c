package btrfs

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"varve/image/filesystem"
)

// smallBlock is the size of sectors and nodes of the small filesystems, so that each of their blocks has one checksum or none.
const smallBlock = 4096

// small is a filesystem of which only the blocks are kept that are read; the others read as zeros. testdata has some, which TestSmall makes:
// size 8, then offset 8 and 4096 bytes of each block, compressed by gzip.
type small struct {
	size   int64
	blocks map[int64][]byte
}

func (s *small) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off+int64(n) < s.size {
		at := off + int64(n)
		in := at % smallBlock
		part := p[n:min(int64(len(p)), int64(n)+smallBlock-in)]
		clear(part)
		if b, ok := s.blocks[at-in]; ok {
			copy(part, b[in:])
		}
		n += len(part)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// clone returns a copy that may be changed.
func (s *small) clone() *small {
	c := &small{s.size, maps.Clone(s.blocks)}
	for off, b := range c.blocks {
		c.blocks[off] = bytes.Clone(b)
	}
	return c
}

// seal makes the checksums of superblock and tree blocks right again.
func (s *small) seal() {
	super, ok := s.blocks[superblockOffsets[0]]
	if !ok {
		return
	}
	kind := int(binary.LittleEndian.Uint16(super[0xc4:]))
	if kind >= len(checksums) {
		return
	}
	for off, b := range s.blocks {
		// A tree block says where it is; data that say so by chance are not in the small filesystems.
		if off == superblockOffsets[0] || string(b[32:48]) == string(super[32:48]) {
			copy(b, checksums[kind].sum(b[maxChecksum:]))
		}
	}
}

// loadSmall loads a filesystem from testdata.
func loadSmall(t testing.TB, name string) *small {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	s := &small{int64(binary.LittleEndian.Uint64(b)), map[int64][]byte{}}
	for b = b[8:]; len(b) > 0; b = b[8+smallBlock:] {
		s.blocks[int64(binary.LittleEndian.Uint64(b))] = b[8 : 8+smallBlock : 8+smallBlock]
	}
	return s
}

// save writes s to testdata.
func (s *small) save(t testing.TB, name string) {
	t.Helper()
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	b := binary.LittleEndian.AppendUint64(nil, uint64(s.size))
	for _, off := range slices.Sorted(maps.Keys(s.blocks)) {
		b = append(binary.LittleEndian.AppendUint64(b, uint64(off)), s.blocks[off]...)
	}
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", name+".gz"), out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// keeper keeps the blocks that are read.
type keeper struct {
	io.ReaderAt
	small small
}

func (k *keeper) ReadAt(p []byte, off int64) (int, error) {
	for at := off / smallBlock * smallBlock; at < off+int64(len(p)); at += smallBlock {
		b := make([]byte, smallBlock)
		if _, err := k.ReaderAt.ReadAt(b, at); err != nil {
			return 0, err
		}
		if len(bytes.Trim(b, "\x00")) > 0 {
			k.small.blocks[at] = b
		}
	}
	return k.ReaderAt.ReadAt(p, off)
}

// describe reads everything: a line for each file, and what is free. Behind errors it goes on, and returns the first. It looks at
// no more than a thousand files.
func describe(r io.ReaderAt, size int64) (string, error) {
	f, err := Open(r, size)
	if err != nil {
		return "", err
	}
	return describeOpen(f)
}

func describeOpen(f *FS) (text string, first error) {
	note := func(err error) {
		if first == nil {
			first = err
		}
	}
	var out strings.Builder
	info := f.Info()
	fmt.Fprintf(&out, "%+v\n", info)
	end := int64(0)
	note(f.Free(context.Background(), func(r filesystem.Range) error {
		if r.Offset <= end || r.Length <= 0 || r.Length > info.Size || r.Offset > info.Size-r.Length || (r.Offset|r.Length)%int64(info.BlockSize) != 0 {
			panic(fmt.Sprintf("%+v is free behind %d, of %d", r, end, info.Size))
		}
		end = r.End()
		fmt.Fprintf(&out, "free %d + %d\n", r.Offset, r.Length)
		return nil
	}))
	count := 0
	var visit func(path string, n filesystem.Number)
	visit = func(path string, n filesystem.Number) {
		if count++; count > 1000 || strings.Count(path, "/") > 20 {
			return
		}
		file, err := f.Stat(n)
		note(err)
		attributes, err := f.Attributes(n)
		note(err)
		fmt.Fprintf(&out, "%s %+v %q", path, file, attributes)
		switch file.Mode.Type() {
		case fs.ModeSymlink:
			target, err := f.Readlink(n)
			note(err)
			fmt.Fprintf(&out, " -> %s", target)
		case 0:
			content, err := f.Open(n, "")
			if err != nil {
				note(err)
				break
			}
			extents, err := content.Extents()
			note(err)
			for _, e := range extents {
				if e.Length <= 0 || e.Disk < 0 || e.Stored < 0 || e.Stored > f.size || e.Disk > f.size-e.Stored {
					panic(fmt.Sprintf("extent %+v on %d bytes", e, f.size))
				}
			}
			b := make([]byte, min(content.Size(), 128<<10))
			n, err := content.ReadAt(b, 0)
			if n < len(b) || !errors.Is(err, io.EOF) {
				note(err)
			}
			fmt.Fprintf(&out, " %v %x", extents, sha256.Sum256(b[:n]))
		}
		out.WriteString("\n")
		var entries []filesystem.Entry
		if file.Mode.IsDir() {
			note(f.ReadDir(context.Background(), n, func(e filesystem.Entry) error {
				entries = append(entries, e)
				return nil
			}))
		}
		for _, e := range entries {
			visit(path+"/"+e.Name, e.Number)
		}
	}
	visit("", f.Root())
	return out.String(), first
}

// smallNames are the filesystems in testdata: what mkfs.btrfs 6.2 makes, and 6.19, which has block groups in a tree of their own.
var smallNames = []string{"mixed", "groups"}

// TestSmallAgain reads the filesystems in testdata as they were read when they were made. It needs no root.
func TestSmallAgain(t *testing.T) {
	for _, name := range smallNames {
		s := loadSmall(t, name)
		got, err := describe(s, s.size)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Fatalf("%s reads as\n%s\nnot\n%s", name, got, want)
		}
		if f, err := Open(s, s.size); err != nil || f.super.blockGroupTree != (name == "groups") {
			t.Fatalf("%s: %v, or another kind", name, err)
		}
	}
}
