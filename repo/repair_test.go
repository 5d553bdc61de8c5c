package repo

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"varve/repo/storage"
	"varve/repo/storage/storagetest"
)

// wreck is a repository that is about to be damaged: packs with several frames each, chunks and tree nodes, and the cache
// of the machine that made it.
type wreck struct {
	st    *storagetest.Sectors
	cache string
	known map[ID][]byte
	packs []string
}

func newWreck(t *testing.T) *wreck {
	t.Helper()
	memory := storage.NewMemory()
	p := &past{st: memory, cache: t.TempDir(), told: map[ID][][]byte{}, doomed: map[ID]struct{}{}, blocks: map[string]string{}}
	for _, s := range life[:3] {
		if err := s.run(t.Context(), memory, p); err != nil {
			t.Fatal(err)
		}
	}
	w := &wreck{st: storagetest.NewSectors(memory), cache: p.cache, known: map[ID][]byte{}, packs: names(t, memory, "packs/")}
	hash := reopen(t, memory).Hasher()
	for _, chunk := range lifeChunks {
		w.known[hash(chunk)] = chunk
	}
	slices.Sort(w.packs)
	return w
}

// clone returns a copy that shares nothing, what is lost of the medium included.
func (w *wreck) clone(t *testing.T, harm func(t *testing.T, w *wreck)) *wreck {
	t.Helper()
	memory := storage.NewMemory()
	for _, name := range names(t, w.st, "") {
		if err := memory.Put(t.Context(), name, bytes.Clone(object(t, w.st, name))); err != nil {
			t.Fatal(err)
		}
	}
	c := *w
	c.st = storagetest.NewSectors(memory)
	harm(t, &c)
	return &c
}

