package ext_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
)

// find returns the number of a file by its path.
func find(t *testing.T, tree filesystem.Tree, path string) filesystem.Number {
	t.Helper()
	n := tree.Root()
	for _, name := range strings.Split(path, "/") {
		found := filesystem.Number(0)
		if err := tree.ReadDir(context.Background(), n, func(e filesystem.Entry) error {
			if e.Name == name {
				found = e.Number
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if found == 0 {
			t.Fatalf("%s: no %s", path, name)
		}
		n = found
	}
	return n
}

func noise(n int, seed byte) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

func openContent(t *testing.T, tree filesystem.Tree, path string) (filesystem.Content, []filesystem.Extent) {
	t.Helper()
	c, err := tree.Open(find(t, tree, path), "")
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.Extents()
	if err != nil {
		t.Fatal(err)
	}
	return c, list
}

// TestTimes: years before 1970 and after 2038, and nanoseconds; without room for them, what fits.
func TestTimes(t *testing.T) {
	for _, size := range []string{"128", "256"} {
		image := filesystemtest.Image(t, 8<<20, "mkfs.ext4", "-q", "-I", size)
		dir := filesystemtest.Mount(t, image, "ext4")
		for _, year := range []int{1902, 1969, 1970, 2000, 2037, 2039, 2106, 2300, 2445} {
			name := filepath.Join(dir, fmt.Sprint(year))
			write(t, name, nil)
			filesystemtest.Run(t, "touch", "-d", fmt.Sprintf("%d-07-08 09:10:11.123456789Z", year), name)
		}
		fillSome(t, dir)
		filesystemtest.Unmount(t, dir)
		dir = filesystemtest.Mount(t, image, "ext4", "ro")
		tree := filesystemtest.OpenTree(t, image, open)
		filesystemtest.CheckTree(t, tree, image, dir, all)
		created := false
		for _, year := range []int{1902, 2445} {
			file, err := tree.Stat(find(t, tree, fmt.Sprint(year)))
			if err != nil {
				t.Fatal(err)
			}
			created = !file.Created.IsZero()
			if size == "256" && (file.Modified.Year() != year || !file.Accessed.Equal(file.Modified) || time.Since(file.Created) > time.Hour || time.Since(file.Created) < -time.Hour) {
				t.Errorf("the file of %d has %v, %v, %v", year, file.Modified, file.Accessed, file.Created)
			}
		}
		if created != (size == "256") {
			t.Errorf("inodes of %s bytes tell when they were created: %v", size, created)
		}
	}
}

// TestMaps: files whose maps are deep, by blocks and by extents, with holes and with room that was set aside.
func TestMaps(t *testing.T) {
	for _, features := range []string{"extents", "^extents,^64bit"} {
		t.Run(features, func(t *testing.T) {
			image := filesystemtest.Image(t, 32<<20, "mkfs.ext4", "-q", "-b", "1024", "-O", features)
			dir := filesystemtest.Mount(t, image, "ext4", "barrier=0")
			fillSome(t, dir)
			f, err := os.Create(filepath.Join(dir, "scattered"))
			if err != nil {
				t.Fatal(err)
			}
			data := noise(1<<20, 1)
			for i := range 700 { // every second block, so that each is an extent: more than the nodes below the root have room for
				if _, err := f.WriteAt(data[i*1024:(i+1)*1024], int64(i)*2048); err != nil {
					t.Fatal(err)
				}
			}
			// In single, double and triple indirect blocks, and their first and last ones.
			var offsets []int64
			for _, block := range []int64{11, 12, 12 + 255, 12 + 256, 12 + 256 + 65535, 12 + 256 + 65536, 12 + 256 + 65536 + 256, 8_000_000} {
				offsets = append(offsets, block<<10)
			}
			far, err := os.Create(filepath.Join(dir, "far"))
			if err != nil {
				t.Fatal(err)
			}
			for i, at := range offsets {
				if _, err := far.WriteAt(data[i*1024:(i+1)*1024], at); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(f.Close(), far.Close()); err != nil {
				t.Fatal(err)
			}
			if features == "extents" {
				filesystemtest.Run(t, "fallocate", "-l", "3M", filepath.Join(dir, "set aside"))
				filesystemtest.Run(t, "fallocate", "-n", "-o", "1M", "-l", "1M", filepath.Join(dir, "some/files in 0/number 0"))
				write(t, filepath.Join(dir, "mixed"), data[:300_000])
				filesystemtest.Run(t, "fallocate", "-z", "-o", "100K", "-l", "50K", filepath.Join(dir, "mixed"))
			}
			filesystemtest.Unmount(t, dir)
			if features == "extents" { // what is written where nothing is set to be read
				tree := filesystemtest.OpenTree(t, image, open)
				_, list := openContent(t, tree, "set aside")
				for _, e := range list {
					if e.Kind != filesystem.Hole || e.Disk == 0 || e.Stored != e.Length {
						t.Errorf("of room set aside, an extent is %+v", e)
					}
					patch(t, image, data[:1024], e.Disk)
				}
			}
			tree := filesystemtest.OpenTree(t, image, open)
			far2, list := openContent(t, tree, "far")
			if len(list) < 10 { // five runs that are written, and holes before them
				t.Errorf("%d extents", len(list))
			}
			for i, at := range offsets {
				got := make([]byte, 3072)
				if _, err := far2.ReadAt(got, at-1024); err != nil && !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				if !bytes.Equal(got[1024:2048], data[i*1024:(i+1)*1024]) {
					t.Errorf("the block at %d is another", at)
				}
			}
			if n, err := far2.ReadAt(make([]byte, 10), 7_000_000<<10); n != 10 || err != nil {
				t.Errorf("reading a hole: %d bytes, %v", n, err)
			}
			remove(t, image, "far") // the harness reads whole files
			dir = filesystemtest.Mount(t, image, "ext4", "ro")
			filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, image, open), image, dir, all)
		})
	}
}

// remove removes a file from an image.
func remove(t *testing.T, image, name string) {
	t.Helper()
	dir := filesystemtest.Mount(t, image, "ext4")
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	filesystemtest.Unmount(t, dir)
}

// TestEncrypted: of an encrypted folder there are names, and no content.
func TestEncrypted(t *testing.T) {
	image := filesystemtest.Image(t, 16<<20, "mkfs.ext4", "-q", "-O", "encrypt")
	dir := filesystemtest.Mount(t, image, "ext4", "test_dummy_encryption")
	write(t, filepath.Join(dir, "folder/file"), []byte("secret"))
	if err := os.Symlink("secret", filepath.Join(dir, "folder/link")); err != nil {
		t.Fatal(err)
	}
	filesystemtest.Unmount(t, dir)

	tree := filesystemtest.OpenTree(t, image, open)
	var encrypted, files, links int
	if err := filesystemtest.Walk(tree, func(path string, n filesystem.Number) error {
		if path == "lost+found" {
			return nil
		}
		if raw, err := base64.RawURLEncoding.DecodeString(filepath.Base(path)); err == nil && len(raw) >= 16 {
			encrypted++
		}
		file, err := tree.Stat(n)
		if err != nil {
			return err
		}
		if list, err := tree.Attributes(n); err != nil || len(list) > 0 {
			return fmt.Errorf("it has the attributes %v: %v", list, err)
		}
		var unsupported *filesystem.UnsupportedError
		switch file.Mode.Type() {
		case 0:
			files++
			if _, err := tree.Open(n, ""); !errors.As(err, &unsupported) {
				return fmt.Errorf("its content: %v", err)
			}
		case fs.ModeSymlink:
			links++
			if _, err := tree.Readlink(n); !errors.As(err, &unsupported) {
				return fmt.Errorf("its target: %v", err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if encrypted != 2 || files != 1 || links != 1 {
		t.Errorf("%d encrypted names, %d files, %d links", encrypted, files, links)
	}
	filesystemtest.CheckFree(t, image, open, "e2fsck", "-fn")
}

// TestFromFolder: what the kernel of most machines does not mount for writing, filled by mkfs.
func TestFromFolder(t *testing.T) {
	from := t.TempDir()
	for i := range 600 {
		write(t, filepath.Join(from, "many", fmt.Sprintf("file %d with a rather long name, so that there are some blocks of a folder", i)), nil)
	}
	write(t, filepath.Join(from, "some"), noise(300_000, 2))
	write(t, filepath.Join(from, "less"), noise(70_000, 3))
	if err := errors.Join(
		os.Symlink(strings.Repeat("l", 100), filepath.Join(from, "long link")),
		os.Symlink("l", filepath.Join(from, "link")),
		os.Link(filepath.Join(from, "some"), filepath.Join(from, "same")),
		os.Mkdir(filepath.Join(from, "lost+found"), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	patch(t, filepath.Join(from, "less"), noise(70_000, 4), 4<<20) // behind a hole
	can := filesystemtest.Abilities{Links: true, Sparse: true}
	for _, c := range [][]string{
		{"mkfs.ext4", "-b", "65536"},
		{"mkfs.ext4", "-b", "65536", "-O", "^metadata_csum,^has_journal"},
		{"mkfs.ext4", "-b", "16384", "-O", "inline_data"},
		{"mkfs.ext4", "-b", "8192", "-C", "32768", "-O", "bigalloc"},
		{"mkfs.ext4", "-O", "project,casefold,encrypt"},
		{"mkfs.ext2", "-b", "32768", "-r", "0"},
	} {
		t.Run(strings.Join(c, " "), func(t *testing.T) {
			image := filesystemtest.Image(t, 40<<20, append(c, "-q", "-F", "-d", from)...)
			if strings.Contains(c[len(c)-1], "project") {
				filesystemtest.Run(t, "tune2fs", "-O", "quota", image)
			}
			filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, image, open), image, from, can)
			spoiled := filesystemtest.CheckFree(t, image, open, "e2fsck", "-fn")
			filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, spoiled, open), spoiled, from, can)
		})
	}
}

// TestTogether: many readers at once.
func TestTogether(t *testing.T) {
	tree := filesystemtest.OpenTree(t, small(t, "mkfs.ext4", "-b", "1024"), open)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			files := 0
			if err := filesystemtest.Walk(tree, func(_ string, n filesystem.Number) error {
				files++
				_, err := tree.Attributes(n)
				return err
			}); err != nil || files < 40 {
				t.Errorf("%d files, and then %v", files, err)
			}
			if err := tree.Free(context.Background(), func(filesystem.Range) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
}

// TestNotThatKind: asking a file for what it has not.
func TestNotThatKind(t *testing.T) {
	tree := filesystemtest.OpenTree(t, small(t, "mkfs.ext4", "-b", "1024"), open)
	file := find(t, tree, "folder/file 7")
	for what, err := range map[string]error{
		"the content of a folder":  second(tree.Open(tree.Root(), "")),
		"a stream":                 second(tree.Open(file, "stream")),
		"the target of a file":     second(tree.Readlink(file)),
		"a file as a folder":       tree.ReadDir(context.Background(), file, func(filesystem.Entry) error { return nil }),
		"the journal":              second(tree.Stat(8)),
		"inode 0":                  second(tree.Stat(0)),
		"an inode beyond the last": second(tree.Stat(1 << 40)),
		"an unused inode":          second(tree.Stat(500)),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func second[T any](_ T, err error) error { return err }
