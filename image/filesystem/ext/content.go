package ext

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"varve/image/filesystem"
)

// Open opens the content of a regular file. There are no other streams.
func (f *FS) Open(n filesystem.Number, stream string) (filesystem.Content, error) {
	in, err := f.file(n)
	if err != nil {
		return nil, err
	}
	switch {
	case stream != "":
		return nil, fmt.Errorf("stream %q of inode %d: %w", stream, n, fs.ErrNotExist)
	case in.kind() != typeFile:
		return nil, fmt.Errorf("inode %d is not a regular file", n)
	}
	return in.content()
}

// Streams returns nil.
func (f *FS) Streams(filesystem.Number) ([]filesystem.Stream, error) { return nil, nil }

// Readlink returns the target of a symbolic link.
func (f *FS) Readlink(n filesystem.Number) (string, error) {
	const most = 64 << 10
	in, err := f.file(n)
	switch {
	case err != nil:
		return "", err
	case in.kind() != typeLink:
		return "", fmt.Errorf("inode %d is not a symbolic link", n)
	case in.flags&flagEncrypted != 0:
		return "", filesystem.Unsupported("the target of inode %d is encrypted", n)
	case in.size > most:
		return "", filesystem.Corrupt("inode %d leads to %d bytes", n, in.size)
	case in.size < 60 && in.flags&(flagExtents|flagInline) == 0:
		return string(in.raw[0x28 : 0x28+in.size]), nil
	}
	c, err := in.content()
	if err != nil {
		return "", err
	}
	target := make([]byte, in.size)
	if _, err := c.ReadAt(target, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return string(target), nil
}

// content is that of a file or a link.
type content struct {
	*inode
	inline []byte // the bytes, when they are in the inode
}

func (in *inode) content() (*content, error) {
	if in.flags&flagEncrypted != 0 {
		return nil, filesystem.Unsupported("the content of inode %d is encrypted", in.number)
	}
	c := &content{inode: in}
	if in.flags&flagInline != 0 {
		inline, err := in.inlineData()
		if err != nil {
			return nil, err
		}
		if in.size > int64(len(inline)) {
			return nil, filesystem.Corrupt("inode %d has %d bytes of %d", in.number, len(inline), in.size)
		}
		c.inline = inline[:in.size]
	}
	return c, nil
}

// inlineData returns what is in the inode instead of a map, and then in an attribute.
func (in *inode) inlineData() ([]byte, error) {
	data := append([]byte(nil), in.raw[0x28:0x64]...)
	entries, region, err := in.attributesInside()
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.prefix == prefixSystem && e.name == "data" {
			value, err := e.value(region)
			return append(data, value...), err
		}
	}
	return data, nil
}

func (c *content) Size() int64 { return c.size }

func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("inode %d: reading at %d", c.number, off)
	}
	var last error
	if rest := c.size - off; int64(len(p)) > rest {
		p, last = p[:max(0, rest)], io.EOF
	}
	if len(p) == 0 {
		return 0, last
	}
	if c.flags&flagInline != 0 {
		return copy(p, c.inline[off:]), last
	}
	end, at := off+int64(len(p)), off // what is before at is in p
	err := c.runs(off/c.blockSize, divideUp(end, c.blockSize), func(r run) error {
		from, to := max(off, r.file*c.blockSize), min(end, (r.file+r.length)*c.blockSize)
		clear(p[at-off : from-off])
		at = from
		if r.unwritten {
			clear(p[from-off : to-off])
		} else if err := c.read(p[from-off:to-off], r.disk*c.blockSize+from-r.file*c.blockSize); err != nil {
			return err
		}
		at = to
		return nil
	})
	if err != nil {
		return int(at - off), err
	}
	clear(p[at-off:])
	return len(p), last
}

// Extents tells where the bytes lie, up to the end of the last block. What is in the inode is Encoded there.
func (c *content) Extents() ([]filesystem.Extent, error) {
	blocks := divideUp(c.size, c.blockSize)
	if c.flags&flagInline != 0 {
		if blocks == 0 {
			return nil, nil
		}
		return []filesystem.Extent{{Kind: filesystem.Encoded, Length: blocks * c.blockSize, Disk: c.disk, Stored: c.inodeSize}}, nil
	}
	var list []filesystem.Extent
	at := int64(0)
	add := func(kind filesystem.ExtentKind, length, disk int64) {
		if length == 0 {
			return
		}
		e := filesystem.Extent{Kind: kind, Offset: at * c.blockSize, Length: length * c.blockSize, Disk: disk * c.blockSize}
		if disk > 0 {
			e.Stored = e.Length
		}
		at += length
		if last := len(list) - 1; last >= 0 && disk > 0 && list[last].Kind == kind && list[last].Disk+list[last].Stored == e.Disk {
			list[last].Length += e.Length
			list[last].Stored += e.Stored
			return
		}
		list = append(list, e)
	}
	err := c.runs(0, blocks, func(r run) error {
		add(filesystem.Hole, r.file-at, 0)
		kind := filesystem.Plain
		if r.unwritten {
			kind = filesystem.Hole
		}
		add(kind, r.length, r.disk)
		return nil
	})
	if err != nil {
		return nil, err
	}
	add(filesystem.Hole, blocks-at, 0)
	return list, nil
}
