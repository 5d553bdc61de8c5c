package storagetest_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"syscall"
	"testing"

	"varve/repo/storage"
	"varve/repo/storage/storagetest"
)

func TestFaultyConforms(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Storage { return storagetest.NewFaulty(storage.NewMemory()) })
}

// get returns what name holds, "-" for nothing.
func get(t *testing.T, st storage.Storage, name string) string {
	t.Helper()
	data, err := st.Get(t.Context(), name, 0, -1, nil)
	if errors.Is(err, storage.ErrNotExist) {
		return "-"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFaultsOfWriters(t *testing.T) {
	for _, c := range []struct {
		op    storagetest.Op
		how   storagetest.How
		holds string // "old!" was there before a Put or Delete
	}{
		{storagetest.Put, storagetest.Before, "old!"},
		{storagetest.Put, storagetest.After, "new?"},
		{storagetest.Put, storagetest.Torn, "ne"},
		{storagetest.PutNew, storagetest.Before, "-"},
		{storagetest.PutNew, storagetest.After, "new?"},
		{storagetest.PutNew, storagetest.Torn, "ne"},
		{storagetest.Delete, storagetest.Before, "old!"},
		{storagetest.Delete, storagetest.After, "-"},
		{storagetest.Delete, storagetest.Torn, "-"},
	} {
		st := storage.NewMemory()
		f := storagetest.NewFaulty(st)
		do := func() error {
			switch c.op {
			case storagetest.Put:
				return f.Put(t.Context(), "a/b", []byte("new?"))
			case storagetest.PutNew:
				return f.PutNew(t.Context(), "a/b", []byte("new?"))
			}
			return f.Delete(t.Context(), "a/b")
		}
		if c.op != storagetest.PutNew {
			if err := st.Put(t.Context(), "a/b", []byte("old!")); err != nil {
				t.Fatal(err)
			}
		}
		f.Fail(storagetest.Fault{Ops: c.op, How: c.how, Err: syscall.ENOSPC})
		if err := do(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%v: %v", c, err)
		}
		if got := get(t, st, "a/b"); got != c.holds {
			t.Errorf("%v: the storage holds %q", c, got)
		}
		if f.Fired() != 1 {
			t.Errorf("%v: fired %d times", c, f.Fired())
		}
	}
}

func TestFaultsOfReaders(t *testing.T) {
	f := storagetest.NewFaulty(storage.NewMemory())
	data := bytes.Repeat([]byte{0xaa}, 100)
	for i := range 4 {
		if err := f.Put(t.Context(), fmt.Sprintf("a/%d", i), data); err != nil {
			t.Fatal(err)
		}
	}
	for _, how := range []storagetest.How{storagetest.Before, storagetest.After, storagetest.Torn} {
		f.Fail(storagetest.Fault{Ops: storagetest.Get, How: how})
		if got, err := f.Get(t.Context(), "a/1", 0, -1, nil); !errors.Is(err, storagetest.ErrFault) || got != nil {
			t.Errorf("%v: %x, %v", how, got, err)
		}
	}
	wrong := func(got []byte) (n int) {
		for i := range got {
			n += bits.OnesCount8(got[i] ^ data[i])
		}
		return n
	}
	f.Fail(storagetest.Fault{How: storagetest.Flipped})
	if err := f.List(t.Context(), "a/", func(string, int64) error { return nil }); err != nil {
		t.Error(err) // it does not concern List
	}
	for _, want := range []int{1, 0} { // the second time the storage itself is right
		if got, err := f.Get(t.Context(), "a/1", 10, 50, nil); err != nil || len(got) != 50 || wrong(got) != want {
			t.Errorf("%x, %v: %d wrong bits, want %d", got, err, wrong(got), want)
		}
	}
	f.Fail(storagetest.Fault{How: storagetest.Flipped})
	if err := f.Put(t.Context(), "a/1", data); err != nil {
		t.Error(err)
	}
	for range 2 {
		if got := []byte(get(t, f, "a/1")); wrong(got) != 1 {
			t.Errorf("%x: %d wrong bits in the storage", got, wrong(got))
		}
	}
	for how, want := range map[storagetest.How]int{storagetest.Before: 0, storagetest.Torn: 2, storagetest.After: 4} {
		f.Fail(storagetest.Fault{Ops: storagetest.List, How: how})
		n := 0
		if err := f.List(t.Context(), "a/", func(string, int64) error { n++; return nil }); !errors.Is(err, storagetest.ErrFault) || n != want {
			t.Errorf("%v: %d objects, want %d; %v", how, n, want, err)
		}
	}
}

func TestLateWrites(t *testing.T) {
	st := storage.NewMemory()
	f := storagetest.NewFaulty(st)
	if err := st.Put(t.Context(), "old", []byte("1")); err != nil {
		t.Fatal(err)
	}
	f.Fail(
		storagetest.Fault{Ops: storagetest.Put, Prefix: "a", How: storagetest.Late, Later: 2},
		storagetest.Fault{Ops: storagetest.PutNew, Prefix: "b", How: storagetest.Late},
		storagetest.Fault{Ops: storagetest.Delete, Prefix: "old", How: storagetest.Late},
	)
	data := []byte("a")
	if err := f.Put(t.Context(), "a", data); !errors.Is(err, storagetest.ErrFault) {
		t.Error(err)
	}
	data[0] = 'x' // the caller's again
	if err := f.PutNew(t.Context(), "b", []byte("b")); !errors.Is(err, storagetest.ErrFault) {
		t.Error(err)
	}
	if err := f.Delete(t.Context(), "old"); !errors.Is(err, storagetest.ErrFault) {
		t.Error(err)
	}
	if got := get(t, st, "a") + get(t, st, "b") + get(t, st, "old"); got != "--1" {
		t.Errorf("nothing is to be done yet: %s", got)
	}
	// Two operations came after a: it is done before the next one.
	if got := get(t, f, "a") + get(t, st, "b") + get(t, st, "old"); got != "a-1" {
		t.Errorf("a is to be done: %s", got)
	}
	if err := f.PutNew(t.Context(), "b", []byte("c")); err != nil {
		t.Fatal(err)
	}
	if err := f.Settle(t.Context()); !errors.Is(err, storage.ErrExist) {
		t.Errorf("somebody else's b was there before the late one: %v", err)
	}
	if got := get(t, st, "b") + get(t, st, "old"); got != "c-" {
		t.Errorf("all is to be done: %s", got)
	}
	if err := f.Settle(t.Context()); err != nil {
		t.Errorf("nothing is late: %v", err)
	}
}

// Which operations a fault concerns, and what the log says of them.
func TestFaultsAreCounted(t *testing.T) {
	f := storagetest.NewFaulty(storage.NewMemory())
	put := func(name string, fails bool) {
		t.Helper()
		if err := f.Put(t.Context(), name, []byte("abc")); (err != nil) != fails {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.Fail(storagetest.Fault{Ops: storagetest.Writes, Prefix: "packs/", Nth: 2, Times: 2})
	put("packs/1", false)
	put("keys/1", false)
	get(t, f, "packs/1")
	put("packs/2", true)
	put("packs/3", true)
	put("packs/4", false)
	f.Fail(storagetest.Fault{Nth: 2, Times: -1})
	put("packs/5", false)
	put("packs/6", true)
	put("keys/7", true)
	f.Heal()
	put("keys/7", false)
	want := []string{
		"put packs/1 3", "put keys/1 3", "get packs/1", "put packs/2 3 failed", "put packs/3 3 failed", "put packs/4 3",
		"put packs/5 3", "put packs/6 3 failed", "put keys/7 3 failed", "put keys/7 3",
	}
	if got := f.Log(); !slices.Equal(got, want) || f.Fired() != 4 {
		t.Errorf("fired %d times; log %q", f.Fired(), got)
	}
}
