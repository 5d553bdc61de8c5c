// Package storage is where the objects of a repository rest: whole, immutable, under slash-separated names.
//
// The interface is what an object store can do: put, put if absent, get a range, list, delete. Nothing is appended to and
// nothing is renamed from one name to another. Local keeps objects as files, Memory in memory; Faulty stands before
// another storage and fails as disks and networks do. Package storagetest has the tests that all of them pass.
package storage

import (
	"context"
	"errors"
	"fmt"
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

	// Delete removes name: ErrNotExist.
	Delete(ctx context.Context, name string) error

	// Location says where this is, for messages.
	Location() string
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
