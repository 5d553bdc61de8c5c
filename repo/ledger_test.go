package repo

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"maps"
	"testing"
	"time"

	"varve/repo/storage"
)

func checked(t *testing.T, r *Repository, o CheckOptions) (Checked, []error) {
	t.Helper()
	var problems []error
	result, err := r.Check(t.Context(), o, marker(r), func(err error) { problems = append(problems, err) })
	if err != nil {
		t.Fatal(err)
	}
	return result, problems
}

// What a check has read in full, a later one knows, in another process too; and what has gone or is damaged it forgets.
func TestLedger(t *testing.T) {
	r, st := newRepository(t)
	for i := range uint64(4) {
		save(t, r, someChunks(20+i, 10)...)
	}
	if c, _ := checked(t, r, CheckOptions{}); c.NeverRead != c.Packs || !c.Oldest.IsZero() || len(names(t, st, "verified/")) != 0 {
		t.Errorf("before anything was read: %+v", c)
	}
	start := time.Now().Truncate(time.Second)
	half := func(packs []StoredPack) []StoredPack { return packs[:len(packs)/2] }
	c, _ := checked(t, r, CheckOptions{Select: half})
	if c.ReadPacks != c.Packs/2 || c.NeverRead != c.Packs-c.ReadPacks || c.Oldest.Before(start) || c.Oldest.After(time.Now()) {
		t.Errorf("after half was read: %+v", c)
	}
	read := map[ID]bool{}
	again := reopen(t, st)
	checked(t, again, CheckOptions{Select: func(packs []StoredPack) []StoredPack {
		for i, p := range packs {
			read[p.ID] = !p.Verified.IsZero()
			if read[p.ID] != (i < len(packs)/2) {
				t.Errorf("pack %d of %d was read: %v", i, len(packs), read[p.ID])
			}
		}
		return packs[1:]
	}})
	if c, _ := checked(t, again, CheckOptions{}); c.NeverRead != 0 {
		t.Errorf("%d packs were never read", c.NeverRead)
	}
	if n := len(names(t, st, "verified/")); n != 1 {
		t.Errorf("there are %d ledgers", n)
	}

	packs := names(t, st, "packs/")
	flipIn(t, st, packs[0], 100)
	if err := st.Delete(t.Context(), packs[1]); err != nil {
		t.Fatal(err)
	}
	c, problems := checked(t, again, CheckOptions{Select: EveryPack})
	if len(problems) == 0 || len(c.Damaged) != 1 || packName(c.Damaged[0]) != packs[0] || c.NeverRead != 1 {
		t.Errorf("%v; %+v", problems, c)
	}
	known, _, err := again.readLedger(t.Context())
	if err != nil || len(known) != len(packs)-2 {
		t.Errorf("the ledger has %d of %d packs, %v", len(known), len(packs)-2, err)
	}
}

// flipIn flips a bit of an object.
func flipIn(t *testing.T, st storage.Storage, name string, at int) {
	t.Helper()
	data := bytes.Clone(object(t, st, name))
	data[at] ^= 1
	if err := st.Put(t.Context(), name, data); err != nil {
		t.Fatal(err)
	}
}

// A ledger that is damaged, of another repository or full of lies costs nothing but the reading.
func TestLedgerIsNotRelied(t *testing.T) {
	ctx := t.Context()
	r, st := newRepository(t)
	save(t, r, someChunks(30, 10)...)
	checked(t, r, CheckOptions{Select: EveryPack})
	name := names(t, st, "verified/")[0]
	whole := object(t, st, name)
	for i := range whole {
		data := bytes.Clone(whole)
		data[i] ^= 0x10
		if _, err := r.parseLedger(name, data); err == nil {
			t.Fatalf("with byte %d flipped it is read", i)
		}
		if _, err := r.parseLedger(name, whole[:i]); err == nil {
			t.Fatalf("cut off at %d it is read", i)
		}
	}
	flipIn(t, st, name, 50)
	told := 0
	r.options.Logf = func(string, ...any) { told++ }
	if c, problems := checked(t, r, CheckOptions{}); c.NeverRead != c.Packs || len(problems) != 0 || told == 0 {
		t.Errorf("with a damaged ledger: %+v, %v, %d notes", c, problems, told)
	}
	checked(t, r, CheckOptions{Select: EveryPack})
	if c, _ := checked(t, reopen(t, st), CheckOptions{}); c.NeverRead != 0 || len(names(t, st, "verified/")) != 1 {
		t.Errorf("it was not replaced: %+v", c)
	}
	// A clock that ran ahead.
	future := ledger{{1}: time.Now().Add(48 * time.Hour), {2}: time.Now()}
	r.writeLedger(ctx, future, names(t, st, "verified/"))
	if known, _, err := r.readLedger(ctx); err != nil || len(known) != 1 {
		t.Errorf("%v, %v", known, err)
	}
}

