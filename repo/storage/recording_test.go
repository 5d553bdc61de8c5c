package storage

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// event is one change to the file system, as Local asked for it. Paths are relative to the folder above the root.
type event struct {
	op       string // create, write, sync, close, rename, link, remove, mkdir, syncdir
	path, to string
	data     []byte
}

func (e event) String() string {
	s := e.op + " " + e.path
	if e.to != "" {
		s += " " + e.to
	}
	if e.op == "write" {
		s += fmt.Sprintf(" %d", len(e.data))
	}
	return s
}

// recording is a disk that keeps a record, and fails when fail says so. It does not wait for syncs: no power is cut.
type recording struct {
	disk
	base string

	mu     sync.Mutex
	events []event
	fail   func(event) error // nil: nothing fails
	order  sync.Mutex        // held while something is done and recorded
}

// record adds an event, unless it is to fail.
func (r *recording) record(op, path, to string, data []byte) error {
	relative := func(path string) string {
		if path == "" {
			return ""
		}
		rel, err := filepath.Rel(r.base, path)
		if err != nil {
			panic(err)
		}
		return filepath.ToSlash(rel)
	}
	e := event{op, relative(path), relative(to), append([]byte(nil), data...)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		if err := r.fail(e); err != nil {
			return &os.PathError{Op: op, Path: path, Err: err}
		}
	}
	r.events = append(r.events, e)
	return nil
}

// apply does an operation and records it when it went well.
func (r *recording) apply(op, path, to string, do func() error) error {
	r.mu.Lock()
	fail := r.fail
	r.mu.Unlock()
	if fail != nil { // before it does anything
		if err := r.record(op, path, to, nil); err != nil {
			return err
		}
		return do()
	}
	// As one: who finds that a folder is there must not record a file in it before the folder.
	r.order.Lock()
	defer r.order.Unlock()
	if err := do(); err != nil {
		return err
	}
	return r.record(op, path, to, nil)
}

func (r *recording) create(path string) (file, error) {
	var f file
	err := r.apply("create", path, "", func() (err error) {
		f, err = r.disk.create(path)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &recordedFile{f, r, path}, nil
}

func (r *recording) rename(from, to string) error {
	return r.apply("rename", from, to, func() error { return r.disk.rename(from, to) })
}

func (r *recording) link(from, to string) error {
	return r.apply("link", from, to, func() error { return r.disk.link(from, to) })
}

func (r *recording) remove(path string) error {
	return r.apply("remove", path, "", func() error { return r.disk.remove(path) })
}

func (r *recording) mkdir(path string) error {
	return r.apply("mkdir", path, "", func() error { return r.disk.mkdir(path) })
}

func (r *recording) syncDir(path string) error {
	return r.apply("syncdir", path, "", func() error { return nil })
}

type recordedFile struct {
	file
	r    *recording
	path string
}

func (f *recordedFile) Write(p []byte) (int, error) {
	if err := f.r.record("write", f.path, "", p); err != nil {
		n, _ := f.file.Write(p[:len(p)/2]) // as a disk that fills up
		return n, err
	}
	return f.file.Write(p)
}

func (f *recordedFile) Sync() error {
	return f.r.apply("sync", f.path, "", func() error { return nil })
}

func (f *recordedFile) Close() error {
	err := f.r.record("close", f.path, "", nil)
	if closeErr := f.file.Close(); err == nil {
		err = closeErr
	}
	return err
}

// record returns an empty Local and what records it, from the making of its root on.
func record(t *testing.T) (*Local, *recording) {
	t.Helper()
	base := t.TempDir()
	l, err := OpenLocal(base, true)
	if err != nil {
		t.Fatal(err)
	}
	r := &recording{disk: l.disk, base: base}
	l.root, l.disk = filepath.Join(base, "repository"), r
	if err := l.makeRoot(l.root); err != nil {
		t.Fatal(err)
	}
	return l, r
}

var randomPart = regexp.MustCompile(`\.tmp-[A-Z2-7]+-`)

// The order of syncs is what every promise about power cuts rests on.
func TestTrace(t *testing.T) {
	l, r := record(t)
	ctx := t.Context()
	var trace strings.Builder
	step := func(what string, do func() error) {
		t.Helper()
		if err := do(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		fmt.Fprintf(&trace, "%s\n", what)
		for _, e := range r.events {
			fmt.Fprintf(&trace, "\t%s\n", randomPart.ReplaceAllString(e.String(), ".tmp-*-"))
		}
		r.events = nil
	}
	put := func(name, data string) func() error {
		return func() error { return l.Put(ctx, name, []byte(data)) }
	}
	step("make the root", func() error { return nil })
	step("put packs/ab/one", put("packs/ab/one", "1"))
	step("put packs/ab/two, in a folder that is known", put("packs/ab/two", "22"))
	step("put packs/cd/three", put("packs/cd/three", "333"))
	step("put config", put("config", "4444"))
	step("put config again", put("config", "5"))
	step("putnew leases/a", func() error { return l.PutNew(ctx, "leases/a", nil) })
	step("putnew leases/a again", func() error {
		if err := l.PutNew(ctx, "leases/a", nil); err == nil {
			t.Error("it was taken")
		}
		return nil
	})
	r.fail = func(e event) error {
		if e.op == "link" {
			return syscall.EPERM
		}
		return nil
	}
	step("putnew leases/b where there are no links", func() error { return l.PutNew(ctx, "leases/b", nil) })
	r.fail = nil
	step("delete packs/ab/one", func() error { return l.Delete(ctx, "packs/ab/one") })
	again, err := OpenLocal(l.root, false)
	if err != nil {
		t.Fatal(err)
	}
	again.disk = r
	step("put packs/ab/four, by another process", func() error { return again.Put(ctx, "packs/ab/four", nil) })
	golden(t, "testdata/trace.golden", trace.String())
}
