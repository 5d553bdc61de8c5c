package catalogue

import (
	"fmt"
	"io/fs"
	"math"
	"strings"
	"time"

	"varve/image/filesystem"
)

// Entry is what a catalogue knows of a file of any type. What is not known is zero. Two entries are equal when they are
// equal in the sense of ==, if they come from a catalogue.
type Entry struct {
	Name     string // "" of the root folder only
	Number   filesystem.Number
	Mode     fs.FileMode // type, permissions, setuid, setgid and sticky
	UID, GID uint32
	Links    int       // names that the file has
	Size     int64     // bytes of the content; of a symbolic link, of Target; of a folder 0
	Modified time.Time // UTC; zero where it is not known, or not in the years 1 to 9999
	Changed  time.Time // likewise
	Device   uint64    // of a device node: major<<32 | minor
	Target   string    // of a symbolic link
	Digest   Digest    // of the content of a regular file; zero where it has none

	// Incomplete says that not all could be read when the snapshot was made: of a folder, that there may be more in it; of
	// another file, that its digest or target is missing, or everything but its name.
	Incomplete bool

	// Of a folder: the id of its listing, zero where that is empty; how many files of any type but folders are below it, a file
	// with several names as often as it has; and the sizes of the regular ones, at most math.MaxInt64.
	ID           ID
	Files, Bytes int64
}

// Digest stands for the content of a file: what has the same digest, or size 0, has the same content. Other digests do
// not mean other content, see BuildOptions.
type Digest = [16]byte

const (
	// MaxDepth is how many folders may lie in each other, below the root.
	MaxDepth = 1024

	maxName   = 1024     // bytes; NTFS has 255 units of UTF-16, which are 765 bytes
	maxTarget = 64 << 10 // bytes, as filesystem.Tree returns them
)

// checkName says what is wrong with the name of an entry.
func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return fmt.Errorf("the name %q means something else", name)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("the name %q has a slash or a zero byte in it", name)
	case len(name) > maxName:
		return fmt.Errorf("the name %.40q… has %d bytes, more than any filesystem allows", name, len(name))
	}
	return nil
}

// Types of files, as the upper bits of a mode in Unix; 0 is a type that is not known.
const (
	typeMask    = 0xf000
	typePipe    = 0x1000
	typeChar    = 0x2000
	typeFolder  = 0x4000
	typeBlock   = 0x6000
	typeRegular = 0x8000
	typeLink    = 0xa000
	typeSocket  = 0xc000
)

var typeBits = map[uint16]fs.FileMode{
	0: fs.ModeIrregular, typePipe: fs.ModeNamedPipe, typeChar: fs.ModeDevice | fs.ModeCharDevice, typeFolder: fs.ModeDir,
	typeBlock: fs.ModeDevice, typeRegular: 0, typeLink: fs.ModeSymlink, typeSocket: fs.ModeSocket,
}

// unixMode translates a mode. A type that is none of those above becomes an unknown one.
func unixMode(m fs.FileMode) uint16 {
	u := uint16(m.Perm())
	if m&fs.ModeSetuid != 0 {
		u |= 0o4000
	}
	if m&fs.ModeSetgid != 0 {
		u |= 0o2000
	}
	if m&fs.ModeSticky != 0 {
		u |= 0o1000
	}
	switch m.Type() {
	case 0:
		u |= typeRegular
	case fs.ModeDir:
		u |= typeFolder
	case fs.ModeSymlink:
		u |= typeLink
	case fs.ModeDevice:
		u |= typeBlock
	case fs.ModeDevice | fs.ModeCharDevice:
		u |= typeChar
	case fs.ModeNamedPipe:
		u |= typePipe
	case fs.ModeSocket:
		u |= typeSocket
	}
	return u
}

// fileMode is the inverse of unixMode, for one whose type is known.
func fileMode(u uint16) (fs.FileMode, bool) {
	m, known := typeBits[u&typeMask]
	m |= fs.FileMode(u & 0o777)
	if u&0o4000 != 0 {
		m |= fs.ModeSetuid
	}
	if u&0o2000 != 0 {
		m |= fs.ModeSetgid
	}
	if u&0o1000 != 0 {
		m |= fs.ModeSticky
	}
	return m, known
}

// The seconds since 1970 in the years 1 to 9999.
const (
	firstSecond = -62135596800
	lastSecond  = 253402300799
)

// stamp returns t as a catalogue keeps it.
func stamp(t time.Time) time.Time {
	if s := t.Unix(); s < firstSecond || s > lastSecond {
		return time.Time{}
	}
	return time.Unix(t.Unix(), int64(t.Nanosecond())).UTC()
}

// sum adds two sizes that are not negative. What is too much is as much as there can be.
func sum(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
