// Package image has disks as bytes: files, block devices and streams to read from, files and block devices to restore to.
//
//	Source   what a backup reads: bytes at offsets, and a map that tells where there is nothing to read
//	Target   what a restore writes
//	Salvage  a Source of a disk with unreadable places
//
// Holes and writes are in blocks of 4096 bytes; a disk's last block may be shorter.
package image

import (
	"errors"
	"io"
	"time"
)

// Block is the unit in which holes are reported, in bytes.
const Block = 4096

// Kind says what a range of a disk holds, as far as is known without reading it.
type Kind byte

const (
	Data       Kind = iota // to be read
	Sparse                 // a hole in the file
	Zero                   // zeros
	Free                   // free in its filesystem
	Excluded               // left out because the user said so
	Unreadable             // known to be unreadable
)

// Extent is a range of bytes of one kind.
type Extent struct {
	Offset, Length int64
	Kind           Kind
}

// Info describes a disk.
type Info struct {
	Name                string // "sda", "disk.img"
	Path                string // absolute, as the user named it
	Type                string // "file", "device" or "stream"
	Size                int64  // bytes; -1 for a stream
	SectorSize          int    // logical, bytes; 0 when unknown
	Model, Serial       string // of a device, where the system tells
	ModTime, ChangeTime time.Time
	Inode, Device       uint64
	Mounted             []string // where it, or something on it, is in use
}

// Source is a disk to be read.
type Source interface {
	// ReadAt is as io.ReaderAt has it; it returns fewer bytes than asked for without another error only at the real end,
	// with io.EOF. It may be called concurrently.
	io.ReaderAt

	Info() Info

	// Map tells what the range holds: extents in order that cover it exactly and meet at block boundaries. Everything that is
	// not Data reads as zeros. It may be called concurrently.
	Map(offset, length int64) ([]Extent, error)

	Close() error
}

// Target is a disk to be written.
type Target interface {
	io.ReaderAt
	io.WriterAt // concurrent calls for ranges that do not overlap

	Info() Info

	// Map is as Source has it.
	Map(offset, length int64) ([]Extent, error)

	// Fresh reports whether the target was made by OpenTarget and is one hole.
	Fresh() bool

	// Zero makes a range read as zeros, as a hole where that is possible.
	Zero(offset, length int64) error

	// Sync returns when all that was written survives a power cut.
	Sync() error

	// Close ends the restore. A file that was longer than the disk is cut to its size.
	Close() error
}

// ErrUnsafe says that writing to a target would do harm, or cannot work. The error that wraps it names the target, the
// reason, and what to do.
var ErrUnsafe = errors.New("unsafe target")

// roundDown and roundUp move an offset to a block boundary.
func roundDown(n int64) int64 { return n &^ (Block - 1) }
func roundUp(n int64) int64   { return (n + Block - 1) &^ (Block - 1) }

// mapHoles makes a map out of the seek operations of a file (lseek(2), SEEK_DATA and SEEK_HOLE): data returns where the
// next data at or after an offset begin, hole where they end; both return io.EOF when there are none before the end.
func mapHoles(offset, length int64, data, hole func(int64) (int64, error)) ([]Extent, error) {
	var list []Extent
	end := offset + length
	add := func(to int64, kind Kind) {
		if to = min(to, end); to > offset {
			list = append(list, Extent{offset, to - offset, kind})
			offset = to
		}
	}
	for offset < end {
		start, err := data(offset)
		if errors.Is(err, io.EOF) {
			add(end, Sparse)
			break
		}
		if err != nil {
			return nil, err
		}
		add(roundDown(max(start, offset)), Sparse)
		if offset >= end {
			break
		}
		stop, err := hole(max(start, offset))
		if errors.Is(err, io.EOF) {
			stop, err = end, nil
		}
		if err != nil {
			return nil, err
		}
		stop = roundUp(max(stop, offset+1))
		if last := len(list) - 1; last >= 0 && list[last].Kind == Data {
			list[last].Length += min(stop, end) - offset
			offset = min(stop, end)
			continue
		}
		add(stop, Data)
	}
	return list, nil
}
