package catalogue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"varve/image/filesystem"
)

// First bytes of pages. The tree nodes of disks begin with 1 and 2.
const (
	entryPage = 3
	indexPage = 4
)

const (
	flagModified = 1 << iota
	flagChanged
	flagIncomplete // Entry.Incomplete
	flagContent    // a digest, or a listing with its sums
	flagsKnown     = flagContent<<1 - 1
)

const (
	// maxPage is the longest page in bytes that is read. What is written stays below, see listing.go.
	maxPage = 256 << 10
	// maxLevel is the highest level of an index page. As pages are cut, those of the first four levels may have one child
	// each; above there are a hundred at least, and no folder has so many names.
	maxLevel = 16
	// anyLevel is the level of a page of which it is not known.
	anyLevel = -1
)

// before is what the encoding of an entry refers to: the entry before it in the page.
type before struct {
	name              []byte
	number            filesystem.Number
	mode              uint16
	uid, gid          uint32
	modified, changed int64 // seconds, of the last entries that had them
}

// appendName appends a name as what it has not in common with the one before, which it then replaces.
func appendName(buf []byte, before *[]byte, name string) []byte {
	shared := 0
	for shared < len(*before) && shared < len(name) && (*before)[shared] == name[shared] {
		shared++
	}
	buf = binary.AppendUvarint(buf, uint64(shared))
	buf = binary.AppendUvarint(buf, uint64(len(name)-shared))
	*before = append((*before)[:shared], name[shared:]...)
	return append(buf, name[shared:]...)
}

func appendDelta(buf []byte, delta int64) []byte {
	return binary.AppendUvarint(buf, uint64(delta)<<1^uint64(delta>>63))
}

func appendTime(buf []byte, before *int64, t time.Time) []byte {
	buf = appendDelta(buf, t.Unix()-*before)
	*before = t.Unix()
	return binary.AppendUvarint(buf, uint64(t.Nanosecond()))
}

// appendEntry appends the encoding of an entry, which is as stamp and unixMode leave it, and makes it the one before.
func appendEntry(buf []byte, b *before, e *Entry) []byte {
	buf = appendName(buf, &b.name, e.Name)
	mode := unixMode(e.Mode)
	var flags byte
	if !e.Modified.IsZero() {
		flags |= flagModified
	}
	if !e.Changed.IsZero() {
		flags |= flagChanged
	}
	if e.Incomplete {
		flags |= flagIncomplete
	}
	if e.Digest != (Digest{}) || e.ID != (ID{}) {
		flags |= flagContent
	}
	buf = append(buf, flags)
	buf = appendDelta(buf, int64(e.Number-b.number))
	buf = binary.AppendUvarint(buf, uint64(mode^b.mode))
	buf = appendDelta(buf, int64(e.UID)-int64(b.uid))
	buf = appendDelta(buf, int64(e.GID)-int64(b.gid))
	buf = binary.AppendUvarint(buf, uint64(e.Links))
	b.number, b.mode, b.uid, b.gid = e.Number, mode, e.UID, e.GID
	if flags&flagModified != 0 {
		buf = appendTime(buf, &b.modified, e.Modified)
	}
	if flags&flagChanged != 0 {
		buf = appendTime(buf, &b.changed, e.Changed)
	}
	switch mode & typeMask {
	case typeRegular:
		buf = binary.AppendUvarint(buf, uint64(e.Size))
		if flags&flagContent != 0 {
			buf = append(buf, e.Digest[:]...)
		}
	case typeFolder:
		if flags&flagContent != 0 {
			buf = append(buf, e.ID[:]...)
			buf = binary.AppendUvarint(buf, uint64(e.Files))
			buf = binary.AppendUvarint(buf, uint64(e.Bytes))
		}
	case typeLink:
		buf = binary.AppendUvarint(buf, uint64(len(e.Target)))
		buf = append(buf, e.Target...)
	case typeChar, typeBlock:
		buf = binary.AppendUvarint(buf, e.Device)
	case 0:
		buf = binary.AppendUvarint(buf, uint64(e.Size))
	}
	return buf
}

// cursor goes through the entries of a page.
type cursor struct {
	decoder
	before
	e Entry // where it stands, without its name
}

// newCursor stands before the first entry of a page.
func newCursor(data []byte) cursor {
	c := cursor{decoder: decoder{data: data}}
	if len(data) > maxPage {
		c.fail(fmt.Errorf("it has %d bytes", len(data)))
	} else if c.byte() != entryPage {
		c.fail(errors.New("it is not a page of entries"))
	} else if len(c.data) == 0 {
		c.fail(errors.New("it has no entries"))
	}
	return c
}

// next goes to the next entry. It reports false behind the last one, and where the page is damaged: then err says so.
func (c *cursor) next() bool {
	if len(c.data) == 0 {
		return false
	}
	c.takeName(&c.name)
	return c.nextFields()
}

