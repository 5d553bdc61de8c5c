package image

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNeitherFileNorDisk: pipes and the like are refused at once; nothing waits for their other end.
func TestNeitherFileNorDisk(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, word := range map[string]string{fifo: "pipe", "/dev/null": "character device"} {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", path, err)
		}
		refused(t, path, 1, word)
	}
	refused(t, "/dev/no-such-disk", 1, "does not exist", "lsblk")
	if _, err := os.Stat("/dev/no-such-disk"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a file was made among the devices")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("nowhere", link); err != nil {
		t.Fatal(err)
	}
	refused(t, link, 1, "link")
}

// TestNewTarget: a file is made for its owner alone, and takes no room yet.
func TestNewTarget(t *testing.T) {
	path := filepath.Join(t.TempDir(), "target")
	openTarget(t, path, 1<<30)
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode() != 0o600 || st.Size() != 1<<30 {
		t.Error(st.Mode(), st.Size())
	}
	var sys unix.Stat_t
	if err := unix.Stat(path, &sys); err != nil || sys.Blocks > 16 {
		t.Error(sys.Blocks, err)
	}
}

// TestLocked: nobody writes what another restores to, or a virtual machine runs from.
func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "target")
	target := openTarget(t, path, 100)
	refused(t, path, 100, "locked")
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
	machine, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer machine.Close()
	// QEMU shares locks of single bytes.
	if err := unix.FcntlFlock(machine.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: 100, Len: 1}); err != nil {
		t.Fatal(err)
	}
	refused(t, path, 50, "locked", "virtual machine")
	if st, err := os.Stat(path); err != nil || st.Size() != 100 {
		t.Error("it was changed", err)
	}
	open(t, path) // it can be read all the same
	machine.Close()
	openTarget(t, path, 50)
}

// TestRunningProgram: the file of a program that runs is in use.
func TestRunningProgram(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, content(t, sleep), 0o700); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path, "60")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	refused(t, path, 1, "in use")
}

// TestFileSystems: what a filesystem does not allow is said as such.
func TestFileSystems(t *testing.T) {
	where := mountOn(t, ext4(t, 8<<20))
	path := filepath.Join(where, "disk.img")

	refused(t, path, 1<<60, "cannot become")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file that could not be made is there: %v", err)
	}

	target := openTarget(t, path, 100<<20) // more than there is room for, but it may be full of holes
	data := noise(1, 1<<20)
	var err error
	for at := int64(0); at < 100<<20 && err == nil; at += 1 << 20 {
		_, err = target.WriteAt(data, at)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}

	swap := filepath.Join(where, "swap")
	if err := os.WriteFile(swap, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "mkswap", swap)
	run(t, "swapon", swap)
	refused(t, swap, 1, "in use as swap")
	run(t, "swapoff", swap)

	run(t, "mount", "-o", "remount,ro", where)
	refused(t, path, 1, "read-only")
	refused(t, swap, 1, "read-only")
	got := make([]byte, 1<<20)
	if n, err := open(t, swap).ReadAt(got, 0); err != nil || !bytes.Contains(got[:n], []byte("SWAPSPACE2")) {
		t.Errorf("reading from a read-only filesystem: %v", err)
	}
}
