package xfs_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
	"varve/image/filesystem/xfs"
)

var abilities = filesystemtest.Abilities{Links: true, Xattrs: true, Owners: true, Sparse: true, Special: true}

func open(r io.ReaderAt, size int64) (filesystem.Filesystem, error) {
	f, err := xfs.Open(r, size)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// variant is a way to make a filesystem.
type variant struct {
	name  string
	size  int64
	block int
	mkfs  string
	tune  string // of xfs_db, when it is filled
}

const mib = 1 << 20

var variants = []variant{
	{name: "default", size: 100 * mib, block: 4096},
	{name: "small blocks", size: 100 * mib, block: 1024, mkfs: "-b size=1024 -d agcount=5 -m rmapbt=1,reflink=1"},
	{name: "large blocks", size: 160 * mib, block: 65536, mkfs: "-b size=65536 -i size=2048 -L label"},
	{name: "large sectors", size: 100 * mib, block: 4096, mkfs: "-s size=4096 -i size=1024,sparse=0 -m finobt=0,reflink=0,bigtime=0,inobtcount=0", tune: "uuid 01020304-0506-0708-090a-0b0c0d0e0f10"},
	{name: "version 4", size: 100 * mib, block: 4096, mkfs: "-m crc=0"},
	{name: "version 4, small blocks", size: 100 * mib, block: 512, mkfs: "-m crc=0 -b size=512 -i size=256,attr=1 -d agcount=5 -l version=1,lazy-count=0 -n ftype=0"},
	{name: "large folders", size: 100 * mib, block: 2048, mkfs: "-b size=2048 -n size=16384 -i nrext64=1 -m rmapbt=1 -d agcount=3"},
}

func (v variant) make(t testing.TB) string {
	t.Helper()
	return filesystemtest.Image(t, v.size, append([]string{"mkfs.xfs", "-q", "--unsupported"}, strings.Fields(v.mkfs)...)...)
}

// mounts reports whether the kernel mounts such a filesystem as in image.
func mounts(t *testing.T, image string) bool {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: mounting needs root")
	}
	dir := t.TempDir()
	if exec.Command("mount", "-t", "xfs", "-o", "loop", image, dir).Run() != nil {
		return false
	}
	filesystemtest.Run(t, "umount", dir)
	return true
}

func TestReal(t *testing.T) {
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			image := v.make(t)
			if strings.HasPrefix(v.name, "version 4") && !mounts(t, image) {
				t.Log("this kernel does not mount XFS of version 4: the golden filesystem stands for it")
				return
			}
			dir := filesystemtest.Mount(t, image, "xfs")
			filesystemtest.Fill(t, dir, abilities)
			fillMore(t, dir, v.block)
			filesystemtest.Unmount(t, dir)
			if v.tune != "" {
				filesystemtest.Run(t, "xfs_db", "-x", "-c", v.tune, image)
				filesystemtest.Unmount(t, filesystemtest.Mount(t, image, "xfs")) // what xfs_db makes of the log is not trusted
			}
			compare(t, image)
			filesystemtest.CheckDamage(t, image, open, 30)
		})
	}
}

// compare compares the files in image with those that the kernel sees, the counts of free blocks with those of xfs_db, and the
// files again after all free blocks were overwritten.
func compare(t *testing.T, image string) {
	t.Helper()
	dir := filesystemtest.Mount(t, image, "xfs", "ro")
	filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, image, open), image, dir, abilities)
	filesystemtest.Unmount(t, dir)
	compareCounts(t, image)
	spoiled := filesystemtest.CheckFree(t, image, open, "xfs_repair", "-n")
	dir = filesystemtest.Mount(t, spoiled, "xfs", "ro")
	filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, spoiled, open), spoiled, dir, abilities)
	filesystemtest.Unmount(t, dir)
}

