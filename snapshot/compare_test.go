package snapshot

import (
	"context"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"varve/image"
	"varve/repo"
	"varve/repo/storage"
)

// place is a storage near or far, which counts how often packs of chunks of disks are read.
type place struct {
	*storage.Memory
	far   bool
	reads atomic.Int64
}

func (p *place) Near() bool { return !p.far }

func (p *place) Get(ctx context.Context, name string, offset, length int64, buf []byte) ([]byte, error) {
	const kindAt, chunks = 10, 1 // see package pack
	if strings.HasPrefix(name, "packs/") {
		if kind, err := p.Memory.Get(ctx, name, kindAt, 1, nil); err == nil && kind[0] == chunks {
			p.reads.Add(1)
		}
	}
	return p.Memory.Get(ctx, name, offset, length, buf)
}

// library is a repository on a place, with one history of a disk.
type library struct {
	place  *place
	cache  string // folder; empty: none
	parent *Disk
}

// libraries returns n repositories with the same keys, so that the same trees have the same roots there.
func libraries(t *testing.T, n int) []*library {
	t.Helper()
	ctx := context.Background()
	first := storage.NewMemory()
	r, err := repo.Init(ctx, first, repo.Options{Password: []byte("x")}, repo.KDF{Time: 1, Memory: 64, Threads: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	list := make([]*library, n)
	for i := range list {
		list[i] = &library{place: &place{Memory: storage.NewMemory()}}
		err := first.List(ctx, "", func(name string, _ int64) error {
			data, err := first.Get(ctx, name, 0, -1, nil)
			if err == nil {
				err = list[i].place.Put(ctx, name, data)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// backup stores d, guided by the day before, and checks that it reads back. reads is how often chunks were read to compare with.
func (l *library) backup(t *testing.T, d *disk) (snap *Disk, reads int64) {
	t.Helper()
	ctx := context.Background()
	r, err := repo.Open(ctx, l.place, repo.Options{Password: []byte("x"), CacheDir: l.cache, Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, err := r.Begin(ctx, repo.SessionOptions{Purpose: "test", PackSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	o := CreateOptions{Chunker: testChunker(), Workers: 2, Parent: l.parent, ParentComplete: l.parent != nil, Load: r,
		ParentLost: func(err error) { t.Errorf("the parent is lost: %v", err) },
		Parts:      func() Comparer { return r.Comparer() },
		DataWriter: func() (Writer, error) { return s.DataWriter() },
		TreeWriter: func() (Writer, error) { return s.TreeWriter() },
	}
	l.place.reads.Store(0)
	if snap, err = Create(ctx, d, o); err != nil {
		t.Fatal(err)
	}
	reads = l.place.reads.Load()
	if _, err := s.Commit(ctx, []byte("record")); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(NewReader(ctx, r, snap), 0, snap.Size))
	if err != nil || string(got) != string(d.data) {
		t.Fatalf("the snapshot does not read as the disk: %v", err)
	}
	l.parent = snap
	return snap, reads
}

// Whether the old content is known by its bytes or by digests, the trees are the same; where digests know it, nothing is read.
// What is far away is not read for it in any case.
func TestDigestsAndBytesGiveTheSameTree(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 2 {
		list := libraries(t, 3)
		bytes, digests, far := list[0], list[1], list[2]
		digests.cache, far.cache, far.place.far = t.TempDir(), t.TempDir(), true
		d := &disk{data: noise(random.Uint64(), 1<<20+random.IntN(3<<20)), holes: map[int64]image.Kind{}}
		var readBytes, readDigests int64
		for day := range 5 {
			one, n := bytes.backup(t, d)
			readBytes += n
			two, n := digests.backup(t, d)
			readDigests += n
			if one.Root != two.Root || one.Stats != two.Stats {
				t.Fatalf("day %d: with bytes %+v, with digests %+v", day, one.Stats, two.Stats)
			}
			three, n := far.backup(t, d)
			if n > 0 {
				t.Fatalf("day %d: chunks were read %d times from a storage that is far away", day, n)
			}
			if day == 3 && three.Stats.Parts == 0 {
				t.Error("nothing refers to a part of a chunk")
			}
			for range 5 + random.IntN(55) {
				at := random.IntN(len(d.data)/Block) * Block
				n := min((1+random.IntN(3))*Block, len(d.data)-at)
				copy(d.data[at:at+n], noise(random.Uint64(), n))
			}
			if day == 1 { // digests that are lost are a cost, no more
				for _, l := range []*library{digests, far} {
					lost, err := filepath.Glob(filepath.Join(l.cache, "*", "blocks", "*", "*"))
					if err != nil || len(lost) == 0 {
						t.Fatalf("%d files of digests: %v", len(lost), err)
					}
					for _, name := range lost[len(lost)/2:] {
						if err := os.Remove(name); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
		}
		if readDigests >= readBytes {
			t.Errorf("with digests chunks were read %d times, without %d times", readDigests, readBytes)
		}
	}
}

// One block of each chunk changes: a repository that is far away gets these blocks, as long as there are digests, and otherwise
// chunks cut by content.
func TestFarAway(t *testing.T) {
	l := libraries(t, 1)[0]
	l.cache, l.place.far = t.TempDir(), true
	d := &disk{data: noise(7, 6<<20), holes: map[int64]image.Kind{}}
	l.backup(t, d)
	const changes = 40
	change := func(first int) {
		for i := range changes {
			copy(d.data[(first+i*37)*Block:][:Block], noise(uint64(first*1000+i), Block))
		}
	}
	change(3)
	snap, reads := l.backup(t, d)
	if snap.Stats.Added != changes*Block || reads != 0 {
		t.Errorf("with digests %d bytes were stored of %d, and chunks read %d times", snap.Stats.Added, changes*Block, reads)
	}
	if err := os.RemoveAll(l.cache); err != nil {
		t.Fatal(err)
	}
	change(20)
	snap, reads = l.backup(t, d)
	if snap.Stats.Added < 4*changes*Block || reads != 0 {
		t.Errorf("without digests %d bytes were stored, and chunks read %d times", snap.Stats.Added, reads)
	}
}
