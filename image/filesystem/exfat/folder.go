package exfat

import (
	"context"
	"io/fs"
	"strings"
	"time"
	"unicode/utf16"

	"varve/image/filesystem"
)

const (
	entrySize  = 32
	maxFolder  = 256 << 20 // bytes of the longest folder
	readSize   = 16 << 10  // bytes of a folder that are read at once
	maxEntries = 1 + 18    // of a set
)

// Types of entries (section 6.2.1): bits, and the ones that are known.
const (
	inUse     = 0x80
	secondary = 0x40 // it belongs to the set before it
	benign    = 0x20 // who does not know it may ignore it

	typeLast   = 0x00 // nothing follows
	typeBitmap = 0x81
	typeUpper  = 0x82
	typeLabel  = 0x83
	typeFile   = 0x85
	typeStream = 0xC0
	typeName   = 0xC1
)

// Attributes of a file (section 7.4.4).
const (
	readOnly  = 0x01
	directory = 0x10
)

const folderMode = fs.ModeDir | 0o755

// set are the entries of a file (section 7.4): as many as its first says.
type set []byte

func (s set) attributes() uint16 { return le.Uint16(s[4:]) }
func (s set) isFolder() bool     { return s.attributes()&directory != 0 }
func (s set) stream() []byte     { return s[entrySize : 2*entrySize] }
func (s set) written() uint64    { return le.Uint64(s.stream()[8:]) } // the other bytes read as zeros
func (s set) size() uint64       { return le.Uint64(s.stream()[24:]) }

func (s set) place() place {
	return place{first: le.Uint32(s.stream()[20:]), length: s.size(), piece: s.stream()[1]&2 != 0}
}

func (s set) mode() fs.FileMode {
	switch {
	case s.isFolder():
		return folderMode
	case s.attributes()&readOnly != 0:
		return 0o444
	}
	return 0o644
}

// length is how many bytes a set has that begins with e.
func length(e []byte) int { return (1 + int(e[1])) * entrySize }

// check returns an error when the set is not whole.
func (s set) check() error {
	switch {
	case len(s) < 3*entrySize || len(s) > maxEntries*entrySize || len(s) != length(s):
		return filesystem.Corrupt("a set of entries has %d bytes", len(s))
	case s[0] != typeFile || s[entrySize] != typeStream:
		return filesystem.Corrupt("a set of entries has the types %#x and %#x", s[0], s[entrySize])
	case le.Uint16(s[2:]) != setChecksum(s):
		return filesystem.Corrupt("the checksum of a set of entries is wrong")
	}
	names := (int(s.stream()[3]) + lettersOfEntry - 1) / lettersOfEntry
	for at := 2 * entrySize; at < len(s); at += entrySize {
		is := s[at]
		switch {
		case names > 0 && is != typeName, is&(inUse|secondary) != inUse|secondary:
			return filesystem.Corrupt("a set of entries has one of the type %#x", is)
		case names <= 0 && is&benign == 0:
			return filesystem.Unsupported("entries of the type %#x", is)
		}
		names--
	}
	if names > 0 {
		return filesystem.Corrupt("a set of entries lacks a part of its name")
	}
	possible := s.stream()[1]&1 != 0
	switch size := s.size(); {
	case size >= 1<<63 || s.written() > size || !possible && size > 0:
		return filesystem.Corrupt("a file has %d bytes, of which %d were written", size, s.written())
	case s.isFolder() && size > maxFolder:
		return filesystem.Corrupt("a folder has %d bytes", size)
	}
	return nil
}

// setChecksum is the checksum of a set (section 6.3.3), in which it is left out itself.
func setChecksum(s []byte) (sum uint16) {
	for i, b := range s {
		if i != 2 && i != 3 {
			sum = sum>>1 | sum<<15
			sum += uint16(b)
		}
	}
	return sum
}

// lettersOfEntry is how much of a name an entry has.
const lettersOfEntry = 15

// name is the name of the file of a set that was checked; ok is false when it cannot be one.
func (s set) name() (name string, ok bool) {
	letters := make([]uint16, s.stream()[3])
	for i := range letters {
		letters[i] = le.Uint16(s[(2+i/lettersOfEntry)*entrySize+2+i%lettersOfEntry*2:])
	}
	name = string(utf16.Decode(letters))
	return name, usable(name)
}

// usable says whether a file can have this name.
func usable(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// file is what a set tells of a file.
func (s set) file(n filesystem.Number) filesystem.File {
	f := filesystem.File{
		Number: n, Mode: s.mode(), Links: 1,
		Created:  moment(le.Uint32(s[8:]), s[20], s[22]),
		Modified: moment(le.Uint32(s[12:]), s[21], s[23]),
		Accessed: moment(le.Uint32(s[16:]), 0, s[24]),
	}
	if !s.isFolder() {
		f.Size = int64(s.size())
	}
	return f
}

// moment is a time (section 7.4.8) with hundredths of a second and a zone in quarters of an hour.
func moment(stamp uint32, hundredths, zone byte) time.Time {
	day, clock := stamp>>16, stamp&0xFFFF
	month, of := time.Month(day>>5&15), int(day&31)
	if month < time.January || month > time.December || of == 0 {
		return time.Time{}
	}
	t := time.Date(1980+int(day>>9), month, of, int(clock>>11), int(clock>>5&63), int(clock&31)*2+int(hundredths)/100,
		int(hundredths)%100*int(10*time.Millisecond), time.UTC)
	if zone&0x80 == 0 {
		return t
	}
	quarters := int8(zone<<1) >> 1 // 7 bits with a sign
	return t.Add(-time.Duration(quarters) * 15 * time.Minute)
}

// entries calls f for each entry in list, with its offset on the partition, as long as it wants more and there are any. Behind what
// cannot be read it goes on, and returns the first error in the end.
func (fs *FS) entries(ctx context.Context, list []filesystem.Extent, f func(at int64, e []byte) (more bool, err error)) error {
	var damage error
	for _, extent := range list {
		for from := extent.Disk; from < extent.Disk+extent.Length; from += readSize {
			if err := ctx.Err(); err != nil {
				return err
			}
			buf := make([]byte, min(readSize, extent.Disk+extent.Length-from))
			if err := fs.read(buf, from); err != nil {
				if damage == nil {
					damage = err
				}
				continue
			}
			for i := 0; i < len(buf); i += entrySize {
				e := buf[i : i+entrySize]
				if e[0] == typeLast {
					return damage
				}
				if more, err := f(from+int64(i), e); err != nil {
					return err
				} else if !more {
					return damage
				}
			}
		}
	}
	return damage
}
