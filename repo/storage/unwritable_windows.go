package storage

import (
	"syscall"

	"golang.org/x/sys/windows"
)

// unwritable are the errors of a file system that has no room, is read-only, or whose medium fails: the system's own, and what
// package syscall calls them elsewhere.
var unwritable = []error{
	windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_DISK_QUOTA_EXCEEDED, windows.ERROR_WRITE_PROTECT, windows.ERROR_IO_DEVICE,
	syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO,
}
