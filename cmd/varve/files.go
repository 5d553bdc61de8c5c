package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"varve/image/filesystem"
	"varve/image/volume"
	"varve/repo"
	"varve/snapshot"
	"varve/snapshot/catalogue"
)

// section reads a part of a disk of a snapshot.
func section(ctx context.Context, r *repo.Repository, d *snapshot.Disk, at snapshot.Range) *io.SectionReader {
	return io.NewSectionReader(snapshot.NewReader(ctx, r, d), at.Offset, at.Length)
}

// openTree opens the filesystem of a volume, to read its files from the repository.
func openTree(ctx context.Context, r *repo.Repository, a snapshot.Address) (filesystem.Tree, error) {
	layout := volume.Find(snapshot.NewReader(ctx, r, a.Disk), a.Disk.Size, a.Disk.SectorSize)
	for i := range layout.Volumes {
		v := &layout.Volumes[i]
		if v.Number != a.Volume.Number {
			continue
		}
		tree, ok := v.FS.(filesystem.Tree)
		if !ok {
			return nil, fmt.Errorf("%s of disk %s: there is no filesystem whose files varve can read; 'varve restore %s -t FILE' gives it as an image",
				v, a.Disk.Name, addressOf(a, ""))
		}
		if dirty := v.Info.Dirty; dirty != "" {
			return tree, fmt.Errorf("%w: it %s", errDirty, dirty)
		}
		return tree, nil
	}
	return nil, fmt.Errorf("disk %s: %w p%d", a.Disk.Name, snapshot.ErrNoVolume, a.Volume.Number)
}

// errDirty says that files can be read, but may not be what they would be after a recovery.
var errDirty = errors.New("the filesystem was in use when it was read: files that were just being written may be as they were before, or damaged")

// tree opens the filesystem of a volume and tells when it was in use.
func (a *app) tree(ctx context.Context, r *repo.Repository, at snapshot.Address) (filesystem.Tree, error) {
	tree, err := openTree(ctx, r, at)
	if errors.Is(err, errDirty) {
		a.ui.note("%s p%d: %v", at.Disk.Name, at.Volume.Number, err)
		err = nil
	}
	return tree, err
}

// addressOf writes the address of a path on the volume of a.
func addressOf(a snapshot.Address, path string) string {
	text := shortID(a.Snapshot.ID)
	if len(a.Snapshot.Disks) > 1 {
		text += ":" + a.Disk.Name
	}
	return text + fmt.Sprintf(":p%d", a.Volume.Number) + path
}

// find returns the file at path, whose names are separated by slashes. Links are not followed. fs.ErrNotExist.
func findFile(ctx context.Context, tree filesystem.Tree, path string) (filesystem.File, error) {
	info := tree.Info()
	v := volume.Volume{Info: info}
	at, err := tree.Stat(tree.Root())
	if err != nil {
		return at, err
	}
	for _, name := range strings.Split(path, "/") {
		if name == "" {
			continue
		}
		if !at.Mode.IsDir() {
			return at, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
		}
		var exact, similar *filesystem.Entry
		err := tree.ReadDir(ctx, at.Number, func(e filesystem.Entry) error {
			switch {
			case e.Name == name:
				exact = &e
				return fs.SkipAll
			case filesystem.IgnoresCase(v.Info.Type) && similar == nil && strings.EqualFold(e.Name, name):
				similar = &e
			}
			return nil
		})
		found := cmp.Or(exact, similar)
		if found == nil {
			if err != nil && !errors.Is(err, fs.SkipAll) {
				return at, fmt.Errorf("%s: %w", path, err)
			}
			return at, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
		}
		if at, err = tree.Stat(found.Number); err != nil {
			return at, fmt.Errorf("%s: %w", path, err)
		}
	}
	return at, nil
}

// listing lists files of a volume: from its catalogue, or, where there is none, from the filesystem itself.
type listing struct {
	root   func(ctx context.Context) (catalogue.Entry, error)
	lookup func(ctx context.Context, path string) (catalogue.Entry, error)
	list   func(ctx context.Context, folder catalogue.Entry, f func(catalogue.Entry) error) error
}

