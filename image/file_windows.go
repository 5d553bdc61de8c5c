package image

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

func goneHere(err error) bool {
	return errors.Is(err, windows.ERROR_NOT_READY) || errors.Is(err, windows.ERROR_DEV_NOT_EXIST) || errors.Is(err, windows.ERROR_DEVICE_NOT_CONNECTED)
}

// isDevice reports whether a path names a disk or volume, as \\.\PhysicalDrive0 or \\.\C: do.
func isDevice(path string) bool { return strings.HasPrefix(path, `\\.\`) }

// describe fills in what the system knows of an open file or disk.
func describe(f *os.File, info *Info) error {
	if isDevice(f.Name()) {
		info.Type = "device"
		return deviceFacts(f, info)
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errors.New(f.Name() + " is neither a file nor a disk such as " + `\\.\PhysicalDrive0`)
	}
	var facts windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(windows.Handle(f.Fd()), &facts); err != nil {
		return err
	}
	info.Type, info.Size, info.ModTime = "file", st.Size(), st.ModTime()
	info.Inode, info.Device = uint64(facts.FileIndexHigh)<<32|uint64(facts.FileIndexLow), uint64(facts.VolumeSerialNumber)
	return nil
}

const (
	ioctlDiskGetLengthInfo    = 0x7405C // IOCTL_DISK_GET_LENGTH_INFO
	ioctlDiskGetDriveGeometry = 0x70000 // IOCTL_DISK_GET_DRIVE_GEOMETRY
)

// deviceFacts asks a disk for its size and sector size (winioctl.h).
func deviceFacts(f *os.File, info *Info) error {
	var n uint32
	h := windows.Handle(f.Fd())
	err := windows.DeviceIoControl(h, ioctlDiskGetLengthInfo, nil, 0, (*byte)(unsafe.Pointer(&info.Size)), 8, &n, nil)
	if err != nil {
		return os.NewSyscallError("IOCTL_DISK_GET_LENGTH_INFO", err)
	}
	var geometry struct {
		Cylinders                              int64
		Media, Tracks, Sectors, BytesPerSector uint32
	}
	err = windows.DeviceIoControl(h, ioctlDiskGetDriveGeometry, nil, 0, (*byte)(unsafe.Pointer(&geometry)), uint32(unsafe.Sizeof(geometry)), &n, nil)
	if err == nil {
		info.SectorSize = int(geometry.BytesPerSector)
	}
	return nil
}

// Map implements Source. Holes of NTFS files are read as the zeros that they are.
func (d *diskFile) Map(offset, length int64) ([]Extent, error) {
	return []Extent{{offset, length, Data}}, nil
}

// openDevice opens a disk. Its volumes have to be dismounted: Windows refuses to write where one is in use.
func openDevice(path string, size int64) (Target, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, targetError(path, err)
	}
	t := &target{diskFile: diskFile{File: f, info: Info{Name: path[len(`\\.\`):], Path: path}}, size: size}
	if err := describe(f, &t.info); err != nil {
		f.Close()
		return nil, err
	}
	if err := checkDevice(path, t.info, size); err != nil {
		f.Close()
		return nil, err
	}
	return t, nil
}

func readOnly(err error) bool { return errors.Is(err, windows.ERROR_WRITE_PROTECT) }

// fsctlSetSparse is FSCTL_SET_SPARSE (winioctl.h).
const fsctlSetSparse = 0x900C4

// makeSparse tells NTFS not to allocate what is never written. Other file systems refuse, and do.
func makeSparse(f *os.File) error {
	var n uint32
	err := windows.DeviceIoControl(windows.Handle(f.Fd()), fsctlSetSparse, nil, 0, nil, 0, &n, nil)
	if errors.Is(err, windows.ERROR_INVALID_FUNCTION) || errors.Is(err, syscall.EWINDOWS) {
		return nil
	}
	return err
}

// punch is not done: zeros are written.
func punch(*os.File, string, int64, int64) error { return errors.ErrUnsupported }
