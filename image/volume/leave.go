package volume

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"varve/image"
	"varve/image/filesystem"
)

// Leave says what of a disk is not wanted.
type Leave struct {
	Free     bool                 // blocks that a filesystem does not use
	Volatile bool                 // what is in swap areas and files, page files and hibernation files: nothing that outlives the next start
	Whole    func(v *Volume) bool // reports whether all of a volume is left out; nil: none is
	// Exclude reports whether the content of a file is left out, by its path on a volume, "/dir/name". Below reports whether that may be so for
	// anything below a folder; where not, nobody looks. nil: nothing is excluded.
	Exclude, Below func(v *Volume, path string) bool
}

// shortest is the shortest free run that is left out, in bytes. Shorter ones cost less to keep than chunks cost that end there.
const shortest = 4 * Block

// Out is what is left out of a disk.
type Out struct {
	Runs  []image.Extent // Free and Excluded ones, for image.Mask
	Files int64          // whose content is excluded
}

// LeaveOut finds what is left out. Of a volume that gives reason to doubt, nothing is but all of it; full is called for each with the reason,
// completing "it is read in full, because …". An error is that of ctx.
func (l *Layout) LeaveOut(ctx context.Context, want Leave, full func(v *Volume, why string)) (Out, error) {
	var free, excluded collector
	out := Out{}
	for i := range l.Volumes {
		v := &l.Volumes[i]
		if want.Whole != nil && want.Whole(v) {
			excluded.begin()
			excluded.add(v.Start, v.End())
			continue
		}
		swap := v.Info.Type == "swap"
		if !want.Free && !(swap && want.Volatile) && want.Exclude == nil && !want.Volatile || swap && !want.Volatile {
			continue
		}
		target := &free
		if swap {
			target = &excluded
		}
		why := v.Full
		if why == "" {
			// Also where free blocks are kept: what is not sure of these is not sure of its files either.
			why = v.free(ctx, budget, target)
		}
		if ctx.Err() != nil {
			return Out{}, ctx.Err()
		}
		if why != "" {
			full(v, why)
			continue
		}
		if !want.Free && !swap {
			target.rollback()
		}
		if tree, ok := v.FS.(filesystem.Tree); ok {
			e := excluder{v: v, tree: tree, want: want, runs: &excluded, seen: map[filesystem.Number]bool{}}
			if err := e.look(ctx); err != nil {
				if ctx.Err() != nil {
					return Out{}, ctx.Err()
				}
				full(v, fmt.Sprintf("files that are not wanted could not all be found: %v", err))
			}
			out.Files += e.files
		}
	}
	out.Runs = overlay(free.runs(), excluded.runs())
	return out, nil
}

