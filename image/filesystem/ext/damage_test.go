package ext_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"varve/image/filesystem"
	"varve/image/filesystem/ext"
	"varve/image/filesystem/filesystemtest"
)

// freeOf returns what is free, by a reader that knows nothing yet.
func freeOf(r io.ReaderAt, size int64) ([]filesystem.Range, error) {
	s, err := ext.Open(r, size)
	if err != nil {
		return nil, err
	}
	var list []filesystem.Range
	return list, s.Free(context.Background(), func(r filesystem.Range) error {
		list = append(list, r)
		return nil
	})
}

// TestFlippedBits: with any one bit of what decides about free blocks flipped, either they are not trusted, or they are the same.
func TestFlippedBits(t *testing.T) {
	for name, mkfs := range map[string][]string{
		"no checksums": {"mkfs.ext2", "-b", "1024", "-g", "1024"},
		"CRC-16":       {"mkfs.ext4", "-b", "1024", "-g", "512", "-O", "^metadata_csum,uninit_bg,^has_journal,^resize_inode"},
		"CRC-32C":      {"mkfs.ext4", "-b", "1024", "-g", "512", "-O", "^has_journal,^resize_inode"},
		"a journal":    {"mkfs.ext4", "-b", "1024", "-O", "^metadata_csum"},
	} {
		t.Run(name, func(t *testing.T) {
			image, err := os.ReadFile(small(t, mkfs...))
			if err != nil {
				t.Fatal(err)
			}
			r := &watched{ReaderAt: bytes.NewReader(image)}
			want, err := freeOf(r, int64(len(image)))
			if err != nil || len(want) == 0 {
				t.Fatalf("%d runs, and then %v", len(want), err)
			}
			places, noticed := 0, 0
			for _, w := range r.reads {
				end := w.off + min(w.length, 1024)
				for at := w.off; at < end; at++ {
					places++
					for bit := range 8 {
						image[at] ^= 1 << bit
						got, err := freeOf(bytes.NewReader(image), int64(len(image)))
						image[at] ^= 1 << bit
						if err != nil {
							noticed++
						} else if !slices.Equal(got, want) {
							t.Fatalf("with bit %d of byte %d flipped, other runs are free and nothing is said", bit, at)
						}
					}
				}
			}
			t.Logf("%d bytes, of their bits %d noticed", places, noticed)
			if noticed < 1000 {
				t.Error("few were noticed")
			}
		})
	}
}

// TestFlippedBitsOfFiles: where everything has a checksum, no bit outside of the contents of files can be flipped unnoticed.
func TestFlippedBitsOfFiles(t *testing.T) {
	image := loadImage(t, "ext4")
	want, plain, err := everything(image)
	if err != nil {
		t.Fatal(err)
	}
	tried, noticed := 0, 0
	for at := 1024; at < len(image); at += 3 {
		if plain[at/1024] || len(bytes.Trim(image[at/512*512:at/512*512+512], "\x00")) == 0 {
			continue
		}
		bit := byte(1) << (at % 8)
		image[at] ^= bit
		got, _, err := everything(image)
		image[at] ^= bit
		tried++
		if err != nil {
			noticed++
		} else if got != want {
			t.Fatalf("with bit %#x of byte %d (%d of block %d) flipped, other files are read and nothing is said", bit, at, at%1024, at/1024)
		}
	}
	t.Logf("of %d bits, %d noticed", tried, noticed)
	if noticed < 500 {
		t.Error("few were noticed")
	}
}

// everything reads all that is in files, and tells in which blocks of 1 KiB their contents are.
func everything(image []byte) (text string, plain map[int]bool, err error) {
	s, err := ext.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return "", nil, err
	}
	plain = map[int]bool{}
	var b strings.Builder
	err = filesystemtest.Walk(s, func(path string, n filesystem.Number) error {
		file, err := s.Stat(n)
		if err != nil {
			return err
		}
		list, err := s.Attributes(n)
		fmt.Fprintf(&b, "%s %+v %q\n", path, file, list)
		switch {
		case err != nil:
			return err
		case file.Mode&fs.ModeSymlink != 0:
			target, err := s.Readlink(n)
			b.WriteString(target)
			for at := 0; len(target) >= 60 && at < len(image); at += 1024 { // a long one is content as well
				plain[at/1024] = plain[at/1024] || bytes.HasPrefix(image[at:], []byte(target))
			}
			return err
		case !file.Mode.IsRegular():
			return nil
		}
		c, err := s.Open(n, "")
		if err != nil {
			return err
		}
		extents, err := c.Extents()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, extents)
		for _, e := range extents {
			if e.Kind != filesystem.Encoded {
				for at := e.Disk; at < e.Disk+e.Stored; at += 1024 {
					plain[int(at/1024)] = true
				}
			}
			if e.Kind == filesystem.Hole {
				continue
			}
			data := make([]byte, min(e.Length, c.Size()-e.Offset))
			if _, err := c.ReadAt(data, e.Offset); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			b.Write(data)
		}
		return nil
	})
	return b.String(), plain, err
}

