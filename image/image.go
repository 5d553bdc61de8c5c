// Package image reads and writes disks as bytes: image files, block devices, and streams such as standard input.
//
// A disk is a run of bytes in blocks of 4096; its last block may be shorter. Map tells which runs need not be read:
//
//	disk   ├──Data──┼───Sparse───┼──Data──┼─Sparse─┤
//	block  0   1    2    3   4   5    6   7   8    9-   (Size need not be a multiple of anything)
//
// Holes are rounded inward to whole blocks, so that a block with one stored byte is Data as a whole. Only files have
// holes here: what a device says of its unused parts is no promise of what it reads as, and is not asked for.
//
// Where a disk cannot be read, Salvage makes a source that goes on beside the damage and tells where it was. Where one
// is to be written, OpenTarget first looks whether that would destroy something that is in use.
package image

import (
	"errors"
	"io"
	"time"
)

// Block is the unit of all holes, in bytes.
const Block = 4096

// Kind says what is in a run of bytes, and why it need not be read.
type Kind byte

// The kinds. All but Data read as zeros.
const (
	Data       Kind = iota
	Sparse          // a hole of the file
	Zero            // stored, but nothing but zeros: found by who reads
	Free            // not in use by the filesystem on the disk
	Excluded        // left out by the user
	Unreadable      // see Bad: found by who reads
)

// Extent is a run of bytes of one kind.
type Extent struct {
	Offset, Length int64
	Kind           Kind
}

// Info is what is known of a disk when it is opened. What is not known is zero.
type Info struct {
	Name       string // the last part of Path, or the name that was given to a stream
	Path       string // absolute, links not resolved; of a stream its name
	Type       string // "file", "device" or "stream"
	Size       int64  // bytes; -1: not known before the end
	SectorSize int    // bytes, of a device: the smallest piece that it reads
	Model      string // of a device
	Serial     string // of a device, the same on every machine; of a partition, the disk's with "-part" and its number

	ModTime, ChangeTime time.Time // of a file
	Inode, Device       uint64    // of a file: together its identity on one machine

	// Mounted are the filesystems on it that are mounted: on the device or file itself, on its partitions, and on what is
	// built of them (encryption, logical volumes, RAID).
	Mounted []Mount
}

// Mount is where a filesystem is mounted.
type Mount struct {
	Where    string // the folder
	ReadOnly bool   // nothing can change on it
	// Offset and Length are the part of the disk on which it lies, in bytes: all of it, or a partition. Length is 0 where that goes on to
	// the end of the disk.
	Offset, Length int64
}

// Source is a disk to read. All methods but Close may be called at the same time from many goroutines.
type Source interface {
	// ReadAt reads len(p) bytes; less only with an error, which is io.EOF at the real end alone.
	io.ReaderAt
	Info() Info
	// Map tells what is in length bytes from off: extents in order, adjacent, covering exactly that. off is a multiple
	// of Block, and so is the end of the range unless it is that of the disk. Bytes that were there when the source
	// was opened and are gone are Data: reading them tells.
	Map(off, length int64) ([]Extent, error)
	Close() error
}

// Target is a disk to write. All methods but Sync and Close may be called at the same time from many goroutines, for
// ranges that do not overlap.
type Target interface {
	io.ReaderAt
	io.WriterAt
	// Info of a file gives the size that was asked for; of a device its own, which may be more.
	Info() Info
	// Map is that of Source: which parts are holes already.
	Map(off, length int64) ([]Extent, error)
	// Fresh reports whether nothing is on the target: it is one hole.
	Fresh() bool
	// Zero makes length bytes from off read as zeros. In a file they become a hole where its filesystem has holes.
	Zero(off, length int64) error
	// Sync says that the disk is complete: a file that was larger before is cut to size, and when Sync returns nil
	// everything survives a power cut. The system looks anew for partitions on a device.
	Sync() error
	// Forget has what is read afterwards come from the medium instead of the system's memory, as far as the system allows.
	// It is for a target that was synced.
	Forget()
	// Close lets go of the target as it is. Without Sync, a file that was larger still is.
	Close() error
}

// ErrUnsafe is the error of a target that must not or cannot be written: it is in use, read-only, too small, or not a
// disk. The message names the target, the reason, and what to do.
var ErrUnsafe = errors.New("unsafe target")

// cover appends the run from off to end to list, as part of the last extent where that is of the same kind.
func cover(list []Extent, off, end int64, kind Kind) []Extent {
	if end <= off {
		return list
	}
	if last := len(list) - 1; last >= 0 && list[last].Kind == kind {
		list[last].Length += end - off
		return list
	}
	return append(list, Extent{Offset: off, Length: end - off, Kind: kind})
}
