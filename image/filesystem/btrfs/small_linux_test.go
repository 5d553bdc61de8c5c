package btrfs

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"varve/image/filesystem/filesystemtest"
)

// The golden filesystems are made with -update NAME: mixed by btrfs-progs 6.2, groups by btrfs-progs 6.19, which are looked for in PATH.
var update = flag.String("update", "", "name of a filesystem in testdata that is written")

// TestSmall makes a filesystem with a bit of everything, and reads it as the kernel does.
func TestSmall(t *testing.T) {
	image := filesystemtest.Image(t, 16<<20, "mkfs.btrfs", "-q", "-M", "-m", "single", "-d", "single", "-n", "4096", "-L", "small")
	dir := filesystemtest.Mount(t, image, "btrfs", "nobarrier")
	fillSmall(t, dir)
	filesystemtest.Unmount(t, dir)
	dir = filesystemtest.Mount(t, image, "btrfs", "ro")
	filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, image, open), image, dir, all)
	filesystemtest.CheckDamage(t, image, open, 200)

	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	k := &keeper{f, small{16 << 20, map[int64][]byte{}}}
	text, err := describe(k, k.small.size)
	if err != nil {
		t.Fatal(err)
	}
	again, err := describe(&k.small, k.small.size)
	if err != nil || again != text {
		t.Fatalf("what was read alone reads as\n%s\nnot\n%s\n%v", again, text, err)
	}
	if *update != "" {
		k.small.save(t, *update)
		if err := os.WriteFile(filepath.Join("testdata", *update+".txt"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func fillSmall(t *testing.T, dir string) {
	t.Helper()
	path := func(name string) string { return filepath.Join(dir, name) }
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string, content string) {
		t.Helper()
		check(os.WriteFile(path(name), []byte(content), 0o640))
	}
	text := strings.Repeat("compressible, ", 2500)
	for _, kind := range []string{"zlib", "lzo", "zstd"} {
		write(kind, "")
		filesystemtest.Run(t, "btrfs", "property", "set", path(kind), "compression", kind)
		write(kind, text)
		write(kind+" inline", "")
		filesystemtest.Run(t, "btrfs", "property", "set", path(kind+" inline"), "compression", kind)
		write(kind+" inline", text[:3000])
	}
	write("inline", "some bytes")
	write("plain", strings.Repeat("0123456789", 1000))
	check(os.Truncate(path("plain"), 100_000)) // a hole
	room, err := os.OpenFile(path("plain"), os.O_WRONLY, 0)
	check(err)
	check(unix.Fallocate(int(room.Fd()), 0, 40_960, 8192))
	check(room.Close())
	check(os.Symlink("a/target", path("link")))
	check(os.Link(path("plain"), path("again")))
	check(unix.Mknod(path("device"), syscall.S_IFCHR|0o600, int(unix.Mkdev(4, 64))))
	check(unix.Mkfifo(path("pipe"), 0o600))
	check(unix.Setxattr(path("inline"), "user.name", []byte("value"), 0))
	check(os.Mkdir(path("folder"), 0o750))
	for i := range 40 {
		write(fmt.Sprintf("folder/%d with some more letters", i), "")
	}
	filesystemtest.Run(t, "btrfs", "subvolume", "create", path("subvolume"))
	write("subvolume/file", "in a subvolume")
	filesystemtest.Run(t, "btrfs", "subvolume", "snapshot", path("subvolume"), path("subvolume/snapshot"))
	// So many runs of free space go into bitmaps.
	for i := range 40 {
		write(fmt.Sprintf("part %d", i), text[:4096])
	}
	filesystemtest.Run(t, "sync", "-f", dir)
	for i := range 20 {
		check(os.Remove(path(fmt.Sprintf("part %d", 2*i))))
	}
	filesystemtest.Run(t, "sync", "-f", dir)
}
