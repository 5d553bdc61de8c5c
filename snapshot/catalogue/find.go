package catalogue

import (
	"context"
	"io/fs"
)

// Query says what Find looks for.
type Query struct {
	// Match reports whether a file is looked for.
	Match func(path string, e Entry) bool
	// Below reports whether what is below a folder can be looked for: where not, it is not read. nil: it always can.
	Below func(folder string) bool
}

// Hit is a file that was found, as it is in one or more catalogues.
type Hit struct {
	Path  string
	Entry Entry
	In    []int // numbers of the catalogues, in ascending order
}

// Find looks for files in many catalogues at once, and calls found for each, in the order of Walk; of a path that has
// several versions, for each of them that matches. A folder that is the same in many catalogues is looked at once. Paths
// begin with a slash; "/" is the root folder. When found returns fs.SkipDir for a folder, what is in this version of it is left out; fs.SkipAll
// ends Find, and any other error ends it and is returned.
func Find(ctx context.Context, load Loader, roots []Root, q Query, found func(Hit) error) error {
	visit := func(path string, versions []version) ([]top, error) {
		for i := 0; i < len(versions); i++ {
			v := &versions[i]
			if !q.Match(path, v.Entry) {
				continue
			}
			if err := found(Hit{path, v.Entry, v.in}); err == fs.SkipDir && v.Mode.IsDir() {
				v.ID = ID{}
			} else if err != nil {
				return nil, err
			}
		}
		tops := below(versions)
		if len(tops) > 0 && q.Below != nil && !q.Below(path) {
			return nil, nil
		}
		return tops, nil
	}
	m := merge{}
	for i, r := range roots {
		e, err := loadRoot(ctx, load, ID(r.ID))
		if err != nil {
			return err
		}
		m.add(e, []int{i})
	}
	if len(roots) == 0 {
		return nil
	}
	tops, err := visit("/", m.now)
	if err == nil && len(tops) > 0 {
		err = walk(ctx, load, 0, "", tops, visit)
	}
	return skipAll(err)
}
