package repo

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"varve/repo/storage"
)

// What helps processes to work beside each other, leases, lists of condemned packs and ledgers of checks, is harmed here in
// every way that a disk or an enemy has, in a repository where it matters: a writer on another machine holds a lease, and packs
// are condemned on which it may rely.

// helpers is such a repository.
type helpers struct {
	objects map[string][]byte
	kinds   []string // names of a lease, a condemned list, a ledger
	kept    ID       // a record, and its chunks
	chunks  [][]byte
	doomed  []ID // chunks in condemned packs
}

func newHelpers(t *testing.T) *helpers {
	t.Helper()
	ctx := t.Context()
	r, st := newRepository(t)
	h := &helpers{objects: map[string][]byte{}, chunks: lifeChunks[:4]}
	h.kept, _ = save(t, r, h.chunks...)
	forgotten, _ := save(t, r, lifeChunks[6:]...)
	data, err := r.Record(ctx, forgotten)
	if err != nil {
		t.Fatal(err)
	}
	h.doomed = decodeList(data)
	elsewhere := r.newLease(Shared, "backup")
	elsewhere.lease.Machine, elsewhere.lease.Host = "another", "elsewhere"
	if err := elsewhere.write(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.DeleteRecord(ctx, forgotten); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Check(ctx, CheckOptions{Select: EveryPack}, marker(r), func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	if pruned, err := r.Prune(ctx, PruneOptions{}, marker(r)); err != nil || len(pruned.Waiting) != 1 {
		t.Fatalf("%+v, %v", pruned, err)
	}
	for _, name := range names(t, st, "") {
		h.objects[name] = object(t, st, name)
	}
	for _, folder := range []string{"leases/", "condemned/", "verified/"} {
		if list := names(t, st, folder); len(list) != 1 {
			t.Fatalf("%s: %v", folder, list)
		}
		h.kinds = append(h.kinds, names(t, st, folder)...)
	}
	return h
}

// demand has a backup, a check and a prune meet the repository with other objects in place of some, nil for none. What was
// committed must be there afterwards and, while the lease stands, what its holder may rely on. Each harmed object must be named.
func (h *helpers) demand(t *testing.T, what string, harmed map[string][]byte) {
	t.Helper()
	ctx := t.Context()
	st := storage.NewMemory()
	for name, data := range h.objects {
		if other, is := harmed[name]; is {
			data = other
		}
		if data == nil {
			continue
		}
		if err := st.Put(ctx, name, data); err != nil {
			t.Fatal(err)
		}
	}
	var said strings.Builder
	say := func(err error) {
		if err != nil {
			fmt.Fprintln(&said, err)
		}
	}
	r, err := Open(ctx, st, Options{Password: []byte("secret"), Logf: func(format string, a ...any) { say(fmt.Errorf(format, a...)) }})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer r.Close()
	_, err = r.Check(ctx, CheckOptions{Select: EveryPack}, marker(r), say)
	say(err)
	s, err := r.Begin(ctx, SessionOptions{Purpose: "test"})
	say(err)
	if err == nil {
		s.Close()
	}
	_, err = r.Prune(ctx, PruneOptions{MaxUnused: func(int64) int64 { return 0 }}, marker(r))
	say(err)
	verify(t, r, h.kept, h.chunks...)
	lease, gone := harmed[h.kinds[0]]
	if !gone || lease != nil {
		for _, id := range h.doomed {
			if _, err := r.Load(ctx, id, nil); err != nil {
				t.Errorf("%s: a pack went on which a writer relies: %v\n%s", what, err, &said)
			}
		}
	}
	if lease != nil && len(harmed) > 1 { // it has kept everybody from looking at the others
		_, err := r.Unlock(ctx, true)
		say(err)
		_, err = r.Check(ctx, CheckOptions{Select: EveryPack}, marker(r), say)
		say(err)
	}
	for name, data := range harmed {
		if data != nil && !strings.Contains(said.String(), name) {
			t.Errorf("%s: nothing names %s:\n%s", what, name, &said)
		}
	}
}

func TestHarmedLeasesListsAndLedgers(t *testing.T) {
	h := newHelpers(t)
	h.demand(t, "nothing harmed", nil)
	everything := os.Getenv("TORTURE") != ""
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, name := range h.kinds {
		data := h.objects[name]
		t.Run(name[:strings.IndexByte(name, '/')], func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(seed, 0))
			bits, cuts := random.Perm(len(data)*8), random.Perm(len(data))
			if !everything {
				bits, cuts = bits[:40], cuts[:20]
			}
			if !everything {
				bits = append(bits, 0, 8*8, 8*32, len(data)*8-1) // of the magic, the nonce, the content, and its tag
			}
			for _, bit := range bits {
				flipped := bytes.Clone(data)
				flipped[bit/8] ^= 1 << (bit % 8)
				h.demand(t, fmt.Sprintf("bit %d of byte %d of %s", bit%8, bit/8, name), map[string][]byte{name: flipped})
			}
			for _, n := range append(cuts, 0, 8, 32) {
				h.demand(t, fmt.Sprintf("%s cut to %d bytes", name, n), map[string][]byte{name: data[:n]})
			}
			h.demand(t, name+" with zeros behind", map[string][]byte{name: append(bytes.Clone(data), make([]byte, 512)...)})
			h.demand(t, name+" of zeros", map[string][]byte{name: make([]byte, len(data))})
			h.demand(t, name+" gone", map[string][]byte{name: nil})
			for other, what := range h.objects {
				if other != name {
					h.demand(t, other+" in place of "+name, map[string][]byte{name: what})
				}
			}
			t.Logf("%s: %d of %d bits flipped, %d times cut, all found", name[:strings.IndexByte(name, '/')], len(bits), len(data)*8, len(cuts)+3)
		})
	}
	t.Run("swapped", func(t *testing.T) {
		for i, a := range h.kinds {
			for _, b := range h.kinds[i+1:] {
				h.demand(t, a+" and "+b+" swapped", map[string][]byte{a: h.objects[b], b: h.objects[a]})
			}
		}
	})
}

