package xfs

import (
	"encoding/binary"
	"fmt"
	"io/fs"

	"varve/image/filesystem"
)

// A remoteHeader is what version 5 has in front of a part of a symbolic link, or of the value of an attribute, that is not in the inode.
const remoteHeader = 56

// maxLink is the length of a symbolic link at most.
const maxLink = 1024

// Readlink returns the target of a symbolic link.
func (f *FS) Readlink(n filesystem.Number) (string, error) {
	i, err := f.inode(n)
	if err != nil {
		return "", err
	}
	if i.mode&fs.ModeSymlink == 0 {
		return "", fmt.Errorf("inode %d is not a symbolic link", n)
	}
	if i.size > maxLink {
		return "", filesystem.Corrupt("symbolic link %d has %d bytes", n, i.size)
	}
	data, _, err := i.forks()
	if err != nil {
		return "", err
	}
	if data.format == formatLocal {
		if i.size > int64(len(data.b)) {
			return "", filesystem.Corrupt("symbolic link %d has %d bytes in %d", n, i.size, len(data.b))
		}
		return string(data.b[:i.size]), nil
	}
	list, err := data.readOnce()
	if err != nil {
		return "", err
	}
	target := make([]byte, 0, i.size)
	next := uint64(0)
	for _, e := range list {
		missing := int(i.size) - len(target)
		if missing == 0 {
			break
		}
		if e.offset != next || e.unwritten || e.count > maxLink/minSector+1 {
			return "", filesystem.Corrupt("symbolic link %d has a hole", n)
		}
		next += e.count
		part := make([]byte, e.count<<f.super.blockLog) // one header for each extent
		if err := f.read(part, e.disk); err != nil {
			return "", err
		}
		if f.super.v5 {
			if part, err = f.remote(part, "XSLM", e.disk, i.number, len(target)); err != nil {
				return "", err
			}
		}
		target = append(target, part[:min(len(part), missing)]...)
	}
	if int64(len(target)) != i.size {
		return "", filesystem.Corrupt("symbolic link %d has %d bytes of %d", n, len(target), i.size)
	}
	return string(target), nil
}

// remote returns what is behind the header in b, which was read from off and holds bytes from offset in the whole on.
func (f *FS) remote(b []byte, magic string, off int64, owner uint64, offset int) ([]byte, error) {
	be := binary.BigEndian
	if string(b[:4]) != magic {
		return nil, filesystem.Corrupt("at %d there is no %q", off, magic)
	}
	if err := f.identify(b, remoteBlock, off, owner); err != nil {
		return nil, err
	}
	at, length := be.Uint32(b[4:]), be.Uint32(b[8:])
	if int64(at) != int64(offset) || int64(length) > int64(len(b)-remoteHeader) {
		return nil, filesystem.Corrupt("at %d there are %d bytes from %d on, where %d is expected", off, length, at, offset)
	}
	return b[remoteHeader:][:length], nil
}
