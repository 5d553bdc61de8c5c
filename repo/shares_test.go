package repo

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"varve/repo/pack"
	"varve/repo/storage"
)

// sizes returns the sizes of all packs.
func sizes(t *testing.T, r *Repository) map[ID]int64 {
	t.Helper()
	packs := map[ID]int64{}
	if err := r.listPacks(context.Background(), func(id ID, size int64) { packs[id] = size }); err != nil {
		t.Fatal(err)
	}
	return packs
}

func sum(packs map[ID]int64) (n int64) {
	for _, size := range packs {
		n += size
	}
	return n
}

// markerOfRecord marks what one record refers to.
func markerOfRecord(r *Repository, record ID) Marker {
	return func(ctx context.Context, _ func(ID) bool, chunk func(ID)) error {
		data, err := r.Record(ctx, record)
		for _, id := range decodeList(data) {
			chunk(id)
		}
		return err
	}
}

func TestSharesOfAPackAreThePack(t *testing.T) {
	r, _ := newRepository(t)
	save(t, r, someChunks(1, 40)...)
	save(t, r, make([]byte, 300_000), []byte{1}, make([]byte, 4096), []byte{2, 3}) // compresses to next to nothing
	for id, size := range sizes(t, r) {
		dir, err := r.readDirectory(context.Background(), id, size)
		if err != nil {
			t.Fatal(err)
		}
		total, frames := int64(0), int64(0)
		for _, f := range dir.Frames {
			frames += int64(f.Stored)
		}
		n := 0
		var lengths []float64 // what each chunk's share is when nothing is rounded
		for _, f := range dir.Frames {
			for _, c := range f.Chunks {
				lengths = append(lengths, float64(size)*float64(f.Stored)/float64(frames)*float64(c.Length)/float64(f.Plain))
			}
		}
		eachShare(dir, size, func(_ pack.Chunk, share int64) {
			total += share
			if off := math.Abs(float64(share) - lengths[n]); off > 2+2*float64(size)/float64(frames) { // a sealed byte, rounded twice
				t.Errorf("chunk %d has %d bytes, and not about %.1f", n, share, lengths[n])
			}
			n++
		})
		if total != size || n != len(lengths) {
			t.Errorf("the shares of %d chunks of a pack of %d bytes are %d bytes", n, size, total)
		}
	}
}

// TestSharesAgainstSets compares with sets: of the chunks of each record, of those of all others.
func TestSharesAgainstSets(t *testing.T) {
	ctx := context.Background()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	r, _ := newRepository(t)
	pool := someChunks(seed%1000, 120)
	var records []ID
	for range 7 {
		from, n := random.IntN(100), 1+random.IntN(60)
		record, _ := save(t, r, pool[from:min(len(pool), from+n)]...)
		records = append(records, record)
	}
	share := map[ID]int64{}
	for id, size := range sizes(t, r) {
		dir, err := r.readDirectory(ctx, id, size)
		if err != nil {
			t.Fatal(err)
		}
		eachShare(dir, size, func(c pack.Chunk, n int64) { share[c.ID] = n })
	}
	refersTo := make([]map[ID]bool, len(records))
	marks := make([]Marker, len(records))
	for i, record := range records {
		data, err := r.Record(ctx, record)
		if err != nil {
			t.Fatal(err)
		}
		refersTo[i] = map[ID]bool{}
		for _, id := range decodeList(data) {
			refersTo[i][id] = true
		}
		marks[i] = markerOfRecord(r, record)
	}
	got, err := r.Shares(ctx, marks)
	if err != nil {
		t.Fatal(err)
	}
	for i := range records {
		var first, alone int64
		for id := range refersTo[i] {
			if !slices.ContainsFunc(refersTo[:i], func(other map[ID]bool) bool { return other[id] }) {
				first += share[id]
				if !slices.ContainsFunc(refersTo[i+1:], func(other map[ID]bool) bool { return other[id] }) {
					alone += share[id]
				}
			}
		}
		if got.First[i] != first || got.Alone[i] != alone {
			t.Errorf("record %d: %d first and %d alone, not %d and %d", i, got.First[i], got.Alone[i], first, alone)
		}
	}
	if packs := sum(sizes(t, r)); got.Packs != packs || got.Used(len(records)) != packs {
		t.Errorf("packs of %d bytes, of which %d are in use, not %d and all", got.Packs, got.Used(len(records)), packs)
	}
}