// compareCounts compares the free runs with the counts of xfs_db and of the superblock, which take the blocks that are kept for trees,
// and the trees, to be free too.
func compareCounts(t *testing.T, image string) {
	t.Helper()
	s := filesystemtest.OpenImage(t, image, open)
	free := filesystemtest.Free(t, s)
	blocks := filesystemtest.Sum(free) / int64(s.Info().BlockSize)
	number := func(place, field string) (n int64) {
		out := filesystemtest.Run(t, "xfs_db", "-r", "-c", place, "-c", "print "+field, image)
		_, err := fmt.Sscanf(out, field+" = %d\n", &n)
		check(t, err)
		return n
	}
	var kept, trees int64
	for group := range number("sb 0", "agcount") {
		kept += number(fmt.Sprintf("agf %d", group), "flcount")
		trees += number(fmt.Sprintf("agf %d", group), "btreeblks")
	}
	out := filesystemtest.Run(t, "xfs_db", "-r", "-c", "freesp -s", image)
	if want := fmt.Sprintf("total free extents %d\ntotal free blocks %d\n", int64(len(free))+kept, blocks+kept); !strings.Contains(out, want) {
		t.Errorf("xfs_db says:\n%s\nnot:\n%s", out, want)
	}
	if want := number("sb 0", "fdblocks"); blocks+kept+trees != want {
		t.Errorf("%d blocks are free, %d kept, %d in trees; the superblock says %d", blocks, kept, trees, want)
	}
	info := s.Info()
	if names := filesystemtest.Run(t, "xfs_db", "-r", "-c", "uuid", "-c", "label", image); names != fmt.Sprintf("UUID = %s\nlabel = %q\n", info.UUID, info.Label) {
		t.Errorf("xfs_db says:\n%s\nnot %s, %q", names, info.UUID, info.Label)
	}
	if want := number("sb 0", "dblocks"); info.Size != want*int64(info.BlockSize) || info.Used != (want-number("sb 0", "fdblocks"))*int64(info.BlockSize) {
		t.Errorf("%+v, of %d blocks", info, want)
	}
	t.Logf("%d free blocks in %d runs, %d kept, %d in trees", blocks, len(free), kept, trees)
}

// TestRealtime: files on the realtime device cannot be read, all others can, and what is free is known.
func TestRealtime(t *testing.T) {
	image := filesystemtest.Image(t, 100*mib, "mkfs.xfs", "-q", "--unsupported")
	dir := filesystemtest.Mount(t, image, "xfs")
	filesystemtest.Fill(t, dir, abilities)
	filesystemtest.Unmount(t, dir)
	filesystemtest.Run(t, "xfs_db", "-x", "-c", "path /small.txt", "-c", "write -d core.realtime 1", image)
	tree := filesystemtest.OpenTree(t, image, open)
	refused := 0
	check(t, filesystemtest.Walk(tree, func(path string, n filesystem.Number) error {
		file, err := tree.Stat(n)
		if err != nil || !file.Mode.IsRegular() {
			return err
		}
		_, err = tree.Open(n, "")
		if unsupported := (*filesystem.UnsupportedError)(nil); path == "small.txt" && errors.As(err, &unsupported) {
			refused++
			return nil
		}
		return err
	}))
	if refused != 1 {
		t.Error("the file on the realtime device is not refused")
	}
	filesystemtest.Free(t, tree)

	device := filepath.Join(t.TempDir(), "device")
	check(t, os.WriteFile(device, nil, 0o600))
	check(t, os.Truncate(device, 50*mib))
	image = filesystemtest.Image(t, 100*mib, "mkfs.xfs", "-q", "--unsupported", "-r", "rtdev="+device)
	compareCounts(t, image)
}

// TestParentPointers: attributes that lead from a file to its folders are not shown. mkfs may be too old for them, and xfs_repair with it.
func TestParentPointers(t *testing.T) {
	image := filesystemtest.Image(t, 100*mib, "mkfs.xfs", "-q", "--unsupported", "-i", "nrext64=1", "-m", "rmapbt=1")
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	check(t, err)
	b := make([]byte, 512)
	_, err = f.ReadAt(b, 0)
	check(t, err)
	const exchangeRange, parentPointers = 1 << 6, 1 << 7
	b[219] |= exchangeRange | parentPointers
	clear(b[224:228])
	binary.LittleEndian.PutUint32(b[224:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	_, err = f.WriteAt(b, 0)
	check(t, err)
	check(t, f.Close())
	if !mounts(t, image) {
		t.Skip("SKIPPED: this kernel does not mount XFS with parent pointers")
	}
	dir := filesystemtest.Mount(t, image, "xfs")
	filesystemtest.Fill(t, dir, abilities)
	fillMore(t, dir, 4096)
	filesystemtest.Unmount(t, dir)
	dir = filesystemtest.Mount(t, image, "xfs", "ro")
	filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, image, open), image, dir, abilities)
	filesystemtest.Unmount(t, dir)
	spoiled := filesystemtest.CheckFree(t, image, open)
	dir = filesystemtest.Mount(t, spoiled, "xfs", "ro")
	filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, spoiled, open), spoiled, dir, abilities)
}

