package extract

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"varve/image/filesystem"
)

// Folder takes file n of tree, and what is in it, out into the folder dir, which is made if need be: as top in it, or with "." what is in
// folder n into dir itself. What is there under the same names is replaced, but a folder is gone on with. Modes, times, links and extended attributes
// are those of the filesystem, and so are owners and device nodes where the user may set them. Files are sparse where they were. What cannot be
// taken out is passed to failed.
func Folder(ctx context.Context, tree filesystem.Tree, n filesystem.Number, top, dir string, failed func(path string, err error)) (Result, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Result{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Result{}, err
	}
	defer root.Close()
	return run(ctx, tree, n, top, &folderTaker{root: root, failed: failed, asRoot: os.Geteuid() == 0}, failed)
}

type folderTaker struct {
	root   *os.Root
	failed func(path string, err error)
	asRoot bool
}

func (t *folderTaker) take(ctx context.Context, f *file, content filesystem.Content, attributes []filesystem.Attribute) error {
	if f.Mode.IsDir() {
		return t.folder(f, attributes)
	}
	if st, err := t.root.Lstat(f.path); err == nil {
		if st.IsDir() {
			return errors.New("there is a folder of that name")
		}
		if err := t.root.Remove(f.path); err != nil {
			return err
		}
	}
	switch {
	case f.again != "":
		return t.root.Link(f.again, f.path)
	case f.Mode&fs.ModeSymlink != 0:
		if err := t.root.Symlink(f.target, f.path); err != nil {
			return err
		}
		return errors.Join(t.own(f), t.times(f))
	case content == nil:
		if err := t.special(f); err != nil {
			return err
		}
		return t.facts(f)
	}
	to, err := t.root.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = to.Truncate(f.Size)
	if err == nil {
		err = copyData(ctx, content, func(p []byte, off int64) error { _, err := to.WriteAt(p, off); return err })
	}
	if err == nil {
		t.attribute(f, to, attributes)
	}
	if err := errors.Join(err, to.Close()); err != nil {
		if noRoom(err) {
			return fatalError{err}
		}
		return err
	}
	return t.facts(f)
}

// folder makes a folder, or goes on with one that is there. Its facts are set when it is left: before, it has to be writable.
func (t *folderTaker) folder(f *file, attributes []filesystem.Attribute) error {
	if f.path != "." {
		err := t.root.Mkdir(f.path, 0o700)
		if errors.Is(err, fs.ErrExist) {
			st, statErr := t.root.Lstat(f.path)
			if statErr == nil && st.IsDir() {
				err = nil
			} else if statErr == nil { // a link to a folder must not be gone into
				if err = t.root.Remove(f.path); err == nil {
					err = t.root.Mkdir(f.path, 0o700)
				}
			}
		}
		if err != nil {
			return err
		}
	}
	d, err := t.root.Open(f.path)
	if err != nil {
		return err
	}
	defer d.Close()
	t.attribute(f, d, attributes)
	return nil
}

func (t *folderTaker) leave(f *file) error {
	if f.path == "." {
		return nil // the user's own folder stays his
	}
	return t.facts(f)
}

// facts sets owner, mode and times, in this order: a new owner takes setuid away.
func (t *folderTaker) facts(f *file) error {
	if err := t.own(f); err != nil {
		return err
	}
	if err := t.root.Chmod(f.path, f.Mode&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil {
		return err
	}
	return t.times(f)
}

func (t *folderTaker) own(f *file) error {
	if !t.asRoot {
		return nil
	}
	return t.root.Lchown(f.path, int(f.UID), int(f.GID))
}

// attribute sets extended attributes. One that cannot be set here does not keep the file from being taken.
func (t *folderTaker) attribute(f *file, to *os.File, attributes []filesystem.Attribute) {
	for _, a := range attributes {
		if err := setAttribute(to, a); err != nil {
			t.failed(f.path, fmt.Errorf("attribute %s: %w", a.Name, err))
		}
	}
}
