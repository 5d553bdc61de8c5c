package filesystemtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"testing"
	"time"

	"varve/image/filesystem"
)

// Walk calls f for every file below the root of tree, folders before what is in them, with slashes in paths. It fails when a folder
// is met twice.
func Walk(tree filesystem.Tree, f func(path string, n filesystem.Number) error) error {
	seen := map[filesystem.Number]bool{tree.Root(): true}
	var walk func(prefix string, folder filesystem.Number) error
	walk = func(prefix string, folder filesystem.Number) error {
		var entries []filesystem.Entry
		if err := tree.ReadDir(context.Background(), folder, func(e filesystem.Entry) error {
			entries = append(entries, e)
			return nil
		}); err != nil {
			return fmt.Errorf("reading folder %q: %w", prefix, err)
		}
		for _, e := range entries {
			path := prefix + e.Name
			if err := f(path, e.Number); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			mode := e.Mode
			if mode == fs.ModeIrregular {
				file, err := tree.Stat(e.Number)
				if err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
				mode = file.Mode
			}
			if !mode.IsDir() {
				continue
			}
			if seen[e.Number] {
				return fmt.Errorf("%s: a folder with two names", path)
			}
			seen[e.Number] = true
			if err := walk(path+"/", e.Number); err != nil {
				return err
			}
		}
		return nil
	}
	return walk("", tree.Root())
}

// CheckTree fails unless tree, which reads the image file, has exactly the files of the mounted folder dir. dir should be mounted
// read-only, so that everything it shows is in the image.
func CheckTree(t testing.TB, tree filesystem.Tree, image, dir string, can Abilities) {
	t.Helper()
	disk, _ := openFile(t, image)
	found := map[string]bool{}
	compared := 0
	numbers := map[filesystem.Number]uint64{}
	err := Walk(tree, func(path string, n filesystem.Number) error {
		if found[path] {
			return errors.New("the name is there twice")
		}
		found[path] = true
		compared++
		return compareFile(tree, disk, n, filepath.Join(dir, filepath.FromSlash(path)), can, numbers)
	})
	if err != nil {
		t.Fatal(err)
	}
	var missing []string
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if name := filepath.ToSlash(relative); name != "." && !found[name] {
			missing = append(missing, name)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	sort.Strings(missing)
	if len(missing) > 0 {
		t.Fatalf("%d files are missing, the first is %q", len(missing), missing[0])
	}
	if compared < 20 {
		t.Fatalf("only %d files were compared: is %s filled?", compared, dir)
	}
}

// compareFile compares one file with what the system says of path. numbers pairs the numbers of files with the system's.
func compareFile(tree filesystem.Tree, disk io.ReaderAt, n filesystem.Number, path string, can Abilities, numbers map[filesystem.Number]uint64) error {
	is, err := tree.Stat(n)
	if err != nil {
		return err
	}
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if is.Mode.Type() != st.Mode().Type() {
		return fmt.Errorf("its type is %v, not %v", is.Mode.Type(), st.Mode().Type())
	}
	if is.Number != n {
		return fmt.Errorf("its number is %d, not %d", is.Number, n)
	}
	if d := is.Modified.Sub(st.ModTime()); d > 2*time.Second || d < -2*time.Second || can.Owners && d != 0 {
		return fmt.Errorf("it was modified at %v, not %v", is.Modified, st.ModTime())
	}
	if err := compareFacts(is, st, can, numbers); err != nil {
		return err
	}
	if can.Xattrs {
		if err := compareAttributes(tree, n, path); err != nil {
			return err
		}
	}
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		got, err := tree.Readlink(n)
		if err != nil || got != target || is.Size != int64(len(target)) {
			return fmt.Errorf("it leads to %q of %d bytes, not to %q: %v", got, is.Size, target, err)
		}
	case st.Mode().IsRegular():
		if is.Size != st.Size() {
			return fmt.Errorf("it has %d bytes, not %d", is.Size, st.Size())
		}
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		content, err := tree.Open(n, "")
		if err != nil {
			return err
		}
		if err := CompareContent(content, want); err != nil {
			return err
		}
		return compareExtents(content, disk, want)
	}
	return nil
}

