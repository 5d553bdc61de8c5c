package catalogue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"

	"github.com/zeebo/blake3"
	"varve/image/filesystem"
)

// BuildOptions says how Build works.
type BuildOptions struct {
	// Digest, which is not nil, returns a digest of the content that lies in extents, which come from a regular file that is not empty. Equal
	// digests have to mean equal content, up to the length of the file; zero says that there is none. It is not asked for small
	// files whose content lies in a structure of the filesystem, which moves with it: there it is a hash of the content.
	Digest func(extents []filesystem.Extent) (Digest, error)
	// Note is told what could not be read, and where: a path from the root, "/". A damaged filesystem may have a lot to tell. nil:
	// nobody is told.
	Note func(path string, err error)
}

const (
	// readLimit is the size in bytes up to which content that is encoded is read for its digest.
	readLimit = 64 << 10
	// linkLimit bounds how many digests of files with several names are kept.
	linkLimit = 16 << 10
	// spareNames bounds the room for names that is kept for the next folder.
	spareNames = 4 << 10

	contentDomain = "varve content of a file\x00"
)

// Build makes the catalogue of the files of tree and saves its pages, those below a page before it. What cannot be read is
// noted, counted and marked in its entry, and Build goes on. An error is that of save, or of ctx.
//
// The names in the folder where it is, and in those that this lies in, are in memory, beside one number for each folder.
func Build(ctx context.Context, tree filesystem.Tree, save Saver, o BuildOptions) (Root, error) {
	b := &builder{ctx: ctx, tree: tree, o: o, seen: map[filesystem.Number]struct{}{}, digests: map[filesystem.Number]Digest{}}
	b.save = func(page []byte) (ID, error) {
		id := save.ID(page)
		_, err := save.Save(ctx, id, page)
		return id, err
	}
	if err := b.run(); err != nil {
		return Root{}, err
	}
	return b.root, nil
}

type builder struct {
	ctx  context.Context
	tree filesystem.Tree
	o    BuildOptions
	save func(page []byte) (ID, error)

	root    Root
	stack   []*folder                      // from the root to the folder where it is
	spare   []*folder                      // whose buffers can be used again
	seen    map[filesystem.Number]struct{} // folders that were entered
	digests map[filesystem.Number]Digest   // of files with several names
	content []byte
}

// folder is one whose listing is being made.
type folder struct {
	entry   Entry
	names   []filesystem.Entry // in order
	done    int                // how many of names are in the listing
	listing listing
}

func (b *builder) run() error {
	root := b.stat(filesystem.Entry{Number: b.tree.Root(), Mode: fs.ModeDir})
	if !root.Mode.IsDir() {
		b.note(fmt.Errorf("the root is no folder: %v", root.Mode))
		root = Entry{Number: root.Number, Mode: fs.ModeDir, Incomplete: true}
	}
	if err := b.enter(root); err != nil {
		return err
	}
	for {
		if err := b.ctx.Err(); err != nil {
			return err
		}
		f := b.stack[len(b.stack)-1]
		if f.done < len(f.names) {
			if err := b.add(f); err != nil {
				return err
			}
			continue
		}
		var err error
		if f.entry.ID, err = f.listing.finish(); err != nil {
			return err
		}
		b.stack = b.stack[:len(b.stack)-1]
		if clear(f.names); cap(f.names) > spareNames {
			f.names = nil
		}
		b.spare = append(b.spare, f)
		if len(b.stack) == 0 {
			b.root.Files, b.root.Bytes = f.entry.Files, f.entry.Bytes
			id, err := b.save(appendEntry([]byte{entryPage}, &before{}, &f.entry))
			b.root.ID = PageID(id)
			return err
		}
		if err := b.list(b.stack[len(b.stack)-1], &f.entry); err != nil {
			return err
		}
	}
}

// add goes on to the next name in f, and enters it when it is a folder.
func (b *builder) add(f *folder) error {
	name := f.names[f.done]
	f.done++
	e := b.stat(name)
	if !e.Mode.IsDir() {
		return b.list(f, &e)
	}
	b.root.Folders++
	if e.Incomplete { // what it says of itself is not to be relied on
		return b.list(f, &e)
	}
	var problem error
	if _, again := b.seen[e.Number]; again {
		problem = errors.New("the folder is in another place too")
	} else if len(b.stack) > MaxDepth {
		problem = fmt.Errorf("the folder lies in more than %d others", MaxDepth)
	}
	if problem != nil {
		b.note(problem, name.Name)
		e.Incomplete = true
		return b.list(f, &e)
	}
	return b.enter(e)
}

// list puts an entry into the listing of f.
func (b *builder) list(f *folder, e *Entry) error {
	switch {
	case e.Mode.IsDir():
		f.entry.Files += e.Files
		f.entry.Bytes = sum(f.entry.Bytes, e.Bytes)
	case e.Mode.IsRegular():
		f.entry.Files++
		f.entry.Bytes = sum(f.entry.Bytes, e.Size)
	default:
		f.entry.Files++
	}
	return f.listing.add(e)
}

