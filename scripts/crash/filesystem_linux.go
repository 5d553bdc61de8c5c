package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// filesystem is one that a repository may lie on.
type filesystem struct {
	size int64    // of the disk: as small as mkfs allows, or little more
	mkfs []string // a device comes behind
}

var filesystems = map[string]filesystem{
	"ext4":  {64 << 20, []string{"mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,nodiscard"}},
	"xfs":   {300 << 20, []string{"mkfs.xfs", "-q", "-f", "-K"}},
	"btrfs": {128 << 20, []string{"mkfs.btrfs", "-q", "-f", "-K"}},
}

// attach makes a loop device of a file. It goes by itself when nobody has it open any more.
func attach(path string) (*os.File, error) {
	backing, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for range 20 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(loop.Fd()), &unix.LoopConfig{Fd: uint32(backing.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}})
		if err == nil {
			return loop, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return nil, err
		}
	}
	return nil, errors.New("no loop device is free")
}

// format makes a filesystem on the file at path.
func (f filesystem) format(path string) error {
	loop, err := attach(path)
	if err != nil {
		return err
	}
	defer loop.Close()
	if out, err := exec.Command(f.mkfs[0], append(f.mkfs[1:], loop.Name())...).CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", f.mkfs, err, out)
	}
	return unix.Fsync(int(loop.Fd()))
}

// mount mounts the filesystem in the file at path.
func mount(kind, path, folder string) error {
	loop, err := attach(path)
	if err != nil {
		return err
	}
	defer loop.Close()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	if err := unix.Mount(loop.Name(), folder, kind, unix.MS_NOATIME, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", kind, err)
	}
	return nil
}

// unmount waits until nobody uses it any more.
func unmount(folder string) error {
	var err error
	for range 100 {
		if err = unix.Unmount(folder, 0); !errors.Is(err, unix.EBUSY) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("unmounting %s: %w", folder, err)
	}
	return nil
}
