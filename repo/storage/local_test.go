package storage

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("not as in %s; got\n%s", path, got)
	}
}

// files returns every file below a folder, temporary ones too, with its content.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		found[filepath.ToSlash(rel)] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// Every operation fails once, at each place. The error is told, nothing temporary stays, what was there before is there
// still, and the next attempt succeeds.
func TestEveryFailure(t *testing.T) {
	for _, broken := range []error{syscall.ENOSPC, syscall.EIO} {
		for n := 0; ; n++ {
			l, r := record(t)
			ctx := t.Context()
			if err := l.Put(ctx, "keys/old", []byte("old")); err != nil {
				t.Fatal(err)
			}
			var failed event
			seen := 0
			r.fail = func(e event) error {
				if seen++; seen != n+1 {
					return nil
				}
				failed = e
				return broken
			}
			steps := []func() error{
				func() error { return l.Put(ctx, "packs/ab/new", []byte("new")) },
				func() error { return l.Put(ctx, "keys/old", []byte("replaced")) },
				func() error { return l.PutNew(ctx, "leases/new", []byte("lease")) },
				func() error { return l.Delete(ctx, "keys/old") },
			}
			for i, step := range steps {
				err := step()
				if failed.op == "" {
					if err != nil {
						t.Fatalf("step %d: %v", i, err)
					}
					continue
				}
				// A link that cannot be made is made up for, and what else is left is a name to be synced.
				if failed.op != "link" && !errors.Is(err, broken) {
					t.Errorf("step %d: %v failed and the error is %v", i, failed, err)
				}
				for name, content := range files(t, l.root) {
					if strings.Contains(name, tempPrefix) && failed.op != "remove" {
						t.Errorf("step %d: %v failed and left %s", i, failed, name)
					}
					switch name {
					case "keys/old":
						if content != "old" && content != "replaced" {
							t.Errorf("step %d: %v failed and %s holds %q", i, failed, name, content)
						}
					case "packs/ab/new", "leases/new":
						if content != "new" && content != "lease" {
							t.Errorf("step %d: %v failed and %s holds %q", i, failed, name, content)
						}
					}
				}
				if _, err := l.Get(ctx, "keys/old", 0, -1, nil); err != nil && i < 3 {
					t.Errorf("step %d: %v failed and the old object is gone: %v", i, failed, err)
				}
				if err := step(); err != nil && !errors.Is(err, ErrExist) && !errors.Is(err, ErrNotExist) {
					t.Errorf("step %d: %v failed, and the second attempt too: %v", i, failed, err)
				}
				break
			}
			if failed.op == "" {
				if n < 25 {
					t.Errorf("only %d operations", n)
				}
				break
			}
		}
	}
}

