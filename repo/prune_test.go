package repo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"varve/repo/storage"
	"varve/repo/storage/storagetest"
)

// Whatever is forgotten, a prune keeps what the other records refer to, byte for byte, and gives the rest back.
func TestPruneKeepsWhatIsInUse(t *testing.T) {
	for seed := range uint64(4) {
		// A test of its own, so that what it opened is closed when it ends.
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testPruneKeepsWhatIsInUse(t, seed) })
	}
}

func testPruneKeepsWhatIsInUse(t *testing.T, seed uint64) {
	ctx := context.Background()
	random := rand.New(rand.NewPCG(seed, 5))
	r, st := newRepository(t)
	pool := someChunks(20+seed, 150)
	type saved struct {
		record ID
		chunks [][]byte
	}
	var records []saved
	for range 8 {
		var chunks [][]byte
		for _, i := range random.Perm(len(pool))[:40] {
			chunks = append(chunks, pool[i])
		}
		// Another process now and then: chunks then lie in two packs.
		by := r
		if random.IntN(3) == 0 {
			by = reopen(t, st)
		}
		record, _ := save(t, by, chunks...)
		records = append(records, saved{record, chunks})
	}
	for len(records) > 0 {
		k := random.IntN(len(records))
		if err := r.DeleteRecord(ctx, records[k].record); err != nil {
			t.Fatal(err)
		}
		records = append(records[:k], records[k+1:]...)
		by := r
		if random.IntN(2) == 0 {
			by = reopen(t, st)
		}
		o := PruneOptions{}
		if random.IntN(2) == 0 {
			o.MaxUnused = func(int64) int64 { return 0 }
		}
		dry := o
		dry.DryRun = true
		would, err := by.Prune(ctx, dry, marker(by))
		if err != nil {
			t.Fatal(err)
		}
		before := size(t, by)
		did, err := by.Prune(ctx, o, marker(by))
		if err != nil {
			t.Fatal(err)
		}
		if freed := before - size(t, by); freed != did.Freed() {
			t.Errorf("it says %d bytes were freed, it were %d", did.Freed(), freed)
		}
		if would.DeletedPacks != did.DeletedPacks || would.RepackedPacks != did.RepackedPacks {
			t.Errorf("a dry run says %+v, the run %+v", would, did)
		}
		if o.MaxUnused != nil && did.UnusedBytes != 0 {
			t.Errorf("%d unused bytes were left, none were allowed", did.UnusedBytes)
		}
		for _, who := range []*Repository{r, by, reopen(t, st)} {
			for _, s := range records {
				verify(t, who, s.record, s.chunks...)
			}
			result, err := who.Check(ctx, CheckOptions{Select: EveryPack}, marker(who), func(err error) { t.Error(err) })
			if err != nil {
				t.Fatal(err)
			}
			if o.MaxUnused != nil && result.UnreferredChunks != 0 {
				t.Errorf("%d chunks are left that nothing refers to", result.UnreferredChunks)
			}
		}
	}
	if left := size(t, r); left != 0 {
		t.Errorf("%d bytes are left when nothing is in use", left)
	}
}

// size returns the bytes of all packs.
func size(t *testing.T, r *Repository) (sum int64) {
	t.Helper()
	if err := r.listPacks(context.Background(), func(_ ID, n int64) { sum += n }); err != nil {
		t.Fatal(err)
	}
	return sum
}

