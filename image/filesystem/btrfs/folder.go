package btrfs

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"

	"varve/image/filesystem"
)

const (
	dirItemSize   = 30 // before the name
	maxName       = 255
	maxAttributes = 16 << 20 // bytes of the attributes of one file
)

// A dirItem is an entry of a folder, or an attribute.
//
//	key of what it is 17, transaction 8, length of the value 2, length of the name 2, type 1, name, value
type dirItem struct {
	location    key
	kind        byte
	name, value []byte
}

// parseDirItem parses the dirItem at the start of b, and returns what is behind it.
func parseDirItem(b []byte) (d dirItem, rest []byte, err error) {
	le := binary.LittleEndian
	if len(b) < dirItemSize {
		return d, nil, filesystem.Corrupt("an entry of %d bytes", len(b))
	}
	value, name := int(le.Uint16(b[25:])), int(le.Uint16(b[27:]))
	if len(b) < dirItemSize+name+value {
		return d, nil, filesystem.Corrupt("an entry of %d bytes, with a name of %d and a value of %d", len(b), name, value)
	}
	end := dirItemSize + name
	return dirItem{parseKey(b), b[29], b[dirItemSize:end], b[end : end+value]}, b[end+value:], nil
}

// entryTypes are the types of entries.
var entryTypes = [...]fs.FileMode{
	1: 0, 2: fs.ModeDir, 3: fs.ModeDevice | fs.ModeCharDevice, 4: fs.ModeDevice, 5: fs.ModeNamedPipe, 6: fs.ModeSocket, 7: fs.ModeSymlink,
}

// ReadDir calls f for each entry. A subvolume is the folder that its root is. In a snapshot, a subvolume in the one that was
// snapshotted is an empty folder.
func (f *FS) ReadDir(ctx context.Context, folder filesystem.Number, call func(filesystem.Entry) error) error {
	if _, _, absent := place(folder); absent {
		return nil
	}
	i, err := f.inode(folder)
	if err != nil {
		return err
	}
	if i.mode()&modeType != modeFolder {
		return fmt.Errorf("file %d is no folder", folder)
	}
	var first error
	for item, err := range i.tree.items(i.key(entryKind, 0), i.key(entryKind, math.MaxUint64)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		var entry filesystem.Entry
		if err == nil {
			entry, err = i.entry(item)
		}
		if err != nil {
			if first == nil {
				first = fmt.Errorf("reading inode %d of subvolume %d: %w", i.number, i.tree.id, err)
			}
			continue
		}
		if err := call(entry); err != nil {
			return err
		}
	}
	return first
}

// entry parses an entry of the folder.
func (i *inode) entry(item item) (filesystem.Entry, error) {
	d, rest, err := parseDirItem(item.data)
	if err != nil {
		return filesystem.Entry{}, err
	}
	name := string(d.name)
	if len(rest) > 0 || name == "" || len(name) > maxName || name == "." || name == ".." || bytes.ContainsAny(d.name, "/\x00") {
		return filesystem.Entry{}, filesystem.Corrupt("entry %d has the name %.300q", item.key.offset, name)
	}
	e := filesystem.Entry{Name: name, Mode: fs.ModeIrregular}
	if d.kind > 0 && int(d.kind) < len(entryTypes) {
		e.Mode = entryTypes[d.kind]
	}
	ok := false
	switch d.location.kind {
	case inodeKind:
		e.Number, ok = numberOf(i.tree.id, d.location.object, false)
	case rootKind:
		e.Mode = fs.ModeDir
		here, err := i.leadsTo(d)
		if err != nil {
			return e, err
		}
		if here {
			e.Number, ok = numberOf(d.location.object, rootInode, false)
		} else {
			e.Number, ok = numberOf(i.tree.id, d.location.object, true)
		}
	default:
		return e, filesystem.Corrupt("entry %.300q leads to %v", name, d.location)
	}
	if !ok {
		return e, filesystem.Unsupported("inodes as large as that of %.300q", name)
	}
	return e, nil
}

// leadsTo tells whether an entry that names a subvolume is the place of that subvolume: an item in the root tree says where that is.
//
//	ROOT_REF     under (tree of the folder, ROOT_REF, subvolume): inode of the folder 8, number of the entry 8, length of the name 2, name
func (i *inode) leadsTo(d dirItem) (bool, error) {
	v := i.tree.volume
	k := key{i.tree.id, rootRefKind, d.location.object}
	ref, ok, err := tree{v, rootTree, v.super.root}.last(k, k)
	if err != nil || !ok || !isSubvolume(d.location.object) {
		return false, err
	}
	le := binary.LittleEndian
	if len(ref.data) < 18 || int(le.Uint16(ref.data[16:])) != len(ref.data)-18 {
		return false, filesystem.Corrupt("the place of subvolume %d has %d bytes", d.location.object, len(ref.data))
	}
	if le.Uint64(ref.data) != i.number || !bytes.Equal(ref.data[18:], d.name) {
		return false, nil
	}
	_, err = v.tree(d.location.object)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Attributes returns the attributes of a file: names and values are on the disk as Linux shows them.
func (f *FS) Attributes(n filesystem.Number) ([]filesystem.Attribute, error) {
	if _, _, absent := place(n); absent {
		return nil, nil
	}
	i, err := f.inode(n)
	if err != nil {
		return nil, err
	}
	var list []filesystem.Attribute
	room := maxAttributes
	for item, err := range i.tree.items(i.key(attributeKind, 0), i.key(attributeKind, math.MaxUint64)) {
		if err != nil {
			return nil, err
		}
		if room -= len(item.data); room < 0 {
			return nil, filesystem.Unsupported("more than %d bytes of attributes", maxAttributes)
		}
		for b := item.data; len(b) > 0; { // names with the same hash are in one item
			var d dirItem
			if d, b, err = parseDirItem(b); err != nil {
				return nil, err
			}
			if len(d.name) == 0 || len(d.name) > maxName || bytes.IndexByte(d.name, 0) >= 0 {
				return nil, filesystem.Corrupt("an attribute with the name %.300q", d.name)
			}
			list = append(list, filesystem.Attribute{Name: string(d.name), Value: bytes.Clone(d.value)})
		}
	}
	return list, nil
}
