// Package storagetest has what tests need of a storage: Run, the tests that every implementation of storage.Storage
// passes, and Faulty, a storage that fails at will.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"varve/repo/storage"
)

// Run tests an implementation. open returns an empty storage, a new one each time.
func Run(t *testing.T, open func(t *testing.T) storage.Storage) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, st storage.Storage)
	}{
		{"PutGet", putGet},
		{"Ranges", ranges},
		{"Buffers", buffers},
		{"Replace", replace},
		{"PutNew", putNew},
		{"Absent", absent},
		{"List", list},
		{"ListStops", listStops},
		{"ListMayCall", listMayCall},
		{"Names", names},
		{"Cancelled", cancelled},
		{"OneWinner", oneWinner},
		{"WholeObjects", wholeObjects},
		{"Model", model},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// content returns n bytes that are different for different seeds.
func content(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	data := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(data)
	return data
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantIs fails the test unless err is target.
func wantIs(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: %v, want %v", what, err, target)
	}
}

// wantObject fails the test unless name holds data.
func wantObject(t *testing.T, st storage.Storage, name string, data []byte) {
	t.Helper()
	got, err := st.Get(t.Context(), name, 0, -1, nil)
	if err != nil {
		t.Errorf("%s: %v", name, err)
	} else if !bytes.Equal(got, data) {
		t.Errorf("%s: %d bytes that are not the %d that were put", name, len(got), len(data))
	}
}

// wantList fails the test unless prefix lists what is in want, each once.
func wantList(t *testing.T, st storage.Storage, prefix string, want map[string][]byte) {
	t.Helper()
	got := map[string]int64{}
	must(t, st.List(t.Context(), prefix, func(name string, size int64) error {
		if _, twice := got[name]; twice {
			t.Errorf("listing %q: %s comes twice", prefix, name)
		}
		got[name] = size
		return nil
	}))
	sizes := map[string]int64{}
	for name, data := range want {
		if strings.HasPrefix(name, prefix) {
			sizes[name] = int64(len(data))
		}
	}
	if !maps.Equal(got, sizes) {
		t.Errorf("listing %q: %v, want %v", prefix, got, sizes)
	}
}

func putGet(t *testing.T, st storage.Storage) {
	want := map[string][]byte{}
	for i, n := range []int{0, 1, 4095, 4096, 4097, 1 << 20, 5<<20 + 1} {
		name := fmt.Sprintf("packs/%02x/object-%d", i%3, i)
		want[name] = content(uint64(i), n)
		must(t, st.Put(t.Context(), name, want[name]))
	}
	want["config"] = []byte("at the top")
	must(t, st.Put(t.Context(), "config", want["config"]))
	want["a/b/c/d/e"] = []byte("deep")
	must(t, st.Put(t.Context(), "a/b/c/d/e", want["a/b/c/d/e"]))
	for name, data := range want {
		wantObject(t, st, name, data)
	}
	wantList(t, st, "", want)
	if st.Location() == "" {
		t.Error("no location, for messages")
	}
}

func ranges(t *testing.T, st storage.Storage) {
	data := content(1, 10_000)
	must(t, st.Put(t.Context(), "object", data))
	must(t, st.Put(t.Context(), "empty", nil))
	for _, c := range []struct{ offset, length, from, to int64 }{
		{0, 0, 0, 0}, {0, 1, 0, 1}, {0, 10_000, 0, 10_000}, {0, -1, 0, 10_000}, {4096, 4096, 4096, 8192}, {9_999, 1, 9_999, 10_000},
		{9_999, -1, 9_999, 10_000}, {10_000, 0, 10_000, 10_000}, {10_000, -1, 10_000, 10_000}, {5, math.MinInt64, 5, 10_000},
	} {
		got, err := st.Get(t.Context(), "object", c.offset, c.length, nil)
		if err != nil || !bytes.Equal(got, data[c.from:c.to]) {
			t.Errorf("%d bytes from %d: %d bytes, %v", c.length, c.offset, len(got), err)
		}
	}
	for _, c := range []struct{ offset, length int64 }{
		{0, 10_001}, {9_999, 2}, {10_000, 1}, {10_001, 0}, {10_001, -1}, {math.MaxInt64, 1}, {math.MaxInt64, math.MaxInt64}, {1, math.MaxInt64},
		{-1, 1}, {-1, -1}, {math.MinInt64, -1}, {math.MinInt64, math.MaxInt64},
	} {
		_, err := st.Get(t.Context(), "object", c.offset, c.length, nil)
		wantIs(t, fmt.Sprintf("%d bytes from %d of 10000", c.length, c.offset), err, io.ErrUnexpectedEOF)
	}
	wantObject(t, st, "empty", nil)
	_, err := st.Get(t.Context(), "empty", 0, 1, nil)
	wantIs(t, "a byte of an empty object", err, io.ErrUnexpectedEOF)
}

// buffers: what goes in and what comes out belongs to the caller.
func buffers(t *testing.T, st storage.Storage) {
	data := content(2, 5000)
	given := bytes.Clone(data)
	must(t, st.Put(t.Context(), "object", given))
	clear(given)
	wantObject(t, st, "object", data)

	buf := make([]byte, 3, 6000)
	got, err := st.Get(t.Context(), "object", 0, -1, buf)
	must(t, err)
	if &got[0] != &buf[0] {
		t.Error("the buffer was large enough, and was not used")
	}
	clear(got)
	wantObject(t, st, "object", data)
	got, err = st.Get(t.Context(), "object", 100, 200, make([]byte, 0, 150))
	must(t, err)
	if !bytes.Equal(got, data[100:300]) {
		t.Error("a buffer that is too small")
	}
}

func replace(t *testing.T, st storage.Storage) {
	for i, n := range []int{100, 5000, 0, 70, 70} { // longer, shorter, empty, of the same length
		data := content(uint64(i), n)
		must(t, st.Put(t.Context(), "keys/one", data))
		wantObject(t, st, "keys/one", data)
		wantList(t, st, "", map[string][]byte{"keys/one": data})
	}
}

func putNew(t *testing.T, st storage.Storage) {
	one, two := content(1, 300), content(2, 20)
	must(t, st.PutNew(t.Context(), "leases/a", one))
	wantIs(t, "PutNew of a name that is taken", st.PutNew(t.Context(), "leases/a", two), storage.ErrExist)
	wantObject(t, st, "leases/a", one)
	wantList(t, st, "", map[string][]byte{"leases/a": one})
	must(t, st.Delete(t.Context(), "leases/a"))
	must(t, st.PutNew(t.Context(), "leases/a", two))
	wantObject(t, st, "leases/a", two)
}

func absent(t *testing.T, st storage.Storage) {
	check := func() {
		t.Helper()
		for _, name := range []string{"object", "packs/ab/object", "packs", "packs/ab"} {
			_, err := st.Get(t.Context(), name, 0, -1, nil)
			wantIs(t, "Get of "+name, err, storage.ErrNotExist)
			wantIs(t, "Delete of "+name, st.Delete(t.Context(), name), storage.ErrNotExist)
		}
		wantList(t, st, "packs/", nil)
	}
	check()
	must(t, st.Put(t.Context(), "object", []byte("x")))
	must(t, st.Put(t.Context(), "packs/ab/object", []byte("x")))
	wantObject(t, st, "object", []byte("x")) // it may be cached now
	wantObject(t, st, "packs/ab/object", []byte("x"))
	must(t, st.Delete(t.Context(), "object"))
	must(t, st.Delete(t.Context(), "packs/ab/object"))
	check()
	wantList(t, st, "", nil)
}

func list(t *testing.T, st storage.Storage) {
	wantList(t, st, "", nil)
	wantList(t, st, "packs/", nil)
	want := map[string][]byte{}
	for i := range 200 { // more than come in one answer from a small server
		name := fmt.Sprintf("packs/%02x/%04d", i%7, i)
		want[name] = content(uint64(i), i)
		must(t, st.Put(t.Context(), name, want[name]))
	}
	for _, name := range []string{"packs2/x", "packsx", "pack/s", "zero"} { // names that begin alike
		want[name] = []byte(name)
		must(t, st.Put(t.Context(), name, want[name]))
	}
	for _, prefix := range []string{"", "packs/", "packs/03/", "packs/99/", "packs2/", "pack/", "none/"} {
		wantList(t, st, prefix, want)
	}
	for _, prefix := range []string{"packs", "/", "../", "packs//", "./"} {
		if err := st.List(t.Context(), prefix, func(string, int64) error { return nil }); err == nil {
			t.Errorf("%q is no folder, and is listed", prefix)
		}
	}
}

func listStops(t *testing.T, st storage.Storage) {
	for i := range 20 {
		must(t, st.Put(t.Context(), fmt.Sprintf("packs/%d", i), nil))
	}
	// io/fs.SkipAll and SkipDir would mean something else to a walk through folders.
	for _, stop := range []error{errors.New("enough"), storage.ErrNotExist, fs.SkipAll, fs.SkipDir} {
		calls := 0
		err := st.List(t.Context(), "packs/", func(string, int64) error {
			calls++
			return stop
		})
		wantIs(t, "List whose function fails", err, stop)
		if calls != 1 {
			t.Errorf("called %d times after %v", calls-1, stop)
		}
	}
}

// listMayCall: prune and lease handling delete while they list.
func listMayCall(t *testing.T, st storage.Storage) {
	want := map[string][]byte{}
	for i := range 20 {
		want[fmt.Sprintf("leases/%d", i)] = []byte{byte(i)}
	}
	for name, data := range want {
		must(t, st.Put(t.Context(), name, data))
	}
	seen := 0
	must(t, st.List(t.Context(), "leases/", func(name string, _ int64) error {
		seen++
		wantObject(t, st, name, want[name])
		return st.Delete(t.Context(), name)
	}))
	if seen != len(want) {
		t.Errorf("%d of %d seen", seen, len(want))
	}
	wantList(t, st, "", nil)
}

// names that lead out of a folder, or that some system cannot keep, are refused by all.
func names(t *testing.T, st storage.Storage) {
	for _, name := range []string{
		"", "/", "/etc/passwd", "a/", "a//b", "..", "../a", "a/../../b", ".", "a/./b", ".hidden", "a/.hidden", `a\b`, "C:a", "a\x00b", strings.Repeat("a", 2000),
	} {
		if err := st.Put(t.Context(), name, []byte("x")); err == nil {
			t.Errorf("Put takes %q", name)
		}
		if err := st.PutNew(t.Context(), name, []byte("x")); err == nil || errors.Is(err, storage.ErrExist) {
			t.Errorf("PutNew of %q: %v", name, err)
		}
		if _, err := st.Get(t.Context(), name, 0, -1, nil); err == nil {
			t.Errorf("Get takes %q", name)
		}
		if err := st.Delete(t.Context(), name); err == nil {
			t.Errorf("Delete takes %q", name)
		}
	}
	wantList(t, st, "", nil)
}

func cancelled(t *testing.T, st storage.Storage) {
	data := []byte("as it was")
	must(t, st.Put(t.Context(), "object", data))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := st.Get(ctx, "object", 0, -1, nil)
	wantIs(t, "Get", err, context.Canceled)
	wantIs(t, "Put", st.Put(ctx, "object", nil), context.Canceled)
	wantIs(t, "PutNew", st.PutNew(ctx, "other", nil), context.Canceled)
	wantIs(t, "Delete", st.Delete(ctx, "object"), context.Canceled)
	wantIs(t, "List", st.List(ctx, "", func(string, int64) error { return nil }), context.Canceled)
	wantObject(t, st, "object", data)
	wantList(t, st, "", map[string][]byte{"object": data})

	ctx, cancel = context.WithCancel(t.Context())
	must(t, st.Put(t.Context(), "second", data))
	wantIs(t, "List that is cancelled on the way", st.List(ctx, "", func(string, int64) error { cancel(); return nil }), context.Canceled)
}

func oneWinner(t *testing.T, st storage.Storage) {
	const writers = 8
	for round := range 20 {
		name := fmt.Sprintf("leases/%d", round)
		errs := make([]error, writers)
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() { errs[w] = st.PutNew(t.Context(), name, content(uint64(w), 1000+w)) })
		}
		all.Wait()
		winner := slices.Index(errs, nil)
		if winner < 0 {
			t.Fatalf("nobody put %s: %v", name, errs)
		}
		for w, err := range errs {
			if w != winner {
				wantIs(t, "PutNew of one who came later", err, storage.ErrExist)
			}
		}
		wantObject(t, st, name, content(uint64(winner), 1000+winner))
	}
}

