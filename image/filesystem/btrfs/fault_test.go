package btrfs

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"varve/image/filesystem"
)

// faulty fails the n-th read.
type faulty struct {
	io.ReaderAt
	n     int64
	count atomic.Int64
}

var errFault = errors.New("the disk is broken")

func (f *faulty) ReadAt(p []byte, off int64) (int, error) {
	if f.count.Add(1) == f.n {
		return 0, errFault
	}
	return f.ReaderAt.ReadAt(p, off)
}

// TestReadError: a read that fails is told, whichever it is, where there is only one copy.
func TestReadError(t *testing.T) {
	s := loadSmall(t, "mixed")
	count := &faulty{ReaderAt: s}
	if _, err := describe(count, s.size); err != nil {
		t.Fatal(err)
	}
	reads := count.count.Load()
	if reads < 20 {
		t.Fatalf("only %d reads", reads)
	}
	for n := int64(1); n <= reads; n++ {
		// A sector of data is read again on its own, and may well be there then.
		if _, err := describe(&faulty{ReaderAt: s, n: n}, s.size); err != nil && !errors.Is(err, errFault) {
			t.Errorf("read %d fails: %v", n, err)
		}
		broken := &dead{ReaderAt: s, n: n}
		if _, err := describe(broken, s.size); !errors.Is(err, errFault) {
			t.Errorf("from read %d on all fail: %v", n, err)
		}
	}
}

// dead fails from the n-th read on.
type dead struct {
	io.ReaderAt
	n, count int64
}

func (d *dead) ReadAt(p []byte, off int64) (int, error) {
	if d.count++; d.count >= d.n {
		return 0, errFault
	}
	return d.ReaderAt.ReadAt(p, off)
}

// lookUp returns the number of a file in the top folder.
func lookUp(t *testing.T, f *FS, name string) (n filesystem.Number) {
	t.Helper()
	if err := f.ReadDir(context.Background(), f.Root(), func(e filesystem.Entry) error {
		if e.Name == name {
			n = e.Number
		}
		return nil
	}); err != nil || n == 0 {
		t.Fatalf("looking for %s: %v", name, err)
	}
	return n
}

// TestDataChecksum: data that are not those that were written are not returned.
func TestDataChecksum(t *testing.T) {
	for _, name := range []string{"plain", "zlib", "lzo", "zstd"} {
		s := loadSmall(t, "mixed")
		f, err := Open(s, s.size)
		if err != nil {
			t.Fatal(err)
		}
		content, err := f.Open(lookUp(t, f, name), "")
		if err != nil {
			t.Fatal(err)
		}
		extents, err := content.Extents()
		if err != nil || extents[0].Stored == 0 {
			t.Fatal(extents, err)
		}
		s.blocks[extents[0].Disk][100] ^= 4
		var corrupt *filesystem.CorruptError
		b := make([]byte, 10)
		if n, err := content.ReadAt(b, 2000); !errors.As(err, &corrupt) || n != 0 || !strings.Contains(err.Error(), "checksum") {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
}

// TestAtOnce reads from many goroutines; the race detector looks on.
func TestAtOnce(t *testing.T) {
	s := loadSmall(t, "groups")
	want, err := describe(s, s.size)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(s, s.size)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			if got, err := describeOpen(f); err != nil || got != want {
				t.Errorf("another result, %v", err)
			}
		})
	}
	wait.Wait()
}

func TestCancelled(t *testing.T) {
	s := loadSmall(t, "mixed")
	f, err := Open(s, s.size)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.Free(ctx, func(filesystem.Range) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Free: %v", err)
	}
	if err := f.ReadDir(ctx, f.Root(), func(filesystem.Entry) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("ReadDir: %v", err)
	}
	stop := errors.New("enough")
	calls := 0
	enough := func() error { calls++; return stop }
	if err := f.Free(context.Background(), func(filesystem.Range) error { return enough() }); err != stop || calls != 1 {
		t.Errorf("Free: %v after %d calls", err, calls)
	}
	if err := f.ReadDir(context.Background(), f.Root(), func(filesystem.Entry) error { return enough() }); err != stop || calls != 2 {
		t.Errorf("ReadDir: %v after %d calls", err, calls)
	}
}

// TestWrongNumbers: what is not there, or of another type, is an error.
func TestWrongNumbers(t *testing.T) {
	s := loadSmall(t, "mixed")
	f, err := Open(s, s.size)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []filesystem.Number{0, 1, f.Root() + 100_000, 2<<inodeBits | 256, 300<<inodeBits | 256, 1<<63 - 1} {
		_, statErr := f.Stat(n)
		_, attributesErr := f.Attributes(n)
		_, openErr := f.Open(n, "")
		_, linkErr := f.Readlink(n)
		dirErr := f.ReadDir(context.Background(), n, func(filesystem.Entry) error { return nil })
		for _, err := range []error{statErr, attributesErr, openErr, linkErr, dirErr} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("file %#x: %v", n, err)
			}
		}
	}
	link, plain := lookUp(t, f, "link"), lookUp(t, f, "plain")
	if _, err := f.Readlink(plain); err == nil {
		t.Error("a file has a target")
	}
	if _, err := f.Open(link, ""); err == nil {
		t.Error("a link has a content")
	}
	if err := f.ReadDir(context.Background(), plain, func(filesystem.Entry) error { return nil }); err == nil {
		t.Error("a file has entries")
	}
	if _, err := f.Open(plain, "stream"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a stream: %v", err)
	}
	content, err := f.Open(plain, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := content.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("read before the start")
	}
}

func TestUnknown(t *testing.T) {
	for _, size := range []int64{0, 1, 4096, 64 << 10, 68 << 10, 1 << 20} {
		s := &small{size: size}
		if _, err := Open(s, size); !errors.Is(err, filesystem.ErrUnknown) {
			t.Errorf("%d zeros: %v", size, err)
		}
	}
	s := loadSmall(t, "mixed")
	var corrupt *filesystem.CorruptError
	if _, err := Open(s, s.size/2); !errors.As(err, &corrupt) {
		t.Errorf("half of it: %v", err)
	}
}
