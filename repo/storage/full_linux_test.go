package storage_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"varve/repo/storage"
)

// smallDisk returns a mounted ext4 of 16 MiB, made with those options of mkfs.ext4.
func smallDisk(t *testing.T, options ...string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: mounting a loop device needs root")
	}
	dir := t.TempDir()
	image, disk := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{
		{"truncate", "-s", "16M", image},
		append(append([]string{"mkfs.ext4", "-q", "-m", "0"}, options...), image),
		{"mount", "-o", "loop", image, disk},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
	t.Cleanup(func() {
		// -l: the storage may have files open for reading.
		if out, err := exec.Command("umount", "-l", disk).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return disk
}

// A full disk is told as one, leaves nothing behind and harms nothing; with room it goes on.
func TestFullDisk(t *testing.T) {
	for _, c := range []struct {
		what    string
		options []string
		size    int
	}{
		{"no bytes left", nil, 700 << 10},
		{"no inodes left", []string{"-N", "64"}, 100},
	} {
		t.Run(c.what, func(t *testing.T) {
			disk := smallDisk(t, c.options...)
			st, err := storage.OpenLocal(filepath.Join(disk, "repository"), true)
			if err != nil {
				t.Fatal(err)
			}
			object := func(i int) (string, []byte) {
				return fmt.Sprintf("packs/%02x/object", i%5), bytes.Repeat([]byte{byte(i)}, c.size)
			}
			name := func(i int) string { n, _ := object(i); return fmt.Sprintf("%s-%d", n, i) }
			held := map[string][]byte{}
			n := 0
			for ; ; n++ {
				_, data := object(n)
				err := st.Put(t.Context(), name(n), data)
				if err == nil {
					held[name(n)] = data
					continue
				}
				if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), name(n)) {
					t.Fatalf("the error of a full disk is %v", err)
				}
				break
			}
			if n < 10 {
				t.Fatalf("only %d objects", n)
			}
			full := func() {
				t.Helper()
				if err := st.PutNew(t.Context(), "config", make([]byte, c.size)); !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("PutNew on a full disk: %v", err)
				}
				if err := st.Put(t.Context(), name(0), bytes.Repeat([]byte("new"), c.size)); !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("replacing on a full disk: %v", err)
				}
			}
			full()
			check := func() {
				t.Helper()
				for name, want := range held {
					if got, err := st.Get(t.Context(), name, 0, -1, nil); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%s: %d bytes, %v", name, len(got), err)
					}
				}
				if got := listed(t, st, ""); len(got) != len(held) {
					t.Errorf("%d objects are listed, %d were put", len(got), len(held))
				}
				err := filepath.WalkDir(st.Location(), func(path string, entry fs.DirEntry, err error) error {
					if strings.HasPrefix(entry.Name(), ".") {
						t.Errorf("%s stays", path)
					}
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
			check()
			for i := range 2 { // prune must be possible when nothing else is
				if err := st.Delete(t.Context(), name(i)); err != nil {
					t.Errorf("deleting on a full disk: %v", err)
				}
				delete(held, name(i))
			}
			check()
			_, data := object(n)
			if err := st.Put(t.Context(), name(n), data); err != nil {
				t.Errorf("with room again: %v", err)
			}
			held[name(n)] = data
			check()
		})
	}
}
