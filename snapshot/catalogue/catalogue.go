// Package catalogue keeps what files one filesystem of a snapshot has, so that they can be listed, found and compared
// without a look at the disk's data. It is a tree of listings: each folder's listing has an id by its content, and a
// folder's entry in the listing above has that id. What did not change has the id that it had, costs nothing in the next
// snapshot, and is passed over by who compares two of them.
//
//	Root ─▶ page of the root folder's entry ─▶ its listing ─▶ listings of the folders in it ─▶ …
//
//	a listing    one page of entries, or where it is long
//	             an index page ─▶ pages of entries, in the order of their names
//	             an index page ─▶ index pages ─▶ pages of entries, and so on
//
// Pages are stored as chunks, beside the tree nodes of disks, which begin with other bytes. All numbers are unsigned
// varints as in encoding/binary; Δ is the difference to the entry before in the page, or to 0 in the first one, in
// zigzag form; mode and ⊕ likewise with exclusive or:
//
//	page      3 | entry…                     of the root folder: one entry without a name
//	entry     name | flags 1 | number Δ | mode ⊕ | uid Δ | gid Δ | links | [modified] | [changed] | what it is
//	name      bytes that it shares with the name before | how many others | these      sorted, no two are equal
//	flags     1 modified is there, 2 changed is there, 4 incomplete, 8 content
//	modified  seconds since 1970 Δ | nanoseconds
//	changed   seconds since 1970 Δ | nanoseconds
//
//	of a regular file     size | digest 16 if content
//	of a folder           id of its listing 32 | files below | bytes below, if content
//	of a symbolic link    length of its target | target
//	of a device node      device
//	of an unknown type    size
//	of a pipe, a socket   nothing
//
//	index     4 | level | child…             level 1 is above pages of entries
//	child     name | id 32                   the last name that is below it, as the name of an entry
//
// mode is 16 bits as in Unix. Every page has one encoding, and no other is accepted. Where pages end depends on the names
// in a folder, not on what is said of them: see listing.go.
package catalogue

import (
	"context"
	"encoding/hex"
	"fmt"
	"io/fs"
	"sort"
	"strings"
)

// ID names a page by its content.
type ID = [32]byte

// Loader reads a page, in buf where there is room. It may be used concurrently.
type Loader interface {
	Load(ctx context.Context, id ID, buf []byte) ([]byte, error)
}

// Saver names and saves pages. It does not keep data, and is used by one goroutine at a time.
type Saver interface {
	ID(data []byte) ID
	Save(ctx context.Context, id ID, data []byte) (added bool, err error)
}

// PageID is an ID that is text in JSON.
type PageID ID

// MarshalText writes 64 hexadecimal digits.
func (p PageID) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%x", p[:]), nil }

// UnmarshalText is the inverse of MarshalText.
func (p *PageID) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(p) {
		return fmt.Errorf("%q is not an id of 64 hexadecimal digits", text)
	}
	copy(p[:], raw)
	return nil
}

// Root is what the record of a snapshot says of a catalogue.
type Root struct {
	ID       PageID `json:"id"`                 // of the page of the root folder's entry
	Files    int64  `json:"files"`              // of any type but folders, a file with several names as often as it has
	Folders  int64  `json:"folders"`            // without the root
	Bytes    int64  `json:"bytes"`              // sizes of the regular files among Files
	Problems int64  `json:"problems,omitempty"` // how often something could not be read
}

// Complete reports whether everything could be read when the catalogue was made.
func (r Root) Complete() bool { return r.Problems == 0 }

// Catalogue reads one catalogue. It may be used concurrently. Errors of the loader are passed on, wrapped.
type Catalogue struct {
	// IgnoreCase lets Lookup find names that differ in case only, as NTFS, FAT and exFAT do. The exact name comes first. It must
	// not be changed while the catalogue is used.
	IgnoreCase bool

	load Loader
	root ID
}

// Open returns the catalogue of root. Nothing is read yet.
func Open(load Loader, root Root) *Catalogue { return &Catalogue{load: load, root: ID(root.ID)} }

// Root returns the entry of the root folder, whose name is "".
func (c *Catalogue) Root(ctx context.Context) (Entry, error) { return loadRoot(ctx, c.load, c.root) }