// open opens it as a process on the machine that made it, or on another one.
func (w *wreck) open(t *testing.T, st storage.Storage, same bool) *Repository {
	t.Helper()
	o := Options{Password: []byte("secret"), Logf: t.Logf} // with an index in memory
	if same {
		o.CacheDir = t.TempDir()
		if err := os.CopyFS(o.CacheDir, os.DirFS(w.cache)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open(t.Context(), st, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	if _, err := r.Unlock(t.Context(), true); err != nil { // who died in this test was this process
		t.Fatal(err)
	}
	return r
}

// readable returns the chunks that can be read. None may be wrong.
func (w *wreck) readable(t *testing.T, same bool) map[ID]struct{} {
	t.Helper()
	r := w.open(t, w.st, same)
	can := map[ID]struct{}{}
	for id, chunk := range w.known {
		got, err := r.Load(t.Context(), id, nil)
		if err == nil && !bytes.Equal(got, chunk) {
			t.Fatal("wrong bytes were read")
		}
		if err == nil {
			can[id] = struct{}{}
		}
	}
	return can
}

func (w *wreck) put(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := w.st.Put(t.Context(), name, data); err != nil {
		t.Fatal(err)
	}
}

// frames returns the directory of a pack that is whole.
func (w *wreck) frames(t *testing.T, name string) (id ID, starts []int) {
	t.Helper()
	id, err := ParseID(name[strings.LastIndexByte(name, '/')+1:])
	if err != nil {
		t.Fatal(err)
	}
	dir, err := reopen(t, w.st).readDirectory(t.Context(), id, int64(len(object(t, w.st, name))))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range dir.Frames {
		starts = append(starts, int(f.Offset))
	}
	return id, starts
}

// largest returns a pack with several frames.
func (w *wreck) largest(t *testing.T) string {
	return slices.MaxFunc(w.packs, func(a, b string) int { return len(object(t, w.st, a)) - len(object(t, w.st, b)) })
}

func cut(n func(size int) int) func(t *testing.T, w *wreck) {
	return func(t *testing.T, w *wreck) {
		name := w.largest(t)
		data := object(t, w.st, name)
		w.put(t, name, bytes.Clone(data[:n(len(data))]))
	}
}

// harms are the ways in which packs are damaged here.
var harms = map[string]func(t *testing.T, w *wreck){
	"a frame is flipped": func(t *testing.T, w *wreck) {
		name := w.largest(t)
		_, starts := w.frames(t, name)
		flipIn(t, w.st, name, starts[1]+50)
	},
	"every pack has a flipped frame": func(t *testing.T, w *wreck) {
		for _, name := range w.packs {
			flipIn(t, w.st, name, 200)
		}
	},
	"the directory is flipped": func(t *testing.T, w *wreck) {
		name := w.largest(t)
		flipIn(t, w.st, name, len(object(t, w.st, name))-30)
	},
	"the header is flipped": func(t *testing.T, w *wreck) { flipIn(t, w.st, w.largest(t), 20) },
	"the end is cut off":    cut(func(size int) int { return size - 100 }),
	"half is cut off":       cut(func(size int) int { return size / 2 }),
	"it is empty":           cut(func(int) int { return 0 }),
	"something stands behind its end": func(t *testing.T, w *wreck) {
		w.put(t, w.largest(t), append(bytes.Clone(object(t, w.st, w.largest(t))), 1, 2, 3))
	},
	"two have changed places": func(t *testing.T, w *wreck) {
		first, second := bytes.Clone(object(t, w.st, w.packs[0])), bytes.Clone(object(t, w.st, w.packs[1]))
		w.put(t, w.packs[0], second)
		w.put(t, w.packs[1], first)
	},
	"one has the bytes of another": func(t *testing.T, w *wreck) {
		w.put(t, w.packs[0], bytes.Clone(object(t, w.st, w.packs[1])))
	},
	"a sector cannot be read": func(t *testing.T, w *wreck) { w.st.Lose(w.largest(t), 3) },
	"one is missing": func(t *testing.T, w *wreck) {
		if err := w.st.Delete(t.Context(), w.largest(t)); err != nil {
			t.Fatal(err)
		}
	},
}

// repair repairs all packs as a process on the machine that made the repository, or on another one.
func (w *wreck) repair(t *testing.T, st storage.Storage, same bool, o RepairOptions) (Repaired, error) {
	t.Helper()
	r := w.open(t, st, same)
	return r.RepairPacks(t.Context(), o, marker(r), func(RepairedPack) {})
}

func (w *wreck) noneLost(t *testing.T, when string, before, after map[ID]struct{}) {
	t.Helper()
	for id := range before {
		if _, still := after[id]; !still {
			t.Errorf("%s: chunk %s could be read before, and not after", when, short(id))
		}
	}
}

// What can be read before a repair can be read after it, wherever it is run; what is lost is what it says; and the next
// backup brings everything back.
func TestRepairPacks(t *testing.T) {
	whole := newWreck(t)
	for what, harm := range harms {
		for _, same := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, on the same machine %v", what, same), func(t *testing.T) {
				w := whole.clone(t, harm)
				before := w.readable(t, same)
				objects := len(names(t, w.st, ""))
				dry, err := w.repair(t, w.st, same, RepairOptions{DryRun: true})
				if err != nil {
					t.Fatal(err)
				}
				if n := len(names(t, w.st, "")) - len(names(t, w.st, "verified/")); n != objects {
					t.Errorf("a dry run leaves %d objects of %d", n, objects)
				}
				result, err := w.repair(t, w.st, same, RepairOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if dry.Damaged != result.Damaged || dry.Saved != result.Saved || dry.Moved != result.Moved || !maps.Equal(dry.Lost, result.Lost) {
					t.Errorf("the dry run said %+v, and then it was %+v", dry, result)
				}
				if missing := what == "one is missing"; (result.Damaged == 0) != missing || len(names(t, w.st, "quarantine/")) != int(result.Moved) {
					t.Errorf("%+v; in quarantine: %v", result, names(t, w.st, "quarantine/"))
				}
				after := w.readable(t, false)
				w.noneLost(t, "the repair", before, after)
				for id := range result.Lost {
					if _, can := after[id]; can {
						t.Errorf("chunk %s is not lost", short(id))
					}
				}
				r := w.open(t, w.st, same)
				c, _ := checked(t, r, CheckOptions{Select: EveryPack})
				if len(c.Damaged) != 0 || len(c.Lost) != len(w.known)-len(after) {
					t.Errorf("a check finds %d damaged packs and %d lost chunks; %d of %d can be read", len(c.Damaged), len(c.Lost), len(after), len(w.known))
				}
				again, err := w.repair(t, w.st, same, RepairOptions{})
				if err != nil || again.Damaged+again.Moved+again.Saved != 0 || len(again.Lost) != 0 {
					t.Errorf("a second repair: %+v, %v", again, err)
				}
				// The same machine still trusts what it knew, until it sees that a pack has gone.
				p := &past{st: w.st.Storage.(*storage.Memory), cache: w.cache, told: map[ID][][]byte{}}
				if !same {
					p.cache = ""
				} else if p.cache = t.TempDir(); os.CopyFS(p.cache, os.DirFS(w.cache)) != nil {
					t.Fatal("no copy of the cache")
				}
				if err := p.session(t.Context(), w.st, lifeChunks); err != nil {
					t.Fatal(err)
				}
				if all := w.readable(t, false); len(all) != len(w.known) {
					t.Errorf("after a backup %d of %d chunks can be read", len(all), len(w.known))
				}
				if c, problems := checked(t, w.open(t, w.st, false), CheckOptions{Select: EveryPack}); len(c.Lost)+len(problems) != 0 {
					t.Errorf("after a backup: %v", problems)
				}
			})
		}
	}
}

// A repair that fails or dies at any of its writes makes nothing worse, and the next one goes on. (What it reads, it may read
// again.)
func TestRepairDiesAnywhere(t *testing.T) {
	whole := newWreck(t)
	for _, what := range []string{"every pack has a flipped frame", "half is cut off", "two have changed places"} {
		same := what == "half is cut off"
		before := whole.clone(t, harms[what]).readable(t, same)
		var want Repaired
		for nth, fired := 1, true; fired; nth++ {
			fired = false
			for _, fault := range []storagetest.Fault{
				{Ops: storagetest.Writes, Nth: nth, How: storagetest.After},             // it was done, and said to have failed
				{Ops: storagetest.Writes, Nth: nth, How: storagetest.Before, Times: -1}, // the process is dead from here on
			} {
				w := whole.clone(t, harms[what])
				faulty := storagetest.NewFaulty(w.st)
				r := w.open(t, faulty, same)
				faulty.Fail(fault)
				_, _ = r.RepairPacks(t.Context(), RepairOptions{}, marker(r), func(RepairedPack) {})
				fired = fired || faulty.Fired() > 0
				w.noneLost(t, fmt.Sprintf("%s, write %d of a repair", what, nth), before, w.readable(t, same))
				result, err := w.repair(t, w.st, same, RepairOptions{})
				if err != nil {
					t.Fatalf("%s, write %d, the repair after that: %v", what, nth, err)
				}
				if nth == 1 {
					want = result
				}
				after := w.readable(t, false)
				w.noneLost(t, fmt.Sprintf("%s, write %d, the repair after that", what, nth), before, after)
				if len(after) != len(w.known)-len(want.Lost) && !same {
					t.Errorf("%s, write %d: %d of %d chunks can be read, %d are lost", what, nth, len(after), len(w.known), len(want.Lost))
				}
			}
			if !fired {
				t.Logf("%s: a repair of %d writes", what, nth-1)
			}
		}
	}
}

// A chunk that is damaged in one pack and whole in another is not lost.
func TestRepairFindsTheSecondCopy(t *testing.T) {
	r, st := newRepository(t)
	chunk := noise(1, 50_000)
	var sessions []*Session
	for range 2 {
		s, err := r.Begin(t.Context(), SessionOptions{Purpose: "test"})
		if err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, s)
	}
	var id ID
	for _, s := range sessions {
		w, err := s.DataWriter()
		if err != nil {
			t.Fatal(err)
		}
		id = w.ID(chunk)
		if _, err := w.Save(t.Context(), id, chunk); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range sessions {
		if _, err := s.Commit(t.Context(), refs{id}.encode()); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	packs := names(t, st, "packs/")
	flipIn(t, st, packs[0], 100)
	again := reopen(t, st)
	result, err := again.RepairPacks(t.Context(), RepairOptions{}, marker(again), func(RepairedPack) {})
	if err != nil || len(packs) != 2 || result.Moved != 1 || result.Elsewhere != 1 || len(result.Lost) != 0 {
		t.Errorf("of %d packs: %+v, %v", len(packs), result, err)
	}
	if got, err := again.Load(t.Context(), id, nil); err != nil || !bytes.Equal(got, chunk) {
		t.Error(err)
	}
}

// A pack with parity is written again under its name.
func TestRepairHeals(t *testing.T) {
	r, st := newParity(t, 10)
	chunks := someChunks(60, 30)
	record, _ := save(t, r, chunks...)
	name := names(t, st, "packs/")[0]
	whole := bytes.Clone(object(t, st, name))
	flipIn(t, st, name, 5000)
	again := reopen(t, st)
	var told []RepairedPack
	result, err := again.RepairPacks(t.Context(), RepairOptions{}, marker(again), func(p RepairedPack) { told = append(told, p) })
	if err != nil || result.Healed != 1 || result.Moved != 0 || len(told) != 1 || !told[0].Healed {
		t.Errorf("%+v, %v, %v", result, told, err)
	}
	if !bytes.Equal(object(t, st, name), whole) {
		t.Error("it is not what it was")
	}
	verify(t, reopen(t, st), record, chunks...)
}

// A pack that cannot be read for a while, or is read with a wrong bit, is not taken for one of which nothing, or less, is left.
func TestRepairOfAPackThatComesAndGoes(t *testing.T) {
	whole := newWreck(t)
	for what, harm := range harms {
		if what != "the directory is flipped" && what != "a frame is flipped" {
			continue
		}
		for _, fault := range []storagetest.Fault{{Times: -1}, {Times: 2, How: storagetest.Flipped}} {
			drop, done := false, false
			for n := 1; !done; n, drop = n+1, !drop {
				w := whole.clone(t, harm)
				name := w.largest(t)
				before := w.readable(t, true)
				faulty := storagetest.NewFaulty(w.st)
				fault.Ops, fault.Prefix, fault.Nth = storagetest.Get, name, n
				faulty.Fail(fault)
				o := RepairOptions{}
				if drop { // named for another pack
					o = RepairOptions{Drop: true, Packs: []string{w.packs[0][strings.LastIndexByte(w.packs[0], '/')+1:]}}
					if w.packs[0] == name {
						o.Packs[0] = w.packs[1][strings.LastIndexByte(w.packs[1], '/')+1:]
					}
				}
				_, _ = w.repair(t, faulty, true, o)
				w.noneLost(t, fmt.Sprintf("%s, %+v, drop %v", what, fault, drop), before, w.readable(t, true))
				done = faulty.Fired() == 0 && !drop
			}
		}
	}
}

// A named pack that is whole stays; a name that nothing has is an error; and what cannot be read at all is left.
func TestRepairNamedPacks(t *testing.T) {
	w := newWreck(t)
	name := w.largest(t)
	hex := name[strings.LastIndexByte(name, '/')+1:]
	before := names(t, w.st, "packs/")
	if result, err := w.repair(t, w.st, true, RepairOptions{Packs: []string{hex[:12]}}); err != nil || result.Damaged != 0 || result.Packs != 1 {
		t.Errorf("%+v, %v", result, err)
	}
	if _, err := w.repair(t, w.st, true, RepairOptions{Packs: []string{"zz"}}); err == nil {
		t.Error("a pack was repaired that is not there")
	}
	for i := range len(object(t, w.st, name))/4096 + 1 {
		w.st.Lose(name, i)
	}
	result, err := w.repair(t, w.st, false, RepairOptions{})
	if err != nil || result.Left != 1 || result.Moved != 0 || len(names(t, w.st, "packs/")) != len(before) {
		t.Errorf("%+v, %v", result, err)
	}
	if _, err := w.repair(t, w.st, false, RepairOptions{Drop: true}); err == nil {
		t.Error("packs were to be removed that nobody has named")
	}
	// The index knows what was in it: that is lost, and said to be.
	for _, dryRun := range []bool{true, false} {
		result, err = w.repair(t, w.st, true, RepairOptions{Drop: true, DryRun: dryRun, Packs: []string{hex[:12]}})
		left := len(names(t, w.st, "packs/"))
		if err != nil || result.Gone != 1 || result.Moved != 0 || len(result.Lost) == 0 || (left == len(before)) != dryRun {
			t.Errorf("dry run %v: %+v, %v; %d packs", dryRun, result, err, left)
		}
	}
	// A backup from another machine stores again what it cannot see.
	p := &past{st: w.st.Storage.(*storage.Memory), told: map[ID][][]byte{}}
	if err := p.session(t.Context(), w.st, lifeChunks); err != nil {
		t.Fatal(err)
	}
	if all := w.readable(t, false); len(all) != len(w.known) {
		t.Errorf("after a backup %d of %d chunks can be read", len(all), len(w.known))
	}
}
