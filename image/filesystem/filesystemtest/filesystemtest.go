// Package filesystemtest judges readers of filesystems by real ones: made by mkfs, filled and mounted by the kernel or a FUSE
// program, checked by fsck.
//
//	image := Image(t, 64<<20, "mkfs.ext4", "-q")
//	dir := Mount(t, image, "ext4")
//	Fill(t, dir, abilities)
//	Unmount(t, dir)                                    what is read now is at rest
//	dir = Mount(t, image, "ext4", "ro")
//	CheckTree(t, tree, image, dir, abilities)          the files are those that the kernel sees
//	spoiled := CheckFree(t, image, open, "e2fsck", "-fn")
//	CheckTree(t, treeOf(spoiled), spoiled, dir, abilities)   and are not where something was said to be free
//	CheckDamage(t, image, open, 200)
//
// What a machine lacks is said in the reason of a skip, which begins with SKIPPED.
package filesystemtest

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"varve/image/filesystem"
)

// Open opens the filesystem in the size bytes of r.
type Open func(r io.ReaderAt, size int64) (filesystem.Filesystem, error)

// Image makes an empty filesystem in a sparse file of size bytes and returns its path, which is appended to mkfs.
func Image(t testing.TB, size int64, mkfs ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	Run(t, append(mkfs, path)...)
	return path
}

// Run runs a command and returns what it says; the test fails when it does, and is skipped where there is no such command.
func Run(t testing.TB, command ...string) string {
	t.Helper()
	out, err := exec.Command(Command(t, command[0]), command[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return string(out)
}

// Command returns the path of a command, also of one for administrators; where there is none the test is skipped.
func Command(t testing.TB, name string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, folder := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(folder, name)); err == nil {
			return path
		}
	}
	t.Skipf("SKIPPED: there is no %s", name)
	return ""
}

// Mount mounts the filesystem in image and returns where. It is unmounted when the test ends, or by Unmount. NTFS and exFAT are
// mounted by their FUSE programs.
func Mount(t testing.TB, image, kind string, options ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: mounting needs root")
	}
	dir := t.TempDir()
	var flags []string
	if len(options) > 0 {
		flags = []string{"-o", strings.Join(options, ",")}
	}
	source, detach := image, func() {}
	switch kind {
	case "ntfs":
		Run(t, append(append([]string{"ntfs-3g"}, flags...), image, dir)...)
	case "exfat":
		device := strings.TrimSpace(Run(t, "losetup", "--find", "--show", image))
		source, detach = device, func() { Run(t, "losetup", "-d", device) }
		Run(t, append(append([]string{"mount.exfat-fuse"}, flags...), source, dir)...)
	default:
		Run(t, append(append([]string{"mount", "-t", kind, "-o", "loop"}, flags...), image, dir)...)
	}
	mounted[dir] = detach
	t.Cleanup(func() { Unmount(t, dir) })
	return dir
}

// mounted says how to clean up behind what Mount mounted. Tests that mount do not run in parallel.
var mounted = map[string]func(){}

// Unmount unmounts what Mount has mounted; a second time it does nothing.
func Unmount(t testing.TB, dir string) {
	t.Helper()
	detach, is := mounted[dir]
	if !is {
		return
	}
	delete(mounted, dir)
	Run(t, "umount", dir)
	detach()
}

// Abilities says what a filesystem can hold, and so what is compared.
type Abilities struct {
	Links   bool // symbolic and hard ones
	Xattrs  bool // user.*
	Owners  bool // and modes, and times of change
	Sparse  bool // holes in files
	Special bool // device nodes, pipes, sockets
}

// OpenImage opens the filesystem in an image file.
func OpenImage(t testing.TB, path string, open Open) filesystem.Filesystem {
	t.Helper()
	f, size := openFile(t, path)
	s, err := open(f, size)
	if err != nil {
		t.Fatalf("opening %s: %v", path, err)
	}
	return s
}

// OpenTree opens the filesystem in an image file, whose files can be read.
func OpenTree(t testing.TB, path string, open Open) filesystem.Tree {
	t.Helper()
	tree, ok := OpenImage(t, path, open).(filesystem.Tree)
	if !ok {
		t.Fatalf("the files of %s cannot be read", path)
	}
	return tree
}

func openFile(t testing.TB, path string) (*os.File, int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return f, st.Size()
}