// wholeObjects: a reader sees an old object or a new one, never a part, and never one that is older than what it saw put.
func wholeObjects(t *testing.T, st storage.Storage) {
	const name, versions = "keys/one", 40
	size := func(v int) int { return 1000 + 4000*(v%3) }
	must(t, st.Put(t.Context(), name, content(0, size(0))))
	var mu sync.Mutex
	done := 0 // the version whose Put has returned
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for {
				mu.Lock()
				atLeast := done
				mu.Unlock()
				if atLeast == versions {
					return
				}
				got, err := st.Get(t.Context(), name, 0, -1, nil)
				if err != nil {
					t.Errorf("after version %d: %v", atLeast, err)
					return
				}
				found := false
				for v := atLeast; v <= versions && !found; v++ {
					found = len(got) == size(v) && bytes.Equal(got, content(uint64(v), size(v)))
				}
				if !found {
					t.Errorf("after version %d: %d bytes that are no later version", atLeast, len(got))
					return
				}
			}
		})
	}
	for v := 1; v <= versions; v++ {
		if err := st.Put(t.Context(), name, content(uint64(v), size(v))); err != nil {
			t.Errorf("version %d: %v", v, err)
			v = versions
		}
		mu.Lock()
		done = v
		mu.Unlock()
	}
	all.Wait()
}

