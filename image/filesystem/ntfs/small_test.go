package ntfs

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
)

var update = flag.Bool("update", false, "make the small filesystem and what is in it anew")

// small returns a filesystem of 1.5 MB that ntfs-3g has made, with all that fillFeatures and fillKinds know.
var small = sync.OnceValues(func() ([]byte, error) {
	f, err := os.Open(filepath.Join("testdata", "small.gz"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
})

// smallImage returns a copy of the small filesystem.
func smallImage(t testing.TB) []byte {
	t.Helper()
	b, err := small()
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b)
}

func openBytes(t testing.TB, b []byte) *FS {
	t.Helper()
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestSmall lists the small filesystem.
func TestSmall(t *testing.T) {
	golden := filepath.Join("testdata", "small.golden")
	if *update {
		makeSmall(t)
	}
	f := openBytes(t, smallImage(t))
	var got strings.Builder
	fmt.Fprintf(&got, "%+v\n", f.Info())
	if err := filesystemtest.Walk(f, func(path string, n filesystem.Number) error {
		line, err := describe(f, n)
		fmt.Fprintf(&got, "%q %s\n", path, line)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	free := filesystemtest.Free(t, f)
	fmt.Fprintf(&got, "%d bytes in %d runs are free\n", filesystemtest.Sum(free), len(free))
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
		t.Error(diff)
	}
}

// makeSmall makes the small filesystem. What is free in it is zero, and so is $UpCase, so that it is small when it is compressed.
func makeSmall(t *testing.T) {
	t.Helper()
	image := mkfs(t, 2<<20, "-c", "512", "-L", "small")
	fillFeatures(t, image, 16*512)
	compare(t, image, all)
	fillKinds(t, image)
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	f := openBytes(t, b)
	for _, r := range filesystemtest.Free(t, f) {
		clear(b[r.Offset:r.End()])
	}
	upcase, err := f.Open(recordUpCase, "")
	if err != nil {
		t.Fatal(err)
	}
	extents, err := upcase.Extents()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range extents {
		clear(b[e.Disk : e.Disk+e.Stored])
	}
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", "small.gz"), packed.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// describe says all that can be known of a file, but for times.
func describe(f *FS, n filesystem.Number) (string, error) {
	s, err := f.Stat(n)
	if err != nil {
		return "", err
	}
	line := fmt.Sprintf("%v %d bytes, %d links, %d:%d", s.Mode, s.Size, s.Links, s.UID, s.GID)
	if s.Mode&fs.ModeSymlink != 0 {
		target, err := f.Readlink(n)
		if err != nil {
			return line, err
		}
		line += fmt.Sprintf(" to %q", target)
	}
	if s.Device != 0 {
		line += fmt.Sprintf(" %#x", s.Device)
	}
	attributes, err := f.Attributes(n)
	if err != nil {
		return line, err
	}
	for _, a := range attributes {
		line += fmt.Sprintf(" %s=%q", a.Name, a.Value)
	}
	streams, err := f.Streams(n)
	if err != nil {
		return line, err
	}
	if s.Mode.IsRegular() {
		streams = append([]filesystem.Stream{{Size: s.Size}}, streams...)
	}
	for _, stream := range streams {
		text, err := describeContent(f, n, stream)
		if err != nil {
			return line, err
		}
		line += text
	}
	return line, nil
}

// describeContent says what is in a stream and how it is stored.
func describeContent(f *FS, n filesystem.Number, s filesystem.Stream) (string, error) {
	content, err := f.Open(n, s.Name)
	var unsupported *filesystem.UnsupportedError
	if errors.As(err, &unsupported) {
		return fmt.Sprintf(" [%v]", err), nil
	}
	if err != nil {
		return "", err
	}
	data := make([]byte, content.Size())
	if n, err := content.ReadAt(data, 0); n < len(data) || err != nil && !errors.Is(err, io.EOF) || int64(n) != s.Size {
		return "", fmt.Errorf("stream %q: %d of %d bytes: %w", s.Name, n, s.Size, err)
	}
	if err := filesystemtest.CompareContent(content, data); err != nil {
		return "", err
	}
	extents, err := content.Extents()
	if err != nil {
		return "", err
	}
	var count [3]int
	for _, e := range extents {
		count[e.Kind]++
	}
	sum := sha256.Sum256(data)
	return fmt.Sprintf(" [%s %d %x: %d plain, %d holes, %d encoded]", s.Name, len(data), sum[:4], count[filesystem.Plain],
		count[filesystem.Hole], count[filesystem.Encoded]), nil
}

// find returns the number of a file of the small filesystem.
func find(t testing.TB, f *FS, path string) filesystem.Number {
	t.Helper()
	var found filesystem.Number
	if err := filesystemtest.Walk(f, func(p string, n filesystem.Number) error {
		if p == path {
			found = n
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Fatalf("there is no %s", path)
	}
	return found
}
