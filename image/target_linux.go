package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openDevice opens a block device. O_EXCL makes the kernel refuse one that is mounted, or part of another device.
func openDevice(path string, size int64) (Target, error) {
	probe, err := os.Open(path)
	if err != nil {
		return nil, targetError(path, err)
	}
	info := Info{Name: filepath.Base(path), Path: absolute(path)}
	err = describe(probe, &info)
	probe.Close()
	if err != nil {
		return nil, err
	}
	if err := checkDevice(path, info, size); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, unsafeTarget(path, "is in use by the system: unmount it, or stop what is built on it (RAID, LVM)")
	}
	if err != nil {
		return nil, targetError(path, err)
	}
	if ro, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET); err == nil && ro != 0 {
		f.Close()
		return nil, unsafeTarget(path, "is read-only: see 'blockdev --setrw', or the switch on the medium")
	}
	return &target{diskFile: diskFile{File: f, info: info}, size: size}, nil
}

func readOnly(err error) bool { return errors.Is(err, unix.EROFS) }

// makeSparse has nothing to do: files are sparse where nothing was written.
func makeSparse(*os.File) error { return nil }

// punch makes a hole in a file, or zeros on a device by its own means. A device may only do whole sectors.
func punch(f *os.File, kind string, offset, length int64) error {
	if kind == "file" {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
	}
	if offset%Block != 0 || length%Block != 0 {
		return fmt.Errorf("%d bytes at %d are no whole blocks", length, offset)
	}
	span := [2]uint64{uint64(offset), uint64(length)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&span))); errno != 0 {
		return errno
	}
	return nil
}
