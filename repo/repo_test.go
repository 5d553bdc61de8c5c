package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"varve/repo/storage"
)

// testKDF is the least work that is allowed: tests open many repositories.
var testKDF = KDF{Time: 1, Memory: 64, Threads: 1}

func options(t *testing.T) Options {
	return Options{Password: []byte("secret"), CacheDir: t.TempDir(), Logf: t.Logf}
}

// newRepository makes one in memory.
func newRepository(t *testing.T) (*Repository, *storage.Memory) {
	t.Helper()
	st := storage.NewMemory()
	r, err := Init(context.Background(), st, options(t), testKDF, map[string]int{"answer": 42})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, st
}

// reopen opens the repository of st as another process with an empty cache would.
func reopen(t *testing.T, st storage.Storage) *Repository {
	t.Helper()
	r, err := Open(context.Background(), st, options(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// noise is n pseudo-random bytes that are the same on every run.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	data := make([]byte, n)
	rand.NewChaCha8(key).Read(data)
	return data
}

// refs is a record in these tests: the chunks that it refers to.
type refs []ID

func (l refs) encode() []byte {
	var data []byte
	for _, id := range l {
		data = append(data, id[:]...)
	}
	return data
}

func decodeList(data []byte) (l refs) {
	for len(data) > 0 {
		l = append(l, ID(data[:32]))
		data = data[32:]
	}
	return l
}

// marker marks what the records of r refer to, except those left out.
func marker(r *Repository, except ...ID) Marker {
	return func(ctx context.Context, node func(ID) bool, chunk func(ID)) error {
		records, err := r.Records(ctx)
		if err != nil {
			return err
		}
		for _, record := range records {
			if slices.Contains(except, record) {
				continue
			}
			data, err := r.Record(ctx, record)
			if err != nil {
				return err
			}
			for _, id := range decodeList(data) {
				chunk(id)
			}
		}
		return nil
	}
}

// save stores the chunks in a session of their own and commits a record of them.
func save(t *testing.T, r *Repository, chunks ...[]byte) (record ID, added Added) {
	t.Helper()
	ctx := context.Background()
	s, err := r.Begin(ctx, SessionOptions{Purpose: "test", PackSize: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w, err := s.DataWriter()
	if err != nil {
		t.Fatal(err)
	}
	var l refs
	for _, data := range chunks {
		id := w.ID(data)
		if _, err := w.Save(ctx, id, data); err != nil {
			t.Fatal(err)
		}
		l = append(l, id)
	}
	if record, err = s.Commit(ctx, l.encode()); err != nil {
		t.Fatal(err)
	}
	return record, s.Added()
}

// verify reads everything that a record refers to, in both ways.
func verify(t *testing.T, r *Repository, record ID, chunks ...[]byte) {
	t.Helper()
	ctx := context.Background()
	data, err := r.Record(ctx, record)
	if err != nil {
		t.Fatal(err)
	}
	l := decodeList(data)
	for i, id := range l {
		got, err := r.Load(ctx, id, nil)
		if err != nil || !bytes.Equal(got, chunks[i]) {
			t.Fatalf("chunk %d is not what was saved: %v", i, err)
		}
	}
	var mu sync.Mutex
	seen := map[int]int{}
	err = r.LoadEach(ctx, l, 3, func(i int, got []byte, err error) error {
		mu.Lock()
		defer mu.Unlock()
		seen[i]++
		if err != nil || !bytes.Equal(got, chunks[i]) {
			return fmt.Errorf("chunk %d is not what was saved: %v", i, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range l {
		if seen[i] != 1 {
			t.Fatalf("chunk %d was delivered %d times", i, seen[i])
		}
	}
}

// someChunks returns n chunks: noise, text that compresses, and small ones.
func someChunks(seed uint64, n int) [][]byte {
	random := rand.New(rand.NewPCG(seed, 9))
	chunks := make([][]byte, n)
	for i := range chunks {
		size := 1 + random.IntN(100_000)
		switch random.IntN(3) {
		case 0:
			chunks[i] = noise(seed*1000+uint64(i), size)
		case 1:
			chunks[i] = bytes.Repeat(noise(seed*1000+uint64(i), 50), 1+size/50)
		case 2:
			chunks[i] = noise(seed*1000+uint64(i), 1+size%5000)
		}
	}
	return chunks
}

func TestSavedIsLoaded(t *testing.T) {
	for _, level := range Compressions {
		t.Run(string(level), func(t *testing.T) {
			r, st := newRepository(t)
			ctx := context.Background()
			s, err := r.Begin(ctx, SessionOptions{Compression: level, PackSize: 256 << 10})
			if err != nil {
				t.Fatal(err)
			}
			w, err := s.DataWriter()
			if err != nil {
				t.Fatal(err)
			}
			chunks := someChunks(1, 60)
			var l refs
			for _, data := range chunks {
				id := w.ID(data)
				if added, err := w.Save(ctx, id, data); err != nil || !added {
					t.Fatalf("%v, %v", added, err)
				}
				if added, err := w.Save(ctx, id, data); err != nil || added {
					t.Fatalf("the same chunk again: %v, %v", added, err)
				}
				l = append(l, id)
			}
			record, err := s.Commit(ctx, l.encode())
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			verify(t, r, record, chunks...)
			verify(t, reopen(t, st), record, chunks...)
		})
	}
}

func TestSecondSessionStoresNothing(t *testing.T) {
	r, st := newRepository(t)
	chunks := someChunks(2, 50)
	save(t, r, chunks...)
	if _, added := save(t, r, chunks...); added.Chunks != 0 || added.Stored != 0 {
		t.Errorf("the same process stored it again: %+v", added)
	}
	if _, added := save(t, reopen(t, st), chunks...); added.Chunks != 0 || added.Stored != 0 {
		t.Errorf("another process stored it again: %+v", added)
	}
}

// What a session stored before it was interrupted is found by the next one.
func TestInterruptedSessionIsNotLost(t *testing.T) {
	r, st := newRepository(t)
	ctx, cancel := context.WithCancel(context.Background())
	s, err := r.Begin(ctx, SessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.DataWriter()
	if err != nil {
		t.Fatal(err)
	}
	chunks := someChunks(3, 20)
	for _, data := range chunks {
		if _, err := w.Save(ctx, w.ID(data), data); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if _, err := s.Commit(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("commit after the interruption: %v", err)
	}
	s.Close()
	if records, err := r.Records(context.Background()); err != nil || len(records) != 0 {
		t.Errorf("%d records after the interruption, %v", len(records), err)
	}
	if _, added := save(t, reopen(t, st), chunks...); added.Chunks != 0 {
		t.Errorf("%d chunks stored again", added.Chunks)
	}
}

func TestConcurrentSessionsAndWriters(t *testing.T) {
	_, st := newRepository(t)
	chunks := someChunks(4, 120)
	var wait sync.WaitGroup
	for p := range 3 {
		r := reopen(t, st)
		wait.Go(func() {
			ctx := context.Background()
			s, err := r.Begin(ctx, SessionOptions{PackSize: 128 << 10})
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			var group sync.WaitGroup
			l := make(refs, len(chunks))
			for k := range 4 {
				w, err := s.DataWriter()
				if err != nil {
					t.Error(err)
					return
				}
				group.Go(func() {
					for n := range chunks {
						i := (n*7 + k*13 + p) % len(chunks)
						id := w.ID(chunks[i])
						if _, err := w.Save(ctx, id, chunks[i]); err != nil {
							t.Error(err)
						}
						if k == 0 {
							l[i] = id
						}
					}
				})
			}
			group.Wait()
			record, err := s.Commit(ctx, l.encode())
			if err != nil {
				t.Error(err)
				return
			}
			if added := s.Added(); added.Chunks > int64(len(chunks)) {
				t.Errorf("one session stored %d of %d chunks", added.Chunks, len(chunks))
			}
			data, err := r.Record(ctx, record)
			if err != nil || !bytes.Equal(data, l.encode()) {
				t.Errorf("the record is not what was committed: %v", err)
			}
		})
	}
	wait.Wait()
	r := reopen(t, st)
	records, err := r.Records(context.Background())
	if err != nil || len(records) != 3 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for _, record := range records {
		verify(t, r, record, chunks...)
	}
}

func TestOpenErrors(t *testing.T) {
	ctx := context.Background()
	if _, err := Open(ctx, storage.NewMemory(), options(t)); !errors.Is(err, ErrNoRepository) {
		t.Errorf("an empty storage: %v", err)
	}
	_, st := newRepository(t)
	o := options(t)
	o.Password = []byte("wrong")
	if _, err := Open(ctx, st, o); !errors.Is(err, ErrWrongPassword) {
		t.Errorf("a wrong password: %v", err)
	}
	if _, err := Init(ctx, st, options(t), testKDF, nil); !errors.Is(err, ErrExists) {
		t.Errorf("init where a repository is: %v", err)
	}
	config, err := st.Get(ctx, "config", 0, -1, nil)
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Replace(config, []byte(`"version":1`), []byte(`"version":2`), 1)
	for _, name := range []string{"config", "config.copy"} {
		if err := st.Put(ctx, name, newer); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(ctx, st, options(t)); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("a newer format: %v", err)
	}
}

// One copy of the config and of each key may be lost or damaged, in any way.
func TestOneCopyIsEnough(t *testing.T) {
	ctx := context.Background()
	harm := map[string]func(st storage.Storage, name string, data []byte) error{
		"removed": func(st storage.Storage, name string, _ []byte) error { return st.Delete(ctx, name) },
		"empty":   func(st storage.Storage, name string, _ []byte) error { return st.Put(ctx, name, nil) },
		"cut":     func(st storage.Storage, name string, data []byte) error { return st.Put(ctx, name, data[:len(data)/2]) },
		"flipped": func(st storage.Storage, name string, data []byte) error {
			data[len(data)-9] ^= 4
			return st.Put(ctx, name, data)
		},
		"in clear": func(st storage.Storage, name string, data []byte) error { data[3] ^= 4; return st.Put(ctx, name, data) },
	}
	for what, f := range harm {
		for _, copies := range []string{"", ".copy"} {
			r, st := newRepository(t)
			names := []string{"config" + copies}
			ids, err := listKeys(ctx, st)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, keyName(ids[0])+copies)
			for _, name := range names {
				data, err := st.Get(ctx, name, 0, -1, nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := f(st, name, bytes.Clone(data)); err != nil {
					t.Fatal(err)
				}
			}
			again := reopen(t, st)
			var settings struct{ Answer int }
			if err := again.Settings(&settings); err != nil || settings.Answer != 42 || again.ID() != r.ID() {
				t.Errorf("%s %s: settings %+v, %v", what, names, settings, err)
			}
			problems := 0
			if _, err := again.Check(ctx, CheckOptions{}, marker(again), func(error) { problems++ }); err != nil || problems != 2 {
				t.Errorf("%s %s: check finds %d problems, want 2, %v", what, names, problems, err)
			}
		}
	}
}

func TestKeys(t *testing.T) {
	ctx := context.Background()
	r, st := newRepository(t)
	second, err := r.AddKey(ctx, []byte("other"), testKDF, "laptop")
	if err != nil {
		t.Fatal(err)
	}
	open := func(password string) (*Repository, error) {
		o := options(t)
		o.Password = []byte(password)
		return Open(ctx, st, o)
	}
	if _, err := open("other"); err != nil {
		t.Errorf("the second password: %v", err)
	}
	if err := r.RemoveKey(ctx, r.slot); err == nil {
		t.Error("the key in use was removed")
	}
	if _, err := r.ChangePassword(ctx, []byte("new"), testKDF, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := open("secret"); !errors.Is(err, ErrWrongPassword) {
		t.Errorf("the old password after a change: %v", err)
	}
	if _, err := open("new"); err != nil {
		t.Errorf("the new password: %v", err)
	}
	keys, err := r.Keys(ctx, func(err error) { t.Error(err) })
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	if err := r.RemoveKey(ctx, second); err != nil {
		t.Fatal(err)
	}
	if _, err := open("other"); !errors.Is(err, ErrWrongPassword) {
		t.Errorf("a removed password: %v", err)
	}
	if err := r.RemoveKey(ctx, second); err == nil {
		t.Error("a key that is not there was removed")
	}
}

// The index is a cache: whatever happens to its files, everything is found.
func TestIndexLostBetweenRuns(t *testing.T) {
	ctx := context.Background()
	st := storage.NewMemory()
	o := options(t)
	r, err := Init(ctx, st, o, testKDF, nil)
	if err != nil {
		t.Fatal(err)
	}
	chunks := someChunks(5, 40)
	record, _ := save(t, r, chunks...)
	dir := r.indexDir()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	harm := map[string]func(path string, data []byte) error{
		"removed": func(path string, _ []byte) error { return os.Remove(path) },
		"cut":     func(path string, data []byte) error { return os.Truncate(path, int64(len(data)/2)) },
		"flipped": func(path string, data []byte) error { data[len(data)/3] ^= 1; return os.WriteFile(path, data, 0o600) },
	}
	for what, f := range harm {
		n := 0
		err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil || len(data) < 3 {
				return err
			}
			n++
			return f(path, data)
		})
		if err != nil || n == 0 {
			t.Fatalf("%d files harmed, %v", n, err)
		}
		r, err := Open(ctx, st, o)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		verify(t, r, record, chunks...)
		if _, added := save(t, r, chunks...); added.Chunks > int64(len(chunks)) {
			t.Errorf("%s: %+v", what, added)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A cache folder that cannot be used stops nothing.
func TestIndexWithoutCacheFolder(t *testing.T) {
	_, st := newRepository(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", file} {
		o := options(t)
		o.CacheDir = dir
		r, err := Open(context.Background(), st, o)
		if err != nil {
			t.Fatal(err)
		}
		chunks := someChunks(6, 20)
		record, _ := save(t, r, chunks...)
		verify(t, r, record, chunks...)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Names of packs and records are what b3sum prints for their bytes.
func TestNamesAreHashes(t *testing.T) {
	r, st := newRepository(t)
	save(t, r, someChunks(7, 30)...)
	err := st.List(context.Background(), "", func(name string, _ int64) error {
		if strings.HasPrefix(name, "config") || strings.HasPrefix(name, "leases/") {
			return nil
		}
		data, err := st.Get(context.Background(), name, 0, -1, nil)
		if err != nil {
			return err
		}
		base := strings.TrimSuffix(name[strings.LastIndexByte(name, '/')+1:], ".copy")
		if sum := sumOf(data); sum != base {
			t.Errorf("%s has the BLAKE3 %s", name, sum)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The index is made anew when it does not know a chunk; what was looked up before that keeps its meaning.
func TestLoadEachWhileTheIndexIsMadeAnew(t *testing.T) {
	ctx := context.Background()
	r, st := newRepository(t)
	var chunks [][]byte
	var ids refs
	add := func(by *Repository, seed uint64) {
		more := someChunks(seed, 30)
		record, _ := save(t, by, more...)
		data, err := by.Record(ctx, record)
		if err != nil {
			t.Fatal(err)
		}
		chunks, ids = append(chunks, more...), append(ids, decodeList(data)...)
	}
	for seed := range uint64(8) {
		add(r, 40+seed)
	}
	add(reopen(t, st), 50) // r does not know of it
	for seed := range uint64(8) {
		add(r, 60+seed)
	}
	add(reopen(t, st), 70)
	for _, i := range rand.New(rand.NewPCG(3, 3)).Perm(len(ids))[:40] { // some of the last ones come in the middle
		j := len(ids) / 2
		ids[i], ids[j], chunks[i], chunks[j] = ids[j], ids[i], chunks[j], chunks[i]
	}
	err := r.LoadEach(ctx, ids, 2, func(i int, data []byte, err error) error {
		if err != nil || !bytes.Equal(data, chunks[i]) {
			t.Errorf("chunk %d: %v", i, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
