package repo

import (
	"context"
	"slices"
	"strings"
	"testing"

	"varve/repo/pack"
	"varve/repo/storage"
	"varve/repo/storage/storagetest"
)

// The tests in this file hold single lines fast without which a snapshot could be lost: scripts/mutations takes them away.

// forged returns a pack of one chunk whose bytes are not those that its id names.
func forged(t *testing.T, r *Repository, data []byte) (*pack.Builder, ID) {
	t.Helper()
	id := r.Hasher()([]byte("something else"))
	b := pack.NewBuilder(r.secrets.pack, pack.Data, 0, [16]byte{}, nil)
	b.Append(pack.Raw, data, len(data), []pack.Chunk{{ID: id, Length: uint32(len(data))}})
	return b, id
}

// Memory that forgets a bit between hashing and sealing stores nothing: a pack is read back before it is stored.
func TestFaultyMemoryStoresNothing(t *testing.T) {
	r, st := newRepository(t)
	s, err := r.Begin(t.Context(), SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b, _ := forged(t, r, []byte("data"))
	if err := s.publishNow(t.Context(), b); err == nil || !strings.Contains(err.Error(), "memory") {
		t.Errorf("stored: %v", err)
	}
	if left := names(t, st, "packs/"); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

// A chunk is hashed before it is handed out, whatever an authentic pack says of it.
func TestChunksAreHashed(t *testing.T) {
	r, st := newRepository(t)
	b, id := forged(t, r, []byte("data"))
	data, name, _ := b.Finish()
	if err := st.Put(t.Context(), packName(name), data); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Load(t.Context(), id, nil); err == nil {
		t.Errorf("loaded %q", got)
	}
	err := r.LoadEach(t.Context(), []ID{id}, 1, func(_ int, got []byte, err error) error {
		if err == nil {
			t.Errorf("loaded %q", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// The record is the last thing that is stored.
func TestRecordComesLast(t *testing.T) {
	_, st := newRepository(t)
	faulty := storagetest.NewFaulty(st)
	save(t, reopen(t, faulty), someChunks(40, 40)...)
	var puts []string
	for _, line := range faulty.Log() {
		if folder, _, _ := strings.Cut(line, "/"); strings.HasPrefix(line, "put") {
			puts = append(puts, folder)
		}
	}
	if n := len(puts); n < 4 || puts[n-1] != "put snapshots" || slices.Contains(puts[:n-1], "put snapshots") || !slices.Contains(puts, "put packs") {
		t.Errorf("%v", puts)
	}
}

// A lease that is lost is noticed before a record is stored, not only when it is there.
func TestLostLeaseStoresNoRecord(t *testing.T) {
	r, st := newRepository(t)
	faulty := storagetest.NewFaulty(st)
	s, err := reopen(t, faulty).Begin(t.Context(), SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := r.Unlock(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(t.Context(), []byte("record")); err == nil {
		t.Error("committed")
	}
	for _, line := range faulty.Log() {
		if strings.HasPrefix(line, "put snapshots/") {
			t.Error(line)
		}
	}
}

// A record whose storing failed is not there, even when it had been stored: the backup said that it failed.
func TestFailedCommitLeavesNoRecord(t *testing.T) {
	_, st := newRepository(t)
	faulty := storagetest.NewFaulty(st)
	faulty.Fail(storagetest.Fault{Ops: storagetest.Put, Prefix: "snapshots/", How: storagetest.After})
	s, err := reopen(t, faulty).Begin(t.Context(), SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Commit(t.Context(), []byte("record")); err == nil {
		t.Error("committed")
	}
	if left := names(t, st, "snapshots/"); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

// leaseTaker takes all leases away right before, or after, the first object below a folder is listed or put.
type leaseTaker struct {
	storage.Storage
	t      *testing.T
	list   string // before this is listed
	put    string // after something below this is put
	puts   []string
	gone   []string // what was deleted
	struck bool
}

func (l *leaseTaker) strike(ctx context.Context) {
	if l.struck {
		return
	}
	l.struck = true
	for _, name := range names(l.t, l.Storage, "leases/") {
		if err := l.Storage.Delete(ctx, name); err != nil {
			l.t.Error(err)
		}
	}
}

func (l *leaseTaker) List(ctx context.Context, prefix string, f func(string, int64) error) error {
	if l.list != "" && prefix == l.list {
		l.strike(ctx)
	}
	return l.Storage.List(ctx, prefix, f)
}

func (l *leaseTaker) Put(ctx context.Context, name string, data []byte) error {
	l.puts = append(l.puts, name)
	err := l.Storage.Put(ctx, name, data)
	if l.put != "" && strings.HasPrefix(name, l.put) {
		l.strike(ctx)
	}
	return err
}

func (l *leaseTaker) Delete(ctx context.Context, name string) error {
	l.gone = append(l.gone, name)
	return l.Storage.Delete(ctx, name)
}

// A prune that has lost its lease neither condemns nor removes anything: another one may be at work.
func TestPruneThatLostItsLease(t *testing.T) {
	for _, l := range []*leaseTaker{{list: "packs/"}, {put: "condemned/"}} {
		r, st := newRepository(t)
		first, _ := save(t, r, someChunks(50, 20)...)
		save(t, r, someChunks(51, 20)...)
		if err := r.DeleteRecord(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		l.t, l.Storage = t, st
		other := reopen(t, l)
		if _, err := other.Prune(t.Context(), PruneOptions{}, marker(other)); err == nil || !l.struck {
			t.Errorf("pruned without a lease: %v, %v", err, l.struck)
		}
		below := func(list []string, folder string) bool {
			return slices.ContainsFunc(list, func(name string) bool { return strings.HasPrefix(name, folder) })
		}
		if below(l.gone, "packs/") || l.list != "" && below(l.puts, "condemned/") {
			t.Errorf("without a lease, put %v, deleted %v", l.puts, l.gone)
		}
	}
}
