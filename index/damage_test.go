package index

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dgraph-io/badger/v4"
)

// leave closes an index and makes its state say how it was left.
func leave(t testing.TB, x *Index, left string) {
	t.Helper()
	x.Close()
	edit(t, x.slot.dir, func(st *state) {
		if left == open {
			st.Checked = 0
		}
		st.Left = left
	})
}

// edit changes the state of a slot that nobody uses.
func edit(t testing.TB, dir string, f func(*state)) {
	t.Helper()
	s, err := takeSlot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.lock.Close()
	st := s.state
	f(&st)
	if err := s.set(st); err != nil {
		t.Fatal(err)
	}
}

// filled makes a closed index with a few packs.
func filled(t testing.TB) (dir string) {
	t.Helper()
	dir = t.TempDir()
	x := mustOpen(t, dir)
	for n := range 3 {
		p, entries := testPack(n, 200)
		mustAdd(t, x, p, entries)
	}
	x.Close()
	return dir
}

// mustHold opens the index, checks that it is complete or empty, and that it works.
func mustHold(t testing.TB, dir string, complete bool) {
	t.Helper()
	x := mustOpen(t, dir)
	defer x.Close()
	for n := range 3 {
		p, entries := testPack(n, 200)
		if complete {
			mustFind(t, x, p, entries)
		} else {
			mustMiss(t, x, entries)
		}
	}
	if known := len(x.Known()); complete != (known == 3) {
		t.Fatalf("%d packs are known", known)
	}
	p, entries := testPack(9, 50)
	mustAdd(t, x, p, entries)
	mustFind(t, x, p, entries)
	if dirs, _ := filepath.Glob(filepath.Join(dir, "0", "g*")); len(dirs) != 1 {
		t.Fatalf("generations on disk: %v", dirs)
	}
}

func TestHowItWasLeft(t *testing.T) {
	for _, c := range []struct {
		left     string
		complete bool
	}{{closed, true}, {open, true}, {opening, true}, {again, false}, {"", false}, {"sideways", false}} {
		dir := filled(t)
		edit(t, filepath.Join(dir, "0"), func(st *state) { st.Left, st.Checked = c.left, 0 })
		mustHold(t, dir, c.complete)
	}
}

