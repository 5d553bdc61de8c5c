package index

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A disk that fills up must not cost the process its life, nor the index what it had. The disk is a real one: ext4 on
// a loop device of 640 MiB.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	image, disk := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: mounting a loop device needs root")
	}
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"truncate", "-s", "640M", image}, {"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, disk}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", c, err, out)
		}
	}
	defer func() {
		if out, err := exec.Command("umount", disk).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	}()
	out, err := child("full", disk).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%.4000s", err, out)
	}
	t.Logf("%s", out)
	// The child left an index open on a full disk and ended. It is read-protected then, and recovers with room.
	x := mustOpen(t, filepath.Join(disk, "index"))
	defer x.Close()
	for n := range 3 {
		p, entries := testPack(n, 5000)
		mustFind(t, x, p, entries)
	}
}

// fullDisk is the child of TestFullDisk: a full disk kills what uses Badger without care.
func fullDisk(disk string) {
	dir := filepath.Join(disk, "index")
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	logf := func(f string, a ...any) { fmt.Printf(f+"\n", a...) }
	begin := func() *Index {
		x, err := Open(dir, Options{Logf: logf})
		check(err)
		return x
	}
	// leave fills the disk until that many bytes are free; leave(-1) empties it.
	leave := func(bytes int64) {
		ballast := filepath.Join(disk, "ballast")
		os.Remove(ballast)
		if bytes < 0 {
			return
		}
		free, err := freeSpace(disk)
		check(err)
		size := free - bytes
		if bytes == 0 {
			size /= 2
		}
		check(exec.Command("fallocate", "-l", strconv.FormatInt(size, 10), ballast).Run())
		f, err := os.OpenFile(ballast, os.O_WRONLY|os.O_APPEND, 0)
		check(err)
		defer f.Close()
		for bytes == 0 && err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
	}
	full := func(x *Index, when string) {
		if err := x.Healthy(); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "VARVE_CACHE_DIR") { // what to do is said
			panic(fmt.Sprintf("%s: healthy says %v", when, err))
		}
	}
	p0, e0 := testPack(0, 5000)
	p1, e1 := testPack(1, 5000)
	p2, e2 := testPack(2, 5000)
	missing := func(x *Index, when string, entries []Entry) {
		if _, ok := x.Lookup(entries[0].ID); ok {
			panic(when + ": found what only another process had in memory")
		}
	}

	x := begin()
	check(x.Healthy())
	check(x.Add(p0, e0))
	leave(Margin - 1<<20)
	check(x.Add(p1, e1))
	full(x, "below the margin")
	check(finds(x, p0, e0))
	check(finds(x, p1, e1))
	if s := x.Stats(); s.Packs != 2 || s.KeptPacks != 1 {
		panic(fmt.Sprintf("%+v", s))
	}
	check(x.Trust(p1.ID))
	check(x.Close())

	for _, free := range []int64{Margin - 1<<20, 4 << 20} { // it was closed, so it can be read
		leave(free)
		x = begin()
		full(x, "opened with little room")
		check(finds(x, p0, e0))
		missing(x, "read only", e1)
		check(x.Add(p1, e1))
		check(finds(x, p1, e1))
		if gone := x.SetLive(func(p ID) bool { return p != p0.ID }); gone != 1 {
			panic(gone)
		}
		missing(x, "gone", e0)
		if x.SetLive(all); x.Trusted(p1.ID) {
			panic("trusted")
		}
		check(finds(x, p0, e0))
		check(x.Close())
	}
	leave(0) // not even a state can be written
	x = begin()
	full(x, "opened with no room")
	check(x.Add(p1, e1))
	check(finds(x, p1, e1))
	if err := x.Reset(); !errors.Is(err, syscall.ENOSPC) {
		panic(err)
	}
	check(finds(x, p1, e1)) // a Reset that failed has changed nothing
	check(x.Close())

	leave(-1)
	x = begin()
	check(x.Healthy())
	check(finds(x, p0, e0))
	missing(x, "after room was made", e1)
	check(x.Add(p1, e1))
	check(x.Add(p2, e2))
	leave(0)
	check(x.Add(testPack(3, 5000)))
	full(x, "full at once")
	check(finds(x, p2, e2))
	check(x.Close()) // nothing can be written, so nothing is closed
	y := begin()     // and this one gets another slot, or nothing at all
	full(y, "after it was not closed")
	missing(y, "another slot", e0)
	check(y.Close())
	leave(-1)
	fmt.Println("survived")
}
