package repo

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"varve/repo/pack"
	"varve/repo/storage"
	"varve/repo/storage/storagetest"
)

// newParity makes a repository with parity, on a medium that loses sectors.
func newParity(t *testing.T, percent int) (*Repository, *storagetest.Sectors) {
	t.Helper()
	st := storagetest.NewSectors(storage.NewMemory())
	r, err := Init(context.Background(), st, options(t), testKDF, Settings{Parity: percent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r, st
}

// harmSectors damages n sectors of an object: some cannot be read, some have a wrong bit or are zeros.
func harmSectors(t *testing.T, st *storagetest.Sectors, name string, random *rand.Rand, sectors ...int) {
	t.Helper()
	data := object(t, st.Storage, name)
	for _, n := range sectors {
		s := data[n*sectorBytes : (n+1)*sectorBytes]
		switch random.IntN(3) {
		case 0:
			st.Lose(name, n)
		case 1:
			s[random.IntN(sectorBytes)] ^= 1 << random.IntN(8)
		case 2:
			clear(s)
		}
	}
	if err := st.Storage.Put(t.Context(), name, data); err != nil {
		t.Fatal(err)
	}
}

// packNames lists the packs, and their sizes in sectors.
func packNames(t *testing.T, st *storagetest.Sectors) map[string]int {
	t.Helper()
	packs := map[string]int{}
	for _, name := range names(t, st, "packs/") {
		size := len(object(t, st.Storage, name))
		if size%sectorBytes != 0 {
			t.Errorf("%s has %d bytes", name, size)
		}
		packs[name] = size / sectorBytes
	}
	return packs
}

// A repository with a few damaged sectors in every pack reads as if nothing had happened: in whatever way, to a process with
// an index and to one without. A check says what is to be healed, and that nothing is lost.
func TestDamagedSectorsHeal(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	ctx := t.Context()
	rounds := 3
	if os.Getenv("TORTURE") != "" {
		rounds = 300
	}
	healed := 0 // packs
	for round := range rounds {
		r, st := newParity(t, []int{1, 5, 20}[round%3])
		saved := map[ID][][]byte{}
		for i := range 1 + random.IntN(3) {
			chunks := someChunks(seed+uint64(round*10+i), 1+random.IntN(60))
			record, _ := save(t, r, chunks...)
			saved[record] = chunks
		}
		packs := packNames(t, st)
		for name, n := range packs {
			harmSectors(t, st, name, random, []int{0, n - 1, random.IntN(n)}[random.IntN(3)], random.IntN(n))
		}
		fresh := reopen(t, st)
		for record, chunks := range saved {
			verify(t, r, record, chunks...)
			verify(t, fresh, record, chunks...)
			reader := reopen(t, st).FrameReader()
			data, err := fresh.Record(ctx, record)
			if err != nil {
				t.Fatal(err)
			}
			for i, id := range decodeList(data) {
				if got, err := reader.Load(ctx, id, nil); err != nil || !bytes.Equal(got, chunks[i]) {
					t.Fatalf("chunk %d of a FrameReader: %v", i, err)
				}
			}
			if _, added := save(t, reopen(t, st), chunks...); added.Chunks != 0 {
				t.Errorf("%d chunks were stored again", added.Chunks)
			}
		}
		var problems []string
		checker := reopen(t, st)
		c, err := checker.Check(ctx, CheckOptions{Select: EveryPack}, marker(checker), func(err error) { problems = append(problems, err.Error()) })
		if err != nil || len(c.Healable) != len(packs) || len(c.Lost) != 0 || len(problems) != len(packs) {
			t.Errorf("%d packs; a check finds %+v, %v: %q", len(packs), c, err, problems)
		}
		for _, p := range problems {
			if !strings.Contains(p, "sectors are bad; its parity makes up for that") {
				t.Error(p)
			}
		}
		if t.Failed() {
			return
		}
		healed += len(packs)
	}
	t.Logf("%d repositories with bad sectors in every pack, %d packs together, read back whole", rounds, healed)
}

// What prune rewrites is healed on the way, and has parity again.
func TestPruneHeals(t *testing.T) {
	ctx := t.Context()
	random := rand.New(rand.NewPCG(1, 1))
	r, st := newParity(t, 5)
	chunks := someChunks(70, 60)
	gone, _ := save(t, r, chunks...)
	kept, _ := save(t, r, chunks[10:20]...)
	if err := r.DeleteRecord(ctx, gone); err != nil {
		t.Fatal(err)
	}
	for name, n := range packNames(t, st) {
		harmSectors(t, st, name, random, min(1, n-1)) // the directory reads well
	}
	r = reopen(t, st)
	for range 2 { // the second one removes what nobody can be relying on any more
		if _, err := r.Prune(ctx, PruneOptions{MaxUnused: func(int64) int64 { return 0 }}, marker(r)); err != nil {
			t.Fatal(err)
		}
	}
	verify(t, reopen(t, st), kept, chunks[10:20]...)
	c, err := r.Check(ctx, CheckOptions{Select: EveryPack}, marker(r), func(err error) { t.Error(err) })
	if err != nil || c.UnreferredChunks != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	for name := range packNames(t, st) {
		if err := pack.VerifyParity(object(t, st, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// More bad sectors than a group has parity are an error that says so, and never wrong bytes; what is elsewhere is read.
func TestTooManyDamagedSectors(t *testing.T) {
	ctx := t.Context()
	for _, lose := range []bool{false, true} {
		r, st := newParity(t, 1) // two sectors
		chunks := someChunks(71, 60)
		record, _ := save(t, r, chunks...)
		data, err := r.Record(ctx, record)
		if err != nil {
			t.Fatal(err)
		}
		name := names(t, st, "packs/")[0]
		whole := object(t, st.Storage, name)
		for n := 1; n <= 3; n++ {
			if lose {
				st.Lose(name, n)
			} else {
				clear(whole[n*sectorBytes:][:100])
			}
		}
		if err := st.Storage.Put(ctx, name, whole); err != nil {
			t.Fatal(err)
		}
		good, bad := 0, 0
		for _, r := range []*Repository{r, reopen(t, st)} {
			for i, id := range decodeList(data) {
				got, err := r.Load(ctx, id, nil)
				var damaged *DamagedError
				switch {
				case err == nil && bytes.Equal(got, chunks[i]):
					good++
				case err == nil || !errors.As(err, &damaged) || !strings.Contains(err.Error(), "its parity does not make up for that: 3 sectors of group 0"):
					t.Fatalf("chunk %d: %v", i, err)
				default:
					bad++
				}
			}
		}
		if good == 0 || bad == 0 {
			t.Errorf("%d chunks are read, and %d are not", good, bad)
		}
		c, err := r.Check(ctx, CheckOptions{Select: EveryPack}, marker(r), func(err error) {
			if !strings.Contains(err.Error(), "does not make up for that") {
				t.Error(err)
			}
		})
		if err != nil || len(c.Healable) != 0 || len(c.Lost) != bad/2 || c.Problems == 0 {
			t.Errorf("%+v, %v, and %d chunks cannot be read", c, err, bad/2)
		}
	}
}

// A pack that was healed is the one that was stored, byte for byte, also when it has lost its end.
func TestHealPack(t *testing.T) {
	ctx := t.Context()
	r, st := newParity(t, 5)
	chunks := someChunks(72, 40)
	record, _ := save(t, r, chunks...)
	for name := range packNames(t, st) {
		whole := object(t, st, name)
		for what, damaged := range map[string][]byte{
			"cut":      whole[:len(whole)-5000],
			"longer":   append(bytes.Clone(whole), 1, 2, 3),
			"no head":  append(make([]byte, 2*sectorBytes), whole[2*sectorBytes:]...),
			"a bit":    append([]byte{whole[0] ^ 1}, whole[1:]...),
			"no table": nil,
			"whole":    whole,
			"missing":  nil,
		} {
			damaged = bytes.Clone(damaged)
			if what == "no table" {
				damaged = bytes.ReplaceAll(whole, []byte("VARVHEAL"), []byte("varvheal"))
			}
			id, err := ParseID(name[strings.LastIndexByte(name, '/')+1:])
			if err == nil {
				err = st.Put(ctx, name, damaged)
			}
			if what == "missing" {
				err = st.Delete(ctx, name)
			}
			if err != nil {
				t.Fatal(err)
			}
			other := reopen(t, st)
			size := int64(len(damaged))
			if what == "missing" {
				size = int64(len(whole))
			}
			p, err := other.healPack(ctx, id, size)
			switch what {
			case "missing":
				if !errors.Is(err, storage.ErrNotExist) {
					t.Errorf("%s: %v", what, err)
				}
			case "no table":
				if !errors.Is(err, pack.ErrNoParity) {
					t.Errorf("%s: %v", what, err)
				}
			default:
				if err != nil || !bytes.Equal(p.data, whole) || (p.harm == "") != (what == "whole") {
					t.Fatalf("%s: %v", what, err)
				}
				verify(t, other, record, chunks...)
			}
			if err := st.Put(ctx, name, whole); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The packs that are kept in memory are the newest, and bounded.
func TestHealedPacksAreBounded(t *testing.T) {
	var h healer
	for i := range byte(10) {
		h.keep(&healedPack{id: ID{i}, data: make([]byte, healedBytes/3)})
	}
	for i := range byte(10) {
		if kept := h.find(ID{i}) != nil; kept != (i >= 7) {
			t.Errorf("pack %d of 10: kept is %v", i, kept)
		}
	}
	h.keep(&healedPack{id: ID{99}, data: make([]byte, healedBytes+1)})
	if n := len(*h.kept.Load()); n != 1 || h.find(ID{99}) == nil {
		t.Errorf("%d packs are kept beside a large one", n)
	}
}

// A storage that answers no more is not taken for a pack with bad sectors.
func TestStorageThatIsGone(t *testing.T) {
	ctx := t.Context()
	r, sectors := newParity(t, 5)
	save(t, r, someChunks(73, 40)...)
	st := storagetest.NewFaulty(sectors)
	other := reopen(t, st)
	st.Fail(storagetest.Fault{Ops: storagetest.Get, Prefix: "packs/", Times: -1})
	for name, n := range packNames(t, sectors) {
		id, err := ParseID(name[strings.LastIndexByte(name, '/')+1:])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.healPack(ctx, id, int64(n*sectorBytes)); !errors.Is(err, storagetest.ErrFault) {
			t.Errorf("%v", err)
		}
	}
	st.Heal()
	c, err := other.Check(ctx, CheckOptions{Select: EveryPack}, marker(other), func(err error) { t.Error(err) })
	if err != nil || c.Problems != 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

// With parity a record is there twice: either may be damaged, lost or unreadable, and a removal removes both.
func TestRecordCopy(t *testing.T) {
	ctx := t.Context()
	r, st := newParity(t, 5)
	chunks := someChunks(75, 3)
	record, _ := save(t, r, chunks...)
	for _, name := range []string{recordName(record), recordCopy(record)} {
		whole := object(t, st, name)
		for what, harm := range map[string]func() error{
			"a bit":   func() error { return st.Put(ctx, name, append([]byte{whole[0] ^ 1}, whole[1:]...)) },
			"sector":  func() error { st.Lose(name, 0); return nil },
			"missing": func() error { return st.Delete(ctx, name) },
		} {
			if err := harm(); err != nil {
				t.Fatal(err)
			}
			other := reopen(t, st)
			if ids, err := other.Records(ctx); err != nil || len(ids) != 1 || ids[0] != record {
				t.Fatalf("%s of %s: records %v, %v", what, name, ids, err)
			}
			verify(t, other, record, chunks...)
			c, err := other.Check(ctx, CheckOptions{}, marker(other), func(error) {})
			if err != nil || c.Problems != 1 && (what != "missing" || name == recordName(record)) {
				t.Errorf("%s of %s: a check finds %d problems, %v", what, name, c.Problems, err)
			}
			made, err := other.RepairConfig(ctx, true, func(err error) { t.Error(err) })
			if err != nil || len(made) != 1 || made[0] != name {
				t.Errorf("%s of %s: a repair would make %v, %v", what, name, made, err)
			}
			if what == "missing" {
				if err := other.DeleteRecord(ctx, record); err != nil {
					t.Errorf("%s of %s: %v", what, name, err)
				}
				if left := names(t, st, "snapshots/"); len(left) != 0 {
					t.Errorf("%s of %s: %v is left", what, name, left)
				}
			}
			for i, name := range []string{recordName(record), recordCopy(record)} {
				if what != "missing" {
					if _, err := other.RepairConfig(ctx, false, func(err error) { t.Error(err) }); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(object(t, st, name), whole) {
						t.Errorf("%s of copy %d: it was not repaired", what, i)
					}
				} else if err := st.Put(ctx, name, whole); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := r.DeleteRecord(ctx, record); err != nil {
		t.Fatal(err)
	}
	if err := r.DeleteRecord(ctx, record); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if left := names(t, st, "snapshots/"); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}

// A record of which the copy cannot be stored is none.
func TestRecordWithoutItsCopy(t *testing.T) {
	ctx := t.Context()
	_, sectors := newParity(t, 5)
	for n := 1; n <= 2; n++ {
		st := storagetest.NewFaulty(sectors)
		r := reopen(t, st)
		st.Fail(storagetest.Fault{Ops: storagetest.Put, Prefix: "snapshots/", Nth: n, How: storagetest.After})
		if _, err := r.putRecord(ctx, []byte("x")); err == nil || st.Fired() != 1 {
			t.Errorf("put %d failed, and the record was stored: %v", n, err)
		}
		if left := names(t, sectors, "snapshots/"); len(left) != 0 {
			t.Errorf("put %d failed, and %v is left", n, left)
		}
	}
}

// Parity that is not what it should be keeps a pack from being stored, as anything else in it does.
func TestParityIsVerifiedBeforeItIsStored(t *testing.T) {
	r, st := newParity(t, 5)
	save(t, r, someChunks(74, 20)...)
	for name := range packNames(t, st) {
		data := object(t, st, name)
		dir, err := pack.ReadDirectory(r.secrets.pack, bytes.NewReader(data), int64(len(data)))
		if err != nil || r.verifyPack(data, dir, nil) != nil {
			t.Fatalf("%v, %v", err, r.verifyPack(data, dir, nil))
		}
		last := dir.Frames[len(dir.Frames)-1]
		data[int(last.Offset+last.Stored)+dir.Parity/2] ^= 1
		if r.verifyPack(data, dir, nil) == nil {
			t.Error("a flipped bit of the parity is not found")
		}
	}
}

// Settings that ask for what no pack can have make no repository.
func TestParityOutOfBounds(t *testing.T) {
	for _, percent := range []int{-1, pack.MaxParity + 1} {
		if _, err := Init(t.Context(), storage.NewMemory(), options(t), testKDF, Settings{Parity: percent}); err == nil {
			t.Errorf("a repository with %d %% of parity was made", percent)
		}
	}
}
