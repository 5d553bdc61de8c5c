package fat

import (
	"context"
	"io/fs"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"

	"varve/image/filesystem"
)

const (
	entrySize = 32
	maxFolder = 65536 * entrySize // the longest folder
	readSize  = 16 << 10          // bytes of a folder that are read at once

	folderMode = fs.ModeDir | 0o755
)

// Attributes of an entry.
const (
	readOnly  = 0x01
	label     = 0x08
	directory = 0x10
	longPart  = 0x0F // all of read-only, hidden, system and label: part of a long name
)

// dirEntry is an entry of a folder.
type dirEntry []byte

func (e dirEntry) isLast() bool    { return e[0] == 0 } // nothing follows
func (e dirEntry) isDeleted() bool { return e[0] == 0xE5 }
func (e dirEntry) isPart() bool    { return e[11]&0x3F == longPart && !e.isDeleted() }
func (e dirEntry) isLabel() bool   { return e[11]&label != 0 && !e.isPart() && !e.isDeleted() }
func (e dirEntry) isFolder() bool  { return e[11]&directory != 0 }
func (e dirEntry) isFile() bool {
	return !e.isLast() && !e.isDeleted() && e[11]&label == 0 // or a folder
}

// isDots says whether it is the entry of the folder itself or of the one it is in.
func (e dirEntry) isDots() bool {
	name := string(e[:11])
	return name == ".          " || name == "..         "
}

func (e dirEntry) mode() fs.FileMode {
	switch {
	case e.isFolder():
		return folderMode
	case e[11]&readOnly != 0:
		return 0o444
	}
	return 0o644
}

// file is what the entry tells of a file.
func (e dirEntry) file(n filesystem.Number) filesystem.File {
	f := filesystem.File{
		Number: n, Mode: e.mode(), Links: 1,
		Modified: moment(le.Uint16(e[24:]), le.Uint16(e[22:]), 0),
		Accessed: moment(le.Uint16(e[18:]), 0, 0),
		Created:  moment(le.Uint16(e[16:]), le.Uint16(e[14:]), e[13]),
	}
	if !e.isFolder() {
		f.Size = int64(le.Uint32(e[28:]))
	}
	return f
}

// moment is a day and a time of it in units of 2 seconds, and hundredths of a second.
func moment(day, clock uint16, hundredths byte) time.Time {
	month, of := time.Month(day>>5&15), int(day&31)
	if month < time.January || month > time.December || of == 0 {
		return time.Time{}
	}
	return time.Date(1980+int(day>>9), month, of, int(clock>>11), int(clock>>5&63), int(clock&31)*2+int(hundredths)/100,
		int(hundredths)%100*int(10*time.Millisecond), time.UTC)
}

// shortName is the name of 8.3 letters; ok is false when it cannot be one.
func (e dirEntry) shortName() (name string, ok bool) {
	short := append([]byte(nil), e[:11]...)
	if short[0] == 0x05 {
		short[0] = 0xE5 // which would be that of a deleted entry
	}
	for _, b := range short {
		if b < ' ' {
			return "", false
		}
	}
	base, extension := text437(short[:8]), text437(short[8:])
	if e[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if e[12]&0x10 != 0 {
		extension = strings.ToLower(extension)
	}
	if name = base; extension != "" {
		name += "." + extension
	}
	return name, usable(name)
}

// usable says whether a file can have this name.
func usable(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// lettersOfPart is how much of a long name an entry has.
const lettersOfPart = 13

// longName gathers a long name from the entries before that of its file.
type longName struct {
	parts   int // that it has; 0 when there is none
	missing int
	sum     byte
	letters [20 * lettersOfPart]uint16
}

// add takes one more part. The last one comes first.
func (l *longName) add(e dirEntry) {
	number := int(e[0] &^ 0x40)
	switch {
	case number == 0 || number > 20:
		l.parts = 0
		return
	case e[0]&0x40 != 0:
		l.parts, l.sum = number, e[13]
	case l.parts == 0 || number != l.missing || e[13] != l.sum:
		l.parts = 0
		return
	}
	l.missing = number - 1
	part := l.letters[l.missing*lettersOfPart:]
	for i, at := range [lettersOfPart]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
		part[i] = le.Uint16(e[at:])
	}
}

// name is the long name of the file of entry e; ok is false when it has none, as when it was renamed by a system that does not know
// them.
func (l *longName) name(e dirEntry) (name string, ok bool) {
	if l.parts == 0 || l.missing > 0 || l.sum != checksum(e[:11]) {
		return "", false
	}
	letters := l.letters[:l.parts*lettersOfPart]
	for i, letter := range letters {
		if letter == 0 {
			letters = letters[:i]
			break
		}
	}
	name = string(utf16.Decode(letters))
	return name, usable(name)
}

// checksum is that of a short name, which the parts of its long name have.
func checksum(short []byte) (sum byte) {
	for _, b := range short {
		sum = sum>>1 | sum<<7
		sum += b
	}
	return sum
}

// entries calls f for each entry in list, with its offset on the partition, as long as it wants more and there are any. Behind what
// cannot be read it goes on, and returns the first error in the end.
func (fs *FS) entries(ctx context.Context, list []filesystem.Extent, f func(at int64, e dirEntry) (more bool, err error)) error {
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
			for i := 0; i+entrySize <= len(buf); i += entrySize {
				e := dirEntry(buf[i : i+entrySize])
				if e.isLast() {
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

// text437 is a padded text in code page 437.
func text437(b []byte) string {
	var text strings.Builder
	for _, c := range b {
		if c < 0x80 {
			text.WriteByte(c)
		} else {
			text.WriteRune(upper437[c-0x80])
		}
	}
	return strings.TrimRightFunc(text.String(), func(r rune) bool { return r == ' ' || unicode.IsControl(r) })
}

// upper437 are the letters from 0x80 on.
var upper437 = []rune("ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐" +
	"└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00A0")
