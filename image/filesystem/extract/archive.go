package extract

import (
	"archive/tar"
	"archive/zip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"varve/image/filesystem"
)

// Tar writes file n of tree, and what is in it, as a tar archive (PAX) to w, under the name top; "." leaves it out. What cannot be read
// is passed to failed and left out. A file that turns out to be unreadable in its middle ends the archive: its length has been written.
func Tar(ctx context.Context, tree filesystem.Tree, n filesystem.Number, top string, w io.Writer, failed func(path string, err error)) (Result, error) {
	t := &tarTaker{tar.NewWriter(w)}
	result, err := run(ctx, tree, n, top, t, failed)
	if err != nil {
		return result, err
	}
	return result, t.w.Close()
}

type tarTaker struct{ w *tar.Writer }

func (t *tarTaker) leave(*file) error { return nil }

func (t *tarTaker) take(ctx context.Context, f *file, content filesystem.Content, attributes []filesystem.Attribute) error {
	h := &tar.Header{Name: f.path, Mode: unixMode(f.Mode), Uid: int(f.UID), Gid: int(f.GID), ModTime: known(f.Modified), Format: tar.FormatPAX}
	switch {
	case f.again != "":
		h.Typeflag, h.Linkname = tar.TypeLink, f.again
	case f.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(f.path, "/")+"/"
	case f.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.target
	case f.Mode&fs.ModeNamedPipe != 0:
		h.Typeflag = tar.TypeFifo
	case f.Mode&fs.ModeDevice != 0:
		h.Typeflag = tar.TypeBlock
		if f.Mode&fs.ModeCharDevice != 0 {
			h.Typeflag = tar.TypeChar
		}
		h.Devmajor, h.Devminor = int64(f.Device>>32), int64(f.Device&0xffffffff)
	case content != nil:
		h.Typeflag, h.Size = tar.TypeReg, f.Size
	default:
		return fmt.Errorf("a file of type %v has no place in an archive", f.Mode.Type())
	}
	for _, a := range attributes {
		if strings.ContainsAny(a.Name, "=\x00") {
			continue // it would be read as another one, or not at all
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+a.Name] = string(a.Value)
	}
	if content != nil && f.again == "" {
		// Before a byte of it is written: whether its start can be read.
		if _, err := content.ReadAt(make([]byte, min(1, f.Size)), 0); err != nil && f.Size > 0 && err != io.EOF {
			return err
		}
	}
	if err := t.w.WriteHeader(h); err != nil {
		return fatalError{err}
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	if err := copyAll(ctx, content, t.w); err != nil {
		return fatalError{err}
	}
	return nil
}

// Zip writes file n of tree, and what is in it, as a zip archive to w, under the name top; "." leaves it out. What cannot be read is passed to
// failed and left out. Owners, attributes and device nodes have no place in it; a further name of a file is a copy.
func Zip(ctx context.Context, tree filesystem.Tree, n filesystem.Number, top string, w io.Writer, failed func(path string, err error)) (Result, error) {
	z := &zipTaker{zip.NewWriter(w), tree}
	result, err := run(ctx, tree, n, top, z, failed)
	if err != nil {
		return result, err
	}
	return result, z.w.Close()
}

type zipTaker struct {
	w    *zip.Writer
	tree filesystem.Tree
}

func (z *zipTaker) leave(*file) error { return nil }

func (z *zipTaker) take(ctx context.Context, f *file, content filesystem.Content, _ []filesystem.Attribute) (err error) {
	h := &zip.FileHeader{Name: f.path, Method: zip.Deflate, Modified: known(f.Modified)}
	h.SetMode(f.Mode)
	if f.again != "" && f.Mode.IsRegular() {
		if content, err = z.tree.Open(f.Number, ""); err != nil {
			return err
		}
	}
	switch {
	case f.Mode.IsDir():
		if f.path == "." {
			return nil
		}
		h.Name, h.Method = f.path+"/", zip.Store
	case f.Mode&fs.ModeSymlink != 0, content != nil:
	default:
		return fmt.Errorf("a file of type %v has no place in a zip archive: a tar archive takes it", f.Mode.Type())
	}
	to, err := z.w.CreateHeader(h)
	if err != nil {
		return fatalError{err}
	}
	switch {
	case f.Mode&fs.ModeSymlink != 0:
		_, err = io.WriteString(to, f.target)
	case content != nil:
		err = copyAll(ctx, content, to)
	}
	if err != nil {
		return fatalError{err}
	}
	return nil
}

// copyAll writes content, holes as zeros.
func copyAll(ctx context.Context, content filesystem.Content, w io.Writer) error {
	at := int64(0)
	if err := copyData(ctx, content, func(p []byte, off int64) error {
		if err := zeros(w, off-at); err != nil {
			return err
		}
		at = off + int64(len(p))
		_, err := w.Write(p)
		return err
	}); err != nil {
		return err
	}
	return zeros(w, content.Size()-at)
}

// zeros writes n of them.
func zeros(w io.Writer, n int64) error {
	buf := make([]byte, min(max(n, 0), 1<<20))
	for n > 0 {
		k, err := w.Write(buf[:min(n, int64(len(buf)))])
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// Copy writes the content of a regular file to w, holes as zeros.
func Copy(ctx context.Context, content filesystem.Content, w io.Writer) error {
	return copyAll(ctx, content, w)
}

// known is a time that archives can have.
func known(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(0, 0)
	}
	return t
}

// unixMode is a mode as Unix counts it.
func unixMode(m fs.FileMode) int64 {
	mode := int64(m.Perm())
	for bit, flag := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&flag != 0 {
			mode |= bit
		}
	}
	return mode
}
