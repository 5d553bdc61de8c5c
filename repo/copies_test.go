package repo

import (
	"bytes"
	"context"
	"testing"
)

// A chunk that two sessions stored at the same time outlives damage to either pack.
func TestSecondCopyIsRead(t *testing.T) {
	ctx := context.Background()
	r, st := newRepository(t)
	chunk, alone := noise(1, 50_000), noise(2, 50_000)
	var sessions []*Session
	for range 2 { // both begin before either has stored anything
		s, err := r.Begin(ctx, SessionOptions{Purpose: "test"})
		if err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, s)
	}
	var id, aloneID ID
	for i, s := range sessions {
		w, err := s.DataWriter()
		if err != nil {
			t.Fatal(err)
		}
		id, aloneID = w.ID(chunk), w.ID(alone)
		if _, err := w.Save(ctx, id, chunk); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if _, err := w.Save(ctx, aloneID, alone); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, s := range sessions {
		if _, err := s.Commit(ctx, refs{id, aloneID}[:2-i].encode()); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	packs := names(t, st, "packs/")
	if len(packs) != 2 {
		t.Fatalf("there are %d packs, not two with the same chunk", len(packs))
	}
	put := func(name string, data []byte) {
		if err := st.Put(ctx, name, data); err != nil {
			t.Fatal(err)
		}
	}
	whole := map[string][]byte{}
	for _, name := range packs {
		whole[name] = object(t, st, name)
	}
	mark := func(_ context.Context, _ func(ID) bool, chunk func(ID)) error { chunk(id); return nil }
	all := CheckOptions{Select: EveryPack}
	for _, name := range packs {
		put(name, rotten(whole[name]))
		again := reopen(t, st)
		if got, err := again.Load(ctx, id, nil); err != nil || string(got) != string(chunk) {
			t.Errorf("with %s damaged: %v", name, err)
		}
		err := again.LoadEach(ctx, []ID{id, id}, 2, func(_ int, data []byte, err error) error {
			if err == nil && string(data) != string(chunk) {
				t.Error("the copy has other bytes")
			}
			return err
		})
		if err != nil {
			t.Errorf("with %s damaged: %v", name, err)
		}
		result, err := again.Check(ctx, all, mark, func(error) {})
		if _, lost := result.Lost[id]; err != nil || result.Problems == 0 || lost {
			t.Errorf("with %s damaged, a check finds %d problems, %v; lost: %v", name, result.Problems, err, lost)
		}
		put(name, whole[name])
	}
	for _, name := range packs {
		put(name, rotten(whole[name]))
	}
	again := reopen(t, st)
	if _, err := again.Load(ctx, id, nil); err == nil {
		t.Error("a chunk was read of which both copies are damaged")
	}
	result, err := again.Check(ctx, all, mark, func(error) {})
	if _, lost := result.Lost[id]; err != nil || !lost {
		t.Errorf("a check of both damaged: %v, %v", result, err)
	}
}

// rotten returns a pack of which the first frame has one bit wrong.
func rotten(pack []byte) []byte {
	data := bytes.Clone(pack)
	data[100] ^= 1
	return data
}
