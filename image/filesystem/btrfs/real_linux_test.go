package btrfs

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
)

func open(r io.ReaderAt, size int64) (filesystem.Filesystem, error) { return Open(r, size) }

var all = filesystemtest.Abilities{Links: true, Xattrs: true, Owners: true, Sparse: true, Special: true}

// TestReal compares with the kernel, btrfs check and the counts of btrfs itself, in forms that together have each feature once.
func TestReal(t *testing.T) {
	for _, c := range []struct {
		name        string
		size        int64
		mkfs        string
		mount       string
		withoutSums bool
	}{
		{"default", 240 << 20, "", "relatime", false},
		{"small nodes", 160 << 20, "-m single -n 4096 -O ^no-holes --csum xxhash", "compress-force=zlib", false},
		{"large nodes", 200 << 20, "-n 65536 --csum sha256 -L label", "compress-force=zstd", false},
		{"mixed", 300 << 20, "--mixed -m dup -d dup --csum blake2", "compress-force=lzo", false},
		{"old", 160 << 20, "-m single -O ^skinny-metadata,^extref -R ^free-space-tree", "space_cache=v1,nodatacow", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := filesystemtest.Image(t, c.size, strings.Fields("mkfs.btrfs -q "+c.mkfs)...)
			dir := filesystemtest.Mount(t, image, "btrfs", c.mount, "nobarrier") // what is synced is quicker
			filesystemtest.Fill(t, dir, all)
			fill(t, dir)
			filesystemtest.Unmount(t, dir)
			dir = filesystemtest.Mount(t, image, "btrfs", "ro")
			filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, image, open), image, dir, all)
			checkCreated(t, image, dir)
			checkCounts(t, image)
			spoiled := filesystemtest.CheckFree(t, image, open, "btrfs", "check", "--readonly", "--check-data-csum")
			if c.withoutSums { // else the content has just been checked
				filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, spoiled, open), spoiled, dir, all)
			}
			filesystemtest.Unmount(t, dir)
			if strings.Contains(c.mkfs, "-m single") { // else the other copy heals nearly all
				filesystemtest.CheckDamage(t, image, open, 20)
			}
		})
	}
}