func TestCurrentThatSaysNothing(t *testing.T) {
	for _, text := range []string{"", "{", "null", "[]", `{"generation":-3,"left":"closed"}`,
		`{"generation":9223372036854775807,"left":"closed"}`, `{"generation":0,"left":"closed"}`, "\x00\x00\x00\x00"} {
		dir := filled(t)
		if err := os.WriteFile(filepath.Join(dir, "0", "CURRENT"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		mustHold(t, dir, false)
	}
	dir := filled(t)
	if err := os.Remove(filepath.Join(dir, "0", "CURRENT")); err != nil {
		t.Fatal(err)
	}
	mustHold(t, dir, false)
}

// A process killed while Badger makes a log leaves it empty; Badger then refuses to open once.
func TestEmptyLogFiles(t *testing.T) {
	for _, name := range []string{"000002.vlog", "00002.mem"} {
		dir := filled(t)
		if err := os.WriteFile(filepath.Join(dir, "0", "g1", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		edit(t, filepath.Join(dir, "0"), func(st *state) { st.Left = open })
		mustHold(t, dir, true)
	}
}

// raw changes the database of a closed index behind its back.
func raw(t *testing.T, dir string, f func(*database)) {
	t.Helper()
	db, err := openDatabase(filepath.Join(dir, "0", "g1"), false, false, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	f(db)
	if err := db.close(); err != nil {
		t.Fatal(err)
	}
}

// Entries without a seal are not found, and their ordinal is not given to another pack.
func TestPackWithoutSeal(t *testing.T) {
	for _, left := range []string{open, closed} {
		dir := filled(t)
		p, entries := testPack(5, 10)
		var n uint32
		raw(t, dir, func(db *database) {
			last, err := db.last()
			if err != nil {
				t.Fatal(err)
			}
			n = last + 1
			if err := db.putEntries(n, entries); err != nil {
				t.Fatal(err)
			}
		})
		edit(t, filepath.Join(dir, "0"), func(st *state) { st.Left = left })
		x := mustOpen(t, dir)
		mustMiss(t, x, entries)
		other, others := testPack(6, 10)
		mustAdd(t, x, other, others)
		mustMiss(t, x, entries)
		mustFind(t, x, other, others)
		if got := x.Known()[other.ID]; got <= n {
			t.Fatalf("ordinal %d after %d was used", got, n)
		}
		mustAdd(t, x, p, entries)
		mustFind(t, x, p, entries)
		mustFind(t, x, other, others)
		leave(t, x, open)
		x = mustOpen(t, dir)
		mustFind(t, x, p, entries)
		mustFind(t, x, other, others)
	}
}

// A seal whose entries are missing costs the generation, if they could have been lost since the last proper close.
func TestSealWithoutItsEntries(t *testing.T) {
	p, entries := testPack(5, 10)
	for _, c := range []struct {
		name string
		seal func() seal
		left string
		kept bool
	}{
		{"one entry too few", func() seal { _, s := sealOf(p, entries); return s }, open, false},
		{"another id", func() seal { _, s := sealOf(p, entries[:9]); s.xor[7] ^= 1; return s }, open, false},
		{"checked before", func() seal { _, s := sealOf(p, entries); return s }, closed, true},
		{"complete", func() seal { _, s := sealOf(p, entries[:9]); return s }, open, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filled(t)
			raw(t, dir, func(db *database) {
				last, err := db.last()
				if err == nil {
					err = db.add(last+1, c.seal(), entries[:9])
				}
				if err != nil {
					t.Fatal(err)
				}
			})
			edit(t, filepath.Join(dir, "0"), func(st *state) { st.Left = c.left })
			x := mustOpen(t, dir)
			if kept := len(x.Known()) == 4; kept != c.kept {
				t.Fatalf("the generation was kept: %v", kept)
			}
		})
	}
}

// A damaged entry is a miss, an older place of the chunk still answers, and the next Open looks closely.
func TestDamagedEntry(t *testing.T) {
	dir := filled(t)
	raw(t, dir, func(db *database) {
		// A second version of two chunks, under the ordinal of a live pack that has them not.
		for i, flip := range []int{0, 15} {
			e := testEntry(0, i)
			key, value := make([]byte, chunkKeys), make([]byte, entrySize)
			putChunkKey(key, &e.ID)
			putEntry(value, key, 3, &e)
			value[flip] ^= 0x10
			batch := db.badger.NewWriteBatchAt(3)
			if err := batch.SetEntry(badger.NewEntry(key, value)); err != nil {
				t.Fatal(err)
			}
			if err := batch.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	})
	x := mustOpen(t, dir)
	p, entries := testPack(0, 200)
	mustFind(t, x, p, entries)
	if !x.damaged.Load() {
		t.Fatal("nothing was noticed")
	}
	x.Close()
	if x.slot.state.Left != open {
		t.Fatalf("left %q", x.slot.state.Left)
	}
	edit(t, filepath.Join(dir, "0"), func(st *state) { st.Checked = 0 })
	mustHold(t, dir, false)
}

func TestDamagedRecords(t *testing.T) {
	for name, r := range map[string]struct{ key, stored []byte }{
		"checksum":  {trustKey(id("root", 1)), []byte{1, 2, 3, 4}},
		"too short": {trustKey(id("root", 1)), []byte{1}},
		"unknown":   {recordKey('?', ID{}), record{recordKey('?', ID{}), nil}.sealed(9)},
		"key":       {trustKey(ID{})[:20], record{trustKey(ID{})[:20], nil}.sealed(9)},
		"value":     {sealKey(ID{}), record{sealKey(ID{}), []byte{1}}.sealed(9)},
		"bare":      {[]byte{recordPrefix}, []byte{1, 2, 3, 4, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filled(t)
			raw(t, dir, func(db *database) {
				batch := db.badger.NewWriteBatchAt(9)
				if err := batch.Set(r.key, r.stored); err != nil {
					t.Fatal(err)
				}
				if err := batch.Flush(); err != nil {
					t.Fatal(err)
				}
			})
			mustHold(t, dir, false)
		})
	}
}

// Commit numbers come from the files; one that was never given out is damage, not a size.
func TestCommitNumberOutOfRange(t *testing.T) {
	dir := filled(t)
	raw(t, dir, func(db *database) {
		batch := db.badger.NewWriteBatchAt(1 << 40)
		r := record{key: trustKey(ID{})}
		if err := batch.Set(r.key, r.sealed(1<<40)); err != nil {
			t.Fatal(err)
		}
		if err := batch.Flush(); err != nil {
			t.Fatal(err)
		}
	})
	mustHold(t, dir, false)
}