// enter reads the names in a folder, and makes it the one where the builder is.
func (b *builder) enter(e Entry) error {
	f := &folder{listing: listing{save: b.save}}
	if n := len(b.spare); n > 0 {
		f, b.spare = b.spare[n-1], b.spare[:n-1]
	}
	f.entry, f.names, f.done = e, f.names[:0], 0
	b.stack = append(b.stack, f)
	b.seen[e.Number] = struct{}{}

	problem := func(err error) {
		b.note(err)
		f.entry.Incomplete = true
	}
	err := b.tree.ReadDir(b.ctx, e.Number, func(name filesystem.Entry) error {
		if err := checkName(name.Name); err != nil {
			problem(err)
			return b.ctx.Err()
		}
		f.names = append(f.names, name)
		return b.ctx.Err()
	})
	if err != nil {
		problem(err) // when it is that of ctx, run sees to it
	}
	slices.SortFunc(f.names, func(a, b filesystem.Entry) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Number, b.Number))
	})
	total, kept := 0, f.names[:0]
	for _, name := range f.names {
		if len(kept) > 0 && kept[len(kept)-1].Name == name.Name {
			problem(fmt.Errorf("the name %q is there twice", name.Name))
			continue
		}
		kept = append(kept, name)
		total += weight(name.Name)
	}
	f.names = kept
	f.listing.reset(total)
	return nil
}

// stat returns the entry of a file. What cannot be known of it is noted, and makes it incomplete.
func (b *builder) stat(name filesystem.Entry) Entry {
	e := Entry{Name: name.Name, Number: name.Number}
	e.Mode, _ = fileMode(unixMode(name.Mode.Type()))
	problem := func(err error) {
		b.note(err, name.Name)
		e.Incomplete = true
	}
	file, err := b.tree.Stat(name.Number)
	if err == nil && file.Size < 0 {
		err = filesystem.Corrupt("a file of %d bytes", file.Size)
	}
	if err != nil {
		problem(err)
		return e
	}
	e.Mode, _ = fileMode(unixMode(file.Mode))
	e.UID, e.GID, e.Links = file.UID, file.GID, min(max(0, file.Links), math.MaxInt32)
	e.Modified, e.Changed = stamp(file.Modified), stamp(file.Changed)
	switch {
	case e.Mode.IsRegular():
		if e.Size = file.Size; e.Size > 0 {
			if e.Digest, err = b.digest(name.Number, e.Links); err != nil {
				problem(err)
			}
		}
	case e.Mode&fs.ModeSymlink != 0:
		if e.Target, err = b.tree.Readlink(name.Number); err == nil && len(e.Target) > maxTarget {
			err = filesystem.Corrupt("the target of a symbolic link has %d bytes", len(e.Target))
		}
		if err != nil {
			problem(err)
			e.Target = ""
		}
		e.Size = int64(len(e.Target))
	case e.Mode&fs.ModeDevice != 0:
		e.Device = file.Device
	case e.Mode&fs.ModeIrregular != 0:
		e.Size = file.Size
	}
	return e
}

// digest returns the digest of the content of a file.
func (b *builder) digest(n filesystem.Number, links int) (Digest, error) {
	if d, found := b.digests[n]; found && links > 1 {
		return d, nil
	}
	content, err := b.tree.Open(n, "")
	if err != nil {
		return Digest{}, err
	}
	d, err := b.digestOf(content)
	if err != nil {
		return Digest{}, err
	}
	if links > 1 {
		if len(b.digests) >= linkLimit {
			clear(b.digests)
		}
		b.digests[n] = d
	}
	return d, nil
}

func (b *builder) digestOf(content filesystem.Content) (Digest, error) {
	size := content.Size()
	if size <= 0 {
		return Digest{}, nil
	}
	extents, err := content.Extents()
	if err != nil {
		return Digest{}, err
	}
	encoded := slices.ContainsFunc(extents, func(e filesystem.Extent) bool { return e.Kind == filesystem.Encoded })
	if !encoded || size > readLimit {
		return b.o.Digest(extents)
	}
	b.content = append(b.content[:0], contentDomain...)
	b.content = append(b.content, make([]byte, size)...)
	data := b.content[len(contentDomain):]
	if n, err := content.ReadAt(data, 0); n < len(data) {
		if err == nil || err == io.EOF {
			err = filesystem.Corrupt("a file of %d bytes ends after %d", size, n)
		}
		return Digest{}, err
	}
	h := blake3.Sum256(b.content)
	return Digest(h[:len(Digest{})]), nil
}

// note counts and passes on what could not be read: of the folder where the builder is, or of a file in it.
func (b *builder) note(err error, name ...string) {
	b.root.Problems++
	if b.o.Note == nil {
		return
	}
	path := ""
	for _, f := range b.stack {
		if f.entry.Name != "" {
			path += "/" + f.entry.Name
		}
	}
	for _, n := range name {
		path += "/" + n
	}
	b.o.Note(cmp.Or(path, "/"), err)
}
