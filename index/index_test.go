package index

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// id makes the n-th id of a kind.
func id(kind string, n int) ID {
	return sha256.Sum256(binary.LittleEndian.AppendUint64([]byte(kind), uint64(n)))
}

// testPack makes pack n with count chunks that no other has.
func testPack(n, count int) (Pack, []Entry) {
	p := Pack{ID: id("pack", n), Size: int64(n)<<20 + 7, Kind: byte(1 + n%2), Salt: id("salt", n)}
	entries := make([]Entry, count)
	for i := range entries {
		entries[i] = testEntry(n, n*1_000_000+i)
	}
	return p, entries
}

// testEntry is where pack n has chunk c.
func testEntry(n, c int) Entry {
	r := rand.New(rand.NewPCG(uint64(n), uint64(c)))
	return Entry{ID: id("chunk", c), Offset: r.Uint32(), Stored: r.Uint32N(max24 + 1), At: r.Uint32N(max24 + 1), Length: r.Uint32N(max24 + 1)}
}

// mustOpen opens an index that must be able to write.
func mustOpen(t testing.TB, dir string) *Index {
	t.Helper()
	x, err := Open(dir, Options{Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	if err := x.Healthy(); err != nil {
		t.Fatal(err)
	}
	return x
}

func mustAdd(t testing.TB, x *Index, p Pack, entries []Entry) {
	t.Helper()
	if err := x.Add(p, entries); err != nil {
		t.Fatal(err)
	}
}

// finds reports an error unless x has these entries of p.
func finds(x *Index, p Pack, entries []Entry) error {
	for _, e := range entries {
		place, ok := x.Lookup(e.ID)
		if !ok {
			return fmt.Errorf("chunk %x is not found", e.ID)
		}
		if want := (Place{place.Pack, e.Offset, e.Stored, e.At, e.Length, false}); place != want {
			return fmt.Errorf("chunk %x: found %+v, want %+v", e.ID, place, want)
		}
		if got, ok := x.Pack(place.Pack); !ok || got != p {
			return fmt.Errorf("chunk %x: in pack %+v (%v), want %+v", e.ID, got, ok, p)
		}
	}
	return nil
}

func mustFind(t testing.TB, x *Index, p Pack, entries []Entry) {
	t.Helper()
	if err := finds(x, p, entries); err != nil {
		t.Fatal(err)
	}
}

func mustMiss(t testing.TB, x *Index, entries []Entry) {
	t.Helper()
	for _, e := range entries {
		if place, ok := x.Lookup(e.ID); ok {
			t.Fatalf("chunk %x is found at %+v", e.ID, place)
		}
	}
}

func all(ID) bool { return true }

func TestAddIsFoundNowAndLater(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	p1, e1 := testPack(1, 5000)
	p2, e2 := testPack(2, 1)
	p3, e3 := testPack(3, 0) // a pack of no chunks is known all the same
	mustMiss(t, x, e1)
	mustAdd(t, x, p1, e1)
	mustAdd(t, x, p2, e2)
	mustAdd(t, x, p3, e3)
	_, none := testPack(4, 1000)
	for range 3 {
		mustFind(t, x, p1, e1)
		mustFind(t, x, p2, e2)
		mustMiss(t, x, none)
		known := x.Known()
		if len(known) != 3 {
			t.Fatalf("known packs: %v", known)
		}
		for _, p := range []Pack{p1, p2, p3} {
			if got, ok := x.Pack(known[p.ID]); !ok || got != p {
				t.Fatalf("pack %+v (%v), want %+v", got, ok, p)
			}
		}
		if s := x.Stats(); s.Chunks != 5001 || s.DeadChunks != 0 || s.Packs != 3 || s.KeptPacks != 0 || s.Bytes < 5001*50 {
			t.Fatalf("%+v", s)
		}
		x.Close()
		x = mustOpen(t, dir)
	}
}

func TestAddAgainChangesNothing(t *testing.T) {
	x := mustOpen(t, t.TempDir())
	p, entries := testPack(1, 10)
	mustAdd(t, x, p, entries)
	before := x.Known()
	mustAdd(t, x, p, entries[:3])
	if after := x.Known(); !maps.Equal(before, after) {
		t.Fatalf("%v became %v", before, after)
	}
	mustFind(t, x, p, entries)
}

func TestSameChunkTwiceInOnePack(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	p, entries := testPack(1, 10)
	second := entries[4]
	second.Offset++
	mustAdd(t, x, p, append(entries, second))
	leave(t, x, open) // so that the seal is checked
	x = mustOpen(t, dir)
	mustFind(t, x, p, entries)
	if n := x.Stats().Chunks; n != 10 {
		t.Fatalf("%d chunks", n)
	}
}

// A chunk in several packs is found as long as one of them is there, whichever goes.
func TestGoneAndBack(t *testing.T) {
	for first := range 3 {
		for second := range 3 {
			dir := t.TempDir()
			x := mustOpen(t, dir)
			for n := range 3 {
				mustAdd(t, x, Pack{ID: id("pack", n)}, []Entry{testEntry(n, 7), testEntry(n, 100+n)})
			}
			gone := map[ID]bool{}
			check := func() {
				t.Helper()
				place, found := x.Lookup(id("chunk", 7))
				if p, live := x.Pack(place.Pack); found != (len(gone) < 3) || found && (!live || gone[p.ID]) {
					t.Fatalf("%d gone: found %v in pack %x (%v)", len(gone), found, p.ID, live)
				} else if found {
					for n := range 3 {
						if e := testEntry(n, 7); id("pack", n) == p.ID && (place != Place{place.Pack, e.Offset, e.Stored, e.At, e.Length, false}) {
							t.Fatalf("pack %d has it elsewhere than at %+v", n, place)
						}
					}
				}
				for n := range 3 {
					if _, found := x.Lookup(id("chunk", 100+n)); found == gone[id("pack", n)] {
						t.Fatalf("gone %v, found %v", gone[id("pack", n)], found)
					}
				}
			}
			for _, n := range []int{first, second, (3 - first - second + 3) % 3} {
				was := len(gone)
				gone[id("pack", n)] = true
				if got := x.SetLive(func(p ID) bool { return !gone[p] }); got != len(gone)-was {
					t.Fatalf("%d newly gone, want %d", got, len(gone)-was)
				}
				check()
				x.Close()
				x = mustOpen(t, dir)
				check()
			}
			if s := x.Stats(); s.Packs != 3-len(gone) || s.DeadChunks != 2*int64(len(gone)) {
				t.Fatalf("%+v", s)
			}
			// One comes back because it exists after all, one because it is added again.
			delete(gone, id("pack", first))
			x.SetLive(func(p ID) bool { return !gone[p] })
			check()
			delete(gone, id("pack", second))
			mustAdd(t, x, Pack{ID: id("pack", second)}, nil)
			check()
			x.Close()
			x = mustOpen(t, dir)
			check()
			x.Close()
		}
	}
}

func TestTrustEndsWhenAPackGoes(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	reopen := func() { x.Close(); x = mustOpen(t, dir) }
	want := func(root string, trusted bool) {
		t.Helper()
		if x.Trusted(id(root, 0)) != trusted {
			t.Fatalf("%s: trusted is %v", root, !trusted)
		}
	}
	for n := range 2 {
		p, entries := testPack(n, 3)
		mustAdd(t, x, p, entries)
	}
	if err := x.Trust(id("a", 0), id("b", 0)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		want("a", true)
		want("b", true)
		want("c", false)
		if gone := x.SetLive(all); gone != 0 {
			t.Fatal(gone)
		}
		reopen()
	}
	x.SetLive(func(p ID) bool { return p != id("pack", 1) })
	want("a", false)
	reopen()
	want("a", false)
	// The pack's return does not bring trust back, but trust can be given anew.
	x.SetLive(all)
	want("b", false)
	if err := x.Trust(id("b", 0)); err != nil {
		t.Fatal(err)
	}
	reopen()
	want("a", false)
	want("b", true)
	if err := x.Reset(); err != nil {
		t.Fatal(err)
	}
	want("b", false)
}

func TestReset(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	p, entries := testPack(1, 100)
	mustAdd(t, x, p, entries)
	for range 2 {
		if err := x.Reset(); err != nil {
			t.Fatal(err)
		}
		mustMiss(t, x, entries)
		if len(x.Known()) != 0 || x.Stats().Packs != 0 {
			t.Fatal("packs are left")
		}
		if dirs, _ := filepath.Glob(filepath.Join(dir, "0", "g*")); len(dirs) != 1 {
			t.Fatalf("generations on disk: %v", dirs)
		}
		x.Close()
		x = mustOpen(t, dir)
		mustMiss(t, x, entries)
		mustAdd(t, x, p, entries)
		mustFind(t, x, p, entries)
	}
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	x := mustOpen(t, t.TempDir())
	for _, bad := range []Entry{{Stored: 1 << 24}, {At: 1 << 24}, {Length: 1 << 24}} {
		if err := x.Add(Pack{ID: id("pack", 1)}, []Entry{{ID: id("chunk", 1)}, bad}); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if len(x.Known()) != 0 {
		t.Error("a refused pack is known")
	}
	mustMiss(t, x, []Entry{{ID: id("chunk", 1)}})
}

func TestClosed(t *testing.T) {
	x := mustOpen(t, t.TempDir())
	p, entries := testPack(1, 2)
	mustAdd(t, x, p, entries)
	for range 2 {
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for what, err := range map[string]error{"Add": x.Add(p, entries), "Trust": x.Trust(p.ID), "Reset": x.Reset()} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if gone := x.SetLive(func(ID) bool { return false }); gone != 0 {
		t.Errorf("SetLive: %d", gone)
	}
	mustMiss(t, x, entries)
}

func TestFolderThatCannotBeUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if x, err := Open(file, Options{}); err == nil {
		x.Close()
		t.Fatal("a file was taken for a folder")
	}
}

// Memory does all that an index on disk does, until it is closed.
func TestMemory(t *testing.T) {
	reason := errors.New("no folder")
	x := Memory(reason)
	if err := x.Healthy(); err != reason {
		t.Fatal(err)
	}
	p1, e1 := testPack(1, 100)
	p2, e2 := testPack(2, 100)
	mustAdd(t, x, p1, e1)
	mustAdd(t, x, p2, append(e2, testEntry(2, 1_000_000))) // the first chunk of pack 1
	mustFind(t, x, p1, e1)
	mustFind(t, x, p2, e2)
	if err := x.Trust(id("root", 1)); err != nil || !x.Trusted(id("root", 1)) {
		t.Fatal(err)
	}
	if gone := x.SetLive(func(p ID) bool { return p != p1.ID }); gone != 1 || x.Trusted(id("root", 1)) {
		t.Fatal(gone)
	}
	mustMiss(t, x, e1[1:])
	mustFind(t, x, p2, []Entry{testEntry(2, 1_000_000)})
	if s := x.Stats(); (s != Stats{Chunks: 101, DeadChunks: 100, Packs: 1, KeptPacks: 1}) {
		t.Fatalf("%+v", s)
	}
	if err := x.Reset(); err != nil || len(x.Known()) != 0 {
		t.Fatal(err)
	}
	mustMiss(t, x, e2)
	if x.Close() != nil || !errors.Is(x.Add(p1, e1), ErrClosed) {
		t.Fatal("not closed")
	}
}

// TestModel runs random changes against an index and a model of it.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const packs, chunks = 40, 300
	type model struct {
		entries map[int]Entry
		live    bool
	}
	dir := t.TempDir()
	x := mustOpen(t, dir)
	known, trusted := map[int]*model{}, map[int]bool{}
	for step := range 400 {
		switch op := r.IntN(100); {
		case op < 60:
			n := r.IntN(packs)
			entries := map[int]Entry{}
			var list []Entry
			for range r.IntN(40) {
				c := r.IntN(chunks)
				entries[c] = testEntry(n, c)
				list = append(list, entries[c])
			}
			mustAdd(t, x, Pack{ID: id("pack", n), Size: int64(n)}, list)
			if known[n] == nil {
				known[n] = &model{entries: entries}
			}
			known[n].live = true
		case op < 75:
			exists := map[ID]bool{}
			gone := 0
			for n, m := range known {
				here := r.IntN(5) > 0
				exists[id("pack", n)] = here
				if m.live && !here {
					gone++
				}
				m.live = here
			}
			if got := x.SetLive(func(p ID) bool { return exists[p] }); got != gone {
				t.Fatalf("step %d: %d gone, want %d", step, got, gone)
			}
			if gone > 0 {
				clear(trusted)
			}
		case op < 82:
			root := r.IntN(10)
			if err := x.Trust(id("root", root)); err != nil {
				t.Fatal(err)
			}
			trusted[root] = true
		case op < 83:
			if err := x.Reset(); err != nil {
				t.Fatal(err)
			}
			clear(known)
			clear(trusted)
		case op < 92:
			leave(t, x, closed)
			x = mustOpen(t, dir)
		default:
			leave(t, x, open)
			x = mustOpen(t, dir)
		}
		for c := range chunks {
			place, found := x.Lookup(id("chunk", c))
			p, live := x.Pack(place.Pack)
			want := false
			for _, m := range known {
				_, has := m.entries[c]
				want = want || m.live && has
			}
			if found != want {
				t.Fatalf("step %d: chunk %d: found %v, want %v", step, c, found, want)
			}
			if found {
				e := known[int(p.Size)].entries[c]
				if !live || (place != Place{place.Pack, e.Offset, e.Stored, e.At, e.Length, false}) {
					t.Fatalf("step %d: chunk %d: found at %+v in %+v (%v), want %+v", step, c, place, p, live, e)
				}
			}
		}
		ids := x.Known()
		for n := range packs {
			if _, got := ids[id("pack", n)]; got != (known[n] != nil && known[n].live) {
				t.Fatalf("step %d: pack %d: known %v", step, n, got)
			}
		}
		for root := range 10 {
			if x.Trusted(id("root", root)) != trusted[root] {
				t.Fatalf("step %d: root %d: trusted is not %v", step, root, trusted[root])
			}
		}
	}
}

// Everything at once, for the race detector; what can be said of the results is that no hit is wrong.
func TestConcurrentUse(t *testing.T) {
	x := mustOpen(t, t.TempDir())
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for n := w; n < 60; n += 3 {
				p, entries := testPack(n, 50)
				if err := x.Add(p, entries); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for i := range 6000 {
				n := i % 60
				e := testEntry(n, n*1_000_000+i%50)
				place, ok := x.Lookup(e.ID)
				if ok && (place != Place{place.Pack, e.Offset, e.Stored, e.At, e.Length, false}) {
					t.Errorf("pack %d, chunk %d: found at %+v", n, i%50, place)
				}
				x.Pack(place.Pack)
			}
		})
	}
	wg.Go(func() {
		for i := range 20 {
			x.SetLive(func(p ID) bool { return int(p[0])%7 != i%7 })
			if err := x.Trust(id("root", i)); err != nil {
				t.Error(err)
			}
			x.Trusted(id("root", i))
			x.Known()
			x.Stats()
			if i == 10 {
				if err := x.Reset(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	wg.Wait()
}

// A condemned pack answers, but after all others, and its places say what it is; no root is trusted while it is here.
func TestCondemned(t *testing.T) {
	for name, x := range map[string]*Index{"disk": mustOpen(t, t.TempDir()), "memory": Memory(errors.New("for the test"))} {
		shared := testEntry(1, 77)
		p1, only1 := testPack(1, 3)
		p2, only2 := testPack(2, 3)
		root := id("root", 1)
		lookup := func(e Entry, condemned bool, pack Pack) {
			t.Helper()
			place, found := x.Lookup(e.ID)
			if !found || place.Condemned != condemned {
				t.Fatalf("%s: found %v, condemned %v", name, found, place.Condemned)
			}
			if p, live := x.Pack(place.Pack); !live || p.ID != pack.ID {
				t.Fatalf("%s: in pack %x, live %v", name, p.ID, live)
			}
		}
		both := []ID{p1.ID, p2.ID}
		for first := range both { // whichever was added last
			x.SetCondemned(map[ID]struct{}{both[first]: {}})
			if first == 0 {
				mustAdd(t, x, p1, append(only1, shared)) // condemned before it is known
				mustAdd(t, x, p2, append(only2, shared))
				if err := x.Trust(root); err != nil {
					t.Fatal(err)
				}
			}
			lookup(shared, false, []Pack{p2, p1}[first])
			lookup(only1[0], first == 0, p1)
			lookup(only2[0], first == 1, p2)
			if x.Trusted(root) {
				t.Errorf("%s: trusted beside a condemned pack", name)
			}
		}
		x.SetCondemned(nil)
		lookup(only2[0], false, p2)
		if !x.Trusted(root) {
			t.Errorf("%s: not trusted any more", name)
		}
		x.SetCondemned(map[ID]struct{}{p1.ID: {}, id("pack", 9): {}})
		x.SetLive(func(pack ID) bool { return pack == p2.ID })
		lookup(shared, false, p2)
		if err := x.Trust(root); err != nil || !x.Trusted(root) {
			t.Errorf("%s: condemned packs that are gone are in the way of trust", name)
		}
	}
}
