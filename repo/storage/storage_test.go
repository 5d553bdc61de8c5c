package storage_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"varve/repo/storage"
	"varve/repo/storage/storagetest"
)

func openLocal(t *testing.T) storage.Storage {
	st, err := storage.OpenLocal(filepath.Join(t.TempDir(), "repository"), true)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func TestLocalConforms(t *testing.T) { storagetest.Run(t, openLocal) }

func TestMemoryConforms(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Storage { return storage.NewMemory() })
}

// Two that have one folder open are as one: each must see at once what the other does.
func TestTwoLocalsConform(t *testing.T) {
	storagetest.Run(t, func(t *testing.T) storage.Storage {
		one := openLocal(t)
		two, err := storage.OpenLocal(one.Location(), false)
		if err != nil {
			t.Fatal(err)
		}
		return &turns{Storage: one, other: two}
	})
}

// turns sends every other operation to the other one.
type turns struct {
	storage.Storage
	other storage.Storage
	n     atomic.Int64
}

func (s *turns) next() storage.Storage {
	if s.n.Add(1)%2 == 0 {
		return s.other
	}
	return s.Storage
}

func (s *turns) Put(ctx context.Context, name string, data []byte) error {
	return s.next().Put(ctx, name, data)
}

func (s *turns) PutNew(ctx context.Context, name string, data []byte) error {
	return s.next().PutNew(ctx, name, data)
}

func (s *turns) Get(ctx context.Context, name string, offset, length int64, buf []byte) ([]byte, error) {
	return s.next().Get(ctx, name, offset, length, buf)
}

func (s *turns) List(ctx context.Context, prefix string, f func(string, int64) error) error {
	return s.next().List(ctx, prefix, f)
}

func (s *turns) Delete(ctx context.Context, name string) error {
	return s.next().Delete(ctx, name)
}

func TestOpenLocal(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b", "c")
	if _, err := storage.OpenLocal(deep, false); !errors.Is(err, storage.ErrNotExist) || !strings.Contains(err.Error(), deep) {
		t.Errorf("a folder that is not there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening without create made something: %v", err)
	}
	if _, err := storage.OpenLocal(deep, true); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	st, err := storage.OpenLocal("a/b/c", false)
	if err != nil || st.Location() != deep {
		t.Errorf("%v %v, want %s", st, err, deep)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		if _, err := storage.OpenLocal(path, true); err == nil {
			t.Errorf("%s was opened, which is no folder", path)
		}
	}
}

// A disk that is not mounted any more is neither empty nor made anew in its mount point.
func TestLocalRootGone(t *testing.T) {
	st := openLocal(t)
	ctx := t.Context()
	if err := st.Put(ctx, "packs/ab/one", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(st.Location(), st.Location()+".away"); err != nil {
		t.Fatal(err)
	}
	if err := st.List(ctx, "packs/", func(string, int64) error { return nil }); err == nil {
		t.Error("a storage that has gone is listed as empty")
	}
	if err := st.Put(ctx, "packs/ab/two", nil); err == nil {
		t.Error("an object was put in a storage that has gone")
	}
	if _, err := os.Stat(st.Location()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder was made again: %v", err)
	}
	if err := os.Rename(st.Location()+".away", st.Location()); err != nil {
		t.Fatal(err)
	}
	if err := st.Put(ctx, "packs/cd/three", nil); err != nil {
		t.Errorf("after it came back: %v", err)
	}
}

// A folder inside may be removed by hand, and a repository may lie behind symbolic links.
func TestLocalFolders(t *testing.T) {
	st := openLocal(t)
	ctx := t.Context()
	for range 2 {
		if err := st.Put(ctx, "packs/ab/one", []byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(st.Location(), "packs")); err != nil {
			t.Fatal(err)
		}
	}
	if err := st.Put(ctx, "packs/ab/one", []byte("x")); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	link := filepath.Join(t.TempDir(), "link")
	for _, err := range []error{
		os.Rename(filepath.Join(st.Location(), "packs"), elsewhere),
		os.Symlink(elsewhere, filepath.Join(st.Location(), "packs")),
		os.Symlink(st.Location(), link),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	linked, err := storage.OpenLocal(link, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := linked.Put(ctx, "config", nil); err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"packs/", "packs/ab/"} {
		if got := listed(t, linked, prefix); !slices.Equal(got, []string{"packs/ab/one"}) {
			t.Errorf("%s through a symbolic link: %v", prefix, got)
		}
	}
	if got := listed(t, linked, ""); !slices.Contains(got, "config") {
		t.Errorf("through a symbolic link: %v", got)
	}
}

func listed(t *testing.T, st storage.Storage, prefix string) (names []string) {
	t.Helper()
	if err := st.List(t.Context(), prefix, func(name string, _ int64) error { names = append(names, name); return nil }); err != nil {
		t.Error(err)
	}
	return names
}

// What a backup stores is nobody else's business.
func TestLocalModes(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // it has no such modes
	}
	st := openLocal(t)
	if err := st.Put(t.Context(), "packs/ab/one", nil); err != nil {
		t.Fatal(err)
	}
	if err := st.PutNew(t.Context(), "config", nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		"": 0o700, "packs": 0o700, "packs/ab": 0o700, "packs/ab/one": 0o600, "config": 0o600,
	} {
		info, err := os.Stat(filepath.Join(st.Location(), name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%q has mode %v, want %v", name, info.Mode().Perm(), want)
		}
	}
}

// What a crash left is no object, and goes after a day; a temporary file of today may be somebody's who is still writing.
func TestLocalTemporaries(t *testing.T) {
	st := openLocal(t)
	if err := st.Put(t.Context(), "packs/ab/one", nil); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(st.Location(), "packs", "ab")
	old, young, foreign := filepath.Join(dir, ".tmp-OLD-two"), filepath.Join(dir, ".tmp-YOUNG-two"), filepath.Join(dir, ".DS_Store")
	for _, path := range []string{old, young, foreign} {
		if err := os.WriteFile(path, []byte("half an obj"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{old, foreign} {
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-25*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if got := listed(t, st, ""); !slices.Equal(got, []string{"packs/ab/one"}) {
		t.Errorf("listed: %v", got)
	}
	for path, want := range map[string]bool{old: false, young: true, foreign: true} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}
