package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"varve/repo/storage"
)

// Each copy of config and keys is made from the other, whatever has happened to it.
func TestRepairConfig(t *testing.T) {
	ctx := t.Context()
	r, st := newRepository(t)
	whole := map[string][]byte{}
	for _, name := range names(t, st, "") {
		whole[name] = bytes.Clone(object(t, st, name))
	}
	none := func(err error) { t.Error(err) }
	if made, err := r.RepairConfig(ctx, false, none); err != nil || len(made) != 0 {
		t.Errorf("of a whole repository: %v, %v", made, err)
	}
	for name := range whole {
		for what, harm := range map[string]func() error{
			"missing": func() error { return st.Delete(ctx, name) },
			"empty":   func() error { return st.Put(ctx, name, nil) },
			"flipped": func() error { return st.Put(ctx, name, flipped(whole[name])) },
			"cut":     func() error { return st.Put(ctx, name, whole[name][:20]) },
		} {
			if err := harm(); err != nil {
				t.Fatal(err)
			}
			again := reopen(t, st)
			if _, problems := checked(t, again, CheckOptions{}); len(problems) != 1 || !strings.Contains(problems[0].Error(), name) {
				t.Errorf("%s %s: a check says %v", name, what, problems)
			}
			if made, err := again.RepairConfig(ctx, true, none); err != nil || !slices.Equal(made, []string{name}) {
				t.Errorf("%s %s, dry run: %v, %v", name, what, made, err)
			}
			if made, err := again.RepairConfig(ctx, false, none); err != nil || !slices.Equal(made, []string{name}) {
				t.Errorf("%s %s: %v, %v", name, what, made, err)
			}
			if !bytes.Equal(object(t, st, name), whole[name]) {
				t.Errorf("%s %s: it is not what it was", name, what)
			}
			if _, problems := checked(t, again, CheckOptions{}); len(problems) != 0 {
				t.Errorf("%s %s: after the repair a check says %v", name, what, problems)
			}
		}
	}
	if n := len(names(t, st, "quarantine/")); n == 0 {
		t.Error("nothing of it was kept")
	}
	// A slot of which nothing is whole.
	second, err := r.AddKey(ctx, []byte("other"), testKDF, "")
	if err != nil {
		t.Fatal(err)
	}
	flipIn(t, st, keyName(second), 10)
	flipIn(t, st, keyName(second)+".copy", 11)
	problems := 0
	if made, err := r.RepairConfig(ctx, false, func(error) { problems++ }); err != nil || len(made) != 0 || problems != 1 {
		t.Errorf("%v, %v, %d problems", made, err, problems)
	}
}

func flipped(data []byte) []byte {
	data = bytes.Clone(data)
	data[len(data)/2] ^= 0x10
	return data
}

// A key that is removed while its copies are compared stays away.
func TestRepairConfigDoesNotBringAKeyBack(t *testing.T) {
	r, st := newRepository(t)
	second, err := r.AddKey(t.Context(), []byte("other"), testKDF, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Delete(t.Context(), keyName(second)); err != nil { // the first half of its removal
		t.Fatal(err)
	}
	racing := reopen(t, removes{st, keyName(second) + ".copy", keyName(second)})
	if _, err := racing.RepairConfig(t.Context(), false, func(err error) { t.Error(err) }); err != nil {
		t.Fatal(err)
	}
	if list := names(t, st, "keys/"); strings.Contains(fmt.Sprint(list), keyName(second)) {
		t.Errorf("it is back: %v", list)
	}
}

// removes is a storage that loses one object right before another one is put.
type removes struct {
	storage.Storage
	lost, before string
}

func (r removes) Put(ctx context.Context, name string, data []byte) error {
	if name == r.before {
		if err := r.Storage.Delete(ctx, r.lost); err != nil {
			return err
		}
	}
	return r.Storage.Put(ctx, name, data)
}

// The index is made anew from the packs, unless only it knows what is in one of them.
func TestRebuildIndex(t *testing.T) {
	w := newWreck(t)
	r := w.open(t, w.st, true)
	before := w.readable(t, true)
	x, err := r.RebuildIndex(t.Context())
	if err != nil || int(x.Packs) != len(w.packs) || x.Chunks < int64(len(w.known)) || len(x.Unreadable) != 0 || x.Gone != 0 {
		t.Errorf("%+v, %v", x, err)
	}
	harms["the directory is flipped"](t, w)
	var damaged *DamagedError
	if _, err := w.open(t, w.st, true).RebuildIndex(t.Context()); !errors.As(err, &damaged) {
		t.Errorf("with a pack without a directory: %v", err)
	}
	if after := w.readable(t, true); len(after) != len(before) {
		t.Errorf("%d of %d chunks can be read", len(after), len(before))
	}
	if x, err := w.open(t, w.st, false).RebuildIndex(t.Context()); err != nil || len(x.Unreadable) != 1 {
		t.Errorf("on another machine: %+v, %v", x, err)
	}
	if err := w.st.Delete(t.Context(), w.largest(t)); err != nil {
		t.Fatal(err)
	}
	if x, err := w.open(t, w.st, true).RebuildIndex(t.Context()); err != nil || x.Gone != 1 || int(x.Packs) != len(w.packs)-1 {
		t.Errorf("with a pack that has gone: %+v, %v", x, err)
	}
}

// What only the index knows, it keeps, when something else cannot be found and it would be made anew.
func TestIndexIsNotMadeAnewWhereOnlyItKnows(t *testing.T) {
	w := newWreck(t)
	harms["half is cut off"](t, w)
	before := w.readable(t, true)
	other := slices.MinFunc(w.packs, func(a, b string) int { return len(object(t, w.st, a)) - len(object(t, w.st, b)) })
	if err := w.st.Delete(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	after := w.readable(t, true)
	elsewhere := w.readable(t, false)
	if len(after) <= len(elsewhere) || len(after) >= len(before) {
		t.Fatalf("%d chunks can be read here, %d before a pack was lost, %d elsewhere", len(after), len(before), len(elsewhere))
	}
	o := options(t)
	if err := os.CopyFS(o.CacheDir, os.DirFS(w.cache)); err != nil {
		t.Fatal(err)
	}
	for try := range 2 { // the second process finds what the first one leaves
		r, err := Open(t.Context(), w.st, o)
		if err != nil {
			t.Fatal(err)
		}
		can := 0
		for id := range w.known {
			if _, err := r.Load(t.Context(), id, nil); err == nil {
				can++
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if can != len(after) {
			t.Errorf("process %d reads %d chunks, not %d", try, can, len(after))
		}
	}
}
