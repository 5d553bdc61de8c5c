// Package exfat reads exFAT: which clusters are free, and which files there are.
//
//	boot region of 12 sectors │ its copy │ … │ table │ … │ cluster 2 │ cluster 3 │ …
//
//	boot sector    0 EB 76 90 "EXFAT   ", 72 sectors, 80 where the table begins, 84 its sectors, 88 where cluster 2 begins, 92 clusters,
//	               96 first cluster of the root folder, 100 serial number, 104 version, 106 flags, 108 the power of 2 that is a
//	               sector, 109 the one that is a cluster in sectors, 110 tables, 510 55 AA. Sector 11 repeats the checksum
//	               of the ones before it
//	table          32 bits for each cluster: the next one of its chain, …FF at its end, …F7 when it is bad. It tells nothing of
//	               clusters that are free, nor of files that lie in one piece
//	folder         entries of 32 bytes. In the root: 81 the bitmap of clusters that are not free, 82 the table of upper case letters,
//	               83 the label. Anywhere, sets of entries with a checksum over all of them, one set for each file:
//	               85     1 how many follow, 2 checksum, 4 attributes, 8 created, 12 modified, 16 accessed, 20 and 21 hundredths of
//	                      seconds of the first two, 22 zones of all three
//	               C0     1 flags (2: in one piece, without a chain), 3 letters of the name, 8 bytes that were written,
//	                      20 first cluster, 24 size
//	               C1     2 letters of the name, 15 in each, in UTF-16
//
// A number before a field is its offset, types are hexadecimal; all values are little-endian. The source is Microsoft's "exFAT file system
// specification", version 1.00; what is said of sections is of that one.
//
// What the specification leaves open:
//
//   - There are no owners. Files are 0644, or 0444 when they are read-only, and folders 0755.
//   - Times without a zone are taken as UTC.
//   - Bytes of a file that were never written are a hole, which has its room.
//
// The number of a file or folder is the offset of its first entry on the partition, plus 1 when the folder that the entry is in
// has no chain, so that the rest of its set can be found. The number of the root folder, which has no entry, is 1.
package exfat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf16"

	"varve/image/filesystem"
)

var le = binary.LittleEndian

// FS is an exFAT filesystem.
type FS struct {
	r io.ReaderAt
	boot
	info filesystem.Info
}

var _ filesystem.Tree = (*FS)(nil)

// Open opens the filesystem in the size bytes of r. It returns filesystem.ErrUnknown when that is no exFAT, and an
// UnsupportedError when it has two tables (TexFAT), another version, or is the readable part of an encrypted disk.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	fs := &FS{r: r}
	if size < sectorSize {
		return nil, filesystem.ErrUnknown
	}
	sector := make([]byte, sectorSize)
	if err := fs.read(sector, 0); err != nil {
		return nil, err
	}
	var err error
	if fs.boot, err = parseBoot(sector, size); err != nil {
		return nil, err
	}
	region := make([]byte, 12*fs.sector)
	if err := fs.read(region, 0); err != nil {
		return nil, err
	}
	if !sound(region) {
		return nil, filesystem.Corrupt("the checksum of its boot sectors is wrong")
	}
	fs.info = filesystem.Info{
		Type: "exfat", UUID: fs.uuid(), BlockSize: int(fs.cluster), Size: fs.size, Used: -1, Dirty: fs.dirty(),
	}
	return fs, fs.findLabel()
}

// Info implements filesystem.Filesystem.
func (fs *FS) Info() filesystem.Info { return fs.info }

// read fills p, or returns an error.
func (fs *FS) read(p []byte, off int64) error {
	n, err := fs.r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading %d bytes at %d: %w", len(p), off, err)
}

// maxBeforeLabel is how many entries of the root folder are looked at for the label, which is among the first.
const maxBeforeLabel = 4096

// findLabel looks for the label (section 7.3) in the root folder. A folder that is damaged is no reason not to open.
func (fs *FS) findLabel() error {
	list, _, err := fs.folder(root)
	if err == nil {
		left := maxBeforeLabel
		err = fs.entries(context.Background(), list, func(_ int64, e []byte) (bool, error) {
			if e[0] == typeLabel {
				var letters [11]uint16
				for i := range letters {
					letters[i] = le.Uint16(e[2+2*i:])
				}
				fs.info.Label = string(utf16.Decode(letters[:min(int(e[1]), len(letters))]))
			}
			left--
			return e[0] != typeLabel && left > 0, nil
		})
	}
	var corrupt *filesystem.CorruptError
	if errors.As(err, &corrupt) {
		return nil
	}
	return err
}
