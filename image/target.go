package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// unsafeTarget returns an ErrUnsafe.
func unsafeTarget(path, format string, a ...any) error {
	return fmt.Errorf("%w: %s %s", ErrUnsafe, path, fmt.Sprintf(format, a...))
}

// OpenTarget opens the target of a restore of a disk of size bytes. A file that does not exist is made; one that does is
// written in place, and cut to size at Close. A block device has to be large enough and not in use. Everything that
// would do harm is ErrUnsafe.
func OpenTarget(path string, size int64) (Target, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return newFile(path, size)
	case err != nil:
		return nil, fmt.Errorf("opening the target: %w", err)
	case st.IsDir():
		return nil, unsafeTarget(path, "is a folder: name a file in it, or a device")
	case st.Mode().IsRegular():
		return openFile(path, size)
	case st.Mode()&os.ModeDevice != 0 && st.Mode()&os.ModeCharDevice == 0:
		return openDevice(path, size)
	}
	return nil, unsafeTarget(path, "is neither a file nor a block device")
}

// newFile makes a file that is one hole.
func newFile(path string, size int64) (Target, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, targetError(path, err)
	}
	t, err := sized(f, size, true)
	if err != nil {
		f.Close()
		os.Remove(path)
		return nil, err
	}
	return t, nil
}

// openFile opens a file that exists.
func openFile(path string, size int64) (Target, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, targetError(path, err)
	}
	t, err := sized(f, size, false)
	if err != nil {
		f.Close()
		return nil, err
	}
	return t, nil
}

// targetError explains why a target cannot be opened.
func targetError(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) || readOnly(err) {
		return unsafeTarget(path, "cannot be written (%v): it, or the file system it is on, is read-only, or belongs to another user", errors.Unwrap(err))
	}
	return fmt.Errorf("opening the target: %w", err)
}

// sized makes a target of a file, which is made long enough.
func sized(f *os.File, size int64, fresh bool) (*target, error) {
	t := &target{diskFile: diskFile{File: f, info: Info{Name: filepath.Base(f.Name()), Path: absolute(f.Name())}}, size: size, fresh: fresh}
	if err := describe(f, &t.info); err != nil {
		return nil, err
	}
	if t.info.Size == 0 {
		t.fresh = true
	}
	if t.info.Size < size {
		if err := makeSparse(f); err != nil {
			return nil, fmt.Errorf("making %s sparse: %w", f.Name(), err)
		}
		if err := f.Truncate(size); err != nil {
			return nil, fmt.Errorf("making %s %d bytes long: %w", f.Name(), size, err)
		}
	}
	return t, nil
}

// checkDevice reports why a device must not be overwritten with a disk of size bytes.
func checkDevice(path string, info Info, size int64) error {
	if len(info.Mounted) > 0 {
		return unsafeTarget(path, "is in use (%s): unmount it, or boot a rescue system to restore the system disk", strings.Join(info.Mounted, ", "))
	}
	if info.Size < size {
		return unsafeTarget(path, "has %d bytes, %d too few for the disk, which has %d: name a larger one", info.Size, size-info.Size, size)
	}
	return nil
}

// target is a file or device that is being written.
type target struct {
	diskFile
	size  int64 // of the disk that is restored
	fresh bool
}

func (t *target) Fresh() bool { return t.fresh }

// Zero implements Target.
func (t *target) Zero(offset, length int64) error {
	if punch(t.File, t.info.Type, offset, length) == nil {
		return nil
	}
	zeros := make([]byte, min(length, 1<<20))
	for end := offset + length; offset < end; {
		n, err := t.WriteAt(zeros[:min(int64(len(zeros)), end-offset)], offset)
		if err != nil {
			return err
		}
		offset += int64(n)
	}
	return nil
}

// Sync implements Target.
func (t *target) Sync() error {
	if err := t.File.Sync(); err != nil {
		return fmt.Errorf("making %s durable: %w", t.info.Path, err)
	}
	return nil
}

// Close implements Target.
func (t *target) Close() error {
	if t.info.Type == "file" && t.info.Size > t.size {
		if err := t.Truncate(t.size); err != nil {
			t.File.Close()
			return fmt.Errorf("cutting %s to %d bytes: %w", t.info.Path, t.size, err)
		}
		if err := t.Sync(); err != nil {
			t.File.Close()
			return err
		}
	}
	return t.File.Close()
}