// fill makes what only btrfs has: subvolumes and snapshots, extents of which several files have parts, room that is set aside.
func fill(t *testing.T, dir string) {
	t.Helper()
	path := func(name string) string { return filepath.Join(dir, name) }
	text := []byte(strings.Repeat("a line that can be compressed, and again ", 30_000))
	var files []*os.File
	create := func(name string, content []byte) *os.File {
		t.Helper()
		f, err := os.Create(path(name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
		if _, err := f.Write(content); err != nil {
			t.Fatal(err)
		}
		return f
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	filesystemtest.Run(t, "btrfs", "subvolume", "create", path("subvolume"))
	source := create("subvolume/text", text)
	check(source.Sync())
	filesystemtest.Run(t, "btrfs", "subvolume", "snapshot", "-r", path("subvolume"), path("subvolume/snapshot"))
	_, err := source.WriteAt([]byte("changed in the middle of a compressed extent"), 300_000)
	check(err)
	check(source.Sync())
	filesystemtest.Run(t, "btrfs", "subvolume", "snapshot", path("subvolume"), path("gone"))
	filesystemtest.Run(t, "btrfs", "subvolume", "delete", path("gone"))

	clone := create("parts of others", nil)
	for i, part := range []unix.FileCloneRange{
		{Src_offset: 4096 * 10, Src_length: 4096 * 5},
		{Src_offset: 65536 * 2, Src_length: 65536 * 3, Dest_offset: 65536},
		{Src_offset: 4096 * 11, Src_length: 4096 * 2, Dest_offset: 4096 * 200},
	} {
		part.Src_fd = int64(source.Fd())
		if err := unix.IoctlFileCloneRange(int(clone.Fd()), &part); err != nil {
			t.Fatalf("cloning part %d: %v", i, err)
		}
	}
	room := create("room", nil)
	check(unix.Fallocate(int(room.Fd()), 0, 0, 3<<20))
	_, err = room.WriteAt([]byte("written to room that was set aside"), 1<<20)
	check(err)
	check(unix.Fallocate(int(room.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 2<<20, 256<<10))
	behind := create("room behind the end", []byte("short"))
	check(unix.Fallocate(int(behind.Fd()), unix.FALLOC_FL_KEEP_SIZE, 1<<20, 1<<20))
	inline := create("inline and longer", []byte("inline"))
	check(inline.Sync())
	check(inline.Truncate(50_000))
	tail := create("tail", text[:70_001])
	check(tail.Sync())
	check(tail.Truncate(200_000))
	many := create("many extents", nil)
	for i := range 300 {
		_, err := many.WriteAt(text[i:i+100], int64(i)*40_000)
		check(err)
	}
	check(unix.Mknod(path("device with large numbers"), syscall.S_IFBLK|0o600, int(unix.Mkdev(259, 70_000))))
	for i := range 70 { // so many names need items of another kind
		check(os.Link(path("many extents"), path(fmt.Sprintf("subvolume/../hard link %d %s", i, strings.Repeat("l", 60)))))
	}
	for _, f := range files {
		check(f.Close())
	}
	filesystemtest.Run(t, "sync", "-f", dir)
}

// checkCreated compares the times of creation.
func checkCreated(t *testing.T, image, dir string) {
	t.Helper()
	tree := filesystemtest.OpenTree(t, image, open)
	n := 0
	err := filesystemtest.Walk(tree, func(path string, number filesystem.Number) error {
		var want unix.Statx_t
		if err := unix.Statx(unix.AT_FDCWD, filepath.Join(dir, path), unix.AT_SYMLINK_NOFOLLOW, unix.STATX_BTIME, &want); err != nil {
			return err
		}
		is, err := tree.Stat(number)
		if err != nil {
			return err
		}
		if is.Created.Unix() != want.Btime.Sec || is.Created.Nanosecond() != int(want.Btime.Nsec) {
			return fmt.Errorf("created at %v, not %+v", is.Created, want.Btime)
		}
		n++
		return nil
	})
	if err != nil || n == 0 {
		t.Fatal(n, err)
	}
}

// checkCounts compares how much is free with what the block groups count: all but used bytes, in each copy, and what is reserved.
func checkCounts(t *testing.T, image string) {
	t.Helper()
	s := filesystemtest.OpenImage(t, image, open)
	want := s.Info().Size - 1<<20 - 64<<10 // the start, and the copy of the superblock at 64 MiB
	dump := filesystemtest.Run(t, "btrfs", "inspect-internal", "dump-tree", "-t", "extent", image)
	groups := regexp.MustCompile(`block group used (\d+) chunk_objectid \d+ flags (\S+)`).FindAllStringSubmatch(dump, -1)
	if len(groups) == 0 {
		t.Fatalf("no block groups in %s", dump)
	}
	logical := int64(0)
	for _, group := range groups {
		used, err := strconv.ParseInt(group[1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		logical += used
		want -= used
		if strings.HasSuffix(group[2], "|DUP") {
			want -= used
		}
	}
	if got := filesystemtest.Sum(filesystemtest.Free(t, s)); got != want {
		t.Fatalf("%d bytes are free, not %d", got, want)
	}
	if used := s.Info().Used; used != logical {
		t.Fatalf("%d bytes are used, not %d", used, logical)
	}
}

// TestSnapshotOfNested: in a snapshot there is an empty folder where a subvolume was.
func TestSnapshotOfNested(t *testing.T) {
	image := filesystemtest.Image(t, 128<<20, "mkfs.btrfs", "-q")
	dir := filesystemtest.Mount(t, image, "btrfs")
	for _, command := range []string{"subvolume create outer", "subvolume create outer/inner", "subvolume snapshot outer snapshot"} {
		words := append([]string{"btrfs"}, strings.Fields(command)...)
		for i, word := range words[3:] {
			words[i+3] = filepath.Join(dir, word)
		}
		filesystemtest.Run(t, words...)
	}
	if err := os.WriteFile(filepath.Join(dir, "outer/inner/file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "outer/inner"), filepath.Join(dir, "moved")); err != nil {
		t.Fatal(err)
	}
	filesystemtest.Run(t, "btrfs", "subvolume", "snapshot", filepath.Join(dir, "outer"), filepath.Join(dir, "later"))
	filesystemtest.Unmount(t, dir)
	dir = filesystemtest.Mount(t, image, "btrfs", "ro")
	var want, got []string
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if path != dir {
			want = append(want, strings.TrimPrefix(path, dir+"/")+" "+e.Type().String())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	tree := filesystemtest.OpenTree(t, image, open)
	if err := filesystemtest.Walk(tree, func(path string, n filesystem.Number) error {
		file, err := tree.Stat(n)
		if err != nil {
			return err
		}
		if attributes, err := tree.Attributes(n); err != nil || len(attributes) > 0 {
			return fmt.Errorf("it has the attributes %v: %w", attributes, err)
		}
		got = append(got, path+" "+file.Mode.Type().String())
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	sort.Strings(want)
	sort.Strings(got)
	if strings.Join(got, "\n") != strings.Join(want, "\n") || len(got) != 6 {
		t.Fatalf("got %q, want %q", got, want)
	}
}
