package snapshot

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"varve/image"
	"varve/repo"
)

// The tests in this file harm every object of a real repository in every way that a disk or an enemy has, and ask each
// time what a user would: does the check find it and name it, and is every byte that is restored the right one? Some bits
// and lengths of each part of each object are tried; with TORTURE=1 in the environment every bit of the small objects, and
// more of the packs.

// torture reports whether there is time to try more.
func torture() bool { return os.Getenv("TORTURE") != "" }

// Kinds of objects.
const (
	kindConfig = "config"
	kindKey    = "key slot"
	kindRecord = "record"
	kindData   = "pack of chunks"
	kindTree   = "pack of tree nodes"
)

// kind returns what an object is. A pack says it in clear.
func kind(name string, data []byte) string {
	switch folder, _, _ := strings.Cut(name, "/"); {
	case folder == "keys":
		return kindKey
	case folder == "snapshots":
		return kindRecord
	case folder == "packs" && data[10] == 2:
		return kindTree
	case folder == "packs":
		return kindData
	}
	return kindConfig
}

// harm puts other bytes in the place of an object, looks, and puts the right ones back.
func (v *victim) harm(t *testing.T, what, name string, data []byte) {
	t.Helper()
	if err := v.st.Put(t.Context(), name, data); err != nil {
		t.Fatal(err)
	}
	v.demand(t, v.look(t, what), what, name)
	if err := v.st.Put(t.Context(), name, v.original[name]); err != nil {
		t.Fatal(err)
	}
}

// part is a class of bytes of an object.
type part struct {
	name     string
	from, to int
}

// parts returns the classes of bytes that an object has.
func parts(kind string, data []byte) []part {
	n := len(data)
	switch kind {
	case kindConfig, kindKey:
		line := bytes.IndexByte(data, '\n') + 1
		return []part{{"line", 0, line}, {"nonce", line, line + 24}, {"sealed", line + 24, n}}
	case kindRecord:
		return []part{{"magic", 0, 8}, {"nonce", 8, 32}, {"sealed", 32, n}}
	}
	footer := n - 16
	dir := footer - int(uint32(data[footer])<<24|uint32(data[footer+1])<<16|uint32(data[footer+2])<<8|uint32(data[footer+3]))
	return []part{{"header", 0, 48}, {"commitment", 48, 80}, {"frames", 80, dir}, {"directory", dir, footer}, {"footer", footer, n}}
}

// some calls f for n of the numbers from 0 to size, or for all where they are fewer.
func some(random *rand.Rand, size, n int, f func(int)) {
	if size <= n {
		for i := range size {
			f(i)
		}
		return
	}
	for range n {
		f(random.IntN(size))
	}
}

// seeded returns random numbers whose seed is in the log of the test.
func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// A bit that is wrong, in whatever object, is found, is named, and never restored as if it were right. Where there is a
// copy of the object nothing is lost.
func TestEveryFlippedBitIsFound(t *testing.T) {
	whole := newVictim(t)
	for name, data := range whole.original {
		kind := kind(name, data)
		t.Run(kind+" "+name, func(t *testing.T) {
			t.Parallel()
			v, random := whole.clone(t), seeded(t)
			for _, p := range parts(kind, data) {
				tried := 0
				flip := func(bit int) {
					harmed := bytes.Clone(data)
					at := p.from + bit/8
					harmed[at] ^= 1 << (bit % 8)
					v.harm(t, fmt.Sprintf("%s, %s, bit %d of byte %d", name, p.name, bit%8, at), name, harmed)
					tried++
				}
				size := p.to - p.from
				if torture() {
					some(random, size*8, 8000, flip)
				} else {
					some(random, size*8, 15, flip)
				}
				t.Logf("%s, %s: %d of %d bits flipped, all found", kind, p.name, tried, size*8)
			}
		})
	}
}

