package exfat

import (
	"context"
	"fmt"

	"varve/image/filesystem"
)

// root is the number of the root folder. No entry is at offset 0.
const root filesystem.Number = 1

// Root implements filesystem.Tree.
func (fs *FS) Root() filesystem.Number { return root }

// find returns the entries of a file.
func (fs *FS) find(n filesystem.Number) (set, error) {
	at, piece := int64(n&^1), n&1 != 0
	if at < fs.data || at >= fs.data+int64(fs.clusters)*fs.cluster || at%entrySize != 0 {
		return nil, filesystem.Corrupt("there is no entry at %d", n)
	}
	c := uint32((at-fs.data)/fs.cluster) + 2
	s := make(set, entrySize, maxEntries*entrySize)
	if err := fs.read(s, at); err != nil {
		return nil, err
	}
	whole := length(s)
	if s[0] != typeFile || whole > cap(s) {
		return nil, filesystem.Corrupt("the entry at %d is not that of a file", n)
	}
	w := window{fs: fs}
	for at += entrySize; len(s) < whole; {
		if at == fs.at(c)+fs.cluster { // the set goes on in the next cluster of the folder
			next := c + 1
			if !piece {
				var err error
				if next, err = w.next(c); err != nil {
					return nil, err
				}
			}
			if !fs.has(next) {
				return nil, filesystem.Corrupt("the entries at %d lead to cluster %d", n, next)
			}
			c, at = next, fs.at(next)
		}
		more := s[len(s):min(whole, len(s)+int(fs.at(c)+fs.cluster-at))]
		if err := fs.read(more, at); err != nil {
			return nil, err
		}
		s, at = s[:len(s)+len(more)], at+int64(len(more))
	}
	return s, s.check()
}

// Stat implements filesystem.Tree.
func (fs *FS) Stat(n filesystem.Number) (filesystem.File, error) {
	if n == root {
		return filesystem.File{Number: root, Mode: folderMode, Links: 1}, nil
	}
	s, err := fs.find(n)
	if err != nil {
		return filesystem.File{}, err
	}
	return s.file(n), nil
}

// folder returns where the entries of a folder lie, with an error as many as can be found, and what the numbers of its files have
// beside the offset.
func (fs *FS) folder(n filesystem.Number) (list []filesystem.Extent, piece filesystem.Number, err error) {
	if n == root {
		list, err = fs.chain(fs.boot.root, -max(1, maxFolder/fs.cluster))
		return list, 0, err
	}
	s, err := fs.find(n)
	switch {
	case err != nil:
		return nil, 0, err
	case !s.isFolder():
		return nil, 0, fmt.Errorf("the entries at %d are not those of a folder", n)
	}
	p := s.place()
	if p.piece {
		piece = 1
	}
	list, err = fs.extents(p)
	return list, piece, err
}

// ReadDir implements filesystem.Tree.
func (fs *FS) ReadDir(ctx context.Context, folder filesystem.Number, f func(filesystem.Entry) error) error {
	list, piece, damage := fs.folder(folder)
	note := func(err error) {
		if damage == nil {
			damage = err
		}
	}
	var open set // that is not whole yet
	var begin int64
	broken := func() {
		if open != nil {
			note(filesystem.Corrupt("the set of entries at %d is not whole", begin))
			open = nil
		}
	}
	err := fs.entries(ctx, list, func(at int64, e []byte) (bool, error) {
		switch {
		case e[0] == typeFile:
			broken()
			open, begin = append(make(set, 0, maxEntries*entrySize), e...), at
		case e[0]&(inUse|secondary) == inUse|secondary && open != nil:
			open = append(open, e...)
		default:
			broken()
		}
		if open == nil || len(open) < length(open) {
			return true, nil
		}
		s, n := open, filesystem.Number(begin)|piece
		open = nil
		if err := s.check(); err != nil {
			note(err)
			return true, nil
		}
		name, ok := s.name()
		if !ok {
			note(filesystem.Corrupt("the entries at %d have no name that can be one", begin))
			return true, nil
		}
		return true, f(filesystem.Entry{Name: name, Number: n, Mode: s.mode().Type()})
	})
	if err != nil {
		return err
	}
	broken()
	return damage
}

// Readlink implements filesystem.Tree. There are no links.
func (fs *FS) Readlink(n filesystem.Number) (string, error) {
	return "", fmt.Errorf("the entries at %d are not those of a symbolic link", n)
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
	s, err := fs.find(n)
	switch {
	case err != nil:
		return nil, err
	case s.isFolder():
		return nil, fmt.Errorf("the entries at %d are those of a folder", n)
	case stream != "":
		return nil, fmt.Errorf("the entries at %d have no stream %q", n, stream)
	}
	list, err := fs.extents(s.place())
	if err != nil {
		return nil, err
	}
	size, written := int64(s.size()), int64(s.written())
	if written < size {
		list = cut(list, written)
	}
	return &content{fs: fs, size: size, extents: list}, nil
}
