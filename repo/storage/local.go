package storage

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Local keeps objects as files in a folder.
//
// An object is written to a temporary file in its own folder, synced, renamed, and then its folder is synced, and the
// folder's parent when the folder is new: without the first sync a power cut leaves an empty file of the right name,
// without the second one a full file of the temporary name. Temporary files start with a dot and are no objects.
type Local struct {
	root string
	disk disk

	mu     sync.Mutex
	open   map[string]*list.Element
	recent *list.List // of *openFile, the most recently used first
}

// disk is what Local asks of the file system. Tests record and fail it.
type disk interface {
	create(path string) (file, error) // exclusively
	rename(from, to string) error     // replaces to
	link(from, to string) error       // fs.ErrExist where to exists
	remove(path string) error
	mkdir(path string) error
	syncDir(path string) error
}

// file is a file to be written.
type file interface {
	io.Writer
	Sync() error
	Close() error
}

// maxOpen is how many files are kept open for reading.
const maxOpen = 16

// staleAfter is the age at which a temporary file is taken for what a crash has left.
const staleAfter = 24 * time.Hour

// tempPrefix starts the names of temporary files.
const tempPrefix = ".tmp-"

// OpenLocal opens the folder at path, or makes it when create is set. Without that, ErrNotExist where there is none.
func OpenLocal(path string, create bool) (*Local, error) {
	root, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("opening the storage %s: %w", path, err)
	}
	l := &Local{root: root, disk: osDisk{}, open: map[string]*list.Element{}, recent: list.New()}
	info, err := os.Stat(root)
	switch {
	case errors.Is(err, fs.ErrNotExist) && create:
		if err := l.makeDir(root); err != nil {
			return nil, fmt.Errorf("making the storage folder: %w", err)
		}
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("opening the storage %s: %w", root, ErrNotExist)
	case err != nil:
		return nil, fmt.Errorf("opening the storage: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("opening the storage %s: it is not a folder", root)
	}
	return l, nil
}

// Location is the folder's absolute path.
func (l *Local) Location() string { return l.root }

func (l *Local) path(name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	return filepath.Join(l.root, filepath.FromSlash(name)), nil
}

// Put implements Storage.
func (l *Local) Put(ctx context.Context, name string, data []byte) error {
	return l.publish(ctx, name, data, func(temp, path string) error {
		err := l.disk.rename(temp, path)
		l.forget(name)
		return err
	})
}

// PutNew implements Storage.
func (l *Local) PutNew(ctx context.Context, name string, data []byte) error {
	return l.publish(ctx, name, data, func(temp, path string) error {
		err := l.disk.link(temp, path)
		if err == nil {
			return l.disk.remove(temp)
		}
		if errors.Is(err, fs.ErrExist) {
			return ErrExist
		}
		// FAT and some network file systems have no links. There a name that is claimed by an empty file first keeps
		// all but one out; should a crash leave that file empty, it is damage that readers recognise.
		claim, err := l.disk.create(path)
		if errors.Is(err, fs.ErrExist) {
			return ErrExist
		}
		if err != nil {
			return err
		}
		if err := claim.Close(); err != nil {
			return err
		}
		return l.disk.rename(temp, path)
	})
}