// So is an object that is cut off, empty, missing, longer, or zeros.
func TestEveryTruncationIsFound(t *testing.T) {
	whole := newVictim(t)
	for name, data := range whole.original {
		kind := kind(name, data)
		t.Run(kind+" "+name, func(t *testing.T) {
			t.Parallel()
			v, random := whole.clone(t), seeded(t)
			tried := 0
			cut := func(n int) { v.harm(t, fmt.Sprintf("%s, cut to %d bytes", name, n), name, data[:n]); tried++ }
			n := 10
			if torture() {
				n = 2000
			}
			some(random, len(data), n, cut)
			for _, p := range parts(kind, data) {
				cut(p.from)
			}
			for _, size := range []int{1, 512, 4096} {
				v.harm(t, fmt.Sprintf("%s, %d bytes behind", name, size), name, append(bytes.Clone(data), make([]byte, size)...))
				some(random, len(data), 5, func(at int) {
					harmed := bytes.Clone(data)
					clear(harmed[at:min(len(data), at+size)])
					if !bytes.Equal(harmed, data) {
						v.harm(t, fmt.Sprintf("%s, zeros for %d bytes at %d", name, size, at), name, harmed)
					}
				})
				tried += 6
			}
			// Nothing but the snapshots that need it can tell that a record or a key slot was there once.
			if kind != kindRecord {
				if err := v.st.Delete(t.Context(), name); err != nil {
					t.Fatal(err)
				}
				s := v.look(t, name+" is missing")
				if s.opened && s.text == "" {
					t.Errorf("%s is missing, and nothing says so", name)
				}
			}
			t.Logf("%s: %d times cut, extended or zeroed, all found", kind, tried)
		})
	}
}

// Objects that stand in each other's place are found: no object passes for another.
func TestEverySwapIsFound(t *testing.T) {
	v := newVictim(t)
	all := slices.Sorted(maps.Keys(v.original))
	tried := 0
	for i, a := range all {
		for _, b := range all[i+1:] {
			if bytes.Equal(v.original[a], v.original[b]) {
				continue // an object and its copy
			}
			swapped := maps.Clone(v.original)
			swapped[a], swapped[b] = v.original[b], v.original[a]
			v.restock(t, swapped)
			what := fmt.Sprintf("%s and %s are swapped", a, b)
			v.demand(t, v.look(t, what), what, a, b)
			tried++
		}
	}
	t.Logf("%d pairs swapped, all found", tried)
}

// Whoever controls the storage can put back what was there once. That brings back what was removed, whole or found to be
// damaged, and harms nothing else.
func TestReplayedObjects(t *testing.T) {
	v := newVictim(t)
	ctx := t.Context()
	now := maps.Clone(v.original)
	r, err := repo.Open(ctx, v.st, repo.Options{Password: []byte("one")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = r.AddKey(ctx, []byte("three"), victimKDF, "removed later")
	if err != nil {
		t.Fatal(err)
	}
	d := &disk{data: noise(9, 50*Block), holes: map[int64]image.Kind{}}
	removed := v.backup(t, r, d)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	// Now is what a removal of the key, a forget and a prune leave: not even the packs that only the third snapshot had.
	then := v.objects(t)
	var gone []string
	for name := range then {
		if _, stays := now[name]; !stays {
			gone = append(gone, name)
		}
	}
	if len(gone) != 5 {
		t.Fatalf("a record, two packs and a key slot twice, and not %v", gone)
	}
	for subset := 1; subset < 1<<len(gone); subset++ {
		state := maps.Clone(now)
		all, back := true, ""
		for i, name := range gone {
			if subset>>i&1 == 1 {
				state[name] = then[name]
				back += " " + name
			} else if !strings.HasPrefix(name, "keys/") {
				all = false
			}
		}
		v.restock(t, state)
		what := "back are" + back
		s := v.look(t, what)
		for id := range v.disks {
			if id != removed && !s.whole[id] {
				t.Errorf("%s: snapshot %s is hurt", what, short(id))
			}
		}
		if s.whole[removed] != all {
			t.Errorf("%s: the removed snapshot is whole: %v", what, s.whole[removed])
		}
		if _, shown := s.whole[removed]; shown && !all && s.text == "" {
			t.Errorf("%s: nothing tells that the removed snapshot lacks packs", what)
		}
	}
	t.Logf("%d ways to put back what was removed", 1<<len(gone)-1)
}