// model compares random operations with a map.
func model(t *testing.T, st storage.Storage) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	want := map[string][]byte{}
	name := func() string {
		return []string{"config", "packs/aa/1", "packs/aa/2", "packs/ab/1", "snapshots/1", "keys/1", "keys/2"}[r.IntN(7)]
	}
	for range 600 {
		n := name()
		old, there := want[n]
		data := content(r.Uint64(), r.IntN(9000))
		switch r.IntN(6) {
		case 0, 1:
			must(t, st.Put(t.Context(), n, data))
			want[n] = data
		case 2:
			err := st.PutNew(t.Context(), n, data)
			if there {
				wantIs(t, "PutNew of "+n, err, storage.ErrExist)
			} else {
				must(t, err)
				want[n] = data
			}
		case 3:
			err := st.Delete(t.Context(), n)
			if there {
				must(t, err)
				delete(want, n)
			} else {
				wantIs(t, "Delete of "+n, err, storage.ErrNotExist)
			}
		case 4:
			if !there {
				_, err := st.Get(t.Context(), n, 0, -1, nil)
				wantIs(t, "Get of "+n, err, storage.ErrNotExist)
				break
			}
			from := r.IntN(len(old) + 1)
			to := from + r.IntN(len(old)-from+1)
			got, err := st.Get(t.Context(), n, int64(from), int64(to-from), nil)
			if err != nil || !bytes.Equal(got, old[from:to]) {
				t.Errorf("%s from %d to %d: %d bytes, %v", n, from, to, len(got), err)
			}
		case 5:
			wantList(t, st, []string{"", "packs/", "packs/aa/", "keys/"}[r.IntN(4)], want)
		}
		if t.Failed() {
			return
		}
	}
	for n, data := range want {
		wantObject(t, st, n, data)
	}
}
