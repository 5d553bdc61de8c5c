//go:build unix

package storage

import (
	"errors"
	"os"
	"syscall"
)

// syncDir makes the names in a folder durable. Where the file system has no such thing (SMB, some FUSE ones) there is
// nothing to be done.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.ENOENT) {
		return nil
	}
	return err
}
