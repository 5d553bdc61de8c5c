// Package filesystem says what a filesystem inside a disk looks like to who reads it without mounting it: which blocks it
// does not use, and which files it has. The readers are in the packages below, one for each family:
//
//	ext     ext2, ext3, ext4        xfs     XFS, versions 4 and 5
//	ntfs    NTFS                    btrfs   btrfs on one device
//	fat     FAT12, FAT16, FAT32     swap    Linux swap
//	exfat   exFAT
//
// All of them work on bytes that somebody else made. They check every length and offset against what is there, bound every
// loop and every allocation, and never panic. Where anything is not as expected they say so, and who asks goes on without
// them: a filesystem that cannot be understood is a run of bytes like any other.
//
// Offsets are bytes from the start of the partition on which the filesystem lies.
package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// ErrUnknown says that the bytes are not a filesystem of this family.
var ErrUnknown = errors.New("no such filesystem")

// CorruptError says that a structure of a filesystem is not what its format allows.
type CorruptError struct{ Reason string }

func (e *CorruptError) Error() string { return "the filesystem is damaged: " + e.Reason }

// Corrupt returns a CorruptError.
func Corrupt(format string, a ...any) error { return &CorruptError{fmt.Sprintf(format, a...)} }

// UnsupportedError says that a filesystem, or a file in it, has a feature that the reader does not know.
type UnsupportedError struct{ Reason string }

func (e *UnsupportedError) Error() string { return "not supported: " + e.Reason }

// Unsupported returns an UnsupportedError.
func Unsupported(format string, a ...any) error { return &UnsupportedError{fmt.Sprintf(format, a...)} }

// UntrustedError says why what a filesystem says of its free blocks must not be relied on: it was not unmounted, its
// journal is not empty, it has a feature that changes the meaning of its maps, or two of its structures disagree.
type UntrustedError struct{ Reason string }

func (e *UntrustedError) Error() string { return e.Reason }

// Untrusted returns an UntrustedError. The reason completes "read in full, because …".
func Untrusted(format string, a ...any) error { return &UntrustedError{fmt.Sprintf(format, a...)} }

// Range is a run of bytes of the partition.
type Range struct{ Offset, Length int64 }

// End is the offset after the last byte.
func (r Range) End() int64 { return r.Offset + r.Length }

// Info is what a filesystem says of itself. What is not known is zero.
type Info struct {
	Type      string // ext2, ext3, ext4, xfs, btrfs, ntfs, fat12, fat16, fat32, exfat, swap
	Label     string
	UUID      string // as blkid writes it
	BlockSize int    // bytes of the unit in which it gives out room: block, or cluster
	Size      int64  // bytes from the start of the partition that belong to it
	Used      int64  // bytes of Size that are in use by its own count; -1 when it keeps none
	Dirty     string // why it is not in a state of rest, completing "the filesystem …"; "" when it is
}

// IgnoresCase reports whether names on filesystems of a type, as Info has it, that differ in case only are the same to those who use
// them.
func IgnoresCase(kind string) bool {
	switch kind {
	case "ntfs", "fat12", "fat16", "fat32", "exfat":
		return true
	}
	return false
}

// Filesystem is what a backup needs to know.
type Filesystem interface {
	Info() Info
	// Free calls free for each run of bytes that neither a file nor a structure uses, in order, adjacent runs as one, whole
	// units of the filesystem only, all within Size. What lies in a structure of any kind (superblocks and their copies,
	// journals, bitmaps, boot sectors) is never free, nor is anything of which it is not certain. An UntrustedError says that
	// no run may be relied on, also not those that free has been called for: who calls must keep them until Free returns nil. Any
	// other error means the same. An error of free ends Free, and is returned.
	Free(ctx context.Context, free func(Range) error) error
}

// Number is what the filesystem calls a file: its inode, its record, or where its entry is. All names of a hard link have
// the same number.
type Number uint64

// File is what is known of a file of any type without reading its content.
type File struct {
	Number Number
	Mode   fs.FileMode // type, permissions, setuid, setgid and sticky as os.FileMode has them
	Size   int64       // bytes of the content; of a symbolic link, of its target; of a folder 0
	Links  int         // names that it has; 1 where that is not counted
	UID    uint32
	GID    uint32
	Device uint64 // of a device node: major<<32 | minor

	Modified, Changed, Accessed, Created time.Time // zero where the filesystem has none; UTC
}

// Entry is a name in a folder.
type Entry struct {
	Name   string // as it is on the disk, in UTF-8 where the format says what it is; never "", ".", "..", nor with a "/" or zero byte in it
	Number Number
	Mode   fs.FileMode // the type only, where the folder tells it; fs.ModeIrregular where it does not: ask Stat
}

// Attribute is an extended attribute.
type Attribute struct {
	Name  string // as Linux names it: "user.x", "security.capability"
	Value []byte
}

// Tree is a Filesystem whose files can be read. All methods may be called at the same time from many goroutines.
type Tree interface {
	Filesystem
	Root() Number
	Stat(Number) (File, error)
	// ReadDir calls f for each entry of a folder, in the order of the disk. It stops at the first error of f, and returns it.
	// When part of a folder cannot be read, it calls f for what can and returns an error.
	ReadDir(ctx context.Context, folder Number, f func(Entry) error) error
	// Readlink returns the target of a symbolic link, at most 64 KiB of it.
	Readlink(Number) (string, error)
	// Attributes returns the extended attributes of a file, in the order of the disk; nil when there are none or the format
	// has none.
	Attributes(Number) ([]Attribute, error)
	// Streams names the streams of a file beside its content (NTFS); nil when there are none.
	Streams(Number) ([]Stream, error)
	// Open opens the content of a regular file, or, when stream is not empty, its stream of that name.
	Open(n Number, stream string) (Content, error)
}

// Stream is a named run of bytes beside the content of a file.
type Stream struct {
	Name string
	Size int64
}

// Content is the bytes of a file. ReadAt may be called at the same time from many goroutines, returns io.EOF at the end alone, and
// another error, never zeros, for what cannot be read.
type Content interface {
	io.ReaderAt
	Size() int64
	// Extents tells where the bytes lie, in the order of the file, without gaps or overlaps, up to Size rounded up to a unit of
	// the filesystem. Adjacent extents of one kind that also lie adjacent on the partition are one.
	Extents() ([]Extent, error)
}

// ExtentKind says how a run of a file is stored.
type ExtentKind byte

const (
	Plain   ExtentKind = iota // the bytes of the file are those of the partition
	Hole                      // nothing is stored, and zeros are read; also room that was set aside and not written yet
	Encoded                   // Stored bytes of the partition are the content in another form: compressed, or inside a structure
)

// Extent is a run of bytes of a file.
type Extent struct {
	Kind   ExtentKind
	Offset int64 // in the file
	Length int64 // in the file
	Disk   int64 // on the partition; of a hole 0, or where the room was set aside
	Stored int64 // bytes on the partition: Length when Plain, 0 for a hole for which none was set aside
}