// What was there once and is put back: a lease whose holder is done keeps packs until it has ended by itself, a list is carried out
// again, a ledger says what it said.
func TestReplayedLeasesListsAndLedgers(t *testing.T) {
	ctx := t.Context()
	h := newHelpers(t)
	st := storage.NewMemory()
	for name, data := range h.objects {
		if name == h.kinds[0] {
			continue // the writer is done
		}
		if err := st.Put(ctx, name, data); err != nil {
			t.Fatal(err)
		}
	}
	prune := func() {
		t.Helper()
		r := reopen(t, st)
		if _, err := r.Prune(ctx, PruneOptions{}, marker(r)); err != nil {
			t.Error(err)
		}
		verify(t, r, h.kept, h.chunks...)
	}
	prune()
	if left := append(names(t, st, "leases/"), names(t, st, "condemned/")...); len(left) > 0 {
		t.Fatalf("left: %v", left)
	}
	// What the list condemned is stored again, in other packs: an old list must not take these.
	r := reopen(t, st)
	again, _ := save(t, r, lifeChunks[6:]...)
	for back := range 1 << len(h.kinds) {
		for i, name := range h.kinds {
			if back>>i&1 == 1 {
				if err := st.Put(ctx, name, h.objects[name]); err != nil {
					t.Fatal(err)
				}
			}
		}
		prune()
		verify(t, reopen(t, st), again, lifeChunks[6:]...)
		if err := st.Delete(ctx, h.kinds[0]); err != nil && !errors.Is(err, storage.ErrNotExist) {
			t.Fatal(err)
		}
	}
	// And the packs themselves, with the list that condemned them.
	for name, data := range h.objects {
		if err := st.Put(ctx, name, data); err != nil {
			t.Fatal(err)
		}
	}
	prune()
	verify(t, reopen(t, st), again, lifeChunks[6:]...)
	if left := names(t, st, "condemned/"); len(left) != 1 || left[0] != h.kinds[1] {
		t.Errorf("the lease that was put back does not count: %v", left)
	}
	leaseOf := reopen(t, st)
	leases, err := leaseOf.Leases(ctx)
	if err != nil || len(leases) != 1 || leases[0].stale(time.Now()) {
		t.Errorf("%v, %v", leases, err)
	}
}