// listing returns what lists the files of a volume.
func (a *app) listing(ctx context.Context, r *repo.Repository, at snapshot.Address) (*listing, error) {
	if at.Volume.Catalogue != nil {
		c, err := at.Volume.Files(r)
		if err != nil {
			return nil, err
		}
		return &listing{c.Root, c.Lookup, c.List}, nil
	}
	tree, err := a.tree(ctx, r, at)
	if err != nil {
		return nil, err
	}
	entry := func(name string, f filesystem.File) (catalogue.Entry, error) {
		e := catalogue.Entry{Name: name, Number: f.Number, Mode: f.Mode, UID: f.UID, GID: f.GID, Links: f.Links, Size: f.Size, Modified: f.Modified,
			Changed: f.Changed, Device: f.Device}
		var err error
		if f.Mode&fs.ModeSymlink != 0 {
			e.Target, err = tree.Readlink(f.Number)
		}
		return e, err
	}
	return &listing{
		root: func(context.Context) (catalogue.Entry, error) {
			f, err := tree.Stat(tree.Root())
			if err != nil {
				return catalogue.Entry{}, err
			}
			return entry("", f)
		},
		lookup: func(ctx context.Context, path string) (catalogue.Entry, error) {
			f, err := findFile(ctx, tree, path)
			if err != nil {
				return catalogue.Entry{}, err
			}
			return entry(path[strings.LastIndexByte(strings.TrimRight(path, "/"), '/')+1:], f)
		},
		list: func(ctx context.Context, folder catalogue.Entry, f func(catalogue.Entry) error) error {
			var names []filesystem.Entry
			if err := tree.ReadDir(ctx, folder.Number, func(e filesystem.Entry) error { names = append(names, e); return nil }); err != nil {
				return err
			}
			slices.SortFunc(names, func(x, y filesystem.Entry) int { return strings.Compare(x.Name, y.Name) })
			for _, n := range names {
				file, err := tree.Stat(n.Number)
				if err != nil {
					file, err = filesystem.File{Number: n.Number, Mode: n.Mode}, nil
				}
				e, _ := entry(n.Name, file) // a link whose target cannot be read is listed without
				if err := f(e); err != nil {
					return err
				}
			}
			return nil
		},
	}, nil
}

// volumeOf makes sure that an address names a volume: the only one of its disk where it names none.
func volumeOf(at snapshot.Address) (snapshot.Address, error) {
	if at.Volume != nil {
		return at, nil
	}
	var with []*snapshot.Volume
	for i := range at.Disk.Volumes {
		if v := &at.Disk.Volumes[i]; v.Catalogue != nil {
			with = append(with, v)
		}
	}
	if len(with) != 1 && len(at.Disk.Volumes) == 1 {
		with = []*snapshot.Volume{&at.Disk.Volumes[0]}
	}
	if len(with) != 1 {
		names := ""
		for i := range at.Disk.Volumes {
			names += fmt.Sprintf(" p%d", at.Disk.Volumes[i].Number)
		}
		if names == "" {
			return at, fmt.Errorf("the snapshot does not know what is on disk %s: it was made by an older varve; the next backup will", at.Disk.Name)
		}
		return at, fmt.Errorf("which partition of disk %s? It has%s: write %s:p1/PATH", at.Disk.Name, names, shortID(at.Snapshot.ID))
	}
	at.Volume = with[0]
	return at, nil
}

// openContent opens the regular file that an address means.
func openContent(ctx context.Context, r *repo.Repository, at snapshot.Address) (filesystem.Content, error) {
	tree, err := openTree(ctx, r, at)
	if err != nil && !errors.Is(err, errDirty) {
		return nil, err
	}
	file, err := findFile(ctx, tree, at.Path)
	if err != nil {
		return nil, err
	}
	if !file.Mode.IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", at.Path)
	}
	return tree.Open(file.Number, "")
}
