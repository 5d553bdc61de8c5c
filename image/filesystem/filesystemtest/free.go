package filesystemtest

import (
	"context"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"varve/image/filesystem"
)

// Free returns the free runs of s, and fails unless they are in order, apart, whole units and inside.
func Free(t testing.TB, s filesystem.Filesystem) []filesystem.Range {
	t.Helper()
	info := s.Info()
	var list []filesystem.Range
	if err := s.Free(context.Background(), func(r filesystem.Range) error {
		if r.Length <= 0 || r.Offset < 0 || r.End() > info.Size || r.Length%int64(info.BlockSize) != 0 {
			t.Fatalf("%+v is no run of units of %d bytes within %d", r, info.BlockSize, info.Size)
		}
		if last := len(list) - 1; last >= 0 && r.Offset <= list[last].End() {
			t.Fatalf("%+v comes after %+v", r, list[last])
		}
		list = append(list, r)
		return nil
	}); err != nil {
		t.Fatalf("its free blocks: %v", err)
	}
	return list
}

// Sum adds up the lengths of runs.
func Sum(list []filesystem.Range) (n int64) {
	for _, r := range list {
		n += r.Length
	}
	return n
}

// CheckFree writes garbage over all that is free in a copy of the image file. check, to which the path of the copy is appended, must
// be content with it. The copy is returned: its files have to be compared too.
func CheckFree(t testing.TB, image string, open Open, check ...string) (spoiled string) {
	t.Helper()
	free := Free(t, OpenImage(t, image, open))
	if len(free) == 0 {
		t.Fatalf("nothing is free in %s", image)
	}
	spoiled = filepath.Join(t.TempDir(), "spoiled")
	Run(t, "cp", "--sparse=auto", image, spoiled)
	f, err := os.OpenFile(spoiled, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	garbage := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{99}).Read(garbage) // never fails
	for _, r := range free {
		for at := r.Offset; at < r.End(); at += int64(len(garbage)) {
			if _, err := f.WriteAt(garbage[:min(int64(len(garbage)), r.End()-at)], at); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(check) > 0 {
		Run(t, append(check, spoiled)...)
	}
	return spoiled
}

// recorder notes which sectors are read.
type recorder struct {
	io.ReaderAt
	sectors map[int64]bool
}

const sector = 512

func (r *recorder) ReadAt(p []byte, off int64) (int, error) {
	// Long reads are of content, or of bitmaps: some of their sectors stand for all.
	for at := off / sector; at <= (off+int64(len(p))-1)/sector && at < off/sector+64; at++ {
		r.sectors[at] = true
	}
	return r.ReaderAt.ReadAt(p, off)
}
