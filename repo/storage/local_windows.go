package storage

import "golang.org/x/sys/windows"

// syncDir does nothing: NTFS writes names to its journal, and there is no call to wait for it.
func syncDir(string) error { return nil }

// free returns the bytes that this user may still write on the volume of a folder.
func free(path string) (int64, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	var available, total, all uint64
	if err := windows.GetDiskFreeSpaceEx(name, &available, &total, &all); err != nil {
		return 0, err
	}
	return int64(available), nil
}
