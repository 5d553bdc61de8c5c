package xfs

import (
	"encoding/binary"
	"fmt"
	"sort"

	"varve/image/filesystem"
)

// Flags of an attribute. One with none of the namespaces is "user.".
const (
	attributeLocal      = 1 << 0 // its value is beside its name
	attributeRoot       = 1 << 1 // "trusted."
	attributeSecure     = 1 << 2 // "security."
	attributeParent     = 1 << 3 // a name of the file and its folder, which is no attribute to the user
	attributeIncomplete = 1 << 7 // was being written or removed
)

const (
	maxAttribute  = 64 << 10 // bytes of one value
	maxAttributes = 64 << 20 // bytes of all names and values of a file that are read
)

// Attributes reads the extended attributes of a file.
func (f *FS) Attributes(n filesystem.Number) ([]filesystem.Attribute, error) {
	i, err := f.inode(n)
	if err != nil {
		return nil, err
	}
	_, k, err := i.forks()
	if err != nil {
		return nil, err
	}
	if len(k.b) == 0 {
		return nil, nil
	}
	a := attributes{FS: f, number: i.number}
	if k.format == formatLocal {
		return a.list, a.inInode(k.b)
	}
	if k.format == formatExtents && k.extents == 0 {
		return nil, nil
	}
	if a.extents, err = k.readOnce(); err != nil {
		return nil, err
	}
	a.seen = map[uint32]bool{}
	err = a.block(0, maxLevels)
	return a.list, err
}

// attributes is the attributes of an inode that are being read.
type attributes struct {
	*FS
	number  uint64
	extents []extent
	seen    map[uint32]bool // blocks of the tree
	list    []filesystem.Attribute
	bytes   int
}

// inInode reads attributes that fit the inode: bytes in all 2, count 1, 1, and for each: lengths of name and value 1 and 1, flags 1,
// name, value.
func (a *attributes) inInode(b []byte) error {
	if len(b) < 4 || int(binary.BigEndian.Uint16(b)) > len(b) {
		return filesystem.Corrupt("inode %d has attributes in %d bytes", a.number, len(b))
	}
	b = b[:max(4, binary.BigEndian.Uint16(b))]
	count, rest := b[2], b[4:]
	for range count {
		if len(rest) < 3 {
			return filesystem.Corrupt("the attributes of inode %d end within one", a.number)
		}
		name, end := int(rest[0]), int(rest[0])+int(rest[1])
		flags := rest[2]
		rest = rest[3:]
		if end > len(rest) {
			return filesystem.Corrupt("the attributes of inode %d end within one", a.number)
		}
		if err := a.add(flags, rest[:name], rest[name:end]); err != nil {
			return err
		}
		rest = rest[end:]
	}
	return nil
}

// add adds an attribute. name and value are copied.
func (a *attributes) add(flags byte, name, value []byte) error {
	if flags&(attributeIncomplete|attributeParent) != 0 {
		return nil
	}
	if len(name) == 0 {
		return filesystem.Corrupt("inode %d has an attribute without name", a.number)
	}
	if a.bytes += len(name) + len(value); a.bytes > maxAttributes {
		return filesystem.Unsupported("more than %d bytes of attributes of one file", maxAttributes)
	}
	one := filesystem.Attribute{Name: "user." + string(name), Value: append([]byte{}, value...)}
	switch flags & (attributeRoot | attributeSecure) {
	case attributeRoot:
		one.Name = "trusted." + string(name)
		if acl, is := aclNames[string(name)]; is {
			var err error
			if one.Name = acl; len(value) == 0 {
				return nil
			}
			if one.Value, err = linuxACL(value); err != nil {
				return fmt.Errorf("the access list of inode %d: %w", a.number, err)
			}
		}
	case attributeSecure:
		one.Name = "security." + string(name)
	case attributeRoot | attributeSecure:
		return filesystem.Corrupt("inode %d has an attribute in two namespaces", a.number)
	}
	a.list = append(a.list, one)
	return nil
}

// find returns where a block of the fork lies.
func (a *attributes) find(block uint64) (int64, error) {
	n := sort.Search(len(a.extents), func(n int) bool { return a.extents[n].offset+a.extents[n].count > block })
	if n == len(a.extents) || a.extents[n].offset > block || a.extents[n].unwritten {
		return 0, filesystem.Corrupt("the attributes of inode %d have no block %d", a.number, block)
	}
	return a.extents[n].disk + int64((block-a.extents[n].offset)<<a.super.blockLog), nil
}

