package extract

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"varve/image/filesystem"
)

// fake is a filesystem in memory, which need not be a sensible one.
type fake struct {
	filesystem.Filesystem
	files   map[filesystem.Number]filesystem.File
	folders map[filesystem.Number][]filesystem.Entry
	content map[filesystem.Number]string
	target  map[filesystem.Number]string
	broken  map[filesystem.Number]bool
}

func newFake() *fake {
	f := &fake{files: map[filesystem.Number]filesystem.File{}, folders: map[filesystem.Number][]filesystem.Entry{},
		content: map[filesystem.Number]string{}, target: map[filesystem.Number]string{}, broken: map[filesystem.Number]bool{}}
	f.files[1] = filesystem.File{Number: 1, Mode: fs.ModeDir | 0o755, Links: 1}
	return f
}

var modified = time.Unix(1_700_000_000, 123_000_000).UTC()

// add puts a file into a folder; n is its number, which may be there already.
func (f *fake) add(folder, n filesystem.Number, name string, mode fs.FileMode, text string) {
	f.folders[folder] = append(f.folders[folder], filesystem.Entry{Name: name, Number: n, Mode: mode.Type()})
	file := f.files[n]
	f.files[n] = filesystem.File{Number: n, Mode: mode, Size: int64(len(text)), Links: file.Links + 1, Modified: modified,
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	f.content[n], f.target[n] = text, text
}

func (f *fake) Root() filesystem.Number { return 1 }
func (f *fake) Stat(n filesystem.Number) (filesystem.File, error) {
	file, ok := f.files[n]
	if !ok {
		return file, errors.New("no such file")
	}
	return file, nil
}
func (f *fake) ReadDir(_ context.Context, n filesystem.Number, g func(filesystem.Entry) error) error {
	for _, e := range f.folders[n] {
		if err := g(e); err != nil {
			return err
		}
	}
	return nil
}
func (f *fake) Readlink(n filesystem.Number) (string, error)                 { return f.target[n], nil }
func (f *fake) Attributes(filesystem.Number) ([]filesystem.Attribute, error) { return nil, nil }
func (f *fake) Streams(filesystem.Number) ([]filesystem.Stream, error)       { return nil, nil }
func (f *fake) Open(n filesystem.Number, _ string) (filesystem.Content, error) {
	return &fakeContent{strings.NewReader(f.content[n]), f.broken[n]}, nil
}

type fakeContent struct {
	*strings.Reader
	broken bool
}

func (c *fakeContent) ReadAt(p []byte, off int64) (int, error) {
	if c.broken && off+int64(len(p)) > c.Size()/2 {
		return 0, errors.New("a bad sector")
	}
	return c.Reader.ReadAt(p, off)
}

func (c *fakeContent) Extents() ([]filesystem.Extent, error) {
	if c.Size() == 0 {
		return nil, nil
	}
	return []filesystem.Extent{{Kind: filesystem.Plain, Length: c.Size(), Stored: c.Size()}}, nil
}

// house is a small sensible filesystem.
func house() *fake {
	f := newFake()
	f.add(1, 2, "a folder", fs.ModeDir|0o750, "")
	f.add(2, 3, "file", 0o640, "content")
	f.add(1, 3, "second name", 0o640, "content")
	f.add(1, 4, "link", fs.ModeSymlink|0o777, "a folder/file")
	f.add(2, 5, "empty", 0o600, "")
	f.add(1, 6, "large", 0o600, strings.Repeat("0123456789", 300_000))
	return f
}

// none fails the test when something could not be taken.
func none(t *testing.T) func(string, error) {
	return func(name string, err error) { t.Errorf("%s: %v", name, err) }
}

func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "to", "be", "made")
	for range 2 { // the second time over what is there
		result, err := Folder(context.Background(), house(), 1, ".", dir, none(t))
		if err != nil {
			t.Fatal(err)
		}
		if result.Files != 5 || result.Folders != 2 || result.Failed != 0 || result.Bytes != 3_000_007 {
			t.Errorf("%+v", result)
		}
	}
	for name, want := range map[string]string{"a folder/file": "content", "second name": "content", "a folder/empty": "", "link": "content"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if target, err := os.Readlink(filepath.Join(dir, "link")); err != nil || target != "a folder/file" {
		t.Errorf("%q, %v", target, err)
	}
	a, err1 := os.Stat(filepath.Join(dir, "a folder/file"))
	b, err2 := os.Stat(filepath.Join(dir, "second name"))
	d, err3 := os.Stat(filepath.Join(dir, "a folder"))
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(a, b) {
		t.Error("a second name has become another file")
	}
	if a.Mode() != 0o640 || d.Mode() != fs.ModeDir|0o750 || !a.ModTime().Equal(modified) || !d.ModTime().Equal(modified) {
		t.Errorf("%v of %v, %v of %v", a.Mode(), a.ModTime(), d.Mode(), d.ModTime())
	}
}

