package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"varve/repo/storage"
)

// TestAFolderThatOnlyGrows: the file system itself lets nobody, not even root, remove or rename anything in the folders of
// the repository, or write to a file in it.
func TestAFolderThatOnlyGrows(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: folders that only grow: chattr needs root")
	}
	work := t.TempDir()
	place := filepath.Join(work, "repository")
	if err := os.MkdirAll(place, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chattr", "+a", place).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: folders that only grow: chattr +a on the file system of %s: %v %s", work, err, out)
	}
	t.Cleanup(func() { _ = exec.Command("chattr", "-R", "-ia", place).Run() }) // or the folder stays for ever
	if out, err := exec.Command("chattr", "-a", place).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	st, err := storage.OpenLocal(place, false)
	if err != nil {
		t.Fatal(err)
	}
	shelf(t, st, place, "test")
	guard := func() {
		t.Helper()
		err := filepath.WalkDir(place, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			attribute := "+i"
			if e.IsDir() {
				attribute = "+a"
			}
			return exec.Command("chattr", attribute, path).Run()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	disk := filepath.Join(work, "disk.img")
	t.Setenv("VARVE_APPEND_ONLY", "yes")
	for day := range 2 {
		guard()
		if err := os.WriteFile(disk, randomBytes(1_000_000, int64(day)), 0o600); err != nil {
			t.Fatal(err)
		}
		command(t, "backup", disk)
		command(t, "check", "--read-data")
	}
	command(t, "verify", "latest", disk)
	guard()
	t.Setenv("VARVE_APPEND_ONLY", "")
	if _, _, err := attempt("backup", disk); err == nil || !strings.Contains(err.Error(), "--append-only") {
		t.Errorf("nothing says what to do in a folder that guards what is in it: %v", err)
	}
	if err := os.Remove(filepath.Join(place, "config")); !errors.Is(err, syscall.EPERM) {
		t.Errorf("the folder does not guard what is in it: %v", err)
	}
	// Its owner takes the guard away to forget.
	if out, err := exec.Command("chattr", "-R", "-ia", place).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	command(t, "forget", "--keep-last", "1", "--prune", "--max-unused", "0")
	command(t, "check", "--read-data")
}
