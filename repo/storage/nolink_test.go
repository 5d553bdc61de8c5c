package storage

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// unlinked is a disk whose file system has no links, as FAT.
type unlinked struct{ disk }

func (unlinked) link(string, string) error { return syscall.EPERM }

// Of many that put one name on such a disk, through two Locals as two processes would, one succeeds, and what it put is
// what is there. Nothing temporary stays.
func TestOneWinnerWithoutLinks(t *testing.T) {
	dir := t.TempDir()
	var locals []*Local
	for range 2 {
		l, err := OpenLocal(dir, false)
		if err != nil {
			t.Fatal(err)
		}
		l.disk = unlinked{l.disk}
		locals = append(locals, l)
	}
	const rounds = 10
	for round := range rounds {
		name := fmt.Sprintf("leases/%d", round)
		var winners atomic.Int32
		var won atomic.Value
		var all sync.WaitGroup
		for i := range 16 {
			data := bytes.Repeat([]byte{byte(i)}, 500+i)
			all.Go(func() {
				err := locals[i%2].PutNew(t.Context(), name, data)
				switch {
				case err == nil:
					winners.Add(1)
					won.Store(data)
				case !errors.Is(err, ErrExist):
					t.Errorf("one who came later: %v", err)
				}
			})
		}
		all.Wait()
		if n := winners.Load(); n != 1 {
			t.Fatalf("%d put %s", n, name)
		}
		got, err := locals[0].Get(t.Context(), name, 0, -1, nil)
		if err != nil || !bytes.Equal(got, won.Load().([]byte)) {
			t.Errorf("%s is not what the winner put: %d bytes, %v", name, len(got), err)
		}
	}
	if left := files(t, dir); len(left) != rounds {
		t.Errorf("%d files for %d objects", len(left), rounds)
	}
}