// TestNothingOutside: names that lead elsewhere, links that were there before or come first, and folders in themselves do not bring
// a byte out of the folder; what is sound beside them is taken.
func TestNothingOutside(t *testing.T) {
	top := t.TempDir()
	outside := filepath.Join(top, "outside")
	dir := filepath.Join(top, "dir")
	for _, d := range []string{outside, dir} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(outside, "precious"), []byte("as it was"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../outside", filepath.Join(dir, "was a link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../outside/precious", filepath.Join(dir, "was a link to a file")); err != nil {
		t.Fatal(err)
	}
	f := newFake()
	f.add(1, 2, "..", fs.ModeDir|0o755, "")
	f.add(2, 3, "precious", 0o600, "other")
	f.add(1, 4, "../outside/precious", 0o600, "other")
	f.add(1, 5, "/etc/precious", 0o600, "other")
	f.add(1, 6, "", 0o600, "other")
	f.add(1, 7, ".", fs.ModeDir|0o755, "")
	f.add(1, 8, "link", fs.ModeSymlink|0o777, "../outside")
	f.add(1, 9, "link", fs.ModeDir|0o755, "") // the same name again, now a folder
	f.add(9, 10, "precious", 0o600, "other")
	f.add(1, 11, "was a link", fs.ModeDir|0o755, "")
	f.add(11, 12, "precious", 0o600, "other")
	f.add(1, 13, "was a link to a file", 0o600, "other")
	f.add(1, 14, "circle", fs.ModeDir|0o755, "")
	f.add(14, 14, "again", fs.ModeDir|0o755, "")
	f.add(1, 15, "sound", 0o600, "sound")
	failed := map[string]bool{}
	result, err := Folder(context.Background(), f, 1, ".", dir, func(name string, err error) { failed[name] = true })
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(outside, "precious"))
	entries, err2 := os.ReadDir(outside)
	if err != nil || err2 != nil || string(got) != "as it was" || len(entries) != 1 {
		t.Errorf("outside there is %q, %v, %v, %v", got, entries, err, err2)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "sound")); err != nil || string(got) != "sound" {
		t.Errorf("%q, %v", got, err)
	}
	for _, name := range []string{"was a link/precious", "was a link to a file"} {
		st, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || !st.Mode().IsRegular() {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
	if result.Failed < 6 || len(failed) == 0 {
		t.Errorf("%+v, %v", result, failed)
	}
}

func TestTar(t *testing.T) {
	var out bytes.Buffer
	result, err := Tar(context.Background(), house(), 1, "top", &out, none(t))
	if err != nil || result.Files != 5 {
		t.Fatal(result, err)
	}
	got := map[string]string{}
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = fmt.Sprintf("%c %o %d %s %v", h.Typeflag, h.Mode, len(data), h.Linkname, h.ModTime.UnixNano())
	}
	at := modified.UnixNano()
	for name, want := range map[string]string{
		"top/":              "5 755 0  0",
		"top/a folder/":     fmt.Sprintf("5 750 0  %d", at),
		"top/a folder/file": fmt.Sprintf("0 640 7  %d", at),
		"top/second name":   fmt.Sprintf("1 640 0 top/a folder/file %d", at),
		"top/link":          fmt.Sprintf("2 777 0 a folder/file %d", at),
		"top/large":         fmt.Sprintf("0 600 3000000  %d", at),
	} {
		if got[name] != want {
			t.Errorf("%s: %q, not %q", name, got[name], want)
		}
	}
}

func TestZip(t *testing.T) {
	var out bytes.Buffer
	if _, err := Zip(context.Background(), house(), 1, ".", &out, none(t)); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got[f.Name] = string(data)
	}
	for name, want := range map[string]string{"a folder/": "", "a folder/file": "content", "second name": "content", "link": "a folder/file"} {
		if data, ok := got[name]; !ok || data != want {
			t.Errorf("%s: %q, %v", name, data, ok)
		}
	}
}

// TestUnreadable: a file that cannot be read is told. In a folder all others are taken; an archive, in which its length is written already,
// ends with an error and is no whole archive.
func TestUnreadable(t *testing.T) {
	f := house()
	f.broken[6] = true
	failed := 0
	result, err := Folder(context.Background(), f, 1, ".", t.TempDir(), func(name string, err error) {
		failed++
		if name != "large" {
			t.Errorf("%s: %v", name, err)
		}
	})
	if err != nil || result.Failed != 1 || failed != 1 || result.Files != 4 {
		t.Errorf("%+v, %v", result, err)
	}
	if _, err := Tar(context.Background(), f, 1, ".", io.Discard, func(string, error) {}); err == nil {
		t.Error("the archive is said to be whole")
	}
}