// TestLogElsewhere: whether a log on another device is empty is not known.
func TestLogElsewhere(t *testing.T) {
	device := filepath.Join(t.TempDir(), "device")
	check(t, os.WriteFile(device, nil, 0o600))
	check(t, os.Truncate(device, 20*mib))
	image := filesystemtest.Image(t, 100*mib, "mkfs.xfs", "-q", "--unsupported", "-l", "logdev="+device+",size=10m")
	s := filesystemtest.OpenTree(t, image, open)
	if dirty := s.Info().Dirty; !strings.Contains(dirty, "another device") {
		t.Errorf("it is said that it %q", dirty)
	}
	var untrusted *filesystem.UntrustedError
	if err := s.Free(context.Background(), func(filesystem.Range) error { return nil }); !errors.As(err, &untrusted) {
		t.Errorf("Free returns %v", err)
	}
	if _, err := s.Stat(s.Root()); err != nil {
		t.Errorf("its root: %v", err)
	}
}

// fillMore adds what makes XFS use all of its formats, in a filesystem of blocks of that size.
func fillMore(t *testing.T, dir string, block int) {
	t.Helper()
	path := func(name string) string { return filepath.Join(dir, name) }
	punch(t, path("fragments"), block, min(2000, 8*mib/block))

	set, err := os.Create(path("set aside"))
	check(t, err)
	check(t, syscall.Fallocate(int(set.Fd()), 0, 0, 3*mib+17))
	_, err = set.WriteAt([]byte("written"), mib)
	check(t, err)
	check(t, set.Close())
	beyond, err := os.Create(path("set aside behind the end"))
	check(t, err)
	const keepSize = 1
	check(t, syscall.Fallocate(int(beyond.Fd()), keepSize, 0, mib))
	_, err = beyond.WriteAt([]byte("short"), 0)
	check(t, err)
	check(t, beyond.Close())

	// Folders of all sizes, so that there are some in the inode, in a block, with one index, and with a tree of them.
	check(t, os.WriteFile(path("linked"), []byte("linked"), 0o600))
	for _, names := range []int{1, 5, 20, 60, 200, 4000} {
		folder := path(fmt.Sprintf("folder of %d", names))
		check(t, os.Mkdir(folder, 0o755))
		for i := range names {
			check(t, os.Link(path("linked"), filepath.Join(folder, fmt.Sprintf("%d-%s", i, strings.Repeat("x", 10+i%200)))))
		}
		if names == 4000 {
			for i := 1000; i < 2500; i++ { // whole blocks go
				check(t, os.Remove(filepath.Join(folder, fmt.Sprintf("%d-%s", i, strings.Repeat("x", 10+i%200)))))
			}
		}
	}
	for _, n := range []int{300, 900, 1023} {
		check(t, os.Symlink(strings.Repeat("l", n), path(fmt.Sprintf("link of %d", n))))
	}
	for _, count := range []int{1, 3, 30, 1000} {
		name := path(fmt.Sprintf("attributes %d", count))
		check(t, os.WriteFile(name, nil, 0o600))
		for i := range count {
			check(t, syscall.Setxattr(name, fmt.Sprintf("user.%s-%d", strings.Repeat("a", i%20), i), []byte(strings.Repeat("v", i%90)), 0))
		}
	}
	for _, size := range []int{200, 255, 256, 800, 3000, 20_000, 65_536} {
		name := path(fmt.Sprintf("attribute of %d", size))
		check(t, os.WriteFile(name, nil, 0o600))
		check(t, syscall.Setxattr(name, "user.value", []byte(strings.Repeat("0123456789", size/10+1))[:size], 0))
		check(t, syscall.Setxattr(name, "user.other", []byte(strings.Repeat("9876543210", size/10+1))[:size], 0))
	}
	late := time.Date(2037, 12, 31, 23, 59, 59, 123456789, time.UTC)
	check(t, os.Chtimes(path("linked"), late, late.Add(-100*365*24*time.Hour)))
}

// punch makes a file of twice as many blocks as extents, and a hole of every second of them: so there are as many free runs, too.
func punch(t *testing.T, name string, block, extents int) {
	t.Helper()
	const punchHole, keepSize = 2, 1
	check(t, os.WriteFile(name, bytes.Repeat([]byte("0123456789abcde\n"), 2*block*extents/16), 0o644))
	file, err := os.OpenFile(name, os.O_RDWR, 0)
	check(t, err)
	check(t, file.Sync())
	for i := range extents {
		check(t, syscall.Fallocate(int(file.Fd()), punchHole|keepSize, int64(2*i*block), int64(block)))
	}
	check(t, file.Close())
}
