package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// No name makes a device on Linux: what stands behind it does.
func isDeviceName(string) bool           { return false }
func sameDeviceName(string, string) bool { return false }

func baseName(path string) string { return filepath.Base(path) }

// sameDevice reports whether two nodes are of the same block device.
func sameDevice(x, y fs.FileInfo) bool {
	a, ok1 := blockDevice(x)
	b, ok2 := blockDevice(y)
	return ok1 && ok2 && a == b
}

// blockDevice returns the number of the block device of which st is a node.
func blockDevice(st fs.FileInfo) (uint64, bool) {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok || sys.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, false
	}
	return sys.Rdev, true
}

// mountsOfFile lists where a file is mounted, through loop devices.
func mountsOfFile(st fs.FileInfo) ([]Mount, error) {
	uses, err := usesOfFile(st)
	return mountsOf(uses), err
}

// identity fills in what tells a file from others, and when it was changed.
func identity(_ *os.File, st fs.FileInfo, info *Info) error {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		info.Inode, info.Device = sys.Ino, sys.Dev
		info.ChangeTime = time.Unix(sys.Ctim.Unix())
	}
	return nil
}

// damaged reports whether a read failed as it does on a damaged medium: other places may be readable.
func damaged(err error) bool {
	for _, errno := range []unix.Errno{
		unix.EIO,
		unix.ENODATA,   // the block layer: medium error
		unix.EILSEQ,    // the block layer: wrong protection information
		unix.EREMOTEIO, // the block layer: error of the target
		unix.ETIMEDOUT, // the block layer: the device gave no answer in time
		unix.EBADMSG,   // a filesystem: wrong checksum
		unix.EUCLEAN,   // a filesystem: structure needs cleaning
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// makeSparse: files are sparse on Linux by themselves.
func makeSparse(*os.File) {}

// punch makes a hole.
func punch(f *os.File, off, length int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
}

// forget drops what is in memory of f, so that it is read from the medium next.
func forget(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }

// startFlush has the system begin to bring what it holds of f to the medium; it does not wait for it.
func startFlush(f *os.File) { _ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE) }

// lockedByOthers takes a lock on all of f that lasts until it is closed, unless somebody else has one on any part of it.
// Where a filesystem has no locks, nobody has.
func lockedByOthers(f *os.File) bool {
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES)
}

// syncFolder makes the names in a folder durable. Filesystems that cannot do that need no more than the file's sync,
// or have nothing better.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return nil // a folder to put files in, but not to look at
		}
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return nil
}

// tooLarge reports whether a file cannot have the size that was asked for.
func tooLarge(err error) bool { return errors.Is(err, unix.EFBIG) || errors.Is(err, unix.EINVAL) }

// notWritable returns why a target cannot be opened for writing, and what to do; "" when it is no question of that.
func notWritable(err error) (reason, advice string) {
	switch {
	case errors.Is(err, unix.EROFS):
		return "is read-only", "choose another target"
	case errors.Is(err, unix.ETXTBSY):
		return "is in use as swap or as a running program", "choose another target"
	case errors.Is(err, unix.EBUSY):
		return "is in use by the system (mounted elsewhere, RAID, LVM, encryption) or by another program", "stop that first, or choose another target"
	case errors.Is(err, fs.ErrPermission):
		return "cannot be written by this user", "run as root, or choose another target"
	}
	return "", ""
}

// amongDevices reports whether the absolute path lies where device nodes are.
func amongDevices(path string) bool {
	return strings.HasPrefix(path, "/dev/") && !strings.HasPrefix(path, "/dev/shm/")
}
