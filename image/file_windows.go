package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// deviceNames is how names of disks begin on Windows: \\.\PhysicalDrive0, \\.\C:
const deviceNames = `\\.\`

func isDeviceName(path string) bool       { return strings.HasPrefix(path, deviceNames) }
func sameDeviceName(a, b string) bool     { return strings.EqualFold(a, b) }
func sameDevice(_, _ fs.FileInfo) bool    { return false } // devices are known by their names
func amongDevices(path string) bool       { return isDeviceName(path) }
func checkFile(string, fs.FileInfo) error { return nil }

// mountsOfFile: which virtual disks are attached is not asked on Windows.
func mountsOfFile(fs.FileInfo) ([]Mount, error) { return nil, nil }

func baseName(path string) string {
	if isDeviceName(path) {
		return path[len(deviceNames):]
	}
	return filepath.Base(path)
}

// identity fills in what tells a file from others, and when it was changed.
func identity(f *os.File, _ fs.FileInfo, info *Info) error {
	h := windows.Handle(f.Fd())
	var file windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(h, &file); err != nil {
		return os.NewSyscallError("GetFileInformationByHandle", err)
	}
	info.Inode = uint64(file.FileIndexHigh)<<32 | uint64(file.FileIndexLow)
	info.Device = uint64(file.VolumeSerialNumber)
	var basic struct { // FILE_BASIC_INFO; times in 100 ns
		Creation, LastAccess, LastWrite, Change windows.Filetime
		Attributes                              uint32
	}
	err := windows.GetFileInformationByHandleEx(h, windows.FileBasicInfo, (*byte)(unsafe.Pointer(&basic)), uint32(unsafe.Sizeof(basic)))
	if err != nil {
		return os.NewSyscallError("GetFileInformationByHandleEx", err)
	}
	info.ChangeTime = time.Unix(0, basic.Change.Nanoseconds())
	return nil
}

// mapper is Map of a file. Holes of NTFS files are read as the zeros that they are.
type mapper struct{}

func (*mapper) holes(_ *os.File, off, length int64) ([]Extent, error) {
	return cover(nil, off, off+length, Data), nil
}

// damaged reports whether a read failed as it does on a damaged medium: other places may be readable.
func damaged(err error) bool {
	for _, code := range []windows.Errno{
		windows.ERROR_CRC, windows.ERROR_SECTOR_NOT_FOUND, windows.ERROR_READ_FAULT, windows.ERROR_IO_DEVICE,
		windows.ERROR_DISK_OPERATION_FAILED, windows.ERROR_SEM_TIMEOUT, windows.ERROR_FILE_CORRUPT,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// fsctlSetSparse and fsctlSetZeroData are of winioctl.h.
const (
	fsctlSetSparse   = 0x900C4
	fsctlSetZeroData = 0x980C8
)

// makeSparse tells NTFS not to store what was never written. Filesystems that cannot do that store zeros.
func makeSparse(f *os.File) {
	var n uint32
	_ = windows.DeviceIoControl(windows.Handle(f.Fd()), fsctlSetSparse, nil, 0, nil, 0, &n, nil)
}

// punch makes a hole.
func punch(f *os.File, off, length int64) error {
	span := [2]int64{off, off + length}
	var n uint32
	return windows.DeviceIoControl(windows.Handle(f.Fd()), fsctlSetZeroData, (*byte)(unsafe.Pointer(&span)), uint32(unsafe.Sizeof(span)), nil, 0, &n, nil)
}

// lockedByOthers: who must not be disturbed opens files on Windows so that others cannot open them.
func lockedByOthers(*os.File) bool { return false }

// forget: Windows has no way to drop what it keeps in memory of one file.
func forget(*os.File) {}

// startFlush: Windows has only a flush that waits.
func startFlush(*os.File) {}

// syncFolder: NTFS keeps names in its journal; folders cannot be synced.
func syncFolder(string) error { return nil }

// tooLarge reports whether a file cannot have the size that was asked for.
func tooLarge(err error) bool { return errors.Is(err, windows.ERROR_FILE_TOO_LARGE) }

// notWritable returns why a target cannot be opened for writing, and what to do; "" when it is no question of that.
func notWritable(err error) (reason, advice string) {
	switch {
	case errors.Is(err, windows.ERROR_WRITE_PROTECT):
		return "is read-only", "choose another target"
	case errors.Is(err, windows.ERROR_SHARING_VIOLATION):
		return "is in use by another program", "stop that first, or choose another target"
	case errors.Is(err, fs.ErrPermission):
		return "cannot be written by this user", "run as administrator, or choose another target"
	}
	return "", ""
}