// TestNodesAreWalkedTwiceAtMost: what is below a node is news to its first marker, and to the second, who makes it shared.
func TestNodesAreWalkedTwiceAtMost(t *testing.T) {
	ctx := context.Background()
	r, _ := newRepository(t)
	chunks := someChunks(4, 3)
	save(t, r, chunks...)
	id := r.Hasher()
	node, below, other := id(chunks[0]), id(chunks[1]), id(chunks[2])
	walks := 0
	tree := func(_ context.Context, isNews func(ID) bool, chunk func(ID)) error {
		for range 2 {
			if isNews(node) {
				walks++
				chunk(below)
			}
		}
		return nil
	}
	alone := func(_ context.Context, _ func(ID) bool, chunk func(ID)) error { chunk(other); return nil }
	s, err := r.Shares(ctx, []Marker{tree, alone, tree, tree, tree})
	if err != nil {
		t.Fatal(err)
	}
	if walks != 2 {
		t.Errorf("the node was walked %d times", walks)
	}
	if s.Alone[0] != 0 || s.Alone[2] != 0 || s.Alone[1] != s.First[1] || s.First[1] == 0 || s.First[0]+s.First[1] != s.Packs || s.First[2] != 0 {
		t.Errorf("%+v", s)
	}
}

// TestForgettingFreesWhatWasSaid compares with what is gone after the records are, and a prune that leaves no garbage: to
// the byte where whole packs go, and as near as rewriting comes where parts of packs do.
func TestForgettingFreesWhatWasSaid(t *testing.T) {
	ctx := context.Background()
	for what, c := range map[string]struct {
		shared int // chunks of each record that the next one has too
		exact  bool
	}{"whole packs": {0, true}, "parts of packs": {15, false}} {
		t.Run(what, func(t *testing.T) {
			r, _ := newRepository(t)
			pool := someChunks(7, 200)
			var records []ID
			for i := range 4 {
				record, _ := save(t, r, pool[i*40:i*40+40+c.shared]...)
				records = append(records, record)
			}
			// The first two stay.
			var marks []Marker
			for _, record := range records {
				marks = append(marks, markerOfRecord(r, record))
			}
			said, err := r.Shares(ctx, marks)
			if err != nil {
				t.Fatal(err)
			}
			before := sum(sizes(t, r))
			for _, record := range records[2:] {
				if err := r.DeleteRecord(ctx, record); err != nil {
					t.Fatal(err)
				}
			}
			left, err := r.Shares(ctx, marks[:2])
			if err != nil || left.Used(2) != said.Used(2) {
				t.Fatalf("what stays in use was said to be %d bytes, and is %d, %v", said.Used(2), left.Used(2), err)
			}
			if _, err := r.Prune(ctx, PruneOptions{MaxUnused: func(int64) int64 { return 0 }}, marker(r)); err != nil {
				t.Fatal(err)
			}
			freed, wanted := before-sum(sizes(t, r)), said.First[2]+said.First[3]
			off := freed - wanted
			if c.exact && off != 0 || off < -wanted/100-500 || off > wanted/100+500 {
				t.Errorf("%d bytes were freed, and %d were said to be", freed, wanted)
			}
		})
	}
}

func TestFreeIsThatOfTheStorage(t *testing.T) {
	st, err := storage.OpenLocal(t.TempDir(), false)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := (&Repository{storage: st}).Free(context.Background()); err != nil || n <= 0 {
		t.Errorf("%d bytes are free in a folder, %v", n, err)
	}
	if n, err := (&Repository{storage: storage.NewMemory()}).Free(context.Background()); err == nil {
		t.Error(fmt.Sprint("memory says that it has room for ", n))
	}
}
