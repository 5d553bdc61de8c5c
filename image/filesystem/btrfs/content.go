package btrfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"

	"varve/image/filesystem"
)

const (
	inlineExtent  = 0
	regularExtent = 1
	unwritten     = 2 // room was set aside
)

// Sizes of items.
const (
	extentHead = 21
	extentSize = 53
)

// maxTarget is the longest target of a symbolic link that is returned.
const maxTarget = 64 << 10

// A storedExtent is what a run of a file is taken from: an extent, or for one without address nothing.
type storedExtent struct {
	logical, length uint64
	compression     byte
	size            uint64 // bytes that it has when it is not compressed
}

// An extent is a run of a file.
//
//	EXTENT_DATA  generation 8, size of what is stored 8, compression 1, encryption 1, other encoding 2, kind 1, then inline
//	             the content itself, else the address of an extent 8 (0: a hole), its length 8, where in what it stores
//	             this run begins 8, length of the run 8
type extent struct {
	storedExtent
	kind   byte
	offset int64  // in the file
	run    int64  // length in the file, whole sectors
	skip   uint64 // bytes of what is stored before this run
	inline []byte
	place  int64 // of inline on the partition
}

func (e *extent) end() int64 { return e.offset + e.run }

// hole tells whether it reads as zeros.
func (e *extent) hole() bool {
	return e.kind == unwritten || e.kind == regularExtent && e.logical == 0
}

// parseExtent parses an EXTENT_DATA. What it says of lengths agrees.
func parseExtent(s *superblock, item item) (extent, error) {
	le := binary.LittleEndian
	b := item.data
	wrong := func() (extent, error) {
		return extent{}, filesystem.Corrupt("the extent at %d of inode %d is not possible", item.key.offset, item.key.object)
	}
	sector := uint64(s.sectorSize)
	if len(b) < extentHead || item.key.offset > math.MaxInt64-maxDecoded || item.key.offset%sector != 0 {
		return wrong()
	}
	e := extent{kind: b[20], offset: int64(item.key.offset)}
	e.size, e.compression = le.Uint64(b[8:]), b[16]
	if b[17] != 0 || b[18] != 0 || b[19] != 0 || int(e.compression) >= len(compressions) || e.kind > unwritten {
		return extent{}, filesystem.Unsupported("extents of kind %d, compression %d, encryption %d and %d", e.kind, e.compression, b[17], b[18:20])
	}
	if e.kind == inlineExtent {
		e.inline, e.place = b[extentHead:], item.physical+extentHead
		e.run = int64((e.size + sector - 1) &^ (sector - 1))
		if e.size > maxDecoded || e.size == 0 || e.offset != 0 || e.compression == 0 && e.size != uint64(len(e.inline)) {
			return wrong()
		}
		return e, nil
	}
	if len(b) != extentSize {
		return wrong()
	}
	e.logical, e.length, e.skip = le.Uint64(b[21:]), le.Uint64(b[29:]), le.Uint64(b[37:])
	run := le.Uint64(b[45:])
	if e.compression == 0 {
		e.size = e.length // kernels wrote other sizes
	}
	switch {
	case run == 0 || run%sector != 0 || run > math.MaxInt64-item.key.offset:
		return wrong()
	case e.logical == 0:
		e.compression = 0 // a hole takes it from its file
	case (e.logical|e.length|e.skip)%sector != 0 || e.skip > e.size || run > e.size-e.skip:
		return wrong()
	case e.compression != 0 && (e.size > maxDecoded || e.length > maxDecoded || e.kind == unwritten):
		return wrong()
	}
	e.run = int64(run)
	return e, nil
}

// content is the bytes of a file.
type content struct {
	inode *inode
	size  int64
}

// Open opens the content of a regular file.
func (f *FS) Open(n filesystem.Number, stream string) (filesystem.Content, error) {
	if stream != "" {
		return nil, fmt.Errorf("stream %q: %w", stream, fs.ErrNotExist)
	}
	i, err := f.inode(n)
	if err != nil {
		return nil, err
	}
	if i.mode()&modeType != modeFile {
		return nil, fmt.Errorf("file %d is not a regular one", n)
	}
	return &content{i, int64(i.size())}, nil
}

