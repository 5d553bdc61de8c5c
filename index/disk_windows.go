package index

import (
	"io/fs"

	"golang.org/x/sys/windows"
)

// freeSpace returns the bytes that this user may still write on the volume of dir.
func freeSpace(dir string) (int64, error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var available, total, free uint64
	if err := windows.GetDiskFreeSpaceEx(path, &available, &total, &free); err != nil {
		return 0, err
	}
	return int64(available), nil
}

// allocated returns the bytes that a file takes on disk.
func allocated(info fs.FileInfo) int64 { return info.Size() }

// syncDir does nothing: Windows has no such call, and a rename there is in the volume's journal.
func syncDir(string) error { return nil }
