package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"varve/repo"
	"varve/repo/storage"
)

// A life is what somebody does with a repository: sessions that share chunks, a removed record, and a prune that rewrites.
type life struct {
	st     storage.Recorded
	repo   *repo.Repository
	chunks [][]byte
	known  map[repo.ID][]byte
	acks   []ack
}

// ack is what was sure from a moment on.
type ack struct {
	moment  int
	records map[repo.ID][]repo.ID // and their chunks
}

var cheap = repo.KDF{Time: 1, Memory: 64, Threads: 1}

// acknowledge notes that the records are there now.
func (l *life) acknowledge(change func(records map[repo.ID][]repo.ID)) {
	records := map[repo.ID][]repo.ID{}
	if len(l.acks) > 0 {
		records = maps.Clone(l.acks[len(l.acks)-1].records)
	}
	change(records)
	l.acks = append(l.acks, ack{moment: l.st.Moment(), records: records})
}

// session saves chunks, each third as a tree node and each in a frame of its own.
func (l *life) session(t *testing.T, chunks [][]byte) repo.ID {
	t.Helper()
	ctx := t.Context()
	s, err := l.repo.Begin(ctx, repo.SessionOptions{Purpose: "test", PackSize: 20_000})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data, err := s.DataWriter()
	if err != nil {
		t.Fatal(err)
	}
	tree, err := s.TreeWriter()
	if err != nil {
		t.Fatal(err)
	}
	var ids []repo.ID
	var record []byte
	for i, chunk := range chunks {
		w := data
		if i%3 == 2 {
			w = tree
		}
		id := w.ID(chunk)
		l.known[id] = chunk
		if _, err := w.Save(ctx, id, chunk); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		ids, record = append(ids, id), append(record, id[:]...)
	}
	made, err := s.Commit(ctx, record)
	if err != nil {
		t.Fatal(err)
	}
	l.acknowledge(func(records map[repo.ID][]repo.ID) { records[made] = ids })
	return made
}

// marker marks what the records of r refer to: they are lists of ids.
func marker(r *repo.Repository) repo.Marker {
	return func(ctx context.Context, _ func(repo.ID) bool, chunk func(repo.ID)) error {
		records, err := r.Records(ctx)
		for _, id := range records {
			record, recordErr := r.Record(ctx, id)
			err = errors.Join(err, recordErr)
			for part := range slices.Chunk(record, 32) {
				chunk(repo.ID(part))
			}
		}
		return err
	}
}

func newLife(t *testing.T) *life {
	t.Helper()
	ctx := t.Context()
	l := &life{st: storage.NewRecorded(t), known: map[repo.ID][]byte{}}
	for i := range 14 {
		chunk := make([]byte, 9000)
		rand.NewChaCha8([32]byte{byte(i)}).Read(chunk)
		l.chunks = append(l.chunks, chunk)
	}
	var err error
	if l.repo, err = repo.Init(ctx, l.st, repo.Options{Password: []byte("secret")}, cheap, struct{}{}); err != nil {
		t.Fatal(err)
	}
	defer l.repo.Close()
	l.acknowledge(func(map[repo.ID][]repo.ID) {})
	first := l.session(t, l.chunks[:8])
	l.session(t, l.chunks[5:12])
	// From here on the first may be there or not.
	l.acknowledge(func(records map[repo.ID][]repo.ID) { delete(records, first) })
	if err := l.repo.DeleteRecord(ctx, first); err != nil {
		t.Fatal(err)
	}
	pruned, err := l.repo.Prune(ctx, repo.PruneOptions{MaxUnused: func(int64) int64 { return 0 }}, marker(l.repo))
	if err != nil || pruned.DeletedPacks == 0 || pruned.RepackedPacks == 0 {
		t.Fatalf("the prune has too little to do to show anything: %+v, %v", pruned, err)
	}
	l.session(t, l.chunks[8:])
	return l
}

// judge opens what a power cut has left as the next process would.
func (l *life) judge(ctx context.Context, objects map[string]string, moment int) error {
	st := storage.NewMemory()
	for name, data := range objects {
		if err := st.Put(ctx, name, []byte(data)); err != nil {
			return err
		}
	}
	var sure *ack
	for i := range l.acks {
		if l.acks[i].moment <= moment {
			sure = &l.acks[i]
		}
	}
	r, err := repo.Open(ctx, st, repo.Options{Password: []byte("secret")})
	if sure == nil {
		return nil // there is a repository, or one can be made
	}
	if err != nil {
		return err
	}
	defer r.Close()
	// The process of the leases lives: it is the test.
	if _, err := r.Unlock(ctx, true); err != nil {
		return err
	}
	look := func() error {
		records, err := r.Records(ctx)
		if err != nil {
			return err
		}
		for id := range sure.records {
			if !slices.Contains(records, id) {
				return fmt.Errorf("record %x is lost", id[:4])
			}
		}
		for _, id := range records {
			record, err := r.Record(ctx, id)
			if err != nil {
				return err
			}
			for part := range slices.Chunk(record, 32) {
				data, err := r.Load(ctx, repo.ID(part), nil)
				if err != nil {
					return err
				}
				if !bytes.Equal(data, l.known[repo.ID(part)]) {
					return fmt.Errorf("chunk %x has other bytes", part[:4])
				}
			}
		}
		return nil
	}
	if err := look(); err != nil {
		return err
	}
	var problems error
	if _, err = r.Check(ctx, repo.CheckOptions{Select: repo.EveryPack}, marker(r), func(err error) { problems = errors.Join(problems, err) }); err != nil || problems != nil {
		return fmt.Errorf("check: %w", errors.Join(err, problems))
	}
	if _, err := r.Prune(ctx, repo.PruneOptions{MaxUnused: func(int64) int64 { return 0 }}, marker(r)); err != nil {
		return fmt.Errorf("prune: %w", err)
	}
	return look()
}

// The power is cut after every single change that a repository's life makes to a folder: what was acknowledged is there,
// the check finds nothing, and a prune goes on. TORTURE=1 tries each moment thirty times as often.
func TestPowerCutInARepositorysLife(t *testing.T) {
	l := newLife(t)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	often := 2
	if os.Getenv("TORTURE") != "" {
		often = 60
	}
	states := 0
	for moment := range l.st.Moment() + 1 {
		for range often {
			states++
			keep := []float64{0, 0.1, 0.5, 0.9, 1}[random.IntN(5)]
			if err := l.judge(t.Context(), l.st.Cut(moment, random, keep), moment); err != nil {
				t.Errorf("seed %d: power cut after change %d, %v of what was not synced kept: %v", seed, moment, keep, err)
			}
		}
	}
	t.Logf("%d states after a power cut at each of %d changes", states, l.st.Moment())
}
