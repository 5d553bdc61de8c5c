package catalogue

import (
	"context"
	"io/fs"
	"slices"
)

// ChangeKind says what happened to a file.
type ChangeKind byte

const (
	Added    ChangeKind = iota + 1
	Removed             // of a folder, as all that was in it
	Content             // its size, the digest of its content, its target or its device is another one, or could not be read
	Metadata            // something else is
	Type                // it has become a file of another type
)

var kindNames = map[ChangeKind]string{Added: "added", Removed: "removed", Content: "content", Metadata: "metadata", Type: "type"}

func (k ChangeKind) String() string { return kindNames[k] }

// Change is a file that differs between two catalogues.
type Change struct {
	Path     string // begins with a slash; "/" is the root folder
	Kind     ChangeKind
	Old, New Entry // zero when it was added, or removed
}

// Diff calls f for each file that is not the same in a and b, in the order of Walk. A folder is the same when nothing has
// changed but what is in it, which is told by itself. What both have is not read. When f returns fs.SkipDir for a change that
// has to do with a folder, what is in it is left out; fs.SkipAll ends Diff, and any other error ends it and is returned.
func Diff(ctx context.Context, load Loader, a, b Root, f func(Change) error) error {
	if a.ID == b.ID {
		return nil
	}
	visit := func(path string, versions []version) ([]top, error) {
		c := Change{Path: path}
		inA, inB := false, false
		for _, v := range versions {
			if slices.Contains(v.in, 0) {
				c.Old, inA = v.Entry, true
			}
			if slices.Contains(v.in, 1) {
				c.New, inB = v.Entry, true
			}
		}
		switch {
		case !inA:
			c.Kind = Added
		case !inB:
			c.Kind = Removed
		default:
			c.Kind = compare(c.Old, c.New)
		}
		if c.Kind != 0 {
			if err := f(c); err == fs.SkipDir && (c.Old.Mode.IsDir() || c.New.Mode.IsDir()) {
				return nil, nil
			} else if err != nil {
				return nil, err
			}
		}
		return below(versions), nil
	}
	var m merge
	for i, r := range []Root{a, b} {
		e, err := loadRoot(ctx, load, ID(r.ID))
		if err != nil {
			return err
		}
		m.add(e, []int{i})
	}
	tops, err := visit("/", m.now)
	if err == nil && len(tops) > 0 {
		err = walk(ctx, load, 2, "", tops, visit)
	}
	return skipAll(err)
}

// compare says what the difference between two entries of one path is; 0 when there is none.
func compare(a, b Entry) ChangeKind {
	if a.Mode.Type() != b.Mode.Type() {
		return Type
	}
	if a.Size != b.Size || a.Digest != b.Digest || a.Target != b.Target || a.Device != b.Device {
		return Content
	}
	a.ID, a.Files, a.Bytes = b.ID, b.Files, b.Bytes
	if a != b {
		return Metadata
	}
	return 0
}
