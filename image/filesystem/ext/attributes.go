package ext

import (
	"fmt"

	"varve/image/filesystem"
)

const (
	attributeMagic = 0xEA020000
	maxValue       = 64 << 10 // bytes of a value, the most that Linux takes
	maxValues      = 16 << 20 // bytes of all values of a file
)

// prefixes are the numbers that stand for the beginnings of names.
const (
	prefixAccess  = 2 // an access control list, without anything behind
	prefixDefault = 3
	prefixSystem  = 7
)

// prefixes that Linux lists. What encryption and inline data keep in attributes is not among them.
var prefixes = map[byte]string{
	1: "user.", prefixAccess: "system.posix_acl_access", prefixDefault: "system.posix_acl_default", 4: "trusted.", 6: "security.",
	8: "system.richacl",
}

// Attributes returns those in the inode and then those in a block of their own. Access control lists are as Linux gives them to programs.
func (f *FS) Attributes(n filesystem.Number) ([]filesystem.Attribute, error) {
	in, err := f.file(n)
	if err != nil {
		return nil, err
	}
	list, err := in.attributes()
	if err != nil {
		return nil, fmt.Errorf("attributes of inode %d: %w", n, err)
	}
	return list, nil
}

func (in *inode) attributes() ([]filesystem.Attribute, error) {
	var list []filesystem.Attribute
	left := maxValues
	add := func(entries []attribute, region []byte) error {
		for _, e := range entries {
			prefix, known := prefixes[e.prefix]
			if !known {
				continue
			}
			value, err := in.value(e, region)
			if err != nil {
				return err
			}
			if left -= len(value); left < 0 {
				return filesystem.Unsupported("more than %d bytes", maxValues)
			}
			if e.prefix == prefixAccess || e.prefix == prefixDefault {
				if value, err = accessList(value); err != nil {
					return err
				}
			}
			list = append(list, filesystem.Attribute{Name: prefix + e.name, Value: value})
		}
		return nil
	}
	entries, region, err := in.attributesInside()
	if err != nil {
		return nil, err
	}
	if err := add(entries, region); err != nil {
		return nil, err
	}
	if entries, region, err = in.attributesOutside(); err != nil {
		return nil, err
	}
	return list, add(entries, region)
}

// attribute is an entry.
type attribute struct {
	prefix byte
	name   string
	at     int // in the region, of the value
	inode  uint32
	length uint32 // of the value
}

// attributesInside returns the attributes in the inode, and the bytes in which their values are.
func (in *inode) attributesInside() ([]attribute, []byte, error) {
	start := 128 + in.extra
	if in.extra == 0 || start+4 > in.inodeSize || le.Uint32(in.raw[start:]) != attributeMagic {
		return nil, nil, nil
	}
	region := in.raw[start+4:]
	entries, err := readAttributes(region, 0)
	return entries, region, err
}

// attributesOutside returns the attributes in a block, and that.
func (in *inode) attributesOutside() ([]attribute, []byte, error) {
	n := int64(le.Uint32(in.raw[0x68:]))
	if in.incompat&incompat64Bit != 0 {
		n |= int64(le.Uint16(in.raw[0x76:])) << 32
	}
	if n == 0 {
		return nil, nil, nil
	}
	b, err := in.block(n)
	if err != nil {
		return nil, nil, err
	}
	if le.Uint32(b) != attributeMagic || le.Uint32(b[8:]) != 1 {
		return nil, nil, filesystem.Corrupt("block %d has no attributes", n)
	}
	if in.blockSums && crc32c(in.FS.seed, le.AppendUint64(nil, uint64(n)), b[:0x10], []byte{0, 0, 0, 0}, b[0x14:]) != le.Uint32(b[0x10:]) {
		return nil, nil, filesystem.Corrupt("block %d has a wrong checksum", n)
	}
	entries, err := readAttributes(b, 32)
	return entries, b, err
}

// readAttributes decodes the entries from a byte of the region on, up to one that is zero.
func readAttributes(region []byte, from int) ([]attribute, error) {
	var list []attribute
	for at := from; ; {
		if at+4 > len(region) {
			return nil, filesystem.Corrupt("the list does not end")
		}
		if le.Uint32(region[at:]) == 0 {
			return list, nil
		}
		if at+16 > len(region) || at+16+int(region[at]) > len(region) {
			return nil, filesystem.Corrupt("an entry goes beyond its block")
		}
		e := region[at:]
		list = append(list, attribute{
			prefix: e[1],
			name:   string(e[16 : 16+int(e[0])]),
			at:     int(le.Uint16(e[2:])),
			inode:  le.Uint32(e[4:]),
			length: le.Uint32(e[8:]),
		})
		at += 16 + (int(e[0])+3)&^3
	}
}

// value returns a value that is in the region.
func (a attribute) value(region []byte) ([]byte, error) {
	if a.length == 0 {
		return []byte{}, nil
	}
	if a.inode != 0 || a.at > len(region) || a.length > uint32(len(region)-a.at) {
		return nil, filesystem.Corrupt("the value of %q lies outside", a.name)
	}
	return append([]byte{}, region[a.at:a.at+int(a.length)]...), nil
}

// value returns a value that is in the region, or in an inode of its own.
func (in *inode) value(a attribute, region []byte) ([]byte, error) {
	if a.inode == 0 || in.incompat&incompatEAInode == 0 {
		return a.value(region)
	}
	if a.length > maxValue {
		return nil, filesystem.Corrupt("the value of %q has %d bytes", a.name, a.length)
	}
	far, err := in.FS.inode(int64(a.inode))
	if err != nil {
		return nil, err
	}
	if far.kind() != typeFile || far.size != int64(a.length) {
		return nil, filesystem.Corrupt("inode %d is not the value of %q", a.inode, a.name)
	}
	c, err := far.content()
	if err != nil {
		return nil, err
	}
	value := make([]byte, a.length)
	if n, err := c.ReadAt(value, 0); n < len(value) {
		return nil, err
	}
	if in.blockSums && crc32c(in.FS.seed, value) != le.Uint32(far.raw[8:]) { // where other inodes have their time of access
		return nil, filesystem.Corrupt("the value of %q has a wrong checksum", a.name)
	}
	return value, nil
}

// accessList turns an access control list as it is on the disk into what programs get: all entries get an owner, most of them one that says
// nothing.
func accessList(stored []byte) ([]byte, error) {
	const user, group = 2, 8
	if len(stored) < 4 || le.Uint32(stored) != 1 {
		return nil, filesystem.Corrupt("an access control list is none")
	}
	list := le.AppendUint32(nil, 2)
	for b := stored[4:]; len(b) > 0; {
		length := 4
		if len(b) >= 4 && (le.Uint16(b) == user || le.Uint16(b) == group) {
			length = 8
		}
		if len(b) < length {
			return nil, filesystem.Corrupt("an access control list is cut off")
		}
		list = append(list, b[:4]...)
		if length == 8 {
			list = append(list, b[4:8]...)
		} else {
			list = le.AppendUint32(list, ^uint32(0))
		}
		b = b[length:]
	}
	return list, nil
}
