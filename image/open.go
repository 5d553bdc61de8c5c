package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Open opens a regular file or a block device for reading.
func Open(path string) (Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, openError(path, err)
	}
	d := &diskFile{File: f, info: Info{Name: filepath.Base(path), Path: absolute(path)}}
	if err := describe(f, &d.info); err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

func openError(path string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("opening %s: %w; reading a whole disk needs root, or membership in the group that owns it", path, fs.ErrPermission)
	}
	return fmt.Errorf("opening: %w", err)
}

// absolute returns the path from the root, which is what a parent snapshot is found by.
func absolute(path string) string {
	if full, err := filepath.Abs(path); err == nil {
		return full
	}
	return path
}

// diskFile is an open file or device.
type diskFile struct {
	*os.File
	info Info
}

func (d *diskFile) Info() Info { return d.info }

// SameFile reports whether two paths name the same file or device.
func SameFile(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}
