package repo

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"varve/repo/storage"
)

var interleavings = flag.Int("interleavings", 120, "how many `orders` of operations TestProcessesInterleaved tries")

// Several processes work on one repository: writers, readers, a check, prunes, one that forgets, and one that takes leases
// away. Each operation of each of them on the storage waits until a scheduler lets it go on, so that any order of operations
// can be had. (A seed alone does not bring one back: ids of packs are random.) Whatever the order, no record whose commit returned nil may lose anything.
func TestProcessesInterleaved(t *testing.T) {
	var all tally
	for seed := range uint64(*interleavings) {
		synctest.Test(t, func(t *testing.T) { interleave(t, seed, &all) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%+v", all)
	if n := *interleavings; all.committed < 2*n || all.forgotten < n/2 || all.waited < n/2 || all.removed < n || all.fenced < n/50 || all.trusted < n/10 {
		t.Errorf("not all happened that was to be tried: %+v", all)
	}
}

// tally counts what happened, so that a test sees that it tried what it is for.
type tally struct {
	steps, committed, trusted, forgotten, removed, waited, fenced int
}

// scheduler lets one operation after the other go on.
type scheduler struct {
	random *rand.Rand
	mu     sync.Mutex
	ready  []*operation
}

type operation struct {
	actor   string
	name    string
	proceed chan struct{}
}

// gated is the storage as one process sees it.
type gated struct {
	storage.Storage
	actor     string
	scheduler *scheduler // nil: everything goes on at once
}

func (g *gated) wait(name string) {
	if g.scheduler == nil {
		return
	}
	o := &operation{g.actor, name, make(chan struct{})}
	g.scheduler.mu.Lock()
	g.scheduler.ready = append(g.scheduler.ready, o)
	g.scheduler.mu.Unlock()
	<-o.proceed
}

func (g *gated) Put(ctx context.Context, name string, data []byte) error {
	g.wait("put " + name)
	return g.Storage.Put(ctx, name, data)
}

func (g *gated) Get(ctx context.Context, name string, offset, length int64, buf []byte) ([]byte, error) {
	g.wait("get " + name)
	return g.Storage.Get(ctx, name, offset, length, buf)
}

func (g *gated) Delete(ctx context.Context, name string) error {
	g.wait("delete " + name)
	return g.Storage.Delete(ctx, name)
}

// List does not see one moment: what comes after the middle is listed later.
func (g *gated) List(ctx context.Context, prefix string, f func(string, int64) error) error {
	middle := ""
	for half := range 2 {
		g.wait("list " + prefix)
		type object struct {
			name string
			size int64
		}
		var objects []object
		err := g.Storage.List(ctx, prefix, func(name string, size int64) error {
			objects = append(objects, object{name, size})
			return nil
		})
		if err != nil {
			return err
		}
		slices.SortFunc(objects, func(a, b object) int { return strings.Compare(a.name, b.name) })
		if half == 0 && len(objects) > 0 {
			middle = objects[len(objects)/2].name
		}
		for _, o := range objects {
			if (o.name < middle) == (half == 0) {
				if err := f(o.name, o.size); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// run lets operations go on, one at a time, until nobody wants any. Now and then one process is held up for long.
func (s *scheduler) run() (steps int) {
	var frozen string
	thaw := 0
	for {
		synctest.Wait()
		s.mu.Lock()
		if len(s.ready) == 0 {
			s.mu.Unlock()
			return steps
		}
		if thaw--; thaw <= 0 {
			frozen, thaw = "", 1
			if s.random.IntN(15) == 0 {
				frozen, thaw = s.ready[s.random.IntN(len(s.ready))].actor, s.random.IntN(150)
			}
		}
		// By actor first: who has many operations under way is no faster for that.
		actors := map[string][]int{}
		var names []string
		for i, o := range s.ready {
			if actors[o.actor] == nil {
				names = append(names, o.actor)
			}
			actors[o.actor] = append(actors[o.actor], i)
		}
		slices.Sort(names)
		if len(names) > 1 {
			names = slices.DeleteFunc(names, func(name string) bool { return name == frozen })
		}
		those := actors[names[s.random.IntN(len(names))]]
		k := those[s.random.IntN(len(those))]
		o := s.ready[k]
		s.ready = slices.Delete(s.ready, k, k+1)
		s.mu.Unlock()
		steps++
		close(o.proceed)
	}
}

func interleave(t *testing.T, seed uint64, all *tally) {
	ctx := context.Background()
	random := rand.New(rand.NewPCG(seed, 1))
	base := storage.NewMemory()
	plain := Options{Password: []byte("secret"), Logf: func(string, ...any) {}}
	first, err := Init(ctx, base, plain, testKDF, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	pool := someChunks(1000+seed, 24)
	byID := map[ID][]byte{}
	for _, data := range pool {
		byID[newHasher(first.secrets.id).id(data)] = data
	}
	var revoked atomic.Bool // a lease was taken away
	var mu sync.Mutex
	told := map[ID][]ID{}          // records whose commit returned nil
	forgotten := map[ID]struct{}{} // of these, those that somebody removed, or began to
	for range 3 {
		chunks := [][]byte{pool[random.IntN(24)], pool[random.IntN(24)], pool[random.IntN(24)], pool[random.IntN(24)]}
		record, _ := save(t, first, chunks...)
		told[record] = must(first.Record(ctx, record))
	}
	// Garbage, in use nowhere: a writer may meet it before a prune does.
	gone, _ := save(t, first, pool[:8]...)
	if err := first.DeleteRecord(ctx, gone); err != nil {
		t.Fatal(err)
	}

	s := &scheduler{random: random}
	var work sync.WaitGroup
	actor := func(name string, f func(r *Repository, random *rand.Rand) error) {
		g := &gated{Storage: base, actor: name}
		r, err := Open(ctx, g, plain)
		if err != nil {
			t.Fatal(err)
		}
		g.scheduler = s
		random := rand.New(rand.NewPCG(seed, random.Uint64()))
		work.Go(func() {
			if err := f(r, random); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			g.scheduler = nil
			r.Close()
		})
	}
	for i := range 2 {
		actor(fmt.Sprint("writer", i), func(r *Repository, random *rand.Rand) error {
			for range 2 {
				record, list, trusted, err := writeSome(ctx, r, random, byID)
				mu.Lock()
				if err == nil {
					told[record] = list
					all.committed++
					if trusted {
						all.trusted++
					}
				} else {
					all.fenced++
				}
				mu.Unlock()
			}
			return nil
		})
		actor(fmt.Sprint("pruner", i), func(r *Repository, random *rand.Rand) error {
			for range 2 {
				o := PruneOptions{MaxUnused: func(int64) int64 { return 0 }}
				var p Pruned
				var err error
				for range 10 {
					var locked *LockedError
					if p, err = r.Prune(ctx, o, marker(r)); !errors.As(err, &locked) {
						break
					}
				}
				mu.Lock()
				all.removed += int(p.DeletedPacks + p.RepackedPacks - p.CondemnedPacks)
				if p.CondemnedPacks > 0 {
					all.waited++
				}
				mu.Unlock()
				// A record that is taken back because its lease was taken away may be seen until then.
				var damaged *DamagedError
				if errors.As(err, &damaged) && !revoked.Load() {
					return err
				}
			}
			return nil
		})
	}
	actor("forgetter", func(r *Repository, random *rand.Rand) error {
		forget := func() error {
			records, err := r.Records(ctx)
			if err != nil || len(records) < 2 {
				return err
			}
			slices.SortFunc(records, func(a, b ID) int { return slices.Compare(a[:], b[:]) })
			record := records[random.IntN(len(records))]
			mu.Lock()
			forgotten[record] = struct{}{}
			all.forgotten++
			mu.Unlock()
			return r.DeleteRecord(ctx, record)
		}
		var err error
		for range 40 {
			var locked *LockedError
			if err = r.Maintain(ctx, "forget", forget); !errors.As(err, &locked) {
				return err
			}
		}
		return nil
	})
	actor("reader", func(r *Repository, random *rand.Rand) error {
		err := r.Beside(ctx, "restore", func() error {
			records, err := r.Records(ctx)
			if err != nil || len(records) == 0 {
				return err
			}
			data, err := r.Record(ctx, records[random.IntN(len(records))])
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			for _, id := range decodeList(data) {
				if _, err := r.Load(ctx, id, nil); err != nil && !revoked.Load() {
					return fmt.Errorf("reading a snapshot: %w", err)
				}
			}
			return nil
		})
		var locked *LockedError
		if errors.As(err, &locked) {
			return nil
		}
		return err
	})
	actor("revoker", func(r *Repository, random *rand.Rand) error {
		if random.IntN(3) > 0 {
			return nil
		}
		for range random.IntN(20) {
			if _, err := r.Leases(ctx); err != nil {
				return err
			}
		}
		leases, err := r.Leases(ctx)
		if err != nil || len(leases) == 0 {
			return err
		}
		// Of a writer: what a reader without a lease meets is another matter.
		for _, l := range leases {
			if l.Purpose == "write" || l.Purpose == "prune" {
				revoked.Store(true)
				return r.revoke(ctx, l.Name)
			}
		}
		return nil
	})
	all.steps += s.run()
	work.Wait()

	look := func(r *Repository, when string) {
		for record, list := range told {
			if _, may := forgotten[record]; may {
				continue
			}
			data, err := r.Record(ctx, record)
			if err != nil || !slices.Equal(decodeList(data), list) {
				t.Errorf("%s: record %s: %v", when, short(record), err)
				continue
			}
			for _, id := range list {
				if data, err := r.Load(ctx, id, nil); err != nil || !slices.Equal(data, byID[id]) {
					t.Errorf("%s: chunk %s of record %s: %v", when, short(id), short(record), err)
				}
			}
		}
		if _, err := r.Check(ctx, CheckOptions{Select: EveryPack}, marker(r), func(err error) { t.Errorf("%s: %v", when, err) }); err != nil {
			t.Error(err)
		}
	}
	after, err := Open(ctx, base, plain)
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	look(after, "after all")
	if _, err := after.Unlock(ctx, true); err != nil {
		t.Error(err)
	}
	if _, err := after.Prune(ctx, PruneOptions{MaxUnused: func(int64) int64 { return 0 }}, marker(after)); err != nil {
		t.Error(err)
	}
	look(after, "after another prune")
	if left := names(t, base, "condemned/"); len(left) > 0 {
		t.Errorf("condemned lists are left: %v", left)
	}
}

// must is for what cannot fail in these tests: a record's list.
func must(data []byte, err error) []ID {
	if err != nil {
		panic(err)
	}
	return decodeList(data)
}

// writeSome is a backup: it takes over a part of an earlier record, without looking when that is trusted, adds others, and
// commits.
func writeSome(ctx context.Context, r *Repository, random *rand.Rand, byID map[ID][]byte) (record ID, list []ID, trusted bool, err error) {
	s, err := r.Begin(ctx, SessionOptions{Purpose: "write", PackSize: 100 << 10})
	if err != nil {
		return ID{}, nil, false, err
	}
	defer s.Close()
	w, err := s.DataWriter()
	if err != nil {
		return ID{}, nil, false, err
	}
	records, err := r.Records(ctx)
	if err != nil {
		return ID{}, nil, false, err
	}
	if len(records) > 0 {
		parent := records[random.IntN(len(records))]
		if data, err := r.Record(ctx, parent); err == nil {
			trusted = r.Trusted(parent)
			for _, id := range decodeList(data) {
				if !trusted {
					if _, err := w.Save(ctx, id, byID[id]); err != nil {
						return ID{}, nil, false, err
					}
				}
				list = append(list, id)
			}
		}
	}
	ids := make([]ID, 0, len(byID))
	for id := range byID {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b ID) int { return slices.Compare(a[:], b[:]) })
	for range 3 {
		id := ids[random.IntN(len(ids))]
		if _, err := w.Save(ctx, id, byID[id]); err != nil {
			return ID{}, nil, false, err
		}
		list = append(list, id)
	}
	if record, err = s.Commit(ctx, refs(list).encode()); err == nil {
		r.Trust(record)
	}
	return record, list, trusted, err
}
