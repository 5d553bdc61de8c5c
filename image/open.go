package image

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Open opens the regular file or block device path to be read. Other things are refused with an error that says what
// to do; that path does not exist is fs.ErrNotExist.
func Open(path string) (Source, error) {
	kind, err := kindOf(path)
	if err != nil {
		return nil, fmt.Errorf("opening the disk: %w", err)
	}
	switch kind {
	case "file":
		return openFile(path)
	case "device":
		return openDevice(path)
	case "folder":
		return nil, fmt.Errorf("%s is a folder: name a disk image or a device", path)
	case "pipe":
		return nil, fmt.Errorf("%s is a pipe: pass it as standard input, with - for its name", path)
	}
	return nil, fmt.Errorf("%s is %s, neither a file nor a disk", path, kind)
}

// kindOf says what path is behind links, in a word for people. Those that can be opened are "file" and "device".
func kindOf(path string) (string, error) {
	if isDeviceName(path) {
		return "device", nil
	}
	st, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	switch mode := st.Mode(); {
	case mode.IsRegular():
		return "file", nil
	case mode.IsDir():
		return "folder", nil
	case mode&fs.ModeNamedPipe != 0:
		return "pipe", nil
	case mode&fs.ModeSocket != 0:
		return "a socket", nil
	case mode&fs.ModeCharDevice != 0:
		return "a character device", nil
	case mode&fs.ModeDevice != 0:
		return "device", nil
	}
	return "something unknown", nil
}

// place fills in the parts of Info that follow from the path.
func place(path, kind string) (Info, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return Info{}, fmt.Errorf("finding the folder of %s: %w", path, err)
	}
	return Info{Name: baseName(abs), Path: abs, Type: kind}, nil
}

// SameFile reports whether two paths lead to the same file, or to the same device under two names. What does not exist
// is not the same as anything.
func SameFile(a, b string) bool {
	if isDeviceName(a) || isDeviceName(b) {
		return sameDeviceName(a, b)
	}
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	if err1 != nil || err2 != nil {
		return false
	}
	return os.SameFile(x, y) || sameDevice(x, y)
}

// file is a regular file to read.
type file struct {
	*os.File
	info  Info
	sure  bool // what the filesystem says of holes can be believed
	holes mapper
}

func openFile(path string) (Source, error) {
	info, err := place(path, "file")
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the disk: %w", err)
	}
	// Filesystems have been known to report holes where data waited to be written. Once it is written they do not; where
	// it cannot be, every byte is read.
	s := &file{File: f, info: info, sure: f.Sync() == nil}
	if err := fileFacts(f, &s.info); err != nil {
		f.Close()
		return nil, fmt.Errorf("opening the disk: %w", err)
	}
	return s, nil
}

// fileFacts fills in what the filesystem knows of f.
func fileFacts(f *os.File, info *Info) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	info.Size, info.ModTime = st.Size(), st.ModTime()
	if err := identity(f, st, info); err != nil {
		return err
	}
	info.Mounted, err = mountsOfFile(st)
	return err
}

func (s *file) Info() Info { return s.info }

func (s *file) Map(off, length int64) ([]Extent, error) {
	if !s.sure {
		return cover(nil, off, off+length, Data), nil
	}
	return s.holes.holes(s.File, off, length)
}
