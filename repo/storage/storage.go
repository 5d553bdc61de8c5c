// Package storage is where the objects of a repository rest: whole, immutable, under slash-separated names.
//
// The interface is what an object store can do: put, put if absent, get a range, list, delete. Nothing is appended to and
// nothing is renamed from one name to another. Local keeps objects as files, Memory in memory. Package storagetest has
// the tests that every storage passes, and a storage that fails when it is told to.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Errors that callers decide by; compare with errors.Is.
var (
	ErrNotExist = errors.New("there is no such object")
	ErrExist    = errors.New("the object is there already")
)

// Storage keeps objects. All methods may be called concurrently, from several processes too.
type Storage interface {
	// Put stores data under name, in place of what was there. Others see all of the old object or all of the new one.
	// When it returns nil the object survives a power cut. data is not kept. After an error the object may be there.
	Put(ctx context.Context, name string, data []byte) error

	// PutNew is Put for a name that must not be taken: ErrExist. Of several that put one name, one succeeds.
	PutNew(ctx context.Context, name string, data []byte) error

	// Get returns length bytes from offset, or all from there on when length is negative; in buf's memory where there is
	// room. ErrNotExist; io.ErrUnexpectedEOF when the object ends before.
	Get(ctx context.Context, name string, offset, length int64, buf []byte) ([]byte, error)

	// List calls f for every object whose name starts with prefix, which is empty or ends in "/", in no order. An error of
	// f ends it and is returned. Objects that come or go meanwhile may be missing or not.
	List(ctx context.Context, prefix string, f func(name string, size int64) error) error

	// Delete removes name: ErrNotExist. When it returns nil the object stays away after a power cut. After an error it may
	// be gone.
	Delete(ctx context.Context, name string) error

	// Near reports whether reading an object is cheap, as from a disk of this machine: cheaper than to store much the same again.
	Near() bool

	// Location says where this is, for messages.
	Location() string
}

// Unwritable reports whether err says that a storage takes nothing more, while what is in it may well be readable: it is full,
// read-only, not this user's to write to, or on a medium that fails.
func Unwritable(err error) bool {
	return errors.Is(err, fs.ErrPermission) || slices.ContainsFunc(unwritable, func(e error) bool { return errors.Is(err, e) })
}

// Cached is a storage for which the system keeps in memory what was read or written.
type Cached interface {
	// Drop lets go of what is kept of name, so that the next Get reads the medium, as far as that can be told.
	Drop(name string)
}

// Sized is a Storage that knows how much room it has left.
type Sized interface {
	// Free returns how many bytes this user may still store. Where several storages share the room, so do their answers.
	Free(ctx context.Context) (int64, error)
}

// checkName reports why name cannot be the name of an object: it must not lead out of the storage.
func checkName(name string) error {
	if name == "" || len(name) > 1000 {
		return fmt.Errorf("%q is not the name of an object", name)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' || strings.ContainsAny(part, "\\:\x00") {
			return fmt.Errorf("%q is not the name of an object", name)
		}
	}
	return nil
}

// checkPrefix reports why prefix cannot be listed.
func checkPrefix(prefix string) error {
	folder, found := strings.CutSuffix(prefix, "/")
	switch {
	case prefix == "":
		return nil
	case !found:
		return fmt.Errorf("listing %q: it does not end in a slash", prefix)
	}
	return checkName(folder)
}

// span returns how many bytes to read of an object of size bytes.
func span(size, offset, length int64) (int64, error) {
	if offset < 0 || offset > size || length > size-offset {
		return 0, io.ErrUnexpectedEOF
	}
	if length < 0 {
		return size - offset, nil
	}
	return length, nil
}