// block reads a block of the tree, which is at most level levels above the leaves. Blocks begin with their neighbours 4 and 4, magic 2;
// version 5 goes on to 56 bytes.
func (a *attributes) block(number uint32, level int) error {
	if a.seen[number] {
		return filesystem.Corrupt("the attributes of inode %d have block %d twice", a.number, number)
	}
	a.seen[number] = true
	off, err := a.find(uint64(number))
	if err != nil {
		return err
	}
	b := make([]byte, a.super.blockSize())
	if err := a.read(b, off); err != nil {
		return err
	}
	be := binary.BigEndian
	node, leaf, at := uint16(0xfebe), uint16(0xfbee), 12
	if a.super.v5 {
		node, leaf, at = 0x3ebe, 0x3bee, 56
		if err := a.identify(b, hashTree, off, a.number); err != nil {
			return err
		}
	}
	count := int(be.Uint16(b[at:]))
	switch be.Uint16(b[8:]) {
	case leaf: // count 2, and free room, to 20 or 24 bytes
		if at += 20; a.super.v5 {
			at += 4
		}
		return a.leaf(b, at, count)
	case node: // count 2, level 2; version 5: 4; then hash 4, block 4
		above := int(be.Uint16(b[at+2:]))
		if at += 4; a.super.v5 {
			at += 4
		}
		if above == 0 || above >= level || count == 0 || count > (len(b)-at)/8 {
			return filesystem.Corrupt("block %d of the attributes of inode %d has %d entries on level %d", number, a.number, count, above)
		}
		for n := range count {
			if err := a.block(be.Uint32(b[at+n*8+4:]), above); err != nil {
				return err
			}
		}
		return nil
	}
	return filesystem.Corrupt("block %d of the attributes of inode %d is of no known kind", number, a.number)
}

// leaf reads the count attributes of a leaf, whose entries begin at offset at: hash 4, place 2, flags 1, 1.
func (a *attributes) leaf(b []byte, at, count int) error {
	be := binary.BigEndian
	if count > (len(b)-at)/8 {
		return filesystem.Corrupt("the attributes of inode %d are %d in one block", a.number, count)
	}
	for n := range count {
		entry := b[at+n*8:]
		place, flags := int(be.Uint16(entry[4:])), entry[6]
		// Here: length of the value 2, of the name 1, name, value. Elsewhere: first block 4, length of the value 4, of the name 1, name.
		head := 9
		if flags&attributeLocal != 0 {
			head = 3
		}
		if place+head > len(b) || place+head+int(b[place+head-1]) > len(b) {
			return filesystem.Corrupt("the attributes of inode %d end within one", a.number)
		}
		name := b[place+head:][:b[place+head-1]]
		var value []byte
		switch rest := b[place+head+len(name):]; {
		case flags&(attributeIncomplete|attributeParent) != 0:
		case flags&attributeLocal != 0:
			length := int(be.Uint16(b[place:]))
			if length > len(rest) {
				return filesystem.Corrupt("the attributes of inode %d end within one", a.number)
			}
			value = rest[:length]
		default:
			var err error
			if value, err = a.remoteValue(be.Uint32(b[place:]), be.Uint32(b[place+4:])); err != nil {
				return err
			}
		}
		if err := a.add(flags, name, value); err != nil {
			return err
		}
	}
	return nil
}

// remoteValue reads a value of length bytes that begins in a block of the fork. In version 5 each block has a header.
func (a *attributes) remoteValue(block, length uint32) ([]byte, error) {
	if length > maxAttribute {
		return nil, filesystem.Corrupt("inode %d has an attribute of %d bytes", a.number, length)
	}
	value := make([]byte, 0, length)
	b := make([]byte, a.super.blockSize())
	for at := uint64(block); len(value) < int(length); at++ {
		off, err := a.find(at)
		if err != nil {
			return nil, err
		}
		if err := a.read(b, off); err != nil {
			return nil, err
		}
		part := b
		if a.super.v5 {
			if part, err = a.remote(b, "XARM", off, a.number, len(value)); err != nil {
				return nil, err
			}
			if len(part) == 0 {
				return nil, filesystem.Corrupt("an attribute of inode %d has an empty block", a.number)
			}
		}
		value = append(value, part[:min(len(part), int(length)-len(value))]...)
	}
	return value, nil
}