// watched notes what is read, and may fail.
type watched struct {
	io.ReaderAt
	reads []read
	fail  int // the number of the read that fails, from 1 on
	count atomic.Int64
}

type read struct{ off, length int64 }

var errMedium = errors.New("medium error")

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	if int(w.count.Add(1)) == w.fail {
		clear(p) // as one does that fills in zeros
		return 0, errMedium
	}
	w.reads = append(w.reads, read{off, int64(len(p))})
	return w.ReaderAt.ReadAt(p, off)
}

// TestReadErrors: whichever read fails, the error comes back.
func TestReadErrors(t *testing.T) {
	path := small(t, "mkfs.ext4", "-b", "1024", "-g", "256")
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	readAll := func(r io.ReaderAt) error {
		s, err := ext.Open(r, int64(len(image)))
		if err != nil {
			return err
		}
		if err := s.Free(context.Background(), func(filesystem.Range) error { return nil }); err != nil {
			return err
		}
		return filesystemtest.Walk(s, func(path string, n filesystem.Number) error {
			file, err := s.Stat(n)
			if err != nil || !file.Mode.IsRegular() {
				return err
			}
			c, err := s.Open(n, "")
			if err != nil {
				return err
			}
			data := make([]byte, c.Size())
			if _, err := c.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			return nil
		})
	}
	whole := &watched{ReaderAt: bytes.NewReader(image)}
	if err := readAll(whole); err != nil {
		t.Fatal(err)
	}
	reads := int(whole.count.Load())
	if reads < 30 {
		t.Fatalf("only %d reads", reads)
	}
	for n := range reads {
		var untrusted *filesystem.UntrustedError
		if err := readAll(&watched{ReaderAt: bytes.NewReader(image), fail: n + 1}); !errors.Is(err, errMedium) || errors.As(err, &untrusted) {
			t.Errorf("read %d of %d fails, and the error is %v", n+1, reads, err)
		}
	}
}

// TestChanged: a filesystem that is mounted while its bitmaps are read is not trusted.
func TestChanged(t *testing.T) {
	image, err := os.ReadFile(small(t, "mkfs.ext2", "-b", "1024"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := ext.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	err = s.Free(context.Background(), func(filesystem.Range) error {
		image[1024+0x34]++ // it has been mounted once more
		return nil
	})
	var untrusted *filesystem.UntrustedError
	if !errors.As(err, &untrusted) {
		t.Errorf("the error is %v", err)
	}
}

// TestRefused: an error of who is told comes back as it is, and a context ends it.
func TestRefused(t *testing.T) {
	s := filesystemtest.OpenTree(t, small(t, "mkfs.ext4", "-b", "1024"), open)
	refused := filesystem.Corrupt("by who was told")
	calls := 0
	if err := s.Free(context.Background(), func(filesystem.Range) error { calls++; return refused }); err != refused || calls != 1 {
		t.Errorf("the error is %v, after %d calls", err, calls)
	}
	calls = 0
	if err := s.ReadDir(context.Background(), s.Root(), func(filesystem.Entry) error { calls++; return refused }); err != refused || calls != 1 {
		t.Errorf("the error is %v, after %d calls", err, calls)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Free(ctx, func(filesystem.Range) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if err := s.ReadDir(ctx, s.Root(), func(filesystem.Entry) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
}

// TestUnknown: what is no filesystem of this family is not opened.
func TestUnknown(t *testing.T) {
	for _, size := range []int64{0, 1, 1024, 2047, 2048, 1 << 20} {
		if _, err := ext.Open(bytes.NewReader(make([]byte, size)), size); err != filesystem.ErrUnknown {
			t.Errorf("%d zeros: %v", size, err)
		}
	}
	journal := filesystemtest.Image(t, 4<<20, "mkfs.ext4", "-q", "-O", "journal_dev")
	f, err := os.Open(journal)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var unsupported *filesystem.UnsupportedError
	if _, err := ext.Open(f, 4<<20); !errors.As(err, &unsupported) {
		t.Errorf("a journal of another filesystem: %v", err)
	}
}

// TestCutOff: of a partition that is shorter than its filesystem, nothing beyond its end is named, and the files before can be read.
func TestCutOff(t *testing.T) {
	image, err := os.ReadFile(small(t, "mkfs.ext4", "-b", "1024"))
	if err != nil {
		t.Fatal(err)
	}
	size := int64(len(image)) - 5000
	s, err := ext.Open(bytes.NewReader(image[:size]), size)
	if err != nil {
		t.Fatal(err)
	}
	if info := s.Info(); info.Size != size {
		t.Errorf("it has %d bytes of %d", info.Size, size)
	}
	if _, err := freeOf(bytes.NewReader(image[:size]), size); err == nil {
		t.Error("its free blocks are trusted")
	}
	if err := filesystemtest.Walk(s, func(_ string, n filesystem.Number) error {
		_, err := s.Stat(n)
		return err
	}); err != nil {
		t.Error(err)
	}
	// A source that ends early is not the end of a file.
	if _, err := ext.Open(bytes.NewReader(image[:1500]), size); !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		t.Errorf("the error is %v", err)
	}
}
