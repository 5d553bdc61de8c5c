//go:build unix

package storage

import "syscall"

// unwritable are the errors of a file system that has no room, is read-only, or whose medium fails.
var unwritable = []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO}
