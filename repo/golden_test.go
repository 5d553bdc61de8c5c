package repo

import (
	"bytes"
	"os"
	"reflect"
	"testing"
	"time"

	"varve/repo/storage"
)

// goldenRepository opens the one in testdata: it was made by format version 1 with the password "secret", and holds what
// goldenChunks returns, in one record. Programs must be able to read it for ever.
func goldenRepository(t testing.TB) (*Repository, storage.Storage) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/golden")); err != nil {
		t.Fatal(err)
	}
	st, err := storage.OpenLocal(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), st, Options{Password: []byte("secret")})
	if err != nil {
		t.Fatal(err)
	}
	return r, st
}

// goldenChunks are of noise and of what compresses; session takes every third for a tree node.
func goldenChunks() (chunks [][]byte) {
	for i := range uint64(3) {
		chunks = append(chunks, noise(i, 300), bytes.Repeat(noise(10+i, 7), 600))
	}
	return chunks
}

func TestGoldenRepository(t *testing.T) {
	r, st := goldenRepository(t)
	var settings struct{ Answer int }
	if err := r.Settings(&settings); err != nil || settings.Answer != 42 {
		t.Errorf("settings %+v, %v", settings, err)
	}
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	keys, err := r.Keys(t.Context(), func(err error) { t.Error(err) })
	if err != nil || len(keys) != 1 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	if k := keys[0]; k.Label != "golden" || k.User != "user" || k.Host != "host" || !k.Created.Equal(created) || k.KDF != testKDF || !k.Current {
		t.Errorf("key %+v", k)
	}
	leases, err := r.Leases(t.Context())
	want := Lease{Name: "leases/00000000000000000000000000000000", Mode: Maintenance, Purpose: "prune", Host: "host", User: "user", PID: 7,
		Machine: "machine", Started: "8", Taken: created, Renewed: created.Add(time.Minute)}
	if err != nil || len(leases) != 1 || leases[0] != want {
		t.Errorf("leases %+v, %v", leases, err)
	}
	lists, damaged, _, err := r.condemnedLists(t.Context())
	list := &condemned{name: "condemned/00000000000000000000000000000000", Packs: []packID{{1, 2, 3}, {4, 5, 6}}, Noted: created,
		Waiting: []string{"leases/11111111111111111111111111111111"}}
	if err != nil || len(damaged) != 0 || len(lists) != 1 || !reflect.DeepEqual(lists[0], list) {
		t.Errorf("condemned %+v, damaged %v, %v", lists, damaged, err)
	}
	records, err := r.Records(t.Context())
	if err != nil || len(records) != 1 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	verify(t, r, records[0], goldenChunks()...)
	if n := len(names(t, st, "packs/")); n != 2 {
		t.Errorf("%d packs, not one of chunks and one of tree nodes", n)
	}
	_, err = r.Check(t.Context(), CheckOptions{Select: EveryPack}, marker(r), func(err error) { t.Error(err) })
	if err != nil {
		t.Error(err)
	}
}
