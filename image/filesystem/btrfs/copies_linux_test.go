package btrfs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
)

// overlaid is a disk parts of which read as others.
type overlaid struct {
	io.ReaderAt
	parts []part
}

type part struct {
	off  int64
	data []byte
}

func (o *overlaid) ReadAt(p []byte, off int64) (int, error) {
	n, err := o.ReaderAt.ReadAt(p, off)
	for _, part := range o.parts {
		if from, end := max(part.off, off), min(part.off+int64(len(part.data)), off+int64(n)); from < end {
			copy(p[from-off:end-off], part.data[from-part.off:])
		}
	}
	return n, err
}

// TestCopies: with two copies of everything, one may be lost, whichever.
func TestCopies(t *testing.T) {
	const size = 256 << 20
	image := filesystemtest.Image(t, size, "mkfs.btrfs", "-q", "--mixed", "-m", "dup", "-d", "dup")
	dir := filesystemtest.Mount(t, image, "btrfs", "nobarrier")
	fillSmall(t, dir)
	filesystemtest.Unmount(t, dir)
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want, err := describe(f, size)
	if err != nil {
		t.Fatal(err)
	}
	fs, err := Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	v, err := fs.volume()
	if err != nil {
		t.Fatal(err)
	}
	for lost := range 2 {
		o := &overlaid{ReaderAt: f}
		for _, s := range v.chunks.stripes() {
			if s.copy == lost && len(s.chunk.copies) == 2 { // the chunk tree may be there once
				o.parts = append(o.parts, part{s.off, bytes.Repeat([]byte{0xa5}, int(s.chunk.length))})
			}
		}
		if len(o.parts) == 0 {
			t.Fatal("there are no copies")
		}
		got, err := describe(o, size)
		if err != nil {
			t.Fatalf("without copy %d: %v", lost, err)
		}
		// Inline extents are where they were read.
		if withoutExtents(got) != withoutExtents(want) {
			t.Fatalf("without copy %d it reads as\n%s\nnot\n%s", lost, got, want)
		}
	}
	t.Run("superblock", func(t *testing.T) { checkSuperblocks(t, f, size, want) })
}

// withoutExtents cuts the extents out of what describe says.
func withoutExtents(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		before, rest, found := strings.Cut(line, " [{")
		if found && strings.Contains(rest, "}] ") {
			line = before + rest[strings.LastIndex(rest, "}] "):]
		}
		out.WriteString(line)
	}
	return out.String()
}

// checkSuperblocks: a lost superblock is replaced by its copy, and makes what is free unknown, as a copy does that is newer.
func checkSuperblocks(t *testing.T, f io.ReaderAt, size int64, want string) {
	super := make([]byte, superblockSize)
	if err := readFull(f, super, superblockOffsets[0]); err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(super)
	damaged[0x50] ^= 1
	_, wantFiles, _ := strings.Cut(want, "\n ")
	got, err := describe(&overlaid{f, []part{{superblockOffsets[0], damaged}}}, size)
	var untrusted *filesystem.UntrustedError
	if _, gotFiles, _ := strings.Cut(got, "\n "); !errors.As(err, &untrusted) || gotFiles != wantFiles {
		t.Errorf("the first superblock is damaged: %v", err)
	}
	if got, err := describe(&overlaid{f, []part{{superblockOffsets[1], damaged}}}, size); err != nil || got != want {
		t.Errorf("the second superblock is damaged: %v", err)
	}
	newer := make([]byte, superblockSize)
	if err := readFull(f, newer, superblockOffsets[1]); err != nil {
		t.Fatal(err)
	}
	newer[0x48]++
	copy(newer, checksums[0].sum(newer[maxChecksum:]))
	if err := free(&overlaid{f, []part{{superblockOffsets[1], newer}}}, size); !errors.As(err, &untrusted) {
		t.Errorf("the second superblock is newer: %v", err)
	}
	var corrupt *filesystem.CorruptError
	if _, err := Open(&overlaid{f, []part{{superblockOffsets[0], damaged}, {superblockOffsets[1], damaged}}}, size); !errors.As(err, &corrupt) {
		t.Errorf("both superblocks are damaged: %v", err)
	}
}

// TestLog: files that were synced are in a log until the next commit, and their extents are not in the extent tree.
func TestLog(t *testing.T) {
	image := filesystemtest.Image(t, 128<<20, "mkfs.btrfs", "-q")
	dir := filesystemtest.Mount(t, image, "btrfs", "commit=300")
	f, err := os.Create(filepath.Join(dir, "synced"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	filesystemtest.Run(t, "sync", "-f", dir)
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	frozen := filepath.Join(t.TempDir(), "frozen")
	filesystemtest.Run(t, "cp", "--sparse=auto", image, frozen)
	f.Close()
	filesystemtest.Unmount(t, dir)
	for path, dirty := range map[string]bool{image: false, frozen: true} {
		s := filesystemtest.OpenImage(t, path, open)
		var untrusted *filesystem.UntrustedError
		err := s.Free(t.Context(), func(filesystem.Range) error { return nil })
		if (s.Info().Dirty != "") != dirty || errors.As(err, &untrusted) != dirty || !dirty && err != nil {
			t.Errorf("%s: dirty %q, %v", path, s.Info().Dirty, err)
		}
	}
}

// TestSeveral: of filesystems that are not on one device in a simple way, nothing is said.
func TestSeveral(t *testing.T) {
	other := filesystemtest.Image(t, 128<<20, "true")
	for _, mkfs := range []string{"-d single -m raid1 " + other, "-d raid0 -m single"} {
		image := filesystemtest.Image(t, 256<<20, strings.Fields("mkfs.btrfs -q "+mkfs)...)
		tree := filesystemtest.OpenTree(t, image, open)
		var unsupported *filesystem.UnsupportedError
		if _, err := tree.Stat(tree.Root()); !errors.As(err, &unsupported) {
			t.Errorf("mkfs.btrfs %s: %v", mkfs, err)
		}
		var untrusted *filesystem.UntrustedError
		if err := tree.Free(t.Context(), func(filesystem.Range) error { return nil }); !errors.As(err, &untrusted) && !errors.As(err, &unsupported) {
			t.Errorf("mkfs.btrfs %s: %v", mkfs, err)
		}
	}
}
