package storage_test

import (
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"varve/repo/storage"
)

// TestFreeIsWhatDfSays: within what others write meanwhile.
func TestFreeIsWhatDfSays(t *testing.T) {
	dir := t.TempDir()
	out, err := exec.Command("df", "--output=avail", "-B1", dir).Output()
	if err != nil {
		t.Skipf("SKIPPED: df --output: %v", err)
	}
	lines := strings.Fields(string(out))
	said, err := strconv.ParseInt(lines[len(lines)-1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	st, err := storage.OpenLocal(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	n, err := st.Free(t.Context())
	if err != nil || n < said-4<<30 || n > said+4<<30 {
		t.Errorf("%d bytes are free, and df says %d, %v", n, said, err)
	}
}
