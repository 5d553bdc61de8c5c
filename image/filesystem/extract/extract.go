// Package extract takes files out of a filesystem that is read without mounting it: into a folder of the system, or into an archive.
//
// The names and targets of links in the filesystem are somebody else's. In a folder, nothing is ever made outside of it, whatever they
// say: all is done through os.Root, and no link that is there is followed.
package extract

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"varve/image/filesystem"
)

// maxDepth is how many folders may lie in each other.
const maxDepth = 1024

// Result counts what was taken out.
type Result struct {
	Files, Folders, Bytes int64
	Failed                int64 // files of any type that were not taken out, or not in full
}

// file is one file on its way out.
type file struct {
	filesystem.File
	path   string // where it goes, with slashes, relative; "." is the top
	target string // of a symbolic link
	again  string // the path under which this file went out before; "" when it did not: a hard link
}

// taker is where files go to.
type taker interface {
	// take takes a file. content is nil unless it is a regular one; it is not for a further name of one.
	take(ctx context.Context, f *file, content filesystem.Content, attributes []filesystem.Attribute) error
	// leave is called when everything in a folder has been taken.
	leave(f *file) error
}

// walker goes through a file or folder and what is in it.
type walker struct {
	tree   filesystem.Tree
	to     taker
	failed func(path string, err error)
	seen   map[filesystem.Number]bool   // folders
	names  map[filesystem.Number]string // of files that have several
	result Result
}

// run takes out file n, under the name top. failed is told what could not be taken; the rest is all the same. An error is that of ctx, or one
// after which nothing more can be taken.
func run(ctx context.Context, tree filesystem.Tree, n filesystem.Number, top string, to taker, failed func(path string, err error)) (Result, error) {
	w := &walker{tree: tree, to: to, failed: failed, seen: map[filesystem.Number]bool{}, names: map[filesystem.Number]string{}}
	err := w.walk(ctx, n, top, 0)
	return w.result, err
}

// fatalError is an error of the place to which files go, after which none of the others can.
type fatalError struct{ error }

func (e fatalError) Unwrap() error { return e.error }

func (w *walker) fail(name string, err error) {
	w.result.Failed++
	w.failed(name, err)
}

func (w *walker) walk(ctx context.Context, n filesystem.Number, name string, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f, content, attributes, err := w.open(n, name)
	if err == nil && f.Mode.IsDir() && (w.seen[n] || depth > maxDepth) {
		err = errors.New("the folder is in itself")
	}
	if err == nil {
		err = w.to.take(ctx, f, content, attributes)
	}
	var fatal fatalError
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.As(err, &fatal) {
		return fmt.Errorf("%s: %w", name, fatal.error)
	}
	if err != nil {
		w.fail(name, err)
		return nil
	}
	if !f.Mode.IsDir() {
		w.result.Files++
		if content != nil {
			w.result.Bytes += f.Size
		}
		return nil
	}
	w.result.Folders++
	w.seen[n] = true
	var below []filesystem.Entry
	if err := w.tree.ReadDir(ctx, n, func(e filesystem.Entry) error { below = append(below, e); return nil }); err != nil {
		w.fail(name, err)
	}
	for _, e := range below {
		if !fs.ValidPath(e.Name) || e.Name == "." {
			w.fail(path.Join(name, "?"), fmt.Errorf("a file has the name %q, which no file can have here", e.Name))
			continue
		}
		if err := w.walk(ctx, e.Number, path.Join(name, e.Name), depth+1); err != nil {
			return err
		}
	}
	if err := w.to.leave(f); err != nil {
		w.fail(name, err)
	}
	return nil
}

// open finds out all there is to know of a file.
func (w *walker) open(n filesystem.Number, name string) (*file, filesystem.Content, []filesystem.Attribute, error) {
	st, err := w.tree.Stat(n)
	if err != nil {
		return nil, nil, nil, err
	}
	f := &file{File: st, path: name}
	if st.Mode&fs.ModeSymlink != 0 {
		if f.target, err = w.tree.Readlink(n); err != nil {
			return nil, nil, nil, err
		}
	}
	if st.Links > 1 && !st.Mode.IsDir() {
		if f.again = w.names[n]; f.again != "" {
			return f, nil, nil, nil
		}
		w.names[n] = name
	}
	attributes, err := w.tree.Attributes(n)
	if err != nil {
		w.fail(name, fmt.Errorf("its attributes: %w", err)) // its content is worth more than they are
	}
	if !st.Mode.IsRegular() {
		return f, nil, attributes, nil
	}
	content, err := w.tree.Open(n, "")
	return f, content, attributes, err
}

// copyData calls write for the runs of content that are no holes, at most a MiB at a time.
func copyData(ctx context.Context, content filesystem.Content, write func(p []byte, off int64) error) error {
	extents, err := content.Extents()
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for _, e := range extents {
		end := min(e.Offset+e.Length, content.Size())
		for at := e.Offset; e.Kind != filesystem.Hole && at < end; {
			if err := ctx.Err(); err != nil {
				return err
			}
			p := buf[:min(int64(len(buf)), end-at)]
			if n, err := content.ReadAt(p, at); n < len(p) {
				if err == nil || errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return fmt.Errorf("reading it at %d: %w", at+int64(n), err)
			}
			if err := write(p, at); err != nil {
				return err
			}
			at += int64(len(p))
		}
	}
	return nil
}
