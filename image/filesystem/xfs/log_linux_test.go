package xfs_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
)

// TestLog: whether the log is empty is what xfs_logprint says, while it goes around and around.
func TestLog(t *testing.T) {
	for _, c := range []struct{ name, mkfs, options string }{
		{"plain", "-l size=6m", ""},
		{"large records", "-l size=8m,su=32k", "logbsize=256k"},
		{"large sectors", "-s size=4096 -l size=5m", "logbsize=64k"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := filesystemtest.Image(t, 60*mib, append([]string{"mkfs.xfs", "-q", "--unsupported"}, strings.Fields(c.mkfs)...)...)
			random := rand.New(rand.NewPCG(3, 3))
			compareLog(t, image)
			var options []string
			if c.options != "" {
				options = []string{c.options}
			}
			dirty := 0
			for range logRounds {
				dir := filesystemtest.Mount(t, image, "xfs", options...)
				for n := range random.IntN(3) {
					change(t, dir, random, n)
				}
				filesystemtest.Run(t, "sync", "-f", dir)
				live := filepath.Join(t.TempDir(), "live")
				filesystemtest.Run(t, "cp", "--sparse=always", image, live)
				if compareLog(t, live) {
					dirty++
				}
				filesystemtest.Unmount(t, dir)
				if compareLog(t, image) {
					t.Fatal("the log is not empty after an unmount")
				}
				check(t, os.Remove(live))
			}
			if dirty == 0 {
				t.Error("the log was always empty")
			}
		})
	}
}

// logRounds is enough for some turns of the logs of TestLog.
const logRounds = 8

// change makes up to 2000 files, or removes them.
func change(t *testing.T, dir string, random *rand.Rand, n int) {
	t.Helper()
	folder := filepath.Join(dir, fmt.Sprint(n))
	if os.RemoveAll(folder); random.IntN(3) == 0 {
		return
	}
	check(t, os.Mkdir(folder, 0o755))
	for i := range random.IntN(2000) {
		check(t, os.WriteFile(filepath.Join(folder, fmt.Sprintf("%d-%s", i, strings.Repeat("n", 150))), nil, 0o644))
	}
}

// compareLog compares what Info and Free say of the log with what xfs_logprint does, and returns whether it is said to be dirty. What
// xfs_logprint finds dirty must be; of a log that was copied while it was written more may be.
func compareLog(t *testing.T, image string) (dirty bool) {
	t.Helper()
	out := filesystemtest.Run(t, "xfs_logprint", "-t", image)
	theirs := strings.Contains(out, "<DIRTY>")
	if theirs == strings.Contains(out, "<CLEAN>") {
		t.Fatalf("xfs_logprint says neither:\n%s", out)
	}
	s := filesystemtest.OpenImage(t, image, open)
	says := s.Info().Dirty
	if dirty = says != ""; theirs && !dirty {
		t.Fatalf("the log is said to be empty, where xfs_logprint says:\n%s", out)
	}
	err := s.Free(context.Background(), func(filesystem.Range) error { return nil })
	var untrusted *filesystem.UntrustedError
	if dirty != errors.As(err, &untrusted) || !dirty && err != nil {
		t.Fatalf("it %s; Free: %v", says, err)
	}
	return dirty
}