func loadRoot(ctx context.Context, load Loader, id ID) (Entry, error) {
	data, err := loadPage(ctx, load, id, nil)
	if err != nil {
		return Entry{}, err
	}
	e, err := decodeRoot(data)
	if err != nil {
		return Entry{}, damaged(id, err)
	}
	return e, nil
}

// Lookup returns the entry of the file at path, whose names are separated by slashes; slashes before, behind and beside
// others mean nothing, and symbolic links are not followed. An error that wraps fs.ErrNotExist says that there is none.
func (c *Catalogue) Lookup(ctx context.Context, path string) (Entry, error) {
	e, err := c.Root(ctx)
	if err != nil {
		return Entry{}, err
	}
	at := ""
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		if !e.Mode.IsDir() {
			return Entry{}, fmt.Errorf("%s: %s is not a folder: %w", path, at, fs.ErrNotExist)
		}
		next, found, err := c.entry(ctx, e.ID, name)
		if err == nil && !found && c.IgnoreCase {
			next, found, err = c.foldedEntry(ctx, e, name)
		}
		if err != nil {
			return Entry{}, fmt.Errorf("looking for %s: %w", path, err)
		}
		if !found && e.Incomplete {
			return Entry{}, fmt.Errorf("%s: not all of the folder %s/ could be read when the snapshot was made: %w", path, at, fs.ErrNotExist)
		}
		if !found {
			return Entry{}, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
		}
		e, at = next, at+"/"+next.Name
	}
	return e, nil
}

// entry returns the entry of exactly that name in a listing.
func (c *Catalogue) entry(ctx context.Context, id ID, name string) (Entry, bool, error) {
	level := anyLevel
	for id != (ID{}) {
		data, err := loadPage(ctx, c.load, id, nil)
		if err != nil {
			return Entry{}, false, err
		}
		if err := checkLevel(data, level); err != nil {
			return Entry{}, false, damaged(id, err)
		}
		if level = pageLevel(data); level == 0 {
			cur := newCursor(data)
			for cur.next() && string(cur.name) < name {
			}
			if cur.err != nil {
				return Entry{}, false, damaged(id, cur.err)
			}
			return cur.entry(name), string(cur.name) == name, nil
		}
		children, err := decodeIndex(data)
		if err != nil {
			return Entry{}, false, damaged(id, err)
		}
		i := sort.Search(len(children), func(i int) bool { return children[i].last >= name })
		if i == len(children) {
			break
		}
		id = children[i].id
		level--
	}
	return Entry{}, false, nil
}

// foldedEntry returns the first entry of a folder whose name differs from name in case only.
func (c *Catalogue) foldedEntry(ctx context.Context, folder Entry, name string) (found Entry, ok bool, err error) {
	err = c.List(ctx, folder, func(e Entry) error {
		if strings.EqualFold(e.Name, name) {
			found, ok = e, true
			return fs.SkipAll
		}
		return nil
	})
	return found, ok, err
}

// List calls f for each entry of a folder, in the order of their names as bytes. It reads the pages of that folder only.
// An error of f ends it and is returned, but for fs.SkipAll, which just ends it.
func (c *Catalogue) List(ctx context.Context, folder Entry, f func(Entry) error) error {
	if !folder.Mode.IsDir() {
		return fmt.Errorf("%s is not a folder", folder.Name)
	}
	m := merge{load: c.load}
	if err := m.open(ctx, below([]version{{folder, one}})); err != nil {
		return err
	}
	for {
		versions, err := m.next(ctx)
		if err != nil || versions == nil {
			return err
		}
		if err := f(versions[0].Entry); err == fs.SkipAll {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// loadPage reads a page.
func loadPage(ctx context.Context, load Loader, id ID, buf []byte) ([]byte, error) {
	data, err := load.Load(ctx, id, buf)
	if err != nil {
		return nil, fmt.Errorf("reading page %s of a catalogue: %w", short(id), err)
	}
	return data, nil
}

// damaged says which page is not as it should be.
func damaged(id ID, err error) error {
	return fmt.Errorf("page %s of a catalogue is damaged: %w", short(id), err)
}

// short is the form of an id for messages.
func short(id ID) string { return hex.EncodeToString(id[:6]) }
