// Package volume says what is on a disk: its partition table, the filesystem on each partition, and which bytes of the disk none
// of them uses. It brings together the readers of image/partition and image/filesystem, and trusts none of them further than
// it must:
//
//	disk   ├table┼─ partition 1 ─┼──── partition 2 ────┼─ partition 3 ─┤
//	              fat32           ext4                  LUKS
//	free                  ├──┤      ├──────┤   ├─┤                        told by fat and ext, whole blocks of the disk
//
// Leaving out a byte that is in use loses data, reading one that is free costs a little time and room. So a filesystem is only
// asked where nothing speaks against it: the table is whole and fits the disk, partitions do not overlap, there is one
// filesystem on the volume and no trace of another, nor of one on the disk as a whole. Otherwise the volume is read in full, and
// Full says why.
package volume

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"varve/image/filesystem"
	"varve/image/partition"
)

// Layout is what is on a disk.
type Layout struct {
	Size    int64
	Table   *partition.Table // nil when it cannot be read
	Volumes []Volume         // by number; without a partition table one, which is the disk
	Notes   []string         // what is not as it should be, for people
}

// Volume is a partition that is not extended, or a disk without partitions.
type Volume struct {
	Number        int                  // of the partition; 1 of a disk without partitions
	Start, Length int64                // bytes of the disk
	Partition     *partition.Partition // nil: it is the disk

	// Info is what the filesystem says of itself. Of what is only recognised it has the type, and maybe label and UUID: LUKS,
	// LVM, RAID member, HFS+, …
	Info filesystem.Info
	// FS is the filesystem, a filesystem.Tree when its files can be read; nil when there is none that can. None of its methods
	// panics: a panic of the reader is an error, a PanicError.
	FS filesystem.Filesystem
	// Full says why the volume is read in full, completing "because …". "" means that FS may be asked what is free.
	Full string
}

// String names the volume for people: "partition 2 (ext4)".
func (v *Volume) String() string {
	name := "the disk"
	if v.Partition != nil {
		name = fmt.Sprint("partition ", v.Number)
	}
	if v.Info.Type != "" {
		name += " (" + v.Info.Type + ")"
	}
	return name
}

// End is the offset after the last byte.
func (v *Volume) End() int64 { return v.Start + v.Length }

// dynamic are the types of partitions that are parts of a Windows dynamic disk: what begins like a filesystem there may go on
// elsewhere.
var dynamic = []string{"0x42", "af9b60a0-1431-4f62-bc68-3311714a69ad"}

// Find looks at a disk of size bytes with sectors of sectorSize bytes; 0: not known. It reads little, and never fails: what cannot
// be read or understood is in the Notes of the Layout. r is kept for the filesystems, and read from many goroutines
// when they are.
func Find(r io.ReaderAt, size int64, sectorSize int) *Layout {
	return find(r, size, sectorSize, readers)
}

func find(r io.ReaderAt, size int64, sectorSize int, readers []reader) *Layout {
	l := &Layout{Size: size}
	err := contained(func() (err error) {
		l.Table, err = partition.Read(r, size, sectorSize)
		return err
	})
	if err != nil {
		l.note("what is on the disk is not known: %v", err)
		return l
	}
	l.Notes = append(l.Notes, l.Table.Notes...)
	if l.Table.Scheme == "" {
		v := Volume{Number: 1, Length: size}
		l.look(&v, r, readers)
		l.Volumes = []Volume{v}
		return l
	}
	whole := l.whole(r, readers)
	for i := range l.Table.Partitions {
		p := &l.Table.Partitions[i]
		if p.Extended {
			continue
		}
		v := Volume{Number: p.Number, Start: p.Start, Length: p.Length, Partition: p}
		l.look(&v, r, readers)
		for _, why := range []string{l.Table.Doubt, whole, p.Doubt} {
			if v.Full == "" {
				v.Full = why
			}
		}
		l.Volumes = append(l.Volumes, v)
	}
	return l
}

// maxNotes bounds what a disk full of nonsense has to say.
const maxNotes = 100

func (l *Layout) note(format string, a ...any) {
	switch {
	case len(l.Notes) < maxNotes:
		l.Notes = append(l.Notes, fmt.Sprintf(format, a...))
	case len(l.Notes) == maxNotes:
		l.Notes = append(l.Notes, "and more")
	}
}

