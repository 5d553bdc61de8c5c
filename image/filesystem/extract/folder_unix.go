//go:build unix

package extract

import (
	"errors"
	"io/fs"
	"path"

	"golang.org/x/sys/unix"
)

// special makes a device node, a pipe or a socket.
func (t *folderTaker) special(f *file) error {
	mode := uint32(0)
	switch {
	case f.Mode&fs.ModeNamedPipe != 0:
		mode = unix.S_IFIFO
	case f.Mode&fs.ModeSocket != 0:
		mode = unix.S_IFSOCK
	case f.Mode&fs.ModeCharDevice != 0:
		mode = unix.S_IFCHR
	case f.Mode&fs.ModeDevice != 0:
		mode = unix.S_IFBLK
	default:
		return errors.New("it is of a type that cannot be made here")
	}
	dir, err := t.root.Open(path.Dir(f.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Mknodat(int(dir.Fd()), path.Base(f.path), mode|0o600, int(unix.Mkdev(uint32(f.Device>>32), uint32(f.Device))))
}

// times sets the time of modification, also of a link itself.
func (t *folderTaker) times(f *file) error {
	if f.Modified.IsZero() {
		return nil
	}
	dir, err := t.root.Open(path.Dir(f.path))
	if err != nil {
		return err
	}
	defer dir.Close()
	accessed := f.Accessed
	if accessed.IsZero() {
		accessed = f.Modified
	}
	times := make([]unix.Timespec, 2)
	if times[0], err = unix.TimeToTimespec(accessed); err != nil {
		return err
	}
	if times[1], err = unix.TimeToTimespec(f.Modified); err != nil {
		return err
	}
	return unix.UtimesNanoAt(int(dir.Fd()), path.Base(f.path), times, unix.AT_SYMLINK_NOFOLLOW)
}

func noRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
}
