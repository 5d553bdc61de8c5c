package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func needsRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: loop devices and mounts need root")
	}
}

// run runs a command and returns what it says.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// loop makes a block device of a file.
func loop(t *testing.T, path string, options ...string) string {
	t.Helper()
	needsRoot(t)
	device := run(t, "losetup", append(options, "--find", "--show", path)...)
	t.Cleanup(func() { run(t, "losetup", "-d", device) })
	return device
}

// mountOn mounts a device or file on a folder with a space in its name, which mountinfo writes in another way.
func mountOn(t *testing.T, what string, options ...string) string {
	t.Helper()
	needsRoot(t)
	where := filepath.Join(t.TempDir(), "mount point")
	if err := os.Mkdir(where, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", append(options, what, where)...)
	t.Cleanup(func() { run(t, "umount", where) })
	return where
}

// ext4 makes an image file of a filesystem.
func ext4(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fs.img")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", path)
	return path
}

// refused fails unless a target is refused with a message that names it, and each of the words.
func refused(t *testing.T, path string, size int64, words ...string) {
	t.Helper()
	target, err := OpenTarget(path, size)
	if err == nil {
		target.Close()
	}
	if !errors.Is(err, ErrUnsafe) {
		t.Errorf("%s: %v in place of a refusal", path, err)
		return
	}
	for _, word := range append(words, path) {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

// TestDevice: what is read from a device, and written to one, is what the file behind it has.
func TestDevice(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		size := int64(3<<20 + 5*4096)
		if sector == 512 {
			size += 512
		}
		data := noise(1, int(size))
		path := write(t, data)
		device := loop(t, path, "--sector-size", fmt.Sprint(sector))

		s := open(t, device)
		info := s.Info()
		if info.Type != "device" || info.Size != size || info.SectorSize != sector || info.Path != device ||
			info.Name != filepath.Base(device) || len(info.Mounted) > 0 {
			t.Errorf("%+v", info)
		}
		list, err := s.Map(0, size)
		if err != nil || !slices.Equal(list, []Extent{{0, size, Data}}) {
			t.Errorf("%v, %v", list, err)
		}
		got := make([]byte, size+1)
		if n, err := s.ReadAt(got, 0); int64(n) != size || err != io.EOF || !bytes.Equal(got[:n], data) {
			t.Errorf("read %d, %v, or something else", n, err)
		}
		if n, err := s.ReadAt(got[:700], 4000); n != 700 || err != nil || !bytes.Equal(got[:700], data[4000:4700]) {
			t.Errorf("not on sectors: read %d, %v, or something else", n, err)
		}

		target := openTarget(t, device, size-1000)
		if target.Fresh() || target.Info().Size != size {
			t.Errorf("fresh %v, %+v", target.Fresh(), target.Info())
		}
		random := rand.New(rand.NewChaCha8([32]byte{byte(sector >> 8)}))
		for range 100 {
			off := random.Int64N(size)
			length := 1 + random.Int64N(min(size-off, 200_000))
			if random.IntN(2) == 0 { // on sectors, which the device can do itself
				off, length = off/4096*4096, max(4096, length/4096*4096)
				length = min(length, size-off)
			}
			if random.IntN(2) == 0 {
				clear(data[off : off+length])
				err = target.Zero(off, length)
			} else {
				copy(data[off:], noise(byte(off), int(length)))
				_, err = target.WriteAt(data[off:off+length], off)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := target.Sync(); err != nil {
			t.Fatal(err)
		}
		if n, err := target.ReadAt(got[:size], 0); err != nil || !bytes.Equal(got[:n], data) {
			t.Errorf("what was written reads as something else: %v", err)
		}
		if err := target.Close(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(content(t, path), data) {
			t.Errorf("sectors of %d: the file behind the device has something else", sector)
		}
	}
}

// TestDeviceRefused: a device that is in use, cannot be written, or is too small is left alone.
func TestDeviceRefused(t *testing.T) {
	path := ext4(t, 8<<20)
	device := loop(t, path)
	refused(t, device, 8<<20+1, "has 8388608 bytes", "8388609", "at least 1 bytes larger")

	t.Run("mounted", func(t *testing.T) {
		where := mountOn(t, device)
		refused(t, device, 1, "mounted on "+where, "umount")
		refused(t, path, 1, "mounted on "+where) // the file behind it
		for _, what := range []string{device, path} {
			if got := places(open(t, what).Info()); !slices.Equal(got, []string{where}) {
				t.Errorf("%s is mounted on %q", what, got)
			}
		}
	})
	t.Run("mounted where we cannot see it", func(t *testing.T) {
		c := exec.Command("unshare", "-m", "sh", "-c", `mount "$0" "$1" && echo && read x`, device, t.TempDir())
		stdin, err1 := c.StdinPipe()
		stdout, err2 := c.StdoutPipe()
		if err := errors.Join(err1, err2, c.Start()); err != nil {
			t.Fatal(err)
		}
		if _, err := stdout.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		refused(t, device, 1, "in use")
		stdin.Close()
		c.Wait() // read fails at the end of its input; that is how it ends
	})
	t.Run("open as target", func(t *testing.T) {
		openTarget(t, device, 1)
		refused(t, device, 1, "in use")
		if out, err := exec.Command("mount", device, t.TempDir()).CombinedOutput(); err == nil {
			t.Error("a target could be mounted")
			run(t, "umount", device)
		} else if len(out) == 0 {
			t.Error(err)
		}
	})
	t.Run("read-only", func(t *testing.T) {
		refused(t, loop(t, write(t, make([]byte, 1<<20)), "--read-only"), 1, "read-only")
	})
	t.Run("swap", func(t *testing.T) {
		device := loop(t, write(t, make([]byte, 1<<20)))
		run(t, "mkswap", device)
		run(t, "swapon", device)
		defer run(t, "swapoff", device)
		refused(t, device, 1, "in use as swap", "swapoff "+device)
		if got := open(t, device).Info().Mounted; got != nil {
			t.Errorf("swap is mounted on %+v", got)
		}
	})
	openTarget(t, device, 8<<20) // and afterwards it is free
}

// places returns where a disk is mounted.
func places(info Info) (list []string) {
	for _, m := range info.Mounted {
		list = append(list, m.Where)
	}
	return list
}

// TestPartitions: a disk of which a partition is mounted is in use; a partition that nobody uses is free.
func TestPartitions(t *testing.T) {
	device := loop(t, write(t, make([]byte, 16<<20)), "--partscan")
	run(t, "addpart", device, "1", "2048", "16384") // not all kernels can read tables
	run(t, "addpart", device, "2", "18432", "8192")
	run(t, "mkfs.ext4", "-q", device+"p1")
	where := mountOn(t, device+"p1")
	refused(t, device, 1, filepath.Base(device)+"p1 is mounted on "+where)
	refused(t, device+"p1", 1, where)
	for disk, offset := range map[string]int64{device: 1 << 20, device + "p1": 0} {
		got := open(t, disk).Info().Mounted
		if len(got) != 1 || got[0].Where != where || got[0].ReadOnly || got[0].Offset != offset || got[0].Length != int64(8<<20)*offset>>20 {
			t.Errorf("%s is mounted on %+v", disk, got)
		}
	}
	if got := openTarget(t, device+"p2", 1).Info(); got.Size != 4<<20 || got.Mounted != nil {
		t.Errorf("%+v", got)
	}
}

// TestPartitionsOfTarget: once a disk is restored, the system has no partitions of what was there before.
func TestPartitionsOfTarget(t *testing.T) {
	path := write(t, make([]byte, 16<<20))
	table := exec.Command("sfdisk", "-q", path)
	table.Stdin = strings.NewReader("label: gpt\nstart=2048, size=16384\n")
	if out, err := table.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	device := loop(t, write(t, make([]byte, 16<<20)), "--partscan")
	run(t, "addpart", device, "1", "4096", "1000")
	target := openTarget(t, device, 16<<20)
	if _, err := target.WriteAt(content(t, path), 0); err != nil {
		t.Fatal(err)
	}
	if err := target.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := target.Close(); err != nil {
		t.Fatal(err)
	}
	// A kernel that reads tables has the new one instead.
	sectors := text("/sys/block/"+filepath.Base(device), filepath.Base(device)+"p1/size")
	if sectors != "" && sectors != "16384" {
		t.Errorf("the first partition has %s sectors", sectors)
	}
}

// TestDeviceBecomesShorter: a device that lost its end is told of; one that lost all has vanished.
func TestDeviceBecomesShorter(t *testing.T) {
	data := noise(1, 1<<20)
	path := write(t, data)
	device := loop(t, path)
	var reports []Bad
	s := Salvage(open(t, device), func(b Bad) { reports = append(reports, b) })
	if err := os.Truncate(path, 600<<10); err != nil {
		t.Fatal(err)
	}
	run(t, "losetup", "--set-capacity", device)
	got := make([]byte, 1<<20)
	if n, err := s.ReadAt(got, 0); n != 1<<20 || err != nil {
		t.Fatal(n, err)
	}
	clear(data[600<<10:])
	if !bytes.Equal(got, data) {
		t.Error("read something else")
	}
	if len(reports) != 1 || reports[0].Offset != 600<<10 || reports[0].Length != 424<<10 {
		t.Errorf("%+v", reports)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	run(t, "losetup", "--set-capacity", device)
	if n, err := s.ReadAt(got, 0); n == 1<<20 || err == nil || errors.Is(err, io.EOF) || !strings.Contains(err.Error(), "vanished") {
		t.Errorf("a device without any bytes: %d, %v", n, err)
	}
	if _, err := Open(device); err == nil || !strings.Contains(err.Error(), "no bytes") {
		t.Errorf("opening a device without any bytes: %v", err)
	}
}

// TestSameDevice: a device has as many names as it has nodes and links.
func TestSameDevice(t *testing.T) {
	a, b := loop(t, write(t, make([]byte, 4096))), loop(t, write(t, make([]byte, 4096)))
	st, err := os.Stat(a)
	if err != nil {
		t.Fatal(err)
	}
	number, ok := blockDevice(st)
	if !ok {
		t.Fatal(a, "is no block device")
	}
	node := filepath.Join(t.TempDir(), "node")
	if err := unix.Mknod(node, unix.S_IFBLK|0o600, int(number)); err != nil {
		t.Fatal(err)
	}
	if !SameFile(a, node) || !SameFile(a, a) || SameFile(a, b) || SameFile(b, node) {
		t.Error("wrong")
	}
	if got := open(t, node).Info(); got.Type != "device" || got.Name != "node" || got.Size != 4096 {
		t.Errorf("%+v", got)
	}
}
