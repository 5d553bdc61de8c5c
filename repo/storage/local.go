package storage

import (
	"container/list"
	"context"
	"crypto/rand"
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
// An object is written to a temporary file in its own folder, synced, renamed, and then its folder is synced: without the
// first sync a power cut leaves an empty file of the right name, without the second one a full file of the temporary
// name. The folders above are synced too when a Local first writes to a folder, whoever made it: another process may not
// have come to that yet. Names that start with a dot are temporary files, or none of ours, and no objects.
type Local struct {
	root string
	disk disk

	mu      sync.Mutex
	settled map[string]bool // folders whose names are known to survive a power cut
	open    map[string]*list.Element
	recent  *list.List // of *openFile, the most recently used first
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
	l := &Local{root: root, disk: osDisk{}, settled: map[string]bool{}, open: map[string]*list.Element{}, recent: list.New()}
	info, err := os.Stat(root)
	switch {
	case errors.Is(err, fs.ErrNotExist) && create:
		if err := l.makeRoot(root); err != nil {
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

// Near implements Storage.
func (l *Local) Near() bool { return true }

// Location is the folder's absolute path.
func (l *Local) Location() string { return l.root }

// Free implements Sized.
func (l *Local) Free(context.Context) (int64, error) {
	n, err := free(l.root)
	if err != nil {
		return 0, fmt.Errorf("asking how much room there is at %s: %w", l.root, err)
	}
	return n, nil
}

func (l *Local) path(name string) (string, error) {
	if err := checkName(name); err != nil {
		return "", err
	}
	return filepath.Join(l.root, filepath.FromSlash(name)), nil
}

// Put implements Storage.
func (l *Local) Put(ctx context.Context, name string, data []byte) error {
	return l.publish(ctx, name, data, func(temp, path string) error {
		l.forget(name) // Windows does not replace an open file
		err := l.disk.rename(temp, path)
		l.forget(name) // a reader may have come in between, and an open file keeps its space
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w; files can be made in that folder, and not be renamed: if that is meant so (chattr +a does it), use --append-only", err)
		}
		return err
	})
}

// PutNew implements Storage.
func (l *Local) PutNew(ctx context.Context, name string, data []byte) error {
	return l.publish(ctx, name, data, func(temp, path string) error {
		err := l.disk.link(temp, path)
		if err == nil {
			if err = l.disk.remove(temp); errors.Is(err, fs.ErrPermission) {
				err = nil // a folder that is append-only keeps this name too, which is no object's
			}
			return err
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
		if err = claim.Close(); err == nil {
			err = l.disk.rename(temp, path)
		}
		if err != nil {
			_ = l.disk.remove(path)
		}
		return err
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
	// Random, because the same folder may be in use by another host with a process of the same number.
	temp := filepath.Join(dir, tempPrefix+rand.Text()+"-"+filepath.Base(path))
	f, err := l.createIn(dir, temp)
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

// createIn makes the file temp in the folder dir, which it makes when it is missing.
func (l *Local) createIn(dir, temp string) (file, error) {
	if err := l.settle(dir); err != nil {
		return nil, err
	}
	f, err := l.disk.create(temp)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	// Somebody has removed the folder since.
	l.mu.Lock()
	clear(l.settled)
	l.mu.Unlock()
	if err := l.settle(dir); err != nil {
		return nil, err
	}
	return l.disk.create(temp)
}

// settle makes a folder below the root, and those between, and their names durable. It does not make the root again: a
// root that has gone is a disk that is not mounted any more.
func (l *Local) settle(dir string) error {
	if dir == l.root {
		return nil
	}
	l.mu.Lock()
	done := l.settled[dir]
	l.mu.Unlock()
	if done {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := l.settle(parent); err != nil {
		return err
	}
	if err := l.disk.mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := l.disk.syncDir(parent); err != nil {
		return err
	}
	l.mu.Lock()
	l.settled[dir] = true
	l.mu.Unlock()
	return nil
}

// makeRoot makes a folder and those above it that are missing, each durable.
func (l *Local) makeRoot(dir string) error {
	err := l.disk.mkdir(dir)
	parent := filepath.Dir(dir)
	if errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err := l.makeRoot(parent); err != nil {
			return err
		}
		err = l.disk.mkdir(dir)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return l.disk.syncDir(parent)
}

// Get implements Storage.
func (l *Local) Get(ctx context.Context, name string, offset, length int64, buf []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// What is read in ranges is read again soon. What is read whole is not, and would push the others out; on Windows it
	// would also keep other processes from replacing it.
	f, size, err := l.reading(name, length >= 0)
	if err != nil {
		return nil, err
	}
	defer l.done(f)
	if length, err = span(size, offset, length); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err) // before a wrong length is allocated
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

// Drop implements Cached.
func (l *Local) Drop(name string) {
	if f, _, err := l.reading(name, false); err == nil {
		dropCached(f.File)
		l.done(f)
	}
}

// openFile is a file that is open for reading; it is closed when nobody reads it and it is not in Local.open any more.
type openFile struct {
	*os.File
	info  fs.FileInfo // which file it is
	name  string
	users int
	gone  bool // from Local.open, or never was in it
}

// reading returns the open file of an object, which the caller gives back with done, and the size. With keep the file
// stays open for the next read.
func (l *Local) reading(name string, keep bool) (*openFile, int64, error) {
	path, err := l.path(name)
	if err != nil {
		return nil, 0, err
	}
	// By name and each time, because another process may have removed or replaced the file, and what is listed no more
	// must not be read any more. The open file's count of links would not tell: a copy made with cp -al holds a link too.
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, readError(name, err)
	}
	if info.IsDir() {
		return nil, 0, readError(name, fs.ErrNotExist)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, found := l.open[name]; found {
		f := e.Value.(*openFile)
		if os.SameFile(f.info, info) {
			l.recent.MoveToFront(e)
			f.users++
			return f, info.Size(), nil
		}
		l.drop(e)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, readError(name, err)
	}
	if info, err = file.Stat(); err != nil { // it may be a newer one
		file.Close()
		return nil, 0, readError(name, err)
	}
	f := &openFile{File: file, info: info, name: name, users: 1, gone: !keep}
	if keep {
		l.open[name] = l.recent.PushFront(f)
	}
	for l.recent.Len() > maxOpen {
		l.drop(l.recent.Back())
	}
	return f, info.Size(), nil
}

// readError says what was being read, and tells an absent object from one that cannot be read.
func readError(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotExist
	}
	return fmt.Errorf("reading %s: %w", name, err)
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
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	if _, err := os.Stat(l.root); err != nil {
		return fmt.Errorf("listing %s: %w", l.root, err) // a disk that is not mounted is not an empty storage
	}
	// The separator makes it follow a symbolic link.
	start := filepath.Join(l.root, filepath.FromSlash(prefix)) + string(filepath.Separator)
	var stopped error // what f returned
	err := filepath.WalkDir(start, func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil // no object has such a name yet, or it was removed meanwhile
		}
		if err != nil || path == start {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case entry.Name()[0] == '.':
			if strings.HasPrefix(entry.Name(), tempPrefix) && time.Since(info.ModTime()) > staleAfter {
				_ = l.disk.remove(path) // the next time will do as well
			}
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		case !info.Mode().IsRegular():
			return nil
		}
		relative, err := filepath.Rel(l.root, path)
		if err != nil {
			return err
		}
		if stopped = f(filepath.ToSlash(relative), info.Size()); stopped != nil {
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing %s: %w", start, err)
	}
	return stopped
}

// Delete implements Storage.
func (l *Local) Delete(ctx context.Context, name string) error {
	path, err := l.path(name)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	l.forget(name) // Windows does not remove an open file
	if info, statErr := os.Lstat(path); statErr == nil && info.IsDir() {
		err = ErrNotExist // an empty folder could be removed too
	} else {
		err = l.disk.remove(path)
		l.forget(name) // as in Put
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = ErrNotExist
	}
	if err == nil {
		// A record that a power cut brings back would name packs that were removed after it.
		err = l.disk.syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("deleting %s: %w", name, err)
	}
	return nil
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
