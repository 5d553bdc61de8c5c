package catalogue

import (
	"context"
	"fmt"
	"io/fs"
)

// Walk calls f for all that is below the folder from, in the order of the names in each folder, a folder before what is
// in it. Paths begin with a slash and start from that folder, for which f is not called. When f returns fs.SkipDir for a
// folder, what is in it is left out; fs.SkipAll ends Walk, and any other error ends it and is returned.
func (c *Catalogue) Walk(ctx context.Context, from Entry, f func(path string, e Entry) error) error {
	if !from.Mode.IsDir() {
		return fmt.Errorf("%s is not a folder", from.Name)
	}
	return skipAll(walk(ctx, c.load, 0, "", below([]version{{from, one}}), func(path string, versions []version) ([]top, error) {
		err := f(path, versions[0].Entry)
		if err != nil {
			return nil, skipDir(versions[0].Entry, err)
		}
		return below(versions), nil
	}))
}

// skipDir forgives fs.SkipDir where it means something.
func skipDir(e Entry, err error) error {
	if err == fs.SkipDir && e.Mode.IsDir() {
		return nil
	}
	return err
}

// skipAll forgives fs.SkipAll.
func skipAll(err error) error {
	if err == fs.SkipAll {
		return nil
	}
	return err
}
