package extract

import (
	"errors"

	"golang.org/x/sys/windows"
)

func (t *folderTaker) special(*file) error { return errors.New("this system has no such files") }

// times sets the time of modification; a link keeps its own.
func (t *folderTaker) times(f *file) error {
	if f.Modified.IsZero() || !f.Mode.IsRegular() && !f.Mode.IsDir() {
		return nil
	}
	return t.root.Chtimes(f.path, f.Modified, f.Modified)
}

func noRoom(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}