// whole returns why a disk that has a partition table may be one filesystem, or a part of something larger, all the same; "" when
// nothing says so. One of the two was not removed when the other was made; or it is an ISO image that can also be a disk.
func (l *Layout) whole(r io.ReaderAt, readers []reader) (why string) {
	v := Volume{Length: l.Size}
	found, unreadable := v.open(r, readers)
	marks, err := recognise(r, l.Size)
	var names []string
	for _, f := range found {
		names = append(names, f.kind)
	}
	for _, m := range marks {
		// What counts from the end has one place for a disk and for a partition that ends near it.
		if !m.end || !l.inPartition(m.offset) {
			names = append(names, m.kind)
		}
	}
	switch unreadable = cmp.Or(unreadable, err); {
	case len(names) > 0:
		why = "beside the partition table there are marks of " + strings.Join(names, " and ") + " on the disk as a whole"
	case unreadable != nil:
		why = fmt.Sprintf("what is on the disk beside its partitions cannot be read: %v", unreadable)
	default:
		return ""
	}
	l.note("%s", why)
	return why
}

// inPartition reports whether a byte of the disk is in a partition.
func (l *Layout) inPartition(at int64) bool {
	for _, p := range l.Table.Partitions {
		if at >= p.Start && at < p.End() {
			return true
		}
	}
	return false
}

// look finds out what is on a volume.
func (l *Layout) look(v *Volume, disk io.ReaderAt, readers []reader) {
	r := io.NewSectionReader(disk, v.Start, v.Length)
	found, unreadable := v.open(r, readers)
	marks, err := recognise(r, v.Length)
	unreadable = cmp.Or(unreadable, err)
	var names []string
	for _, f := range found {
		names = append(names, f.kind)
	}
	for _, m := range marks {
		names = append(names, m.kind)
	}
	for _, f := range found { // the first that can be read is shown
		if v.FS == nil && f.fs != nil {
			v.FS, v.Info = f.fs, f.fs.Info()
		}
		if f.err != nil {
			l.note("%s: %s: %v", v, f.kind, f.err)
		}
	}
	if v.FS == nil && len(marks) > 0 {
		v.Info = filesystem.Info{Type: marks[0].kind, Label: marks[0].label, UUID: marks[0].uuid, Used: -1}
	} else if v.FS == nil && len(found) > 0 {
		v.Info = filesystem.Info{Type: found[0].kind, Used: -1}
	}
	switch {
	case len(found) > 0 && len(names) > 1:
		v.Full = "it has the marks of " + strings.Join(names, " and ")
		l.note("%s: it has the marks of %s: all but one are left from before", v, strings.Join(names, " and "))
	case unreadable != nil:
		v.Full = fmt.Sprintf("what is on it cannot be read: %v", unreadable)
		l.note("%s: %v", v, unreadable)
	case len(marks) > 0:
		v.Full = marks[0].why()
	case len(found) == 0:
		v.Full = "no filesystem that is known was found"
	case found[0].err != nil:
		v.Full = found[0].err.Error()
	case v.Info.Size > v.Length:
		v.Full = "its filesystem is larger than it"
		l.note("%s: its filesystem of %d bytes is larger than its %d bytes", v, v.Info.Size, v.Length)
	case v.Partition != nil && (v.Partition.Type == dynamic[0] || v.Partition.Type == dynamic[1]):
		v.Full = "it is a part of a dynamic disk"
	}
}

// finding is what one reader says of a volume.
type finding struct {
	kind string
	fs   filesystem.Filesystem
	err  error // the filesystem is there, but cannot be opened
}

// open tries all readers. The error says that the volume cannot be read where some reader has to look.
func (v *Volume) open(r io.ReaderAt, readers []reader) (list []finding, unreadable error) {
	for _, reader := range readers {
		var s filesystem.Filesystem
		err := contained(func() (err error) {
			s, err = reader.open(r, v.Length)
			return err
		})
		var (
			corrupt     *filesystem.CorruptError
			unsupported *filesystem.UnsupportedError
			mistake     *PanicError
		)
		switch {
		case err == nil:
			s = guard(s)
			list = append(list, finding{kind: cmp.Or(s.Info().Type, reader.name), fs: s})
		case errors.Is(err, filesystem.ErrUnknown):
		case errors.As(err, &corrupt), errors.As(err, &unsupported), errors.As(err, &mistake):
			list = append(list, finding{kind: reader.name, err: err})
		default:
			unreadable = cmp.Or(unreadable, err)
		}
	}
	return list, unreadable
}

// PanicError says that a reader has a mistake, which what it read has brought to light.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("its reader has a mistake: %v", e.Value) }

// contained calls f and returns its error; a panic is a PanicError.
func contained(f func() error) (err error) {
	defer func() {
		if x := recover(); x != nil {
			err = &PanicError{x, debug.Stack()}
		}
	}()
	return f()
}
