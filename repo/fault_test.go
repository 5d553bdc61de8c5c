package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"varve/repo/storage"
	"varve/repo/storage/storagetest"
)

// A life is what somebody does with a repository, in steps, each by a process of its own. The tests in this file let
// one operation of one step fail, or let the process die there, and look at what is left.

// past is what happened so far: what lies in the storage, and what somebody was told.
type past struct {
	st     *storage.Memory
	cache  string            // folder of caches; empty: none is kept
	told   map[ID][][]byte   // records whose commit returned nil and that were not deleted, with their chunks
	doomed map[ID]struct{}   // records that a step began to delete: they may be there or not
	blocks map[string]string // name of an object → "torn", or what else a check may say about it
	late   string            // the name of an object of one init that may have come after another one
	pruned Pruned            // by the last prune
}

func (p *past) clone(t *testing.T) *past {
	t.Helper()
	c := &past{st: storage.NewMemory(), told: maps.Clone(p.told), doomed: maps.Clone(p.doomed), blocks: map[string]string{}}
	for _, name := range names(t, p.st, "") {
		data, err := p.st.Get(t.Context(), name, 0, -1, nil)
		if err == nil {
			err = c.st.Put(t.Context(), name, data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if p.cache != "" {
		c.cache = t.TempDir()
		if err := os.CopyFS(c.cache, os.DirFS(p.cache)); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func (p *past) options() Options { return Options{Password: []byte("secret"), CacheDir: p.cache} }

// as opens the repository through st, calls f, and closes it.
func (p *past) as(ctx context.Context, st storage.Storage, f func(r *Repository) error) error {
	r, err := Open(ctx, st, p.options())
	if err != nil {
		return err
	}
	err = f(r)
	return errors.Join(err, r.Close())
}

// step is one process. It changes p only by what it was told in the end.
type step struct {
	name string
	run  func(ctx context.Context, st storage.Storage, p *past) error
}

// life is small, and has it all: two sessions with several packs each that share chunks, and a prune that deletes packs
// and rewrites others.
var life = []step{
	{"init", func(ctx context.Context, st storage.Storage, p *past) error {
		r, err := Init(ctx, st, p.options(), testKDF, map[string]int{"answer": 42})
		if err != nil {
			return err
		}
		return r.Close()
	}},
	{"first session", func(ctx context.Context, st storage.Storage, p *past) error {
		return p.session(ctx, st, lifeChunks[:8])
	}},
	{"second session", func(ctx context.Context, st storage.Storage, p *past) error {
		return p.session(ctx, st, lifeChunks[5:])
	}},
	{"delete", func(ctx context.Context, st storage.Storage, p *past) error {
		return p.as(ctx, st, func(r *Repository) error {
			for id, chunks := range p.told {
				if bytes.Equal(chunks[0], lifeChunks[0]) { // the first session's
					delete(p.told, id)
					p.doomed[id] = struct{}{}
				}
			}
			for id := range p.doomed {
				if err := r.DeleteRecord(ctx, id); err != nil && !errors.Is(err, ErrNotFound) {
					return err
				}
				delete(p.doomed, id)
			}
			return nil
		})
	}},
	{"prune", func(ctx context.Context, st storage.Storage, p *past) error {
		return p.as(ctx, st, func(r *Repository) error {
			var err error
			p.pruned, err = r.Prune(ctx, PruneOptions{MaxUnused: func(int64) int64 { return 0 }}, marker(r))
			return err
		})
	}},
}

var lifeChunks = func() (chunks [][]byte) {
	for i := range uint64(12) {
		chunks = append(chunks, noise(900+i, 9000))
	}
	return chunks
}()

// session saves chunks, every third as a tree node, and commits a record of them.
func (p *past) session(ctx context.Context, st storage.Storage, chunks [][]byte) error {
	return p.as(ctx, st, func(r *Repository) error {
		s, err := r.Begin(ctx, SessionOptions{Purpose: "test", PackSize: 20_000})
		if err != nil {
			return err
		}
		defer s.Close()
		data, err := s.DataWriter()
		if err != nil {
			return err
		}
		tree, err := s.TreeWriter()
		if err != nil {
			return err
		}
		var l refs
		for i, chunk := range chunks {
			w := data
			if i%3 == 2 {
				w = tree
			}
			id := w.ID(chunk)
			if _, err := w.Save(ctx, id, chunk); err != nil {
				return err
			}
			// So small a chunk would wait for others: a frame each gives several packs.
			if err := w.Flush(ctx); err != nil {
				return err
			}
			l = append(l, id)
		}
		record, err := s.Commit(ctx, l.encode())
		if err != nil {
			return err
		}
		p.told[record] = chunks
		return nil
	})
}

// bury makes the leases expire whose processes the test let die: their process id is the test's own, which lives.
func (p *past) bury(t *testing.T, r *Repository) {
	t.Helper()
	leases, err := r.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases {
		if l.Damaged { // by the fault: nobody can tell whose it is, and the user has to say so
			if p.blocks[l.Name] == "" {
				t.Errorf("%s is damaged", l.Name)
			}
			if err := p.st.Delete(t.Context(), l.Name); err != nil {
				t.Fatal(err)
			}
			continue
		}
		l.Renewed = time.Now().Add(-2 * leaseTTL)
		h := &heldLease{repo: r, name: l.Name, lease: l}
		if err := h.write(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// judge opens the repository as a new process does and fails the test unless all is there that somebody was told.
func (p *past) judge(t *testing.T, when string) {
	t.Helper()
	ctx := t.Context()
	err := p.as(ctx, p.st, func(r *Repository) error {
		p.bury(t, r)
		known := map[ID][]byte{} // every chunk that was ever saved
		hash := r.Hasher()
		for _, chunk := range lifeChunks {
			known[hash(chunk)] = chunk
		}
		records, err := r.Records(ctx)
		if err != nil {
			return err
		}
		for id := range p.told {
			if !slices.Contains(records, id) {
				t.Errorf("%s: record %s was committed, and is gone", when, short(id))
			}
		}
		var torn []ID
		for _, id := range records {
			chunks, told := p.told[id]
			data, err := r.Record(ctx, id)
			if err != nil && !told && p.blocks[recordName(id)] != "" {
				torn = append(torn, id)
				continue
			}
			if err != nil {
				return err
			}
			// One that nobody was told of is no harm, as long as it is whole.
			for i, chunk := range decodeList(data) {
				got, err := r.Load(ctx, chunk, nil)
				if err != nil || !bytes.Equal(got, known[chunk]) || told && !bytes.Equal(got, chunks[i]) {
					t.Errorf("%s: chunk %d of record %s (committed: %v) is not what was saved: %v", when, i, short(id), told, err)
				}
			}
		}
		// A half record cannot say what it needs. The user is told its name, and forgets it.
		for _, id := range torn {
			if err := r.DeleteRecord(ctx, id); err != nil {
				return err
			}
		}
		result, err := r.Check(ctx, CheckOptions{Select: EveryPack}, marker(r), func(err error) {
			for name := range p.blocks {
				if strings.Contains(err.Error(), name) {
					return
				}
			}
			// One of it and its copy lacks the other.
			if p.late != "" && strings.Contains(err.Error(), strings.TrimSuffix(p.late, ".copy")) {
				return
			}
			t.Errorf("%s: check: %v", when, err)
		})
		if err == nil && len(result.Lost) > 0 {
			t.Errorf("%s: %d chunks are lost", when, len(result.Lost))
		}
		return err
	})
	if err != nil {
		t.Errorf("%s: %v", when, err)
	}
}

// fault is one way for a step to go wrong.
type fault struct {
	name string
	ops  storagetest.Op
	how  storagetest.How
	late int  // how many operations come before one that is late; 0: all of the step
	dies bool // the process, with that operation
}

// A reading that fails after it was done is one that fails before.
var faults = []fault{
	{"before", storagetest.Any, storagetest.Before, 0, false},
	{"after", storagetest.Writes | storagetest.List, storagetest.After, 0, false},
	{"torn", storagetest.Put | storagetest.PutNew | storagetest.List, storagetest.Torn, 0, false},
	{"misread", storagetest.Get, storagetest.Flipped, 0, false},
	{"late by one", storagetest.Writes, storagetest.Late, 1, false},
	{"late by four", storagetest.Writes, storagetest.Late, 4, false},
	{"late by all", storagetest.Writes, storagetest.Late, 0, false},
	{"dies before", storagetest.Any, storagetest.Before, 0, true},
	{"dies after", storagetest.Writes, storagetest.After, 0, true},
	{"dies torn", storagetest.Put | storagetest.PutNew, storagetest.Torn, 0, true},
}

// mortal is the storage of a process that dies with the first fault: nothing that it does later has an effect.
type mortal struct{ *storagetest.Faulty }

func (m mortal) alive(f func() error) error {
	if m.Fired() > 0 {
		return storagetest.ErrFault
	}
	return f()
}

func (m mortal) Put(ctx context.Context, name string, data []byte) error {
	return m.alive(func() error { return m.Faulty.Put(ctx, name, data) })
}

func (m mortal) PutNew(ctx context.Context, name string, data []byte) error {
	return m.alive(func() error { return m.Faulty.PutNew(ctx, name, data) })
}

func (m mortal) Get(ctx context.Context, name string, offset, length int64, buf []byte) (data []byte, err error) {
	err = m.alive(func() error {
		data, err = m.Faulty.Get(ctx, name, offset, length, buf)
		return err
	})
	return data, err
}

func (m mortal) List(ctx context.Context, prefix string, f func(string, int64) error) error {
	return m.alive(func() error { return m.Faulty.List(ctx, prefix, f) })
}

func (m mortal) Delete(ctx context.Context, name string) error {
	return m.alive(func() error { return m.Faulty.Delete(ctx, name) })
}

// suffer runs a step in which the n-th operation fails, and then what a user would do. It reports false when the step
// has fewer operations.
func (p *past) suffer(t *testing.T, s step, f fault, n int) bool {
	t.Helper()
	faulty := storagetest.NewFaulty(p.st)
	faulty.Fail(storagetest.Fault{Ops: f.ops, Nth: n, How: f.how, Later: f.late})
	var st storage.Storage = faulty
	if f.dies {
		st = mortal{faulty}
	}
	err := s.run(t.Context(), st, p)
	if faulty.Fired() == 0 {
		if err != nil {
			t.Fatalf("without a fault: %v", err)
		}
		return false
	}
	when := fmt.Sprintf("%s, operation %d %s", s.name, n, f.name)
	for _, line := range faulty.Log() {
		words := strings.Fields(line)
		if words[len(words)-1] != "failed" {
			continue
		}
		when += fmt.Sprintf(" (%s)", line)
		switch {
		case f.how == storagetest.Torn && strings.HasPrefix(words[0], "put"):
			p.blocks[words[1]] = "torn"
		case f.how == storagetest.Late && s.name == "init": // a key or a config of which the next init does not know
			p.late = words[1]
		}
	}
	if err != nil && f.how != storagetest.Flipped && !errors.Is(err, storagetest.ErrFault) {
		t.Errorf("%s: the error does not tell the reason: %v", when, err)
	}
	if left := names(t, p.st, "leases/"); len(left) > 0 && !f.dies && !strings.Contains(when, "(delete leases/") {
		t.Errorf("%s: a lease is left, and keeps others out: %v", when, left)
	}
	failed := err != nil
	// What is late is done before somebody looks, in the half of the cases; in the others after all was tried again.
	settle := func() {
		if err := faulty.Settle(t.Context()); err != nil && !errors.Is(err, storage.ErrExist) && !errors.Is(err, storage.ErrNotExist) {
			t.Errorf("%s: %v", when, err)
		}
	}
	if n%2 == 0 {
		settle()
	}
	if failed && s.name == "init" {
		p.initAgain(t, s, when, settle)
		return true
	}
	p.judge(t, when)
	if failed {
		if err := s.run(t.Context(), p.st, p); err != nil {
			t.Errorf("%s: the step again: %v", when, err)
		}
		settle()
		p.judge(t, when+", and again")
	}
	if s.name == "prune" || p.cache != "" {
		return true
	}
	// Nothing stands in the way of those who come later.
	for _, later := range []step{life[2], life[4]} {
		if err := later.run(t.Context(), p.st, p); err != nil {
			t.Errorf("%s, later %s: %v", when, later.name, err)
		}
	}
	p.judge(t, when+", and later")
	return true
}

// initAgain is what a user does after a failed init: the same again, unless that says that there is a repository.
func (p *past) initAgain(t *testing.T, s step, when string, settle func()) {
	t.Helper()
	err := s.run(t.Context(), p.st, p)
	settle()
	if p.blocks["config"] != "" {
		// Half a config is nothing that init may write over: it could be the rest of somebody's repository.
		if !errors.Is(err, ErrExists) {
			t.Errorf("%s: init over half a config: %v", when, err)
		}
		return
	}
	if err != nil && !errors.Is(err, ErrExists) {
		t.Errorf("%s: init again: %v", when, err)
		return
	}
	if errors.Is(err, ErrExists) {
		p.blocks["config.copy"] = "never written"
	}
	p.judge(t, when+", and again")
	for _, later := range life[1:4] {
		if err := later.run(t.Context(), p.st, p); err != nil {
			t.Errorf("%s, later %s: %v", when, later.name, err)
		}
	}
	p.judge(t, when+", and later")
}

// Whichever operation of the storage fails, in whichever way: what was committed stays, what was not is no harm, and
// the same command run again succeeds.
func TestEveryFaultIsSurvived(t *testing.T) {
	p := &past{st: storage.NewMemory(), told: map[ID][][]byte{}, doomed: map[ID]struct{}{}}
	injected := 0
	for _, s := range life {
		t.Run(s.name, func(t *testing.T) {
			for _, f := range faults {
				n := 1
				for p.clone(t).suffer(t, s, f, n) {
					n++
					injected++
				}
				if n == 1 && f.how == storagetest.Before { // a deletion puts nothing that could be torn
					t.Errorf("%s: nothing failed", f.name)
				}
			}
		})
		if err := s.run(t.Context(), p.st, p); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d faults in %d ways, nothing lost", injected, len(faults))
	if p.pruned.DeletedPacks == 0 || p.pruned.RepackedPacks == 0 {
		t.Errorf("the prune has too little to do to show anything: %+v", p.pruned)
	}
}

// The same for a process that dies and leaves its index to the next one, which then knows more or less than is stored.
func TestIndexOfDeadProcess(t *testing.T) {
	p := &past{st: storage.NewMemory(), cache: t.TempDir(), told: map[ID][][]byte{}, doomed: map[ID]struct{}{}}
	for _, s := range life {
		if s.name == "second session" || s.name == "prune" {
			t.Run(s.name, func(t *testing.T) {
				n := 1
				for p.clone(t).suffer(t, s, fault{"dies after", storagetest.Writes, storagetest.After, 0, true}, n) {
					n++
				}
			})
		}
		if err := s.run(t.Context(), p.st, p); err != nil {
			t.Fatal(err)
		}
	}
}
