package image

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Map implements Source. A file system may tell of holes where there are none only if it is broken; devices are not
// asked, since none of them knows better than to read.
func (d *diskFile) Map(offset, length int64) ([]Extent, error) {
	if d.info.Type != "file" {
		return []Extent{{offset, length, Data}}, nil
	}
	seek := func(whence int) func(int64) (int64, error) {
		return func(at int64) (int64, error) {
			at, err := unix.Seek(int(d.Fd()), at, whence)
			if errors.Is(err, unix.ENXIO) {
				return 0, io.EOF
			}
			return at, err
		}
	}
	list, err := mapHoles(offset, length, seek(unix.SEEK_DATA), seek(unix.SEEK_HOLE))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		return []Extent{{offset, length, Data}}, nil // a file system that does not know the question
	}
	if err != nil {
		return nil, fmt.Errorf("asking for the holes of %s: %w", d.info.Path, err)
	}
	return list, nil
}
