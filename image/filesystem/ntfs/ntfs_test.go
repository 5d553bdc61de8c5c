package ntfs

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
)

func open(r io.ReaderAt, size int64) (filesystem.Filesystem, error) {
	f, err := Open(r, size)
	if err != nil {
		return nil, err
	}
	return asMounted{f}, nil
}

// asMounted is a filesystem as ntfs-3g shows it: streams are attributes of the user.
type asMounted struct{ *FS }

func (x asMounted) Attributes(n filesystem.Number) ([]filesystem.Attribute, error) {
	list, err := x.FS.Attributes(n)
	if err != nil {
		return nil, err
	}
	streams, err := x.Streams(n)
	if err != nil {
		return nil, err
	}
	for _, s := range streams {
		content, err := x.Open(n, s.Name)
		if err != nil {
			return nil, err
		}
		value := make([]byte, s.Size)
		if n, err := content.ReadAt(value, 0); n < len(value) {
			return nil, err
		}
		list = append(list, filesystem.Attribute{Name: "user." + s.Name, Value: value})
	}
	return list, nil
}

// all is what ntfs-3g can hold. Owners and permissions it ignores, and then shows those that the options of readOnly say.
var all = filesystemtest.Abilities{Links: true, Xattrs: true, Owners: true, Sparse: true, Special: true}

// readOnly are options with which ntfs-3g shows what this package does. Names for DOS are no links then.
var readOnly = []string{"ro", "fmask=0133", "dmask=0022", "posix_nlink"}

// TestVariants compares files of all kinds with ntfs-3g, for the sizes of sectors and clusters that mkntfs makes, and has garbage
// written over what is free.
func TestVariants(t *testing.T) {
	noSpecial := all
	noSpecial.Special = false // ntfs-3g does not show the modes of those of Linux in Windows: TestKinds
	for _, v := range []struct {
		name    string
		size    int64
		mkfs    []string
		options []string
		can     filesystemtest.Abilities
	}{
		{"defaults", 80 << 20, nil, nil, all},
		{"clusters of 512", 80<<20 + 512*7, []string{"-c", "512"}, nil, all},
		{"clusters of 64 KiB", 128 << 20, []string{"-c", "65536", "-L", "Grüße"}, nil, all},
		{"sectors of 4096", 80<<20 + 4096*3, []string{"-s", "4096", "-c", "4096"}, nil, all},
		{"links of Linux in Windows", 80 << 20, nil, []string{"special_files=wsl"}, noSpecial},
	} {
		t.Run(v.name, func(t *testing.T) {
			image := mkfs(t, v.size, v.mkfs...)
			dir := filesystemtest.Mount(t, image, "ntfs", v.options...)
			filesystemtest.Fill(t, dir, v.can)
			filesystemtest.Unmount(t, dir)
			compare(t, image, v.can)
		})
	}
}

func mkfs(t *testing.T, size int64, options ...string) string {
	t.Helper()
	return filesystemtest.Image(t, size, append([]string{"mkntfs", "-F", "-Q", "-q"}, options...)...)
}

// compare compares the files and the free clusters of an image with what ntfs-3g and its programs say.
func compare(t *testing.T, image string, can filesystemtest.Abilities) {
	t.Helper()
	dir := filesystemtest.Mount(t, image, "ntfs", readOnly...)
	filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, image, open), image, dir, can)
	filesystemtest.Unmount(t, dir)
	compareInfo(t, image)
	spoiled := filesystemtest.CheckFree(t, image, open, "ntfsfix", "-n")
	dir = filesystemtest.Mount(t, spoiled, "ntfs", readOnly...)
	filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, spoiled, open), spoiled, dir, can)
	filesystemtest.Unmount(t, dir)
	if err := os.Remove(spoiled); err != nil {
		t.Fatal(err)
	}
}

// compareInfo compares what ntfsinfo and blkid say of an image.
func compareInfo(t *testing.T, image string) {
	t.Helper()
	s := filesystemtest.OpenImage(t, image, open)
	info := s.Info()
	said := filesystemtest.Run(t, "ntfsinfo", "-m", image)
	free := filesystemtest.Sum(filesystemtest.Free(t, s)) / int64(info.BlockSize)
	if n := number(t, said, `Free Clusters: (\d+)`); n != free {
		t.Errorf("%d clusters are free, of which ntfsinfo says %d", free, n)
	}
	if n := number(t, said, `Cluster Size: (\d+)`); n != int64(info.BlockSize) {
		t.Errorf("clusters have %d bytes, of which ntfsinfo says %d", info.BlockSize, n)
	}
	st, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	if missing := st.Size() - info.Size; missing < 0 || missing >= 8*512 {
		t.Errorf("it has %d of %d bytes", info.Size, st.Size())
	}
	for tag, want := range map[string]string{"TYPE": info.Type, "UUID": info.UUID, "LABEL": info.Label} {
		if want == "" {
			continue // blkid fails when a filesystem does not have what it is asked for
		}
		if said := strings.TrimSpace(filesystemtest.Run(t, "blkid", "-p", "-o", "value", "-s", tag, image)); said != want {
			t.Errorf("%s is %q, of which blkid says %q", tag, want, said)
		}
	}
	if info.Dirty != "" {
		t.Errorf("the filesystem %s", info.Dirty)
	}
}

func number(t *testing.T, text, pattern string) int64 {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("no %s in\n%s", pattern, text)
	}
	n, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestFeatures compares with ntfs-3g what is special in NTFS, and damages it.
func TestFeatures(t *testing.T) {
	image := mkfs(t, 24<<20)
	fillFeatures(t, image, 16*4096)
	compare(t, image, all)
	filesystemtest.CheckDamage(t, image, open, 120)
}

// TestHugeClusters has clusters of a size that is stored in another way than smaller ones.
func TestHugeClusters(t *testing.T) {
	image := mkfs(t, 64<<20, "-c", "131072")
	fillFeatures(t, image, 64<<10) // nothing is compressed
	compareInfo(t, image)
	dir := filesystemtest.Mount(t, image, "ntfs", readOnly...)
	filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, image, open), image, dir, all)
}

// TestScatteredMFT has $MFT itself in so many places that its first record cannot name them all.
func TestScatteredMFT(t *testing.T) {
	image := mkfs(t, 12<<20, "-c", "512")
	dir := filesystemtest.Mount(t, image, "ntfs")
	// Every other cluster of all that is free is given back, and records of new files have to go there.
	var names []string
	for i := 0; ; i++ {
		name := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(name, make([]byte, 1024), 0o644); err != nil {
			break
		}
		names = append(names, name)
	}
	filesystemtest.Run(t, "sync", "-f", dir)
	for i, name := range names {
		if i%2 == 0 {
			if err := os.Truncate(name, 10); err != nil {
				t.Fatal(err)
			}
		}
	}
	filesystemtest.Run(t, "sync", "-f", dir)
	for i := range 2500 {
		if err := os.WriteFile(filepath.Join(dir, "new "+strconv.Itoa(i)), []byte("new\n"), 0o644); err != nil {
			break
		}
	}
	filesystemtest.Unmount(t, dir)
	f := filesystemtest.OpenTree(t, image, open).(asMounted).FS
	base, err := f.record(recordMFT)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := f.list(base); len(list) == 0 || err != nil {
		t.Errorf("$MFT is in %d places, and has no list of its attributes: %v", len(f.mft.runs), err)
	}
	compare(t, image, all)
}