// Who is alone waits for all, maintenance for maintenance, and sessions only for those who are alone.
func TestLeasesKeepApart(t *testing.T) {
	ctx := context.Background()
	r, st := newRepository(t)
	other := reopen(t, st)
	under := map[Mode]func(*Repository, func() error) error{
		Shared:      func(r *Repository, f func() error) error { return r.Beside(ctx, "shared", f) },
		Maintenance: func(r *Repository, f func() error) error { return r.Maintain(ctx, "maintenance", f) },
		Exclusive:   func(r *Repository, f func() error) error { return r.Alone(ctx, "exclusive", f) },
	}
	together := map[[2]Mode]bool{{Shared, Shared}: true, {Shared, Maintenance}: true, {Maintenance, Shared}: true}
	for first, hold := range under {
		err := hold(r, func() error {
			for second, try := range under {
				ran := false
				err := try(other, func() error { ran = true; return nil })
				var locked *LockedError
				if want := together[[2]Mode{first, second}]; ran != want || want != (err == nil) || !want && (!errors.As(err, &locked) || locked.Leases[0].Purpose != string(first)) {
					t.Errorf("%s beside %s: ran %v, %v", second, first, ran, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if left := names(t, st, "leases/"); len(left) != 0 {
		t.Errorf("leases are left: %v", left)
	}
}

func TestLeasesEnd(t *testing.T) {
	ctx := context.Background()
	r, st := newRepository(t)
	forge := func(l Lease) {
		t.Helper()
		h := &heldLease{repo: r, name: "leases/forged", lease: l}
		if err := h.write(ctx); err != nil {
			t.Fatal(err)
		}
	}
	alone := func() error { return r.Alone(ctx, "test", func() error { return nil }) }
	now := time.Now()
	var locked *LockedError
	forge(Lease{Mode: Shared, Purpose: "backup", Host: "elsewhere", PID: 1, Taken: now, Renewed: now})
	if err := alone(); !errors.As(err, &locked) {
		t.Errorf("beside a lease of another host: %v", err)
	}
	if removed, err := r.Unlock(ctx, false); err != nil || len(removed) != 0 {
		t.Errorf("unlock removed %v, %v", removed, err)
	}
	forge(Lease{Mode: Shared, Purpose: "backup", Host: "elsewhere", PID: 1, Taken: now.Add(-2 * leaseTTL), Renewed: now.Add(-leaseTTL - time.Minute)})
	if err := alone(); err != nil {
		t.Errorf("beside an expired lease: %v", err)
	}
	forge(Lease{Mode: Shared, Purpose: "backup", Machine: machine(), PID: 1 << 30, Taken: now, Renewed: now})
	if machine() != "" {
		if err := alone(); err != nil {
			t.Errorf("beside the lease of a dead process: %v", err)
		}
	}
	if left := names(t, st, "leases/"); machine() != "" && len(left) != 0 {
		t.Errorf("a lease that has ended was not removed: %v", left)
	}
	forge(Lease{Mode: Shared, Purpose: "backup", Host: "elsewhere", PID: 1, Taken: now.Add(-2 * leaseTTL), Renewed: now.Add(-leaseTTL - time.Minute)})
	if removed, err := r.Unlock(ctx, false); err != nil || len(removed) != 1 {
		t.Errorf("unlock removed %v, %v", removed, err)
	}
	if err := st.Put(ctx, "leases/forged", []byte("this is not a lease")); err != nil {
		t.Fatal(err)
	}
	if err := alone(); !errors.As(err, &locked) {
		t.Errorf("beside a lease that cannot be read: %v", err)
	}
	if removed, err := r.Unlock(ctx, true); err != nil || len(removed) != 1 {
		t.Errorf("unlock of all removed %v, %v", removed, err)
	}
}

// A session whose lease has expired, or was taken away, commits nothing.
func TestLostLeaseCommitsNothing(t *testing.T) {
	ctx := context.Background()
	r, st := newRepository(t)
	for what, f := range map[string]func(*Session){
		"taken away":         func(*Session) { _, _ = r.Unlock(ctx, true) },
		"not renewed":        func(s *Session) { s.lease.renewed = time.Now().Add(-leaseFence - time.Second) },
		"the clock was set":  func(s *Session) { s.lease.renewed = time.Now().Add(time.Hour) },
		"after a suspension": func(s *Session) { s.lease.renewed = time.Now().Round(0).Add(-time.Hour) },
	} {
		s, err := r.Begin(ctx, SessionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		f(s)
		if _, err := s.Commit(ctx, []byte("record")); err == nil {
			t.Errorf("%s: committed", what)
		}
		s.Close()
	}
	if left := names(t, st, "snapshots/"); len(left) != 0 {
		t.Errorf("records: %v", left)
	}
}

// A pack that goes away while a session relies on it stops the commit.
func TestVanishedPackCommitsNothing(t *testing.T) {
	ctx := context.Background()
	r, st := newRepository(t)
	chunks := someChunks(30, 10)
	save(t, r, chunks...)
	s, err := r.Begin(ctx, SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w, err := s.DataWriter()
	if err != nil {
		t.Fatal(err)
	}
	if added, err := w.Save(ctx, w.ID(chunks[0]), chunks[0]); err != nil || added {
		t.Fatalf("%v, %v", added, err)
	}
	for _, name := range names(t, st, "packs/") {
		if err := st.Delete(ctx, name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Commit(ctx, []byte("record")); err == nil {
		t.Error("committed")
	}
}

// hooked calls before ahead of every Put.
type hooked struct {
	storage.Storage
	before func(name string)
}

func (h *hooked) Put(ctx context.Context, name string, data []byte) error {
	h.before(name)
	return h.Storage.Put(ctx, name, data)
}

// A process is suspended after its last look at its lease and before its record is stored, for so long that its lease is
// taken away and its packs are pruned. There must be no snapshot then.
func TestSuspendedBeforeTheRecord(t *testing.T) {
	ctx := context.Background()
	r, st := newRepository(t)
	slept := false
	h := &hooked{Storage: st}
	h.before = func(name string) {
		if !strings.HasPrefix(name, "snapshots/") || slept {
			return
		}
		slept = true
		if _, err := r.Unlock(ctx, true); err != nil {
			t.Error(err)
		}
		p, err := r.Prune(ctx, PruneOptions{}, marker(r))
		if err != nil || p.DeletedPacks == 0 || p.CondemnedPacks != 0 {
			t.Errorf("%+v, %v", p, err)
		}
	}
	s, err := reopen(t, h).Begin(ctx, SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w, err := s.DataWriter()
	if err != nil {
		t.Fatal(err)
	}
	data := someChunks(31, 1)[0]
	if _, err := w.Save(ctx, w.ID(data), data); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Commit(ctx, refs{w.ID(data)}.encode()); err == nil || !slept {
		t.Errorf("committed: %v, slept: %v", err, slept)
	}
	if left := names(t, st, "snapshots/"); len(left) != 0 {
		t.Errorf("records: %v", left)
	}
}

// A session may rely on what it found until it ends, whatever is pruned meanwhile; what it stored is not condemned at all.
func TestPruneWaitsForSessions(t *testing.T) {
	ctx := context.Background()
	r, st := newRepository(t)
	chunks := someChunks(32, 12)
	record, _ := save(t, r, chunks[:8]...)
	writer, pruner := reopen(t, st), reopen(t, st)
	s, err := writer.Begin(ctx, SessionOptions{Purpose: "backup"})
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.DataWriter()
	if err != nil {
		t.Fatal(err)
	}
	var list refs
	for i, data := range chunks {
		added, err := w.Save(ctx, w.ID(data), data)
		if err != nil || added != (i >= 8) {
			t.Fatalf("chunk %d: added %v, %v", i, added, err)
		}
		list = append(list, w.ID(data))
	}
	if err := s.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.DeleteRecord(ctx, record); err != nil {
		t.Fatal(err)
	}
	before := slices.Sorted(slices.Values(names(t, st, "packs/")))
	for range 2 { // a second one waits as well, and condemns nothing twice
		p, err := pruner.Prune(ctx, PruneOptions{}, marker(pruner))
		if err != nil || p.CondemnedPacks != 1 || len(p.Waiting) == 0 && p.DeletedPacks > 0 {
			t.Errorf("%+v, %v", p, err)
		}
		if now := slices.Sorted(slices.Values(names(t, st, "packs/"))); !slices.Equal(now, before) {
			t.Errorf("packs before %v, now %v", before, now)
		}
		if lists := names(t, st, "condemned/"); len(lists) != 1 {
			t.Errorf("condemned lists: %v", lists)
		}
	}
	// Who begins now stores anew what is condemned.
	if _, added := save(t, reopen(t, st), chunks[0]); added.Chunks != 1 {
		t.Errorf("%+v were added where the only copy is condemned", added)
	}
	record, err = s.Commit(ctx, list.encode())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if p, err := pruner.Prune(ctx, PruneOptions{}, marker(pruner)); err != nil || p.CondemnedPacks != 0 || p.RepackedPacks == 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if lists := names(t, st, "condemned/"); len(lists) != 0 {
		t.Errorf("condemned lists: %v", lists)
	}
	for _, who := range []*Repository{writer, pruner, reopen(t, st)} {
		verify(t, who, record, chunks...)
	}
}

// A list that cannot be read stops writers, not readers, and the next prune clears it up.
func TestDamagedCondemnedList(t *testing.T) {
	ctx := context.Background()
	r, st := newRepository(t)
	chunks := someChunks(33, 5)
	record, _ := save(t, r, chunks...)
	config, err := st.Get(ctx, "config", 0, -1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for what, data := range map[string][]byte{"nothing": {}, "noise": noise(1, 100), "another object": config} {
		if err := st.Put(ctx, "condemned/x", data); err != nil {
			t.Fatal(err)
		}
		who := reopen(t, st)
		verify(t, who, record, chunks...)
		var damaged *DamagedError
		if _, err := who.Begin(ctx, SessionOptions{}); !errors.As(err, &damaged) || !strings.Contains(err.Error(), "varve prune") {
			t.Errorf("%s: a session began: %v", what, err)
		}
		if _, err := who.Prune(ctx, PruneOptions{}, marker(who)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		s, err := who.Begin(ctx, SessionOptions{})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		s.Close()
	}
	if left := names(t, st, "leases/"); len(left) != 0 {
		t.Errorf("leases are left: %v", left)
	}
}

// Of two copies of a chunk, a prune keeps one that can be read.
func TestPruneKeepsTheGoodCopy(t *testing.T) {
	ctx := context.Background()
	for rotten := range 2 {
		r, st := newRepository(t)
		chunks := someChunks(34, 6)
		var records []ID
		var packs []string
		for range 2 { // two sessions at once do not see each other's chunks
			before := names(t, st, "packs/")
			record, _ := save(t, reopen(t, &blind{Storage: st}), chunks...)
			records = append(records, record)
			for _, name := range names(t, st, "packs/") {
				if !slices.Contains(before, name) {
					packs = append(packs, name)
				}
			}
		}
		if len(packs) != 2 {
			t.Fatalf("packs: %v", packs)
		}
		data, err := st.Get(ctx, packs[rotten], 0, -1, nil)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/3] ^= 1
		if err := st.Put(ctx, packs[rotten], data); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := r.Prune(ctx, PruneOptions{MaxUnused: func(int64) int64 { return 0 }}, marker(r)); err != nil {
				t.Fatal(err)
			}
		}
		if left := names(t, st, "packs/"); !slices.Contains(left, packs[1-rotten]) {
			t.Errorf("%v are left of %v, of which number %d is damaged", left, packs, rotten)
		}
		for _, record := range records {
			verify(t, reopen(t, st), record, chunks...)
		}
	}
}

// What an interrupted prune has copied is not copied again by the next one.
func TestInterruptedPruneIsNotInVain(t *testing.T) {
	ctx := context.Background()
	r, st := newRepository(t)
	chunks := someChunks(35, 60)
	var keep, all [][]byte
	for i, data := range chunks {
		all = append(all, data)
		if i%2 == 0 {
			keep = append(keep, data)
		}
	}
	gone, _ := save(t, r, all...)
	record, _ := save(t, r, keep...)
	if err := r.DeleteRecord(ctx, gone); err != nil {
		t.Fatal(err)
	}
	o := PruneOptions{MaxUnused: func(int64) int64 { return 0 }}
	faulty := storagetest.NewFaulty(st)
	faulty.Fail(storagetest.Fault{Ops: storagetest.Put, Prefix: "condemned/"})
	first := reopen(t, faulty)
	if p, err := first.Prune(ctx, o, marker(first)); !errors.Is(err, storagetest.ErrFault) || p.WrittenBytes == 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	p, err := r.Prune(ctx, o, marker(r))
	if err != nil || p.RepackedPacks != 0 || p.WrittenBytes != 0 || p.DeletedPacks == 0 || p.UnusedBytes != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	verify(t, r, record, keep...)
}

// blind hides the packs from the first who lists them.
type blind struct {
	storage.Storage
	looked bool
}

func (b *blind) List(ctx context.Context, prefix string, f func(string, int64) error) error {
	if prefix == "packs/" && !b.looked {
		b.looked = true
		return nil
	}
	return b.Storage.List(ctx, prefix, f)
}
