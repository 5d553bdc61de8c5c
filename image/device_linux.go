package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// device is a block device to read.
type device struct {
	*os.File
	info Info

	once   sync.Once
	direct *os.File // the same device past the page cache, opened when it is needed; nil when it cannot be
}

func openDevice(path string) (Source, error) {
	info, err := place(path, "device")
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("opening the disk: %w; reading a whole disk needs root, or membership in the group that owns it", err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the disk: %w", err)
	}
	d := &device{File: f, info: info}
	if _, err := deviceFacts(f, &d.info); err != nil {
		f.Close()
		return nil, fmt.Errorf("opening the disk: %w", err)
	}
	if d.info.Size == 0 {
		f.Close()
		return nil, fmt.Errorf("%s has no bytes: it is a drive without a medium, or a loop device without a file", path)
	}
	return d, nil
}

func (d *device) Info() Info { return d.info }

// Map of a device says that all is Data: what devices tell of unmapped parts does not promise zeros.
func (d *device) Map(off, length int64) ([]Extent, error) {
	return cover(nil, off, off+length, Data), nil
}

// ReadAt reads through the page cache, which knows only pages. Where a small piece cannot be read so, it is read past
// the cache: then one bad sector does not take the good ones in its page with it.
func (d *device) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.File.ReadAt(p, off)
	if n == len(p) || len(p) > Block || !damaged(err) {
		return n, err
	}
	sector := int64(d.info.SectorSize)
	if sector <= 0 || off%sector != 0 || int64(len(p))%sector != 0 {
		return n, err
	}
	d.once.Do(func() {
		d.direct, _ = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", d.Fd()), os.O_RDONLY|unix.O_DIRECT, 0)
	})
	if d.direct == nil {
		return n, err
	}
	// The kernel wants memory that is aligned as sectors are.
	buf := make([]byte, 2*Block)
	buf = buf[Block-int(uintptr(unsafe.Pointer(&buf[0]))%Block):][:len(p)]
	if k, err := d.direct.ReadAt(buf, off); k < len(p) {
		return n, err
	}
	return copy(p, buf), nil
}

func (d *device) Close() error {
	if d.direct != nil {
		d.direct.Close()
	}
	return d.File.Close()
}

// deviceFacts fills in what the kernel knows of the block device f, and returns where it is in use.
func deviceFacts(f *os.File, info *Info) (inUse []use, err error) {
	if info.Size, err = f.Seek(0, io.SeekEnd); err != nil {
		return nil, fmt.Errorf("asking for the size of the device: %w", err)
	}
	sector, err := unix.IoctlGetUint32(int(f.Fd()), unix.BLKSSZGET)
	if err != nil {
		return nil, fmt.Errorf("asking for the sector size of the device: %w", err)
	}
	info.SectorSize = int(sector)
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	number, ok := blockDevice(st)
	if !ok {
		return nil, errors.New("it is not a block device any more")
	}
	dir := folderOf(number)
	info.Model, info.Serial = modelAndSerial(dir)
	if inUse, err = usesOf(dir); err != nil {
		return nil, err
	}
	info.Mounted = mountsOf(inUse)
	return inUse, nil
}

// folderOf returns the folder of a device in sysfs.
func folderOf(number uint64) string {
	link := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(number), unix.Minor(number))
	if dir, err := filepath.EvalSymlinks(link); err == nil {
		return dir
	}
	return link
}

// modelAndSerial reads the name plate of the device with the given folder in sysfs:
//
//	<disk>/device/model, device/serial   NVMe, MMC, some SCSI
//	<disk>/serial                        virtio
//	<disk>/device/vpd_pg80               SCSI and SATA: vital product data, page 80h
//	<disk>/dm/name, dm/uuid              device mapper: LVM, encryption
//	<disk>/<partition>/partition         its number; the name plate is that of the disk
func modelAndSerial(dir string) (model, serial string) {
	disk, part := dir, text(dir, "partition")
	if part != "" {
		disk = filepath.Dir(dir)
	}
	model = text(disk, "device/model")
	for _, name := range []string{"device/serial", "serial"} {
		if serial == "" {
			serial = text(disk, name)
		}
	}
	if serial == "" {
		page, _ := os.ReadFile(filepath.Join(disk, "device/vpd_pg80")) // without it, there is no serial number
		serial = serialOfPage(page)
	}
	if name := text(disk, "dm/name"); name != "" {
		model, serial = name, text(disk, "dm/uuid")
	}
	// Two partitions of a disk are not the same disk.
	if serial != "" && part != "" {
		serial += "-part" + part
	}
	return model, serial
}

// serialOfPage finds the serial number in page 80h of a disk's vital product data (SPC-4, 7.8.14):
//
//	type u8 | page u8 = 0x80 | length u16, big endian | serial number, ASCII, padded with spaces
func serialOfPage(page []byte) string {
	if len(page) < 4 || page[1] != 0x80 {
		return ""
	}
	length := int(page[2])<<8 | int(page[3])
	return strings.Trim(string(page[4:min(len(page), 4+length)]), " \x00\n")
}

// text returns what is in a file of sysfs, without the space around it; "" when there is none.
func text(dir, name string) string {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.Trim(string(data), " \x00\n\t")
}