// The reading ends with the time, and says what is left; the next check goes on where it ended.
func TestCheckEndsWithTheTime(t *testing.T) {
	memory, st := newRepository(t)
	for i := range uint64(5) {
		save(t, memory, someChunks(40+i, 10)...)
	}
	r := reopen(t, slow{st})
	all := len(names(t, st, "packs/"))
	seen := 0
	for round := 0; seen < all; round++ {
		if round > all {
			t.Fatal("no end")
		}
		c, problems := checked(t, r, CheckOptions{Select: func(packs []StoredPack) (chosen []StoredPack) {
			for _, p := range packs {
				if p.Verified.IsZero() {
					chosen = append(chosen, p)
				}
			}
			return chosen
		}, MaxDuration: 15 * time.Millisecond})
		if c.ReadPacks == 0 || int(c.ReadPacks+c.LeftPacks)+seen != all || len(problems) != 0 || (c.LeftPacks == 0) != (c.LeftBytes == 0) {
			t.Fatalf("round %d, %d of %d before: %+v %v", round, seen, all, c, problems)
		}
		seen += int(c.ReadPacks)
		if c.NeverRead != int64(all-seen) {
			t.Errorf("%d were never read, and %d of %d were", c.NeverRead, seen, all)
		}
	}
}

// slow takes its time to read whole packs.
type slow struct{ storage.Storage }

func (s slow) Get(ctx context.Context, name string, offset, length int64, buf []byte) ([]byte, error) {
	if length < 0 && name[:5] == "packs" {
		time.Sleep(10 * time.Millisecond)
	}
	return s.Storage.Get(ctx, name, offset, length, buf)
}

// One wrong reading is no damage; and a pack that can be read in pieces only loses what does not read.
func TestReadAgain(t *testing.T) {
	memory, st := newRepository(t)
	record, _ := save(t, memory, someChunks(50, 60)...)
	verify(t, memory, record, someChunks(50, 60)...)
	for times := 1; times <= readings; times++ {
		for _, err := range []error{nil, errSector} {
			r := reopen(t, &unsteady{Storage: st, times: times, err: err})
			c, problems := checked(t, r, CheckOptions{Select: EveryPack})
			if whole := times < readings; (len(problems) == 0) != whole || (len(c.Damaged) == 0) != whole {
				t.Errorf("with %d bad readings (%v): %v", times, err, problems)
			}
		}
	}
	// An unreadable sector.
	pack := names(t, st, "packs/")[0]
	if data := names(t, st, "packs/")[1]; len(object(t, st, data)) > len(object(t, st, pack)) {
		pack = data
	}
	r := reopen(t, sector{st, pack, 70_000})
	c, problems := checked(t, r, CheckOptions{Select: EveryPack})
	if len(c.Damaged) != 1 || packName(c.Damaged[0]) != pack || len(c.Lost) == 0 || int64(len(c.Lost)) == c.Chunks {
		t.Errorf("%v: lost %d of %d chunks, %v", c.Damaged, len(c.Lost), c.Chunks, problems)
	}
	if !errors.Is(problems[0], errSector) && !bytes.Contains([]byte(problems[0].Error()), []byte(errSector.Error())) {
		t.Error(problems)
	}
}

// unsteady is a storage of which the first whole readings of packs fail, or give wrong bytes when err is nil.
type unsteady struct {
	storage.Storage
	times int
	err   error
}

func (u *unsteady) Get(ctx context.Context, name string, offset, length int64, buf []byte) ([]byte, error) {
	data, err := u.Storage.Get(ctx, name, offset, length, buf)
	if err == nil && length < 0 && name[:5] == "packs" && u.times > 0 {
		u.times--
		data[len(data)/2] ^= 1
		err = u.err
	}
	return data, err
}

var errSector = errors.New("a sector that cannot be read")

// sector is a storage of which one object has one byte that nobody can read.
type sector struct {
	storage.Storage
	name string
	at   int64
}

func (s sector) Get(ctx context.Context, name string, offset, length int64, buf []byte) ([]byte, error) {
	if name == s.name && offset <= s.at && (length < 0 || offset+length > s.at) {
		return nil, errSector
	}
	return s.Storage.Get(ctx, name, offset, length, buf)
}

// A ledger that was written once can always be read.
func TestGoldenLedger(t *testing.T) {
	r, st := goldenRepository(t)
	known, found, err := r.readLedger(t.Context())
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := ledger{{1, 2, 3}: created, {4, 5, 6}: created.Add(time.Hour)}
	if err != nil || len(found) != 1 || !maps.EqualFunc(known, want, time.Time.Equal) {
		t.Errorf("%v, %v, %v", known, found, err)
	}
	if len(found) == 1 && found[0] != "verified/"+sumOf(object(t, st, found[0])) {
		t.Errorf("%s has another hash", found[0])
	}
	const encoded = "01" + "0102030000000000000000000000000000000000000000000000000000000000" + "00000000695735a5" +
		"0405060000000000000000000000000000000000000000000000000000000000" + "00000000695743b5"
	if got := hex.EncodeToString(want.encode()); got != encoded {
		t.Errorf("it is encoded as %s", got)
	}
}

func FuzzLedger(f *testing.F) {
	r, _ := goldenRepository(f)
	f.Add(ledger{{1}: time.Unix(1, 0), {2}: time.Unix(1<<40, 0)}.encode())
	f.Add([]byte{})
	f.Add([]byte{ledgerVersion})
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := r.parseLedger("verified/raw", data); err == nil {
			t.Error("a ledger was read that nobody has sealed")
		}
		l, err := decodeLedger(data)
		if err != nil {
			return
		}
		again, err := decodeLedger(l.encode())
		if err != nil || !maps.EqualFunc(l, again, time.Time.Equal) {
			t.Errorf("%v, then %v, %v", l, again, err)
		}
	})
}