// CompareContent reports an error unless content is want: as a whole, in pieces, and at its end.
func CompareContent(content filesystem.Content, want []byte) error {
	if content.Size() != int64(len(want)) {
		return fmt.Errorf("its content has %d bytes, not %d", content.Size(), len(want))
	}
	got := make([]byte, len(want)+10)
	n, err := content.ReadAt(got, 0)
	if n != len(want) || !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading more than it has gives %d of %d bytes and %v", n, len(want), err)
	}
	if !bytes.Equal(got[:n], want) {
		for i := range want {
			if got[i] != want[i] {
				return fmt.Errorf("its content differs from byte %d on", i)
			}
		}
	}
	random := rand.New(rand.NewPCG(1, uint64(len(want))))
	for range min(20, len(want)) {
		at := random.IntN(len(want))
		end := min(len(want), at+1+random.IntN(20_000))
		piece := got[:end-at]
		clear(piece)
		if n, err := content.ReadAt(piece, int64(at)); n != len(piece) || err != nil && !(errors.Is(err, io.EOF) && end == len(want)) {
			return fmt.Errorf("reading %d bytes at %d gives %d and %v", len(piece), at, n, err)
		}
		if !bytes.Equal(piece, want[at:end]) {
			return fmt.Errorf("the %d bytes at %d are others", len(piece), at)
		}
	}
	if n, err := content.ReadAt(got[:1], int64(len(want))); n != 0 || !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading behind the end gives %d bytes and %v", n, err)
	}
	return nil
}

// compareExtents reports an error unless the extents cover the content, and lie on the disk where they are said to.
func compareExtents(content filesystem.Content, disk io.ReaderAt, want []byte) error {
	list, err := content.Extents()
	if err != nil {
		return err
	}
	at := int64(0)
	for i, e := range list {
		if e.Offset != at || e.Length <= 0 {
			return fmt.Errorf("extent %d is %+v, where %d is expected", i, e, at)
		}
		if i > 0 && e.Kind == list[i-1].Kind && e.Kind == filesystem.Plain && list[i-1].Disk+list[i-1].Stored == e.Disk {
			return fmt.Errorf("extents %d and %d could be one", i-1, i)
		}
		at += e.Length
		if e.Offset >= int64(len(want)) {
			continue // room behind the end
		}
		part := want[e.Offset:min(at, int64(len(want)))]
		switch e.Kind {
		case filesystem.Plain:
			if e.Stored != e.Length {
				return fmt.Errorf("extent %d is %+v: plain, and %d bytes are stored", i, e, e.Stored)
			}
			there := make([]byte, len(part))
			if _, err := disk.ReadAt(there, e.Disk); err != nil {
				return fmt.Errorf("extent %d is %+v: %w", i, e, err)
			}
			if !bytes.Equal(there, part) {
				return fmt.Errorf("extent %d is %+v, and something else is there", i, e)
			}
		case filesystem.Hole:
			if len(bytes.Trim(part, "\x00")) > 0 {
				return fmt.Errorf("extent %d is a hole %+v, and not zero", i, e)
			}
		}
	}
	if at < int64(len(want)) {
		return fmt.Errorf("its extents end at %d of %d bytes", at, len(want))
	}
	return nil
}

// compareAttributes compares the attributes that a user may set.
func compareAttributes(tree filesystem.Tree, n filesystem.Number, path string) error {
	list, err := tree.Attributes(n)
	if err != nil {
		return err
	}
	got := map[string]string{}
	for _, a := range list {
		if isUsers(a.Name) {
			got[a.Name] = string(a.Value)
		}
	}
	want, err := attributesOf(path)
	if err != nil {
		return err
	}
	if len(got) != len(want) {
		return fmt.Errorf("it has %d attributes, not %d", len(got), len(want))
	}
	for name, value := range want {
		if got[name] != value {
			return fmt.Errorf("attribute %s is %q, not %q", name, got[name], value)
		}
	}
	return nil
}

func isUsers(name string) bool { return len(name) > 5 && name[:5] == "user." }
