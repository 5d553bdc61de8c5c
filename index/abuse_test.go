package index

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The packs in the indexes of this file.
const (
	abusePacks  = 40
	abuseChunks = 500
)

// reader opens an index and looks for every chunk of its known packs. It says how many packs are known and how many
// of their chunks are missing, and fails when a hit is wrong.
func reader(dir string) {
	x, err := Open(dir, Options{})
	if err != nil {
		childFailed(err)
	}
	if err := x.Healthy(); err != nil {
		childFailed(err)
	}
	known := x.Known()
	missing := 0
	for n := range abusePacks {
		p, entries := testPack(n, abuseChunks)
		_, here := known[p.ID]
		for _, e := range entries {
			place, ok := x.Lookup(e.ID)
			switch got, live := x.Pack(place.Pack); {
			case ok && (!live || got != p || place != Place{place.Pack, e.Offset, e.Stored, e.At, e.Length, false}):
				childFailed(fmt.Errorf("chunk %x: found %+v in %+v (%v)", e.ID, place, got, live))
			case !ok && here:
				missing++
			}
		}
	}
	fmt.Println(len(known), missing)
	x.Close()
}

// template makes an index of so many large packs besides those that reader knows, and leaves it closed or, like a
// killed process, open: then part of it is in logs.
func template(t *testing.T, left string, large int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd := child(fmt.Sprintf("template %s %d", left, large), dir)
	if out, err := cmd.CombinedOutput(); len(out) > 0 || (err == nil) != (left == closed) {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := readState(t, dir).Left; got != left {
		t.Fatalf("left %q", got)
	}
	return dir
}

// makeTemplate is the child of template.
func makeTemplate(dir, arg string) {
	var left string
	var large int
	if _, err := fmt.Sscan(arg, &left, &large); err != nil {
		childFailed(err)
	}
	x, err := Open(dir, Options{})
	if err != nil {
		childFailed(err)
	}
	for n := range large + abusePacks {
		p, entries := testPack(1000+n, 30_000)
		if n >= large {
			p, entries = testPack(n-large, abuseChunks)
		}
		if err := errors.Join(x.Add(p, entries), x.Healthy()); err != nil {
			childFailed(err)
		}
	}
	if left == open {
		self, err := os.FindProcess(os.Getpid())
		if err != nil {
			childFailed(err)
		}
		self.Kill()
		select {}
	}
	x.Close()
}

// damage does something to one file of Badger's.
func damage(t *testing.T, r *rand.Rand, dir string) (what string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "0", "g1", "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	file := files[r.IntN(len(files))]
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Base(file)
	kind := r.IntN(6)
	if info.Size() == 0 {
		kind = 0
	}
	switch kind {
	case 0:
		err, what = os.Remove(file), "removed"
	case 1:
		n := r.Int64N(info.Size())
		err, what = os.Truncate(file, n), fmt.Sprintf("truncated from %d to %d", info.Size(), n)
	default:
		var data []byte
		if data, err = os.ReadFile(file); err == nil {
			end := len(data)
			for end > 1 && data[end-1] == 0 && r.IntN(8) > 0 { // rather not in the empty part of a log
				end--
			}
			bit := r.IntN(end * 8)
			data[bit/8] ^= 1 << (bit % 8)
			err, what = os.WriteFile(file, data, 0o600), fmt.Sprintf("bit %d of %d flipped", bit, len(data)*8)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return name + " " + what
}

// abuse damages copies of a template and reads them. exact says that no chunk of a known pack may be missing.
// A process may die of the damage, because Badger does, while it reads and twice while it opens; the next one must not.
func abuse(t *testing.T, template string, n int, exact bool) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	died, replaced, fewer, holes := 0, 0, 0, 0
	for range n {
		dir := filepath.Join(t.TempDir(), "copy")
		if err := os.CopyFS(dir, os.DirFS(template)); err != nil {
			t.Fatal(err)
		}
		what := damage(t, r, dir)
		for attempt := 0; ; attempt++ {
			cmd := child("reader", dir)
			var stderr strings.Builder
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				text := stderr.String()
				if attempt == 3 || !strings.Contains(text, "SIGSEGV") && !strings.Contains(text, "SIGBUS") &&
					!strings.Contains(text, "panic:") && !strings.Contains(text, "fatal error:") && !badgerExit(text) {
					t.Fatalf("%s: attempt %d: %v\n%.2000s", what, attempt, err, text)
				}
				died++
				continue
			}
			var known, missing int
			if _, err := fmt.Sscan(string(out), &known, &missing); err != nil {
				t.Fatalf("%s: %q", what, out)
			}
			if missing > 0 {
				if holes++; exact {
					t.Errorf("%s: %d packs known, %d of their chunks are missing", what, known, missing)
				}
			}
			if known == 0 {
				replaced++
			} else if known < abusePacks {
				fewer++
			}
			break
		}
		os.RemoveAll(dir)
	}
	t.Logf("%d trials: %d processes died, %d times replaced, %d times fewer packs, %d times chunks missing", n, died, replaced, fewer, holes)
}

// badgerExit recognises log.Fatal of Badger.
func badgerExit(stderr string) bool { return strings.Contains(stderr, "github.com/dgraph-io/badger") }

// A small index is verified whenever it is opened, so damage is never met later.
func TestAbuseSmall(t *testing.T) { abuse(t, template(t, closed, 0), trials(t, 40), true) }

// After a crash, every table and every entry since the last close is checked.
func TestAbuseAfterCrash(t *testing.T) { abuse(t, template(t, open, 4), trials(t, 15), true) }

// A large one that was closed is opened without reading it. Damage to its tables can be misses then, never wrong hits.
func TestAbuseLarge(t *testing.T) {
	dir := template(t, closed, 20)
	s := slot{dir: filepath.Join(dir, "0")}
	if size := s.size(); size < smallIndex {
		t.Fatalf("%d bytes are not large", size)
	}
	x := mustOpen(t, dir)
	opened := x.slot.state.Verified
	x.Close()
	if x = mustOpen(t, dir); !x.slot.state.Verified.Equal(opened) {
		t.Error("a large index is verified at every open")
	}
	x.Close()
	abuse(t, dir, trials(t, 12), false)
	// Once a week all of it is read, and then nothing may be missing.
	edit(t, s.dir, func(st *state) { st.Verified = time.Now().Add(-verifyEvery - time.Hour) })
	abuse(t, dir, trials(t, 12), true)
}
