package ext_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"varve/image/filesystem"
	"varve/image/filesystem/ext"
	"varve/image/filesystem/filesystemtest"
)

func open(r io.ReaderAt, size int64) (filesystem.Filesystem, error) { return ext.Open(r, size) }

var all = filesystemtest.Abilities{Links: true, Xattrs: true, Owners: true, Sparse: true, Special: true}

// TestKinds: filesystems of all kinds that mkfs makes, filled by the kernel, are read as the kernel reads them, and nothing is lost when
// what is free is overwritten.
func TestKinds(t *testing.T) {
	for _, c := range []struct {
		name, kind string
		mkfs       []string
		much       bool // everything that can be in a filesystem is tried, not some of it
	}{
		{"ext2 in 1 KiB", "ext2", []string{"mkfs.ext2", "-b", "1024"}, true},
		{"ext3 in 4 KiB", "ext3", []string{"mkfs.ext3", "-b", "4096"}, true},
		{"ext4 in 1 KiB", "ext4", []string{"mkfs.ext4", "-b", "1024"}, false},
		{"ext4 in 4 KiB", "ext4", []string{"mkfs.ext4", "-b", "4096"}, true},
		{"no 64bit", "ext4", []string{"mkfs.ext4", "-O", "^64bit"}, false},
		{"uninit_bg", "ext4", []string{"mkfs.ext4", "-b", "1024", "-g", "1024", "-O", "^metadata_csum,uninit_bg"}, true},
		{"uninit_bg, no 64bit", "ext4", []string{"mkfs.ext4", "-b", "1024", "-g", "2048", "-O", "^metadata_csum,uninit_bg,^64bit"}, false},
		{"bigalloc", "ext4", []string{"mkfs.ext4", "-b", "4096", "-O", "bigalloc", "-C", "65536"}, true},
		{"bigalloc in 1 KiB", "ext4", []string{"mkfs.ext4", "-b", "1024", "-O", "bigalloc", "-C", "16384"}, false},
		{"meta_bg", "ext4", []string{"mkfs.ext4", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode"}, false},
		{"meta_bg, no sparse_super", "ext4", []string{"mkfs.ext4", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode,^sparse_super"}, false},
		{"meta_bg, bigalloc", "ext4", []string{"mkfs.ext4", "-b", "1024", "-C", "4096", "-O", "meta_bg,^resize_inode,bigalloc"}, false},
		{"sparse_super2", "ext4", []string{"mkfs.ext4", "-b", "1024", "-O", "sparse_super2", "-E", "num_backup_sb=2"}, false},
		{"no flex_bg, no sparse_super", "ext4", []string{"mkfs.ext4", "-b", "1024", "-O", "^flex_bg,^sparse_super,^resize_inode"}, false},
		{"inline_data", "ext4", []string{"mkfs.ext4", "-O", "inline_data", "-I", "512"}, true},
		{"inodes and descriptors of 128", "ext4", []string{"mkfs.ext4", "-I", "128", "-E", "desc_size=128"}, false},
		{"ea_inode", "ext4", []string{"mkfs.ext4", "-b", "1024", "-O", "ea_inode"}, false},
		{"more features", "ext4", []string{"mkfs.ext4", "-O", "orphan_file,metadata_csum_seed,large_dir,stable_inodes,fast_commit"}, false},
		{"no journal, no filetype", "ext4", []string{"mkfs.ext4", "-O", "^has_journal,^filetype"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := filesystemtest.Image(t, 72<<20, append(c.mkfs, "-q", "-L", "a label")...)
			dir := filesystemtest.Mount(t, image, c.kind, "barrier=0")
			if c.much {
				filesystemtest.Fill(t, dir, all)
			} else {
				fillSome(t, dir)
			}
			filesystemtest.Unmount(t, dir)
			compareInfo(t, image, c.kind)
			dir = filesystemtest.Mount(t, image, c.kind, "ro")
			filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, image, open), image, dir, all)
			spoiled := filesystemtest.CheckFree(t, image, open, "e2fsck", "-fn")
			filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, spoiled, open), spoiled, dir, all)
			filesystemtest.CheckDamage(t, image, open, 30)
		})
	}
}

// fillSome makes some files in dir, and removes some.
func fillSome(t *testing.T, dir string) {
	t.Helper()
	for i := range 200 {
		name := filepath.Join(dir, fmt.Sprintf("some/files in %d/number %d", i%3, i))
		write(t, name, []byte(strings.Repeat(fmt.Sprintf("%d of this file\n", i), i*i/20)))
		if i%4 == 3 {
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink(strings.Repeat("long/", 30), filepath.Join(dir, "some/link")); err != nil {
		t.Fatal(err)
	}
	filesystemtest.Run(t, "sync", "-f", dir)
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// compareInfo compares what a filesystem says of itself, and the sum of what is free, with what blkid and dumpe2fs say.
func compareInfo(t *testing.T, image, kind string) {
	t.Helper()
	s := filesystemtest.OpenImage(t, image, open)
	is := s.Info()
	head := filesystemtest.Run(t, "dumpe2fs", "-h", image)
	field := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + name + `:\s+(.*)$`).FindStringSubmatch(head)
		if m == nil {
			t.Fatalf("dumpe2fs does not tell: %s", name)
		}
		return m[1]
	}
	number := func(name string) int64 {
		n, err := strconv.ParseInt(field(name), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	block := number("Block size")
	want := filesystem.Info{
		Type: kind, Label: "a label", UUID: field("Filesystem UUID"), BlockSize: int(block), Size: number("Block count") * block,
		Used: (number("Block count") - number("Free blocks")) * block,
	}
	if strings.Contains(field("Filesystem features"), "bigalloc") {
		want.BlockSize = int(number("Cluster size"))
	}
	if is != want {
		t.Errorf("it says %+v, not %+v", is, want)
	}
	if free := filesystemtest.Sum(filesystemtest.Free(t, s)); free != is.Size-is.Used {
		t.Errorf("%d bytes are free, %d are not, of %d", free, is.Used, is.Size)
	}
}
