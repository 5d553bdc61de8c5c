package image

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// deviceTarget is a block device to write.
type deviceTarget struct {
	targetFile
	info Info
}

// openDeviceTarget opens a block device. What it can tell of a reason to refuse, it does; the kernel has the last word:
// with O_EXCL it opens none that is mounted in any namespace, or part of anything else, and lets nobody mount it.
func openDeviceTarget(path string, size int64) (Target, error) {
	info, err := place(path, "device")
	if err != nil {
		return nil, err
	}
	look, err := os.Open(path)
	if err != nil {
		return nil, cannotWrite(path, err)
	}
	defer look.Close()
	inUse, err := deviceFacts(look, &info)
	if err != nil {
		return nil, fmt.Errorf("opening the target: %w", err)
	}
	if readOnly, err := unix.IoctlGetUint32(int(look.Fd()), unix.BLKROGET); err != nil || readOnly != 0 {
		return nil, refuse(path, "is read-only", "see the switch on the medium, or blockdev --setrw")
	}
	if err := refuseUses(path, inUse); err != nil {
		return nil, err
	}
	if info.Size < size {
		return nil, refuse(path, fmt.Sprintf("has %d bytes, the disk has %d", info.Size, size),
			fmt.Sprintf("choose one that is at least %d bytes larger", size-info.Size))
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return nil, cannotWrite(path, err)
	}
	// What was looked at has to be what was opened.
	a, err1 := look.Stat()
	b, err2 := f.Stat()
	if err := errors.Join(err1, err2); err != nil || !sameDevice(a, b) {
		f.Close()
		return nil, refuse(path, "changed while it was opened", "try again")
	}
	return &deviceTarget{targetFile{File: f}, info}, nil
}

// refuseUses is nil when there are none.
func refuseUses(path string, uses []use) error {
	if len(uses) == 0 {
		return nil
	}
	var reasons, advice []string
	for _, u := range uses {
		reasons = append(reasons, u.String())
		if u.swap {
			advice = append(advice, "swapoff "+u.where)
		} else {
			advice = append(advice, "umount "+u.where)
		}
	}
	return refuse(path, "is in use: "+strings.Join(reasons, ", "),
		"end that first ("+strings.Join(advice, "; ")+"), or restore a running system from a rescue system")
}

func (t *deviceTarget) Info() Info  { return t.info }
func (t *deviceTarget) Fresh() bool { return false }

func (t *deviceTarget) Map(off, length int64) ([]Extent, error) {
	return cover(nil, off, off+length, Data), nil
}

// Zero leaves the zeros to the device where whole sectors are asked for; the kernel writes them where it cannot.
func (t *deviceTarget) Zero(off, length int64) error {
	if sector := int64(t.info.SectorSize); length > 0 && off%sector == 0 && length%sector == 0 {
		span := [2]uint64{uint64(off), uint64(length)}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, t.Fd(), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&span)))
		if errno == 0 {
			return nil
		}
	}
	return writeZeros(t.File, off, length)
}

func (t *deviceTarget) Sync() error {
	if err := t.File.Sync(); err != nil {
		return fmt.Errorf("making the target durable: %w", err)
	}
	// The partitions are others now. Where there are none, or cannot be, this fails.
	_ = unix.IoctlSetInt(int(t.Fd()), unix.BLKRRPART, 0)
	return nil
}

// checkFile reports why the file, which exists, must not be written.
func checkFile(path string, st os.FileInfo) error {
	uses, err := usesOfFile(st)
	if err != nil {
		return fmt.Errorf("opening the target: %w", err)
	}
	return refuseUses(path, uses)
}