// nextFields decodes what comes after the name.
func (c *cursor) nextFields() bool {
	c.e = Entry{}
	flags := c.byte()
	if flags > flagsKnown {
		c.fail(fmt.Errorf("unknown flags %x: a newer varve is needed", flags))
	}
	c.e.Incomplete = flags&flagIncomplete != 0
	c.number += filesystem.Number(c.delta(math.MaxUint64))
	c.mode ^= uint16(c.number64(math.MaxUint16))
	c.uid = c.owner(c.uid)
	c.gid = c.owner(c.gid)
	c.e.Number, c.e.UID, c.e.GID = c.number, c.uid, c.gid
	c.e.Links = int(c.number64(math.MaxInt32))
	if flags&flagModified != 0 {
		c.e.Modified = c.time(&c.modified)
	}
	if flags&flagChanged != 0 {
		c.e.Changed = c.time(&c.changed)
	}
	var known bool
	if c.e.Mode, known = fileMode(c.mode); !known {
		c.fail(fmt.Errorf("unknown type of file %x: a newer varve is needed", c.mode))
	}
	content := flags&flagContent != 0
	switch c.mode & typeMask {
	case typeRegular:
		c.e.Size = int64(c.number64(math.MaxInt64))
		if content {
			copy(c.e.Digest[:], c.bytes(len(c.e.Digest)))
			content = c.e.Digest == Digest{}
		}
	case typeFolder:
		if content {
			copy(c.e.ID[:], c.bytes(len(c.e.ID)))
			c.e.Files = int64(c.number64(math.MaxInt64))
			c.e.Bytes = int64(c.number64(math.MaxInt64))
			content = c.e.ID == ID{}
		}
	case typeLink:
		c.e.Target = string(c.bytes(int(c.number64(maxTarget))))
		c.e.Size = int64(len(c.e.Target))
	case typeChar, typeBlock:
		c.e.Device = c.number64(math.MaxUint64)
	case 0:
		c.e.Size = int64(c.number64(math.MaxInt64))
	}
	if content && c.err == nil {
		c.fail(errors.New("it says that there is content where there is none"))
	}
	return c.err == nil
}

// entry returns the entry at which the cursor stands, under name, which is its name.
func (c *cursor) entry(name string) Entry {
	e := c.e
	e.Name = name
	return e
}

// decodeRoot returns the only entry of the page of a root folder.
func decodeRoot(data []byte) (Entry, error) {
	c := newCursor(data)
	shared, others := c.number64(maxName), c.number64(maxName)
	if shared != 0 || others != 0 {
		c.fail(errors.New("it is not that of a root folder"))
	}
	if c.nextFields() && (len(c.data) > 0 || !c.e.Mode.IsDir()) {
		c.fail(errors.New("it is not that of a root folder alone"))
	}
	return c.e, c.err
}

// child is a page below an index page.
type child struct {
	last string // the last name that is below it
	id   ID
}

// appendChild appends the encoding of a child. before is the name of the child before it.
func appendChild(buf []byte, before *[]byte, c child) []byte {
	return append(appendName(buf, before, c.last), c.id[:]...)
}

// decodeIndex returns the children of an index page. It accepts nothing else.
func decodeIndex(data []byte) ([]child, error) {
	if len(data) > maxPage {
		return nil, fmt.Errorf("it has %d bytes", len(data))
	}
	d := decoder{data: data}
	if d.byte() != indexPage {
		return nil, errors.New("it is not an index page")
	}
	if level := d.byte(); level < 1 || level > maxLevel {
		d.fail(fmt.Errorf("an index page cannot have level %d", level))
	}
	if d.err == nil && len(d.data) == 0 {
		d.fail(errors.New("it has no children"))
	}
	var children []child
	var name []byte
	for len(d.data) > 0 {
		d.takeName(&name)
		c := child{last: string(name)}
		copy(c.id[:], d.bytes(len(c.id)))
		children = append(children, c)
	}
	if d.err != nil {
		return nil, d.err
	}
	return children, nil
}

// pageLevel returns the level of an index page, and 0 for anything else.
func pageLevel(data []byte) int {
	if len(data) > 1 && data[0] == indexPage {
		return int(data[1])
	}
	return 0
}

// checkLevel says what is wrong with a page that has to have a level.
func checkLevel(data []byte, level int) error {
	if got := pageLevel(data); level != anyLevel && got != level || got > maxLevel {
		return fmt.Errorf("it has level %d, where %d is expected", got, level)
	}
	return nil
}

// IsPage reports whether a chunk that is no content of a disk is a page of a catalogue, and not a tree node.
func IsPage(data []byte) bool {
	return len(data) > 0 && (data[0] == entryPage || data[0] == indexPage)
}

// Children returns the ids of the pages to which a page refers: those of the listings of the folders in it, or those below
// an index page. An error says that it is damaged.
func Children(page []byte) ([]ID, error) {
	var ids []ID
	if len(page) > 0 && page[0] == indexPage {
		children, err := decodeIndex(page)
		for _, c := range children {
			ids = append(ids, c.id)
		}
		return ids, err
	}
	if len(page) > 2 && page[1] == 0 && page[2] == 0 { // no other page has an empty name
		e, err := decodeRoot(page)
		if e.ID != (ID{}) && err == nil {
			ids = append(ids, e.ID)
		}
		return ids, err
	}
	c := newCursor(page)
	for c.next() {
		if c.e.ID != (ID{}) {
			ids = append(ids, c.e.ID)
		}
	}
	if c.err != nil {
		return nil, c.err
	}
	return ids, nil
}
