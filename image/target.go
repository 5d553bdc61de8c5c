package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
)

// refuse makes an ErrUnsafe.
func refuse(path, reason, advice string) error {
	return fmt.Errorf("%w: %s %s; %s", ErrUnsafe, path, reason, advice)
}

// OpenTarget opens a file or block device path to be written with a disk of size bytes. A file is made, sparse and for
// its owner alone, when there is none; otherwise it is used in place, and longer at once if it is shorter than size. A
// device is opened exclusively: nobody can mount it until Close. A file is locked, as virtual machines do with their
// disks, where the system has such locks. What is on the target does not change before the first write.
//
// The error is ErrUnsafe for a target that is mounted, used as swap or by something else (also a partition of it, or
// what is built of it), read-only, too small, or neither a file nor a device.
func OpenTarget(path string, size int64) (Target, error) {
	kind, err := kindOf(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return createFile(path, size)
	case err != nil:
		return nil, fmt.Errorf("opening the target: %w", err)
	}
	switch kind {
	case "file":
		return openFileTarget(path, size)
	case "device":
		return openDeviceTarget(path, size)
	case "folder":
		return nil, refuse(path, "is a folder", "name a file in it")
	case "pipe":
		return nil, refuse(path, "is a pipe", "restore to a file or a device")
	}
	return nil, refuse(path, "is "+kind, "restore to a file or a device")
}

// fileTarget is a regular file to write.
type fileTarget struct {
	targetFile
	info  Info
	holes mapper
	made  bool // by OpenTarget
	fresh bool
}

// createFile makes the file path, which does not exist.
func createFile(path string, size int64) (Target, error) {
	info, err := place(path, "file")
	if err != nil {
		return nil, err
	}
	if amongDevices(info.Path) {
		// A file there takes memory instead of a disk, and is the sign of a name mistyped.
		return nil, refuse(path, "does not exist", "devices that do are listed by lsblk")
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, refuse(path, "is a link to what does not exist, or was made just now", "name the file itself")
	}
	if err != nil {
		return nil, cannotWrite(path, err)
	}
	makeSparse(f)
	t := &fileTarget{targetFile: targetFile{File: f}, info: info, made: true, fresh: true}
	if err := t.grow(size); err != nil {
		f.Close()
		os.Remove(path)
		return nil, err
	}
	return t, nil
}

// openFileTarget opens the file path, which exists.
func openFileTarget(path string, size int64) (Target, error) {
	info, err := place(path, "file")
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("opening the target: %w", err)
	}
	if err := checkFile(path, st); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, cannotWrite(path, err)
	}
	makeSparse(f)
	t := &fileTarget{targetFile: targetFile{File: f}, info: info}
	if err := t.grow(size); err != nil {
		f.Close()
		return nil, err
	}
	return t, nil
}

// cannotWrite says why opening path for writing failed.
func cannotWrite(path string, err error) error {
	if reason, advice := notWritable(err); reason != "" {
		return refuse(path, reason, advice)
	}
	return fmt.Errorf("opening the target: %w", err)
}

// grow makes the file ours, at least size bytes long, and fills in what is known of it.
func (t *fileTarget) grow(size int64) error {
	if lockedByOthers(t.File) {
		return refuse(t.info.Path, "is locked by another program, such as a virtual machine that runs from it or another restore",
			"stop that first, or choose another target")
	}
	if err := fileFacts(t.File, &t.info); err != nil {
		return fmt.Errorf("opening the target: %w", err)
	}
	if t.info.Size == 0 {
		t.fresh = true
	}
	if t.info.Size < size {
		if err := t.Truncate(size); err != nil {
			if tooLarge(err) {
				return refuse(t.info.Path, fmt.Sprintf("cannot become %d bytes long: its filesystem has no files of that size", size),
					"choose a target on another filesystem, or a device")
			}
			return fmt.Errorf("making the target %d bytes long: %w", size, err)
		}
	}
	t.info.Size = size
	return nil
}

func (t *fileTarget) Info() Info  { return t.info }
func (t *fileTarget) Fresh() bool { return t.fresh }

func (t *fileTarget) Map(off, length int64) ([]Extent, error) {
	return t.holes.holes(t.File, off, length)
}

func (t *fileTarget) Zero(off, length int64) error {
	if length <= 0 || punch(t.File, off, length) == nil {
		return nil
	}
	return writeZeros(t.File, off, length)
}

func (t *fileTarget) Sync() error {
	st, err := t.Stat()
	if err != nil {
		return fmt.Errorf("looking at the target: %w", err)
	}
	if st.Size() > t.info.Size {
		if err := t.Truncate(t.info.Size); err != nil {
			return fmt.Errorf("cutting the target to %d bytes: %w", t.info.Size, err)
		}
	}
	if err := t.File.Sync(); err != nil {
		return fmt.Errorf("making the target durable: %w", err)
	}
	if t.made {
		if err := syncFolder(filepath.Dir(t.info.Path)); err != nil {
			return fmt.Errorf("making the target's name durable: %w", err)
		}
	}
	return nil
}

// flushStep is how many bytes are written between two hints to the system.
const flushStep = 16 << 20

// targetFile is the file of a target. What is written to it the system brings to the medium meanwhile, instead of all at
// once in Sync, when nothing else is left to do: docs/decisions/restore.md.
type targetFile struct {
	*os.File
	written atomic.Int64
}

func (t *targetFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := t.File.WriteAt(p, off)
	if now := t.written.Add(int64(n)); now/flushStep != (now-int64(n))/flushStep {
		startFlush(t.File)
	}
	return n, err
}

func (t *targetFile) Forget() { forget(t.File) }

// writeZeros writes length zeros at off.
func writeZeros(w io.WriterAt, off, length int64) error {
	zeros := make([]byte, min(length, 1<<20))
	for length > 0 {
		n, err := w.WriteAt(zeros[:min(length, int64(len(zeros)))], off)
		if err != nil {
			return err
		}
		off, length = off+int64(n), length-int64(n)
	}
	return nil
}