// publish writes a temporary file and gives it its name by commit.
func (l *Local) publish(ctx context.Context, name string, data []byte, commit func(temp, path string) error) error {
	path, err := l.path(name)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	temp := filepath.Join(dir, fmt.Sprintf("%s%d-%d-%s", tempPrefix, os.Getpid(), tempNumber.next(), filepath.Base(path)))
	f, err := l.disk.create(temp)
	if errors.Is(err, fs.ErrNotExist) {
		if err = l.makeDir(dir); err == nil {
			f, err = l.disk.create(temp)
		}
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	_, err = f.Write(data)
	if err == nil {
		// After a failed sync nothing is known of the file: it is removed, and never synced again.
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = commit(temp, path)
	}
	if err != nil {
		_ = l.disk.remove(temp) // the first error is the one that counts
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := l.disk.syncDir(dir); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}

// makeDir makes a folder and those above it that are missing, each durable.
func (l *Local) makeDir(dir string) error {
	err := l.disk.mkdir(dir)
	parent := filepath.Dir(dir)
	if errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err := l.makeDir(parent); err != nil {
			return err
		}
		err = l.disk.mkdir(dir)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// Also where another has just made it: it may not have come to this yet.
	return l.disk.syncDir(parent)
}

// Get implements Storage.
func (l *Local) Get(ctx context.Context, name string, offset, length int64, buf []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := l.reading(name)
	if err != nil {
		return nil, err
	}
	defer l.done(f)
	if length < 0 {
		info, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, err)
		}
		if length = info.Size() - offset; length < 0 {
			return nil, fmt.Errorf("reading %s: %w", name, io.ErrUnexpectedEOF)
		}
	} else if info, err := f.Stat(); err == nil && info.Size()-offset < length {
		return nil, fmt.Errorf("reading %s: %w", name, io.ErrUnexpectedEOF) // before a wrong length is allocated
	}
	if int64(cap(buf)) < length {
		buf = make([]byte, length)
	}
	buf = buf[:length]
	n, err := f.ReadAt(buf, offset)
	if n == len(buf) {
		return buf, nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return nil, fmt.Errorf("reading %s: %w", name, err)
}

// openFile is a file that is open for reading; it is closed when nobody reads it and it is not in Local.open any more.
type openFile struct {
	*os.File
	name  string
	users int
	gone  bool // from Local.open
}

// reading returns the open file of an object, which the caller gives back with done.
func (l *Local) reading(name string) (*openFile, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, found := l.open[name]; found {
		f := e.Value.(*openFile)
		// Another process may have removed it: what is listed no more must not be read any more.
		if info, err := f.Stat(); err == nil && links(info) > 0 {
			l.recent.MoveToFront(e)
			f.users++
			return f, nil
		}
		l.drop(e)
	}
	path, err := l.path(name)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading %s: %w", name, ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	f := &openFile{File: file, name: name, users: 1}
	l.open[name] = l.recent.PushFront(f)
	for l.recent.Len() > maxOpen {
		l.drop(l.recent.Back())
	}
	return f, nil
}

func (l *Local) done(f *openFile) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.users--; f.users == 0 && f.gone {
		f.Close()
	}
}

// drop takes a file out of the open ones. l.mu is held.
func (l *Local) drop(e *list.Element) {
	f := e.Value.(*openFile)
	l.recent.Remove(e)
	delete(l.open, f.name)
	if f.gone = true; f.users == 0 {
		f.Close()
	}
}

// forget closes the open file of an object that was replaced or removed.
func (l *Local) forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, found := l.open[name]; found {
		l.drop(e)
	}
}

// List implements Storage. Temporary files that a crash has left long ago are removed on the way.
func (l *Local) List(ctx context.Context, prefix string, f func(name string, size int64) error) error {
	start := l.root
	if prefix != "" {
		if !strings.HasSuffix(prefix, "/") {
			return fmt.Errorf("listing %q: it does not end in a slash", prefix)
		}
		var err error
		if start, err = l.path(strings.TrimSuffix(prefix, "/")); err != nil {
			return err
		}
	}
	err := filepath.WalkDir(start, func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // no object has such a name yet, or it was removed meanwhile
		}
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if strings.HasPrefix(entry.Name(), tempPrefix) {
			if time.Since(info.ModTime()) > staleAfter {
				_ = l.disk.remove(path) // the next time will do as well
			}
			return nil
		}
		relative, err := filepath.Rel(l.root, path)
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		return f(filepath.ToSlash(relative), info.Size())
	})
	if err != nil {
		return fmt.Errorf("listing %s: %w", start, err)
	}
	return nil
}

// Delete implements Storage. A crash may bring the object back: whoever deletes has nothing that depends on it.
func (l *Local) Delete(ctx context.Context, name string) error {
	path, err := l.path(name)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	l.forget(name)
	err = l.disk.remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("deleting %s: %w", name, err)
	}
	return nil
}

// counter numbers the temporary files of this process.
type counter struct {
	mu sync.Mutex
	n  int
}

var tempNumber counter

func (c *counter) next() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

// osDisk is the file system.
type osDisk struct{}

func (osDisk) create(path string) (file, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}
func (osDisk) rename(from, to string) error { return os.Rename(from, to) }
func (osDisk) link(from, to string) error   { return os.Link(from, to) }
func (osDisk) remove(path string) error     { return os.Remove(path) }
func (osDisk) mkdir(path string) error      { return os.Mkdir(path, 0o700) }
func (osDisk) syncDir(path string) error    { return syncDir(path) }
