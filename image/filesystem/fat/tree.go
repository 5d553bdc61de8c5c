package fat

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"

	"varve/image/filesystem"
)

// root is the number of the root folder. No entry has an odd offset.
const root filesystem.Number = 1

// Root implements filesystem.Tree.
func (fs *FS) Root() filesystem.Number { return root }

// find returns the entry of a file.
func (fs *FS) find(n filesystem.Number) (dirEntry, error) {
	at := int64(n)
	inside := at >= fs.rootOffset && at < fs.rootOffset+fs.rootSize || at >= fs.data && at < fs.data+int64(fs.clusters)*fs.cluster
	if !inside || at%entrySize != 0 {
		return nil, filesystem.Corrupt("there is no entry at %d", n)
	}
	e := make(dirEntry, entrySize)
	if err := fs.read(e, at); err != nil {
		return nil, err
	}
	if !e.isFile() {
		return nil, filesystem.Corrupt("the entry at %d is not that of a file", n)
	}
	return e, nil
}

// Stat implements filesystem.Tree.
func (fs *FS) Stat(n filesystem.Number) (filesystem.File, error) {
	if n == root {
		return filesystem.File{Number: root, Mode: folderMode, Links: 1}, nil
	}
	e, err := fs.find(n)
	if err != nil {
		return filesystem.File{}, err
	}
	return e.file(n), nil
}

// folder returns where the entries of a folder lie; with an error, as many as can be found.
func (fs *FS) folder(n filesystem.Number) ([]filesystem.Extent, error) {
	first := fs.rootCluster
	switch {
	case n != root:
		e, err := fs.find(n)
		if err != nil {
			return nil, err
		}
		if !e.isFolder() {
			return nil, fmt.Errorf("the entry at %d is not that of a folder", n)
		}
		first = fs.first(e)
	case fs.bits != 32:
		return []filesystem.Extent{{Kind: filesystem.Plain, Length: fs.rootSize, Disk: fs.rootOffset, Stored: fs.rootSize}}, nil
	}
	return fs.table.chain(first, -max(1, maxFolder/fs.cluster))
}

// first is the first cluster of a file.
func (fs *FS) first(e dirEntry) uint32 {
	c := uint32(le.Uint16(e[26:]))
	if fs.bits == 32 {
		c |= uint32(le.Uint16(e[20:])) << 16
	}
	return c
}

// ReadDir implements filesystem.Tree.
func (fs *FS) ReadDir(ctx context.Context, folder filesystem.Number, f func(filesystem.Entry) error) error {
	list, damage := fs.folder(folder)
	var long longName
	err := fs.entries(ctx, list, func(at int64, e dirEntry) (bool, error) {
		if e.isPart() {
			long.add(e)
			return true, nil
		}
		defer func() { long.parts = 0 }()
		if !e.isFile() || e.isDots() {
			return true, nil
		}
		name, ok := long.name(e)
		if !ok {
			name, ok = e.shortName()
		}
		if !ok {
			if damage == nil {
				damage = filesystem.Corrupt("the entry at %d has no name that can be one", at)
			}
			return true, nil
		}
		return true, f(filesystem.Entry{Name: name, Number: filesystem.Number(at), Mode: e.mode().Type()})
	})
	if err != nil {
		return err
	}
	return damage
}

// Readlink implements filesystem.Tree. There are no links.
func (fs *FS) Readlink(n filesystem.Number) (string, error) {
	return "", fmt.Errorf("the entry at %d is not that of a symbolic link", n)
}

// Attributes implements filesystem.Tree. There are none.
func (fs *FS) Attributes(filesystem.Number) ([]filesystem.Attribute, error) { return nil, nil }

// Streams implements filesystem.Tree. There are none.
func (fs *FS) Streams(filesystem.Number) ([]filesystem.Stream, error) { return nil, nil }

// Open implements filesystem.Tree. The whole chain of the file is read here.
func (fs *FS) Open(n filesystem.Number, stream string) (filesystem.Content, error) {
	if n == root {
		return nil, fmt.Errorf("the root folder has no content")
	}
	e, err := fs.find(n)
	switch {
	case err != nil:
		return nil, err
	case e.isFolder():
		return nil, fmt.Errorf("the entry at %d is that of a folder", n)
	case stream != "":
		return nil, fmt.Errorf("the entry at %d has no stream %q", n, stream)
	}
	c := content{fs: fs, size: e.file(n).Size}
	c.extents, err = fs.table.chain(fs.first(e), (c.size+fs.cluster-1)/fs.cluster)
	if err != nil {
		return nil, err
	}
	return &c, nil
}

// content is that of a file.
type content struct {
	fs      *FS
	size    int64
	extents []filesystem.Extent
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
		if err := c.fs.read(piece, e.Disk+inside); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, err
}
