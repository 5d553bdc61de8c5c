package ntfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
)

// TestEncrypted: of what Windows has encrypted one can tell where it is, and no more.
func TestEncrypted(t *testing.T) {
	image := smallImage(t)
	n := find(t, openBytes(t, image), "kinds/PageFile.sys")
	edit(t, image, int64(n&numberMask), func(b []byte) { le.PutUint16(attributeIn(t, b, typeData)[12:], flagEncrypted) })
	content, err := openBytes(t, image).Open(n, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := content.ReadAt(make([]byte, 10), 0)
	var unsupported *filesystem.UnsupportedError
	if got != 0 || !errors.As(err, &unsupported) || !strings.Contains(err.Error(), "EFS") {
		t.Errorf("reading gives %d bytes and %v", got, err)
	}
	extents, err := content.Extents()
	if err != nil || len(extents) == 0 {
		t.Fatalf("it lies in %v: %v", extents, err)
	}
	for _, e := range extents {
		if e.Kind != filesystem.Encoded {
			t.Errorf("extent %+v of an encrypted file", e)
		}
	}
}

// TestUnwritten: what is set aside and was not written reads as zeros, and is no content.
func TestUnwritten(t *testing.T) {
	image := mkfs(t, 4<<20, "-c", "512")
	dir := filesystemtest.Mount(t, image, "ntfs")
	if err := os.WriteFile(filepath.Join(dir, "file"), bytes.Repeat([]byte("written "), 600), 0o644); err != nil {
		t.Fatal(err)
	}
	filesystemtest.Unmount(t, dir)
	filesystemtest.Run(t, "ntfsfallocate", "-l", "100000", image, "/file")
	dir = filesystemtest.Mount(t, image, "ntfs", readOnly...)
	want, err := os.ReadFile(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	spoiled := filesystemtest.CheckFree(t, image, open, "ntfsfix", "-n")
	b, err := os.ReadFile(spoiled)
	if err != nil {
		t.Fatal(err)
	}
	f := openBytes(t, b)
	content, err := f.Open(find(t, f, "file"), "")
	if err != nil {
		t.Fatal(err)
	}
	s := content.(*stream)
	if s.size != 100_000 || s.initialized != 4800 {
		t.Fatalf("it has %d bytes, %d of them written", s.size, s.initialized)
	}
	for off := s.initialized; off < s.size; off++ { // what is there is of no account
		places, err := s.places(off, off+1)
		if err != nil {
			t.Fatal(err)
		}
		b[places[0].Disk] = 'x'
	}
	if err := filesystemtest.CompareContent(content, want); err != nil {
		t.Error(err)
	}
	extents, err := content.Extents()
	if err != nil {
		t.Fatal(err)
	}
	end := int64(0)
	for i, e := range extents {
		kind := filesystem.Plain
		if e.Offset >= s.initialized {
			kind = filesystem.Hole
		}
		if e.Kind != kind || e.Stored != e.Length || e.Disk == 0 || e.Offset != end || i > 0 && extents[i-1].Kind == filesystem.Plain && e.Offset != s.initialized {
			t.Errorf("extent %+v after %d", e, end)
		}
		end += e.Length
	}
	if end < s.size {
		t.Errorf("the extents end at %d", end)
	}
}

// TestFindForExclusion finds the file that Windows swaps to, whatever the case of its name is.
func TestFindForExclusion(t *testing.T) {
	f := openBytes(t, smallImage(t))
	var found []string
	if err := f.ReadDir(context.Background(), find(t, f, "kinds"), func(e filesystem.Entry) error {
		if !strings.EqualFold(e.Name, "pagefile.sys") {
			return nil
		}
		content, err := f.Open(e.Number, "")
		if err != nil {
			return err
		}
		extents, err := content.Extents()
		for _, e := range extents {
			found = append(found, fmt.Sprint(e.Kind == filesystem.Plain, e.Offset, e.Length))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(found) != 1 || found[0] != "true 0 40448" {
		t.Errorf("found %v", found)
	}
}

// TestNotThatKind asks files for what they do not have.
func TestNotThatKind(t *testing.T) {
	f := openBytes(t, smallImage(t))
	ctx := context.Background()
	nothing := func(filesystem.Entry) error { return nil }
	file, folder, link := find(t, f, "links/target"), find(t, f, "links"), find(t, f, "links/of Windows")
	_, linkOfFile := f.Readlink(file)
	_, contentOfFolder := f.Open(folder, "")
	_, contentOfLink := f.Open(link, "")
	_, noStream := f.Open(file, "none")
	_, behind := f.Stat(1 << 30)
	_, deleted := f.Stat(find(t, f, "links/target") + 1<<48)
	stop := errors.New("stop")
	for name, err := range map[string]error{
		"entries of a file": f.ReadDir(ctx, file, nothing), "entries of a link": f.ReadDir(ctx, link, nothing),
		"link of a file": linkOfFile, "content of a folder": contentOfFolder, "content of a link": contentOfLink,
		"no stream": noStream, "record behind the end": behind, "record of another file": deleted,
	} {
		if err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if !errors.Is(noStream, fs.ErrNotExist) {
		t.Errorf("a stream that is not there: %v", noStream)
	}
	if err := f.ReadDir(ctx, f.Root(), func(filesystem.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the error of the callback becomes %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if err := f.ReadDir(cancelled, find(t, f, "folder"), nothing); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := Open(strings.NewReader("short"), 5); !errors.Is(err, filesystem.ErrUnknown) {
		t.Errorf("5 bytes: %v", err)
	}
	if _, err := Open(bytes.NewReader(make([]byte, 1<<20)), 1<<20); !errors.Is(err, filesystem.ErrUnknown) {
		t.Errorf("zeros: %v", err)
	}
}

// TestDamagedFolder: what is not damaged of a folder is told all the same.
func TestDamagedFolder(t *testing.T) {
	image := smallImage(t)
	f := openBytes(t, image)
	folder := find(t, f, "folder")
	names := func(image []byte) (list []string, err error) {
		f := openBytes(t, image)
		err = f.ReadDir(context.Background(), folder, func(e filesystem.Entry) error {
			list = append(list, e.Name)
			return nil
		})
		return list, err
	}
	whole, err := names(image)
	if err != nil || len(whole) != 96 {
		t.Fatalf("the folder has %d files: %v", len(whole), err)
	}
	x, err := f.load(folder)
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := f.content(x, typeIndexBlocks, indexName)
	if err != nil {
		t.Fatal(err)
	}
	extents, err := blocks.Extents()
	if err != nil {
		t.Fatal(err)
	}
	corrupt := new(*filesystem.CorruptError)
	image[extents[0].Disk+510]++ // the mark of the first sector
	left, err := names(image)
	if !errors.As(err, corrupt) || len(left) == 0 || len(left) >= len(whole) {
		t.Errorf("with a torn block it has %d files: %v", len(left), err)
	}
	image[extents[0].Disk+510]--
	first := image[extents[0].Disk : extents[0].Disk+extents[0].Length]
	slash := bytes.Index(first, []byte(utf16("file ")))
	if slash < 0 {
		t.Fatal("there is no name in the first block")
	}
	first[slash] = '/'
	left, err = names(image)
	if err == nil || len(left) != len(whole)-1 {
		t.Errorf("with a bad name it has %d files: %v", len(left), err)
	}
}

// failing is an image with a sector that cannot be read.
type failing struct {
	*bytes.Reader
	bad int64
}

var errBroken = errors.New("broken")

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off < f.bad+512 && off+int64(len(p)) > f.bad {
		return 0, errBroken
	}
	return f.Reader.ReadAt(p, off)
}

// TestReadErrors has one sector after the other fail: then either nothing changes, or there is an error, and what is told is right.
func TestReadErrors(t *testing.T) {
	image := smallImage(t)
	list := func(r io.ReaderAt) (lines []string, err error) {
		f, err := Open(r, int64(len(image)))
		if err != nil {
			return nil, err
		}
		if err := f.Free(context.Background(), func(filesystem.Range) error { return nil }); err != nil {
			return nil, err
		}
		err = filesystemtest.Walk(f, func(path string, n filesystem.Number) error {
			line, err := describe(f, n)
			lines = append(lines, path+line)
			return err
		})
		return lines, err
	}
	whole, err := list(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for bad := int64(0); bad < int64(len(image)); bad += 512 * 127 {
		got, err := list(failing{bytes.NewReader(image), bad})
		switch {
		case err == nil && strings.Join(got, "\n") != strings.Join(whole, "\n"):
			t.Errorf("with sector %d broken something else is read", bad/512)
		case err != nil && !errors.Is(err, errBroken) && !strings.Contains(err.Error(), errBroken.Error()):
			t.Errorf("with sector %d broken: %v", bad/512, err)
		case err != nil:
			failed++
		}
	}
	if failed < 5 {
		t.Errorf("only %d broken sectors are noticed", failed)
	}
}

// TestConcurrent reads one compressed content in many goroutines.
func TestConcurrent(t *testing.T) {
	f := openBytes(t, smallImage(t))
	content, err := f.Open(find(t, f, "compressed/text"), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := content.(*compressed); !ok {
		t.Fatalf("it is a %T", content)
	}
	want := make([]byte, content.Size())
	if _, err := content.ReadAt(want, 0); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			p := make([]byte, 1000)
			for off := int64(i * 1000); off < content.Size()-1000; off += 3000 {
				if _, err := content.ReadAt(p, off); err != nil || !bytes.Equal(p, want[off:off+1000]) {
					t.Errorf("at %d: %v", off, err)
				}
			}
		})
	}
	group.Wait()
}

// TestHuge: what claims to be large costs no more than what is there.
func TestHuge(t *testing.T) {
	const clusters = 1 << 40
	enlarge := func(image []byte, n filesystem.Number, kind uint32) {
		edit(t, image, int64(n&numberMask), func(b []byte) {
			a := attributeIn(t, b, kind)
			le.PutUint64(a[24:], clusters-1)
			for _, at := range []int{40, 48, 56} {
				le.PutUint64(a[at:], clusters*512)
			}
			copy(a[le.Uint16(a[32:]):], "\x06\x00\x00\x00\x00\x00\x01\x00") // one hole
		})
	}
	image := smallImage(t)
	whole := openBytes(t, image)
	file, folder := find(t, whole, "compressed/zeros"), find(t, whole, "kinds")
	enlarge(image, file, typeData)
	enlarge(image, folder, typeIndexBlocks)
	f := openBytes(t, image)
	content, err := f.Open(file, "")
	if err != nil || content.Size() != clusters*512 {
		t.Fatalf("it has %d bytes: %v", content.Size(), err)
	}
	extents, err := content.Extents()
	if err != nil || len(extents) != 1 || extents[0] != (filesystem.Extent{Kind: filesystem.Hole, Length: clusters * 512}) {
		t.Errorf("it lies in %v: %v", extents, err)
	}
	p := []byte("0123456789")
	if n, err := content.ReadAt(p, content.Size()-5); n != 5 || !errors.Is(err, io.EOF) || string(p) != "\x00\x00\x00\x00\x0056789" {
		t.Errorf("reading its end gives %d bytes %q and %v", n, p, err)
	}
	err = f.ReadDir(context.Background(), folder, func(filesystem.Entry) error { return nil })
	if corrupt := new(filesystem.CorruptError); !errors.As(err, &corrupt) {
		t.Errorf("its folder: %v", err)
	}
}