// Readlink returns the target of a symbolic link, which is its content.
func (f *FS) Readlink(n filesystem.Number) (string, error) {
	i, err := f.inode(n)
	if err != nil {
		return "", err
	}
	if i.mode()&modeType != modeLink {
		return "", fmt.Errorf("file %d is no symbolic link", n)
	}
	target := make([]byte, min(i.size(), maxTarget))
	if _, err := (&content{i, int64(i.size())}).ReadAt(target, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if bytes.IndexByte(target, 0) >= 0 {
		return "", filesystem.Corrupt("the target of the symbolic link %d has a zero byte", n)
	}
	return string(target), nil
}

func (c *content) Size() int64 { return c.size }

// runs yields the extents of the file that overlap what lies between two offsets, and between them the holes for which there are none.
// It ends behind the first error.
func (c *content) runs(from, to int64) iter.Seq2[extent, error] {
	return func(yield func(extent, error) bool) {
		i := c.inode
		start := i.key(extentDataKind, uint64(from))
		before, ok, err := i.tree.last(i.key(extentDataKind, 0), start)
		if err != nil {
			yield(extent{}, err)
			return
		}
		if ok {
			start = before.key
		}
		at := from
		for item, err := range i.tree.items(start, i.key(extentDataKind, uint64(to-1))) {
			var e extent
			if err == nil {
				e, err = parseExtent(i.tree.volume.super, item)
			}
			if err == nil && at > from && e.offset < at {
				err = filesystem.Corrupt("the extents of inode %d overlap at %d", i.number, e.offset)
			}
			if err != nil {
				yield(extent{}, err)
				return
			}
			if e.end() <= from {
				continue
			}
			if e.offset > at && !yield(extent{kind: regularExtent, offset: at, run: e.offset - at}, nil) || !yield(e, nil) {
				return
			}
			at = e.end()
		}
		if at < to {
			yield(extent{kind: regularExtent, offset: at, run: to - at}, nil)
		}
	}
}

// ReadAt checks what it reads by the checksums of the data, where there are such, and reads the other copy where one is wrong.
func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading at offset %d", off)
	}
	if off >= c.size {
		return 0, io.EOF
	}
	var last error
	if rest := c.size - off; rest < int64(len(p)) {
		p, last = p[:rest], io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	done := 0
	for e, err := range c.runs(off, off+int64(len(p))) {
		var part []byte
		if err == nil {
			from := off + int64(done)
			part = p[done:min(int64(len(p)), e.end()-off)]
			err = c.read(&e, part, uint64(from-e.offset)+e.skip)
		}
		if err != nil {
			return done, fmt.Errorf("reading inode %d of subvolume %d: %w", c.inode.number, c.inode.tree.id, err)
		}
		done += len(part)
	}
	return done, last
}

// read fills p with what e stores from an offset on.
func (c *content) read(e *extent, p []byte, from uint64) error {
	v := c.inode.tree.volume
	if e.hole() {
		clear(p)
		return nil
	}
	if e.kind == regularExtent && e.compression == 0 {
		return v.readData(p, e.logical+from, !c.inode.withoutSums())
	}
	decoded := e.inline
	var err error
	switch {
	case e.kind == regularExtent:
		decoded, err = v.decodedExtent(e.storedExtent, !c.inode.withoutSums())
	case e.compression != 0:
		decoded, err = v.decode(e.compression, e.inline, int(e.size))
	}
	if err != nil {
		return err
	}
	n := 0
	if from < uint64(len(decoded)) {
		n = copy(p, decoded[from:])
	}
	clear(p[n:]) // an inline extent ends before the sector does
	return nil
}

// Extents lists the runs of the file. Each compressed one is on its own: Stored bytes at Disk are its extent as a whole, of which
// other runs may show other parts.
func (c *content) Extents() ([]filesystem.Extent, error) {
	sector := c.inode.tree.volume.super.sectorSize
	end := (c.size + sector - 1) &^ (sector - 1)
	if end == 0 {
		return nil, nil
	}
	var list []filesystem.Extent
	for e, err := range c.runs(0, end) {
		if err != nil {
			return nil, err
		}
		next, err := c.extent(&e, min(e.run, end-e.offset))
		if err != nil {
			return nil, err
		}
		if i := len(list) - 1; i >= 0 && next.Kind != filesystem.Encoded && list[i].Kind == next.Kind &&
			(list[i].Stored == 0) == (next.Stored == 0) && (next.Stored == 0 || list[i].Disk+list[i].Stored == next.Disk) {
			list[i].Length += next.Length
			list[i].Stored += next.Stored
			continue
		}
		list = append(list, next)
	}
	return list, nil
}

// extent says where the first length bytes of e lie.
func (c *content) extent(e *extent, length int64) (filesystem.Extent, error) {
	out := filesystem.Extent{Kind: filesystem.Encoded, Offset: e.offset, Length: length, Disk: e.place, Stored: int64(len(e.inline))}
	if e.kind == inlineExtent {
		return out, nil
	}
	out.Kind = filesystem.Hole
	if e.logical == 0 {
		return out, nil
	}
	places, err := c.inode.tree.volume.chunks.places(e.logical, e.length)
	if err != nil {
		return out, err
	}
	switch {
	case e.compression != 0:
		out.Kind, out.Disk, out.Stored = filesystem.Encoded, places[0], int64(e.length)
		return out, nil
	case e.kind == regularExtent:
		out.Kind = filesystem.Plain
	}
	out.Disk, out.Stored = places[0]+int64(e.skip), length
	return out, nil
}
