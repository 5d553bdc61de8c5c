package repo

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"varve/repo/blocks"
	"varve/repo/storage"
)

// watched is a storage that counts readings of packs, near or far.
type watched struct {
	storage.Storage
	far  bool
	gets atomic.Int64
}

func (w *watched) Near() bool { return !w.far }

func (w *watched) Get(ctx context.Context, name string, offset, length int64, buf []byte) ([]byte, error) {
	if strings.HasPrefix(name, "packs/") {
		w.gets.Add(1)
	}
	return w.Storage.Get(ctx, name, offset, length, buf)
}

// digestFiles lists the files of digests in r's cache.
func digestFiles(t *testing.T, r *Repository) (files []string) {
	t.Helper()
	folder, _ := r.digests()
	err := filepath.WalkDir(folder.Dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// compareAll compares each chunk with one in which the second block is another, and reports of how many something was known, and of how
// many without reading; what was known was right.
func compareAll(t *testing.T, r *Repository, chunks [][]byte) (known, unread int) {
	t.Helper()
	ctx := context.Background()
	r.digestFiles = newCache[ID](digestCacheBytes, (*blocks.File).Memory) // nothing of another state of the folder
	c, hash := r.Comparer(), r.Hasher()
	if _, length := c.Holds(ctx, hash(chunks[0]), 0, chunks[0]); length > 0 {
		t.Fatal("digests are read for the first chunk of a pack that is seen")
	}
	for i, chunk := range chunks {
		holds, length := false, 0
		for missed := 0; missed < worthLoading && length == 0; missed += len(chunk) {
			holds, length = c.Holds(ctx, hash(chunk), 0, chunk)
		}
		if length == 0 {
			continue
		}
		unread++
		now := slices.Clone(chunk)
		now[len(now)-1] ^= 1
		if wrong, _ := c.Holds(ctx, hash(chunk), 0, now); !holds || wrong || length != len(chunk) {
			t.Fatalf("chunk %d: it is held: %v, when its last byte is another one: %v; %d bytes of %d", i, holds, wrong, length, len(chunk))
		}
		if holds, _ := c.Holds(ctx, hash(chunk), 2, chunk[2*blocks.Size:4*blocks.Size]); !holds {
			t.Fatalf("blocks 2 and 3 of chunk %d are not held", i)
		}
	}
	for i, chunk := range chunks {
		now := slices.Clone(chunk)
		now[blocks.Size+5] ^= 4
		same := make([]bool, (len(now)+blocks.Size-1)/blocks.Size)
		length, err := c.Compare(context.Background(), hash(chunk), 0, now, same)
		if err != nil {
			t.Fatal(err)
		}
		if length == 0 {
			continue
		}
		known++
		want := slices.Repeat([]bool{true}, len(same))
		want[1] = false
		if length != len(chunk) || !slices.Equal(same, want) {
			t.Fatalf("chunk %d: %d bytes of %d, %v", i, length, len(chunk), same)
		}
	}
	return known, unread
}

// With digests nothing is read from the repository. Without them a near one is read, and a far one is not.
func TestCompare(t *testing.T) {
	ctx := context.Background()
	st := &watched{Storage: storage.NewMemory()}
	r, err := Init(ctx, st, options(t), testKDF, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var chunks [][]byte
	for i := range 60 {
		chunks = append(chunks, noise(uint64(i), 20*blocks.Size+i*700))
	}
	save(t, r, chunks...)
	files := digestFiles(t, r)
	if len(files) < 4 {
		t.Fatalf("%d files of digests", len(files))
	}
	compare := func(what string, wantKnown, wantUnread int) {
		t.Helper()
		st.gets.Store(0)
		known, unread := compareAll(t, r, chunks)
		if n := st.gets.Load(); known != wantKnown || unread != wantUnread || n > 0 != (known > unread) {
			t.Errorf("%s: of %d chunks %d were known, %d without reading; packs were read %d times", what, len(chunks), known, unread, n)
		}
	}
	compare("near", len(chunks), len(chunks))
	st.far = true
	compare("far", len(chunks), len(chunks))
	for i, name := range files { // one rots, one is torn, one is that of another pack, the others go
		var err error
		switch i {
		case 0:
			data, readErr := os.ReadFile(name)
			if readErr != nil {
				t.Fatal(readErr)
			}
			data[len(data)/2] ^= 1
			err = os.WriteFile(name, data, 0o600)
		case 1:
			err = os.Truncate(name, 100)
		case 2:
			err = os.Rename(files[3], name)
		case 3:
		default:
			err = os.Remove(name)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	compare("far, without digests of use", 0, 0)
	st.far = false
	compare("near, without digests of use", len(chunks), 0)
}

// The packs that prune writes have digests, and those that it removes have none any more.
func TestDigestsFollowPacks(t *testing.T) {
	ctx := context.Background()
	r, _ := newRepository(t)
	var chunks [][]byte
	for i := range 60 {
		chunks = append(chunks, noise(uint64(i), 20*blocks.Size))
	}
	all, _ := save(t, r, chunks...)
	var rest [][]byte
	for i := 0; i < len(chunks); i += 3 {
		rest = append(rest, chunks[i])
	}
	save(t, r, rest...)
	if err := r.DeleteRecord(ctx, all); err != nil {
		t.Fatal(err)
	}
	before := digestFiles(t, r)
	if _, err := r.Prune(ctx, PruneOptions{MaxUnused: func(int64) int64 { return 0 }}, marker(r)); err != nil {
		t.Fatal(err)
	}
	after := digestFiles(t, r)
	t.Log(len(before), len(after))
	for _, name := range after {
		if slices.Contains(before, name) {
			t.Errorf("%s is still there", name)
		}
	}
	r.storage = &watched{Storage: r.storage, far: true}
	if known, _ := compareAll(t, r, rest); known != len(rest) {
		t.Errorf("%d of %d chunks are known after a prune", known, len(rest))
	}
	// An index that is lost does not know what has gone.
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(r.indexDir()); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(filepath.Dir(after[0]), "stray")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if known, _ := compareAll(t, r, rest); known != len(rest) {
		t.Errorf("%d of %d chunks are known after the index was lost", known, len(rest))
	}
	if files := digestFiles(t, r); len(files) != len(after) {
		t.Errorf("%d files of digests, not %d", len(files), len(after))
	}
}
