package xfs

import (
	"fmt"
	"io"
	"slices"
	"sort"

	"varve/image/filesystem"
)

// Open opens a regular file. It reads the list of its extents.
func (f *FS) Open(n filesystem.Number, stream string) (filesystem.Content, error) {
	i, err := f.inode(n)
	if err != nil {
		return nil, err
	}
	if stream != "" || !i.mode.IsRegular() {
		return nil, fmt.Errorf("inode %d has no content %q", n, stream)
	}
	if i.b[91]&flagRealtime != 0 {
		return nil, filesystem.Unsupported("files on the realtime device")
	}
	data, _, err := i.forks()
	if err != nil {
		return nil, err
	}
	l, err := data.read()
	if err != nil {
		return nil, err
	}
	return &content{f: f, size: i.size, extents: l.cover(i.size)}, nil
}

// content is a regular file.
type content struct {
	f       *FS
	size    int64
	extents []filesystem.Extent // from 0 to size or more
}

// cover returns the extents, with holes between them, up to size rounded up to a block. What lies behind is left out.
func (l *extentList) cover(size int64) []filesystem.Extent {
	log := l.i.f.super.blockLog
	end := (size + 1<<log - 1) >> log << log
	var list []filesystem.Extent
	at := int64(0)
	hole := func(to int64) {
		if to > at {
			list = append(list, filesystem.Extent{Kind: filesystem.Hole, Offset: at, Length: to - at})
		}
	}
	for _, e := range l.list {
		next := filesystem.Extent{Offset: int64(e.offset << log), Length: int64(e.count << log), Disk: e.disk}
		if next.Offset >= end {
			break
		}
		next.Length = min(next.Length, end-next.Offset)
		next.Stored = next.Length
		if e.unwritten {
			next.Kind = filesystem.Hole
		}
		hole(next.Offset)
		at = next.Offset + next.Length
		if n := len(list) - 1; n >= 0 && list[n].Kind == next.Kind && list[n].Stored > 0 &&
			list[n].Offset+list[n].Length == next.Offset && list[n].Disk+list[n].Stored == next.Disk {
			list[n].Length += next.Length
			list[n].Stored += next.Stored
			continue
		}
		list = append(list, next)
	}
	hole(end)
	return list
}

func (c *content) Size() int64 { return c.size }

func (c *content) Extents() ([]filesystem.Extent, error) { return slices.Clone(c.extents), nil }

func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading at %d", off)
	}
	if off >= c.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > c.size-off {
		p, end = p[:c.size-off], io.EOF
	}
	first := sort.Search(len(c.extents), func(i int) bool { return c.extents[i].Offset+c.extents[i].Length > off })
	done := 0
	for _, e := range c.extents[first:] {
		if done == len(p) {
			break
		}
		in := off + int64(done) - e.Offset
		part := p[done:]
		part = part[:min(int64(len(part)), e.Length-in)]
		if e.Kind == filesystem.Hole {
			clear(part)
		} else if err := c.f.read(part, e.Disk+in); err != nil {
			return done, err
		}
		done += len(part)
	}
	return done, end
}
