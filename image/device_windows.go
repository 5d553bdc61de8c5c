package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// device is a disk such as \\.\PhysicalDrive0 to read.
type device struct {
	*os.File
	info Info
}

func openDevice(path string) (Source, error) {
	info := Info{Name: baseName(path), Path: path, Type: "device"}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("opening the disk: %w; reading a whole disk needs an administrator", err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the disk: %w", err)
	}
	d := &device{f, info}
	if err := deviceFacts(f, &d.info); err != nil {
		f.Close()
		return nil, fmt.Errorf("opening the disk: %w", err)
	}
	return d, nil
}

// Codes of winioctl.h.
const (
	ioctlDiskGetDriveGeometry = 0x70000
	ioctlDiskGetLengthInfo    = 0x7405C
)

// deviceFacts fills in the size of a disk and of its sectors.
func deviceFacts(f *os.File, info *Info) error {
	h := windows.Handle(f.Fd())
	var n uint32
	err := windows.DeviceIoControl(h, ioctlDiskGetLengthInfo, nil, 0, (*byte)(unsafe.Pointer(&info.Size)), uint32(unsafe.Sizeof(info.Size)), &n, nil)
	if err != nil {
		return fmt.Errorf("asking for the size of the disk: %w", os.NewSyscallError("IOCTL_DISK_GET_LENGTH_INFO", err))
	}
	var geometry struct { // DISK_GEOMETRY
		Cylinders                                                     int64
		MediaType, TracksPerCylinder, SectorsPerTrack, BytesPerSector uint32
	}
	err = windows.DeviceIoControl(h, ioctlDiskGetDriveGeometry, nil, 0, (*byte)(unsafe.Pointer(&geometry)), uint32(unsafe.Sizeof(geometry)), &n, nil)
	if err != nil {
		return fmt.Errorf("asking for the sector size of the disk: %w", os.NewSyscallError("IOCTL_DISK_GET_DRIVE_GEOMETRY", err))
	}
	info.SectorSize = int(geometry.BytesPerSector)
	return nil
}

func (d *device) Info() Info { return d.info }

func (d *device) Map(off, length int64) ([]Extent, error) {
	return cover(nil, off, off+length, Data), nil
}

// ReadAt reads whole sectors, since Windows reads no parts of them, and takes what was asked for.
func (d *device) ReadAt(p []byte, off int64) (int, error) {
	sector := max(1, int64(d.info.SectorSize))
	start := off - off%sector
	end := min((off+int64(len(p))+sector-1)/sector*sector, d.info.Size)
	if end <= off {
		return 0, io.EOF
	}
	if start == off && end-start == int64(len(p)) {
		return d.File.ReadAt(p, off)
	}
	buf := make([]byte, end-start)
	n, err := d.File.ReadAt(buf, start)
	n = copy(p, buf[min(off-start, int64(n)):n])
	if n == len(p) {
		return n, nil
	}
	if err == nil {
		err = io.EOF
	}
	return n, err
}

// openDeviceTarget is not done on Windows, where volumes on a disk would have to be locked and dismounted first.
func openDeviceTarget(path string, _ int64) (Target, error) {
	return nil, fmt.Errorf("restoring to the device %s on Windows: %w; restore to a file, or on Linux", path, errors.ErrUnsupported)
}