// overlay makes one list of what is free and what is excluded, which wins where both say so.
func overlay(free, excluded []Run) []image.Extent {
	var list []image.Extent
	last := int64(0) // a file with two names is excluded twice
	for _, x := range excluded {
		if start := max(x.Offset, last); x.End() > start {
			list = append(list, image.Extent{Offset: start, Length: x.End() - start, Kind: image.Excluded})
			last = x.End()
		}
	}
	k, out := 0, len(list)
	for _, r := range free {
		add := func(off, end int64) {
			if end-off >= shortest {
				list = append(list, image.Extent{Offset: off, Length: end - off, Kind: image.Free})
			}
		}
		at := r.Offset
		for ; k < out && list[k].Offset < r.End(); k++ {
			end := list[k].Offset + list[k].Length
			add(at, list[k].Offset)
			at = max(at, end)
			if end > r.End() {
				break // it goes on behind this run
			}
		}
		add(at, r.End())
	}
	slices.SortFunc(list, func(a, b image.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	return list
}

// excluder looks for files whose content is left out.
type excluder struct {
	v     *Volume
	tree  filesystem.Tree
	want  Leave
	runs  *collector
	seen  map[filesystem.Number]bool // folders
	files int64
}

// look looks through the volume. The first error does not end it, and is returned.
func (e *excluder) look(ctx context.Context) error {
	e.runs.begin()
	if e.want.Exclude == nil && !e.want.Volatile {
		return nil
	}
	return e.folder(ctx, e.tree.Root(), "", 0)
}

// deepest is how many folders may lie in each other.
const deepest = 1024

func (e *excluder) folder(ctx context.Context, n filesystem.Number, path string, depth int) (first error) {
	if e.seen[n] || depth > deepest {
		return nil
	}
	e.seen[n] = true
	keep := func(err error) {
		if err != nil && first == nil {
			first = fmt.Errorf("%s: %w", cmp.Or(path, "/"), err)
		}
	}
	var folders []filesystem.Entry
	keep(e.tree.ReadDir(ctx, n, func(entry filesystem.Entry) error {
		name := path + "/" + entry.Name
		keep(e.entry(ctx, name, depth, &entry))
		if entry.Mode.IsDir() && e.below(name, depth) {
			folders = append(folders, entry)
		}
		return ctx.Err()
	}))
	for _, f := range folders {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		keep(e.folder(ctx, f.Number, path+"/"+f.Name, depth+1))
	}
	return first
}

// below reports whether anything in a folder may be left out.
func (e *excluder) below(path string, depth int) bool {
	return e.want.Exclude != nil && (e.want.Below == nil || e.want.Below(e.v, path)) || e.want.Volatile && depth == 0 && path == "/swap"
}

// entry leaves out the content of a file, if it is to be. It fills in the type of the entry.
func (e *excluder) entry(ctx context.Context, path string, depth int, entry *filesystem.Entry) error {
	if entry.Mode == fs.ModeIrregular {
		file, err := e.tree.Stat(entry.Number)
		if err != nil {
			return err
		}
		entry.Mode = file.Mode.Type()
	}
	if !entry.Mode.IsRegular() {
		return nil
	}
	from := int64(0)
	if e.want.Exclude == nil || !e.want.Exclude(e.v, path) {
		if !e.want.Volatile {
			return nil
		}
		volatile, err := e.volatile(path, entry.Number, &from)
		if !volatile || err != nil {
			return err
		}
	}
	content, err := e.tree.Open(entry.Number, "")
	if err != nil {
		return err
	}
	extents, err := content.Extents()
	if err != nil {
		return err
	}
	size := min(e.v.Length, e.v.Info.Size)
	for _, x := range extents {
		if x.Kind != filesystem.Plain || x.Disk < 0 || x.Length <= 0 || x.Disk > size-x.Length {
			continue
		}
		if skip := min(from-x.Offset, x.Length); skip > 0 {
			x.Disk, x.Length = x.Disk+skip, x.Length-skip
		}
		e.runs.add(e.v.Start+x.Disk, e.v.Start+x.Disk+x.Length)
	}
	e.files++
	return ctx.Err()
}

// kept is how much is kept of a swap file, so that it still is one: its first page, which has 64 KiB on some machines.
const kept = 64 << 10

// volatile reports whether a file holds only what does not outlive the next start, from where on.
func (e *excluder) volatile(path string, n filesystem.Number, from *int64) (bool, error) {
	switch name := strings.ToLower(path); {
	case e.v.Info.Type == "ntfs":
		return name == "/pagefile.sys" || name == "/hiberfil.sys" || name == "/swapfile.sys", nil
	case path != "/swapfile" && path != "/swap.img" && !strings.HasPrefix(path, "/swap/"):
		return false, nil
	}
	content, err := e.tree.Open(n, "")
	if err != nil {
		return false, err
	}
	*from = kept
	head := make([]byte, kept)
	if k, err := content.ReadAt(head, 0); k < len(head) {
		if errors.Is(err, io.EOF) {
			err = nil // too small to be swap
		}
		return false, err
	}
	for page := 4 << 10; page <= kept; page *= 2 {
		if bytes.Equal(head[page-10:page], []byte("SWAPSPACE2")) {
			return true, nil
		}
	}
	return false, nil
}
