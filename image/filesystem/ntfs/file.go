package ntfs

import (
	"errors"
	"fmt"
	"io"

	"varve/image/filesystem"
)

const (
	numberMask = 1<<48 - 1 // of a reference to a file: above it there is the sequence number
	maxList    = 256 << 10 // bytes of an attribute list
)

// file is a file with all its attributes, wherever they are.
type file struct {
	number     filesystem.Number
	flags      uint16
	attributes []attribute
}

func (x *file) folder() bool { return x.flags&recordFolder != 0 }

// record reads the record that a reference names. It need not be in use.
func (f *FS) record(reference uint64) (*record, error) {
	number, sequence := reference&numberMask, uint16(reference>>48)
	b := make([]byte, f.boot.record)
	if number >= uint64(f.mft.initialized/f.boot.record) {
		return nil, filesystem.Corrupt("record %d is behind the end of $MFT", number)
	}
	if _, err := f.mft.ReadAt(b, int64(number)*f.boot.record); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading record %d: %w", number, err)
	}
	r, err := parseRecord(b, number)
	if err != nil {
		return nil, fmt.Errorf("record %d: %w", number, err)
	}
	if sequence != 0 && sequence != r.sequence {
		return nil, filesystem.Corrupt("record %d has been given to another file since", number)
	}
	return r, nil
}

// load reads a file.
func (f *FS) load(n filesystem.Number) (*file, error) {
	base, err := f.record(uint64(n))
	if err != nil {
		return nil, err
	}
	if base.flags&recordInUse == 0 {
		return nil, filesystem.Corrupt("record %d is not in use", base.number)
	}
	if base.base != 0 {
		return nil, filesystem.Corrupt("record %d is a part of file %d", base.number, base.base&numberMask)
	}
	x := &file{n, base.flags, base.attributes}
	list, err := f.list(base)
	if err != nil {
		return nil, fmt.Errorf("the attribute list of file %d: %w", base.number, err)
	}
	if list == nil {
		return x, nil
	}
	// Each entry of the list is for one attribute; of those that are alike (names), the next.
	x.attributes = nil
	records := map[uint64]*record{base.number: base}
	for _, e := range list {
		number := e.reference & numberMask
		r := records[number]
		if r == nil {
			if r, err = f.more(base, e.reference); err != nil {
				return nil, err
			}
			records[number] = r
		}
		i := e.find(r)
		if i < 0 {
			return nil, filesystem.Corrupt("file %d has no attribute %#x in record %d", base.number, e.kind, number)
		}
		x.attributes = append(x.attributes, r.attributes[i])
		r.attributes[i].kind = 0 // taken
	}
	return x, nil
}

// more reads a record that belongs to the file of base.
func (f *FS) more(base *record, reference uint64) (*record, error) {
	r, err := f.record(reference)
	if err != nil {
		return nil, err
	}
	if r.flags&recordInUse == 0 || r.base&numberMask != base.number || uint16(r.base>>48) != base.sequence {
		return nil, filesystem.Corrupt("record %d is not a part of file %d", r.number, base.number)
	}
	return r, nil
}

// A listEntry tells where an attribute is, or a piece of it.
type listEntry struct {
	kind      uint32
	name      string
	first     int64 // cluster of the value
	reference uint64
}

// find returns which attribute of r it is for, or -1.
func (e *listEntry) find(r *record) int {
	for i := range r.attributes {
		if a := &r.attributes[i]; a.kind == e.kind && a.name == e.name && a.first == e.first {
			return i
		}
	}
	return -1
}

// list returns the attribute list of a file, nil when it has none.
func (f *FS) list(base *record) ([]listEntry, error) {
	value, err := f.value(&file{attributes: base.attributes}, typeList, "", maxList)
	if value == nil || err != nil {
		return nil, err
	}
	return parseList(value)
}

// parseList parses an attribute list: type 4, length 2, name's length 1, name's offset 1, first cluster 8, record 8, instance 2, name.
func parseList(b []byte) ([]listEntry, error) {
	var list []listEntry
	for len(b) > 0 {
		if len(b) < 26 {
			return nil, filesystem.Corrupt("%d bytes are left", len(b))
		}
		length, nameEnd := int(le.Uint16(b[4:])), int(b[7])+2*int(b[6])
		if length < 26 || length > len(b) || b[6] > 0 && nameEnd > length {
			return nil, filesystem.Corrupt("an entry of %d bytes, a name up to %d, %d bytes left", length, nameEnd, len(b))
		}
		e := listEntry{kind: le.Uint32(b), first: int64(le.Uint64(b[8:])), reference: le.Uint64(b[16:])}
		if b[6] > 0 {
			e.name = text(b[b[7]:nameEnd])
		}
		if e.kind == 0 || e.kind == typeList {
			return nil, filesystem.Corrupt("it has an attribute %#x", e.kind)
		}
		list = append(list, e)
		b = b[length:]
	}
	return list, nil
}

// openMFT returns the content of $MFT. Its first record is where the boot sector says; if it has more, they lie in what is
// known by then.
func (f *FS) openMFT() (*stream, error) {
	b := make([]byte, f.boot.record)
	if err := f.read(b, f.boot.mft*f.boot.cluster); err != nil {
		return nil, err
	}
	base, err := parseRecord(b, recordMFT)
	if err != nil {
		return nil, err
	}
	i := (&listEntry{kind: typeData}).find(base)
	if i < 0 || !base.attributes[i].elsewhere || base.flags&recordInUse == 0 {
		return nil, filesystem.Corrupt("it has no content")
	}
	mft, err := f.stream(&base.attributes[i])
	if err != nil {
		return nil, err
	}
	if mft.refusal != nil || mft.unit > 1 || len(mft.runs) == 0 || mft.runs[0].lcn != f.boot.mft {
		return nil, filesystem.Corrupt("it is not where the boot sector has it, or not plain")
	}
	list, err := f.list(base)
	if err != nil {
		return nil, err
	}
	f.mft = mft
	for _, e := range list {
		if e.kind != typeData || e.name != "" || e.first == 0 {
			continue
		}
		r, err := f.more(base, e.reference)
		if err != nil {
			return nil, err
		}
		i := e.find(r)
		if i < 0 {
			return nil, filesystem.Corrupt("record %d has no part of it", r.number)
		}
		if err := mft.extend(&r.attributes[i]); err != nil {
			return nil, err
		}
	}
	return mft, mft.complete()
}