// Files stay open for the next read of the same pack, but not many, and one that is being read is not closed.
func TestOpenFilesAreBounded(t *testing.T) {
	l, _ := record(t)
	ctx := t.Context()
	name := func(i int) string { return fmt.Sprintf("packs/%02x", i) }
	const objects = 5 * maxOpen
	for i := range objects {
		if err := l.Put(ctx, name(i), bytes.Repeat([]byte{byte(i)}, 10_000)); err != nil {
			t.Fatal(err)
		}
	}
	var readers sync.WaitGroup
	for r := range 8 {
		readers.Go(func() {
			var buf []byte
			for i := range 1000 {
				i = (i*(r+1) + r) % objects
				var err error
				if buf, err = l.Get(ctx, name(i), int64(i), 5000, buf); err != nil {
					t.Error(err)
					return
				}
				if len(buf) != 5000 || buf[0] != byte(i) || buf[4999] != byte(i) {
					t.Errorf("%s holds what another object does", name(i))
				}
			}
		})
	}
	readers.Wait()
	if len(l.open) != maxOpen || l.recent.Len() != maxOpen {
		t.Errorf("%d files are open, %d in order", len(l.open), l.recent.Len())
	}
	for i := range objects {
		if err := l.Delete(ctx, name(i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.open) != 0 {
		t.Errorf("%d removed files are open", len(l.open))
	}
}

// A file that another process removed or replaced is not read any more, even when it is open here and has another name
// elsewhere, as in a copy that was made with hard links.
func TestOpenFileIsRemovedByAnother(t *testing.T) {
	for _, linked := range []bool{false, true} {
		l, _ := record(t)
		ctx := t.Context()
		path := filepath.Join(l.root, "packs", "one")
		for i, change := range []func() error{
			func() error { return os.Remove(path) },
			func() error { return os.WriteFile(path, []byte("second"), 0o600) },
			func() error {
				return errors.Join(os.WriteFile(path+".new", []byte("third"), 0o600), os.Rename(path+".new", path))
			},
		} {
			if err := l.Put(ctx, "packs/one", []byte("first")); err != nil {
				t.Fatal(err)
			}
			if linked {
				if err := os.Link(path, filepath.Join(l.root, fmt.Sprintf("copy-%d", i))); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := l.Get(ctx, "packs/one", 0, 5, nil); err != nil {
				t.Fatal(err)
			}
			if len(l.open) != 1 {
				t.Fatalf("%d files are open", len(l.open))
			}
			if err := change(); err != nil {
				t.Fatal(err)
			}
			want, wantErr := os.ReadFile(path)
			got, err := l.Get(ctx, "packs/one", 0, int64(max(len(want), 1)), nil)
			if string(got) != string(want) || errors.Is(wantErr, fs.ErrNotExist) != errors.Is(err, ErrNotExist) {
				t.Errorf("linked %v: %q, %v; the folder has %q, %v", linked, got, err, want, wantErr)
			}
		}
	}
}

// What is read whole does not stay open: it is not read again soon, and Windows would not let others replace it.
func TestWholeReadIsNotKept(t *testing.T) {
	l, _ := record(t)
	ctx := t.Context()
	if err := l.Put(ctx, "config", []byte("all of it")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		length int64
		open   int
	}{{-1, 0}, {3, 1}, {-1, 1}} {
		if _, err := l.Get(ctx, "config", 0, c.length, nil); err != nil {
			t.Fatal(err)
		}
		if len(l.open) != c.open || l.recent.Len() != c.open {
			t.Errorf("after %d bytes were asked for %d files are open, %d in order", c.length, len(l.open), l.recent.Len())
		}
	}
	if err := l.Put(ctx, "config", nil); err != nil { // closes what is kept
		t.Fatal(err)
	}
	f, _, err := l.reading("config", false)
	if err != nil {
		t.Fatal(err)
	}
	l.done(f)
	if _, err := f.Stat(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("it was given back and is open: %v", err)
	}
}

// opening reads an object at the moment before it is replaced or removed.
type opening struct {
	disk
	read func()
}

func (o opening) remove(path string) error {
	o.read()
	return o.disk.remove(path)
}

func (o opening) rename(from, to string) error {
	o.read()
	return o.disk.rename(from, to)
}

// A reader that comes in the middle of Put or Delete does not keep the old file open, and its space taken, after it.
func TestChangeWhileReading(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // it does not replace or remove an open file, and an error says so
	}
	l, _ := record(t)
	ctx := t.Context()
	if err := l.Put(ctx, "packs/one", []byte("first")); err != nil {
		t.Fatal(err)
	}
	l.disk = opening{l.disk, func() {
		if _, err := l.Get(ctx, "packs/one", 0, 1, nil); err != nil {
			t.Error(err)
		}
	}}
	for i, change := range []func() error{
		func() error { return l.Put(ctx, "packs/one", []byte("second")) },
		func() error { return l.Delete(ctx, "packs/one") },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if len(l.open) != 0 {
			t.Errorf("after change %d: %d old files are open", i, len(l.open))
		}
	}
}
