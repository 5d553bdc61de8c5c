// Package fat reads FAT12, FAT16 and FAT32: which clusters are free, and which files there are.
//
//	boot sector │ reserved, FAT32: FSInfo │ table │ its copy │ FAT12/16: root folder │ cluster 2 │ cluster 3 │ …
//
//	boot sector    11 bytes of a sector, 13 sectors of a cluster, 14 reserved sectors, 16 tables, 17 entries of the root
//	               folder, 19/32 sectors, 21 medium, 22/36 sectors of a table, 510 55 AA. FAT32: 40 the active table,
//	               44 first cluster of the root folder, 48 FSInfo
//	table          12, 16 or 28 (of 32) bits for each cluster: the next one of its file; 0 when free, …7 when bad, …8 and more
//	               at the end. Entry 0 repeats the medium, entry 1 has the bits "unmounted" and "no read error"
//	folder entry   0 name "README  TXT", 11 attributes, 12 lower case, 13 created, 18 accessed, 20+26 first cluster,
//	               22 modified, 28 size. Before it, where the name is not one of 8.3 letters, the last part of
//	               its long name, …, the first: 0 number, 1/14/28 13 letters of UTF-16, 11 attributes 0F, 13 checksum of
//	               the short name
//
// A number before a field is its offset; all values are little-endian. The source is Microsoft's "FAT32 File System Specification" 1.03,
// from 2000, and for what it leaves out, how Linux and Windows behave:
//
//   - When the 16 bits at 22 are zero it is a FAT32, however few clusters there are: as these drivers have it, and not Microsoft's
//     paper. Otherwise the number of clusters decides: fewer than 4085 are a FAT12.
//   - Times have no zone. They are taken as UTC. Of access there is only the day.
//   - There are no owners. Files are 0644, or 0444 when they are read-only, and folders 0755, with or without that attribute,
//     which means something else there.
//   - The letters of a short name are those of code page 437, as nothing says which it is.
//
// The number of a file or folder is the offset of its entry on the partition, so that it can be found again without reading
// the folder; the number of the root folder, which has no entry, is 1.
package fat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"varve/image/filesystem"
)

var le = binary.LittleEndian

// FS is a FAT filesystem.
type FS struct {
	r io.ReaderAt
	boot
	table table
	info  filesystem.Info
	doubt string // why free clusters cannot be relied on though nothing is dirty
}

var _ filesystem.Tree = (*FS)(nil)

// Open opens the filesystem in the size bytes of r. It returns filesystem.ErrUnknown when that is no FAT, and an
// UnsupportedError when it is the readable part of an encrypted disk.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	fs := &FS{r: r}
	sector := make([]byte, sectorSize)
	if size < sectorSize {
		return nil, filesystem.ErrUnknown
	}
	if err := fs.read(sector, 0); err != nil {
		return nil, err
	}
	var err error
	if fs.boot, err = parseBoot(sector); err != nil {
		return nil, err
	}
	switch {
	case fs.size > size && !fs.named:
		return nil, filesystem.ErrUnknown
	case fs.size > size:
		return nil, filesystem.Corrupt("it has %d bytes, and there are %d", fs.size, size)
	}
	fs.table = table{fs: fs, offset: fs.tables + int64(fs.active)*fs.tableSize}
	head, err := fs.head()
	if err != nil {
		return nil, err
	}
	if head.media() != fs.media && !fs.named {
		return nil, filesystem.ErrUnknown
	}
	fs.info = filesystem.Info{
		Type: fs.typeName(), Label: fs.label, UUID: fs.uuid(), BlockSize: int(fs.cluster), Size: fs.size, Used: -1,
		Dirty: fs.dirty(head),
	}
	fs.doubt = fs.doubts(head)
	if fs.info.Used, err = fs.used(); err != nil {
		return nil, err
	}
	return fs, fs.findLabel()
}

// Info implements filesystem.Filesystem. Used is what the FSInfo sector of a FAT32 says, which nothing depends on.
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

// head are the first two entries of the active table, which no cluster has.
type head struct {
	bits  int
	first uint32
	state uint32
}

func (fs *FS) head() (head, error) {
	buf := make([]byte, 8)
	if err := fs.read(buf, fs.table.offset); err != nil {
		return head{}, err
	}
	return head{fs.bits, entry(buf, 0, fs.bits), entry(buf, 1, fs.bits)}, nil
}

// media is the medium of the first entry, or 0 when its other bits are not set.
func (h head) media() byte {
	all := uint32(1)<<min(h.bits, 28) - 1
	if (h.first|0xFF)&all != all {
		return 0
	}
	return byte(h.first)
}

// dirty says why the filesystem is not at rest.
func (fs *FS) dirty(h head) string {
	unmounted, readable := uint32(1<<15), uint32(1<<14)
	switch fs.bits {
	case 12:
		unmounted, readable = 0, 0
	case 32:
		unmounted, readable = 1<<27, 1<<26
	}
	switch {
	case fs.state&1 != 0 || h.state&unmounted != unmounted:
		return "was not unmounted"
	case fs.state&2 != 0 || h.state&readable != readable:
		return "has met errors of its disk and was not checked since"
	}
	return ""
}

// doubts says what makes its table doubtful.
func (fs *FS) doubts(h head) string {
	switch {
	case h.media() != fs.media:
		return fmt.Sprintf("the first entry of its table, %#x, is not that of its medium, %#x", h.first, fs.media)
	case fs.misnamed:
		return fmt.Sprintf("its boot sector does not call it a %s, as which it has to be read for its %d clusters", fs.typeName(), fs.clusters)
	}
	return ""
}

// used is how many bytes are not free, as the FSInfo sector has it; -1 when there is none that says it.
func (fs *FS) used() (int64, error) {
	if fs.infoSector == 0 || fs.infoSector >= fs.reserved {
		return -1, nil
	}
	b := make([]byte, sectorSize)
	if err := fs.read(b, fs.infoSector*fs.sector); err != nil {
		return 0, err
	}
	free := le.Uint32(b[488:])
	if le.Uint32(b) != 0x41615252 || le.Uint32(b[484:]) != 0x61417272 || free > fs.clusters {
		return -1, nil
	}
	return fs.size - int64(free)*fs.cluster, nil
}

// findLabel looks for the label among the entries of the root folder. That one counts, where there are two. A root folder that is
// damaged is no reason not to open.
func (fs *FS) findLabel() error {
	list, err := fs.folder(root)
	if err == nil {
		err = fs.entries(context.Background(), list, func(_ int64, e dirEntry) (bool, error) {
			if e.isLabel() {
				fs.info.Label = text437(e[:11])
			}
			return !e.isLabel(), nil
		})
	}
	var corrupt *filesystem.CorruptError
	if errors.As(err, &corrupt) {
		return nil
	}
	return err
}
