package exfat

import (
	"fmt"
	"io"
	"slices"
	"sort"

	"varve/image/filesystem"
)

// content is that of a file.
type content struct {
	fs      *FS
	size    int64
	extents []filesystem.Extent
}

// cut makes holes of all that lies behind what was written.
func cut(list []filesystem.Extent, written int64) []filesystem.Extent {
	var parts []filesystem.Extent
	for _, e := range list {
		inside := min(max(0, written-e.Offset), e.Length)
		if inside > 0 {
			parts = append(parts, filesystem.Extent{Kind: filesystem.Plain, Offset: e.Offset, Length: inside, Disk: e.Disk, Stored: inside})
		}
		if rest := e.Length - inside; rest > 0 {
			parts = append(parts, filesystem.Extent{
				Kind: filesystem.Hole, Offset: e.Offset + inside, Length: rest, Disk: e.Disk + inside, Stored: rest,
			})
		}
	}
	return parts
}

func (c *content) Size() int64 { return c.size }

func (c *content) Extents() ([]filesystem.Extent, error) { return slices.Clone(c.extents), nil }

func (c *content) ReadAt(p []byte, off int64) (n int, err error) {
	switch {
	case off < 0:
		return 0, fmt.Errorf("reading at %d", off)
	case off >= c.size:
		return 0, io.EOF
	}
	if rest := c.size - off; int64(len(p)) > rest {
		p, err = p[:rest], io.EOF
	}
	i := sort.Search(len(c.extents), func(i int) bool { return c.extents[i].Offset+c.extents[i].Length > off })
	for ; n < len(p); i++ {
		e := c.extents[i]
		inside := off + int64(n) - e.Offset
		piece := p[n:][:min(int64(len(p)-n), e.Length-inside)]
		if e.Kind == filesystem.Hole {
			clear(piece)
		} else if err := c.fs.read(piece, e.Disk+inside); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, err
}
