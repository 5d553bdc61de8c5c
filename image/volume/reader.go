package volume

import (
	"context"
	"io"

	"varve/image/filesystem"
	"varve/image/filesystem/btrfs"
	"varve/image/filesystem/exfat"
	"varve/image/filesystem/ext"
	"varve/image/filesystem/fat"
	"varve/image/filesystem/ntfs"
	"varve/image/filesystem/swap"
	"varve/image/filesystem/xfs"
)

// reader opens filesystems of one family. The error is filesystem.ErrUnknown when the bytes are of no such one.
type reader struct {
	name string
	open func(r io.ReaderAt, size int64) (filesystem.Filesystem, error)
}

// readers are all that there are.
var readers = []reader{
	{"ext", as(ext.Open)},
	{"xfs", as(xfs.Open)},
	{"btrfs", as(btrfs.Open)},
	{"ntfs", as(ntfs.Open)},
	{"exfat", as(exfat.Open)},
	{"fat", as(fat.Open)},
	{"swap", as(swap.Open)},
}

// as makes of what opens one family what opens any.
func as[F filesystem.Filesystem](open func(io.ReaderAt, int64) (F, error)) func(io.ReaderAt, int64) (filesystem.Filesystem, error) {
	return func(r io.ReaderAt, size int64) (filesystem.Filesystem, error) {
		s, err := open(r, size)
		if err != nil {
			return nil, err // and no pointer to nothing
		}
		return s, nil
	}
}

// guard makes a filesystem of s that does not panic, with files if s has them.
func guard(s filesystem.Filesystem) filesystem.Filesystem {
	if tree, is := s.(filesystem.Tree); is {
		return guardedTree{guarded{s}, tree}
	}
	return guarded{s}
}

type guarded struct{ filesystem.Filesystem }

func (g guarded) Info() (info filesystem.Info) {
	_ = contained(func() error { info = g.Filesystem.Info(); return nil }) // without it there is just less to tell
	return info
}

func (g guarded) Free(ctx context.Context, free func(filesystem.Range) error) error {
	return contained(func() error { return g.Filesystem.Free(ctx, free) })
}

type guardedTree struct {
	guarded
	tree filesystem.Tree
}

func (g guardedTree) Root() (n filesystem.Number) {
	_ = contained(func() error { n = g.tree.Root(); return nil }) // Stat says that there is no file 0
	return n
}

func (g guardedTree) Stat(n filesystem.Number) (f filesystem.File, err error) {
	err = contained(func() (err error) { f, err = g.tree.Stat(n); return err })
	return f, err
}

func (g guardedTree) ReadDir(ctx context.Context, folder filesystem.Number, f func(filesystem.Entry) error) error {
	return contained(func() error { return g.tree.ReadDir(ctx, folder, f) })
}

func (g guardedTree) Readlink(n filesystem.Number) (target string, err error) {
	err = contained(func() (err error) { target, err = g.tree.Readlink(n); return err })
	return target, err
}

func (g guardedTree) Attributes(n filesystem.Number) (list []filesystem.Attribute, err error) {
	err = contained(func() (err error) { list, err = g.tree.Attributes(n); return err })
	return list, err
}

func (g guardedTree) Streams(n filesystem.Number) (list []filesystem.Stream, err error) {
	err = contained(func() (err error) { list, err = g.tree.Streams(n); return err })
	return list, err
}

func (g guardedTree) Open(n filesystem.Number, stream string) (c filesystem.Content, err error) {
	err = contained(func() (err error) { c, err = g.tree.Open(n, stream); return err })
	if err != nil {
		return nil, err
	}
	return guardedContent{c}, nil
}

type guardedContent struct{ filesystem.Content }

func (g guardedContent) ReadAt(p []byte, off int64) (n int, err error) {
	err = contained(func() (err error) { n, err = g.Content.ReadAt(p, off); return err })
	return n, err
}

func (g guardedContent) Size() (n int64) {
	_ = contained(func() error { n = g.Content.Size(); return nil })
	return n
}

func (g guardedContent) Extents() (list []filesystem.Extent, err error) {
	err = contained(func() (err error) { list, err = g.Content.Extents(); return err })
	return list, err
}
