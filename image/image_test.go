package image

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// noise returns n bytes that are not zero in any block, the same for the same seed.
func noise(seed byte, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(p)
	for i := 0; i < n; i += 512 {
		p[i] = seed | 1
	}
	return p
}

// write makes a file of data.
func write(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// open opens a source that is closed with the test.
func open(t *testing.T, path string) Source {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// openTarget opens a target that is closed with the test.
func openTarget(t *testing.T, path string, size int64) Target {
	t.Helper()
	target, err := OpenTarget(path, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { target.Close() })
	return target
}

// content reads a file.
func content(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// checkMap fails unless list covers the range as Map promises.
func checkMap(t *testing.T, list []Extent, off, length, size int64) {
	t.Helper()
	at := off
	for i, e := range list {
		if e.Offset != at || e.Length <= 0 {
			t.Fatalf("extent %d of %v is not adjacent, or empty", i, list)
		}
		if i > 0 && list[i-1].Kind == e.Kind {
			t.Fatalf("extents %d and %d of %v are of the same kind", i-1, i, list)
		}
		at += e.Length
		if at%Block != 0 && at != size && at != off+length {
			t.Fatalf("extent %d of %v does not end on a block", i, list)
		}
	}
	if at != off+length {
		t.Fatalf("%v ends at %d in place of %d", list, at, off+length)
	}
}

// TestSizes: a disk may have any size.
func TestSizes(t *testing.T) {
	for _, size := range []int{0, 1, 511, 512, 513, 4095, 4096, 4097, 10000, 1<<20 + 7} {
		data := noise(1, size)
		s := open(t, write(t, data))
		if info := s.Info(); info.Size != int64(size) || info.Type != "file" || info.Name != "disk.img" || !filepath.IsAbs(info.Path) ||
			info.ModTime.IsZero() || info.ChangeTime.IsZero() || info.Inode == 0 {
			t.Errorf("%d bytes: %+v", size, info)
		}
		list, err := s.Map(0, int64(size))
		if err != nil {
			t.Fatal(err)
		}
		checkMap(t, list, 0, int64(size), int64(size))
		got := make([]byte, size+100)
		n, err := s.ReadAt(got, 0)
		if !bytes.Equal(got[:n], data) || err != io.EOF {
			t.Errorf("%d bytes: read %d, %v", size, n, err)
		}

		path := filepath.Join(t.TempDir(), "target")
		target := openTarget(t, path, int64(size))
		if !target.Fresh() || target.Info().Size != int64(size) {
			t.Errorf("%d bytes: fresh %v, %+v", size, target.Fresh(), target.Info())
		}
		if list, err = target.Map(0, int64(size)); err != nil {
			t.Fatal(err)
		}
		checkMap(t, list, 0, int64(size), int64(size))
		if _, err := target.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
		if err := target.Zero(int64(size/2), int64(size-size/2)); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(target.Sync(), target.Close()); err != nil {
			t.Fatal(err)
		}
		clear(data[size/2:])
		if !bytes.Equal(content(t, path), data) {
			t.Errorf("%d bytes: the target is another", size)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Errorf("a folder: %v", err)
	}
	if _, err := OpenTarget(dir, 1); !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a folder as target: %v", err)
	}
	if _, err := OpenTarget(filepath.Join(dir, "missing", "file"), 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a target in a missing folder: %v", err)
	}
}

func TestSameFile(t *testing.T) {
	a, b := write(t, nil), write(t, nil)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(a, link); err != nil {
		t.Fatal(err)
	}
	if !SameFile(a, a) || !SameFile(a, link) || SameFile(a, b) || SameFile(a, a+".missing") || SameFile(a+".missing", a+".missing") {
		t.Error("wrong")
	}
}

// TestInPlace: a file that exists keeps what is in it, and only Sync, which says that the restore is complete, cuts it.
func TestInPlace(t *testing.T) {
	old := noise(1, 20000)
	for _, size := range []int64{0, 1, 4096, 19999, 20000, 20001, 50000} {
		path := write(t, old)
		target := openTarget(t, path, size)
		if target.Fresh() {
			t.Errorf("%d bytes: fresh", size)
		}
		want := make([]byte, max(len(old), int(size)))
		copy(want, old)
		if !bytes.Equal(content(t, path), want) {
			t.Errorf("%d bytes: opening it changed it", size)
		}
		if size > 0 {
			if _, err := target.WriteAt([]byte{7}, size-1); err != nil {
				t.Fatal(err)
			}
			want[size-1] = 7
		}
		if err := target.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content(t, path), want) {
			t.Errorf("%d bytes: closing it without Sync changed it", size)
		}
		target = openTarget(t, path, size)
		if err := errors.Join(target.Sync(), target.Close()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content(t, path), want[:size]) {
			t.Errorf("%d bytes: not cut to size, or changed", size)
		}
	}
}

// TestEmptyTarget: a file without bytes is as good as a new one.
func TestEmptyTarget(t *testing.T) {
	path := write(t, nil)
	target := openTarget(t, path, 10000)
	if !target.Fresh() || !bytes.Equal(content(t, path), make([]byte, 10000)) {
		t.Error("it is not one hole")
	}
}
