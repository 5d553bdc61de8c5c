package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// noisePack makes a pack of n bytes of frames, at least, with parity.
func noisePack(parity, n int) ([]byte, ID, Directory) {
	b := newBuilder(testKey(), Data, parity, [32]byte{9}, nil)
	random := rand.NewChaCha8([32]byte{1})
	for i := byte(0); len(b.buf) < n; i++ {
		payload := make([]byte, min(MaxFrame, n))
		_, _ = random.Read(payload)
		b.Append(Raw, payload, len(payload), []Chunk{{ID: ID{i}, Length: uint32(len(payload))}})
	}
	return b.Finish()
}

// lose overwrites sectors with other bytes.
func lose(data []byte, sectors ...int) []byte {
	data = bytes.Clone(data)
	for _, n := range sectors {
		s := sector(data, n)
		for i := range s {
			s[i] = ^s[i]
		}
	}
	return data
}

// mustHeal fails unless damaged becomes data again, and says that so many sectors were bad.
func mustHeal(t *testing.T, what string, damaged, data []byte, id ID, bad int) {
	t.Helper()
	healed, n, err := Heal(damaged, id)
	if err != nil || !bytes.Equal(healed, data) || n != bad {
		t.Fatalf("%s: %d sectors, %v", what, n, err)
	}
}

// mustNotHeal fails when something comes back.
func mustNotHeal(t *testing.T, what string, damaged []byte, id ID) {
	t.Helper()
	var corrupt *CorruptError
	if healed, _, err := Heal(damaged, id); healed != nil || !errors.As(err, &corrupt) {
		t.Fatalf("%s: %d bytes, %v", what, len(healed), err)
	}
}

var paritySizes = []int{1, 4000, 4096, 20_000, 300_000, 3 << 19}

// Any one sector of a pack may be lost, and any flipped bit is found.
func TestEverySectorHeals(t *testing.T) {
	for _, size := range paritySizes {
		data, id, dir := noisePack(5, size)
		if len(data)%sectorSize != 0 || dir.Parity <= 0 || VerifyParity(data) != nil {
			t.Fatalf("%d bytes, %d of them parity, %v", len(data), dir.Parity, VerifyParity(data))
		}
		step := 1 + len(data)/sectorSize/40
		for n := 0; n < len(data)/sectorSize; n++ {
			if l, _ := findLayout(data); n%step != 0 && n >= 3 && n < l.sectors()-l.back {
				continue
			}
			mustHeal(t, fmt.Sprintf("%d bytes, sector %d", size, n), lose(data, n), data, id, 1)
			damaged := bytes.Clone(data)
			damaged[n*sectorSize+n%sectorSize] ^= 4
			if VerifyParity(damaged) == nil {
				t.Errorf("%d bytes: a bit of sector %d is flipped, and all is said to be well", size, n)
			}
			mustHeal(t, fmt.Sprintf("%d bytes, a bit of sector %d", size, n), damaged, data, id, 1)
		}
		mustHeal(t, "no damage", bytes.Clone(data), data, id, 0)
	}
}

// A pack heals with as many bad sectors as each group has parity, wherever they are, and not with one more.
func TestAsMuchAsThereIsParity(t *testing.T) {
	for _, percent := range []int{1, 5, 30, 100} {
		for _, size := range paritySizes {
			data, id, _ := noisePack(percent, size)
			l, _ := findLayout(data)
			what := fmt.Sprintf("%d %%, %d bytes: %+v", percent, size, l)
			if l.parity*100 < percent*l.shards() || l.parity < minParity {
				t.Fatalf("%s is not enough parity", what)
			}
			random := rand.New(rand.NewPCG(1, uint64(size)))
			// In all groups at once, and as much of the table as may be.
			var bad []int
			for g := range l.groups {
				members := l.members(g)
				random.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
				for k := 0; k < l.parity; {
					if i := members[0]; i >= 0 {
						bad = append(bad, l.place(i))
						k++
					}
					members = members[1:]
				}
			}
			checks, spare := l.tables()
			if spare < l.parity {
				t.Fatalf("%s: of the table %d sectors may be bad", what, spare)
			}
			table := random.Perm(checks + spare)
			for _, i := range table[:spare] {
				bad = append(bad, l.tablePlace(i))
			}
			mustHeal(t, what, lose(data, bad...), data, id, len(bad))
			mustNotHeal(t, what+", and one more of the table", lose(data, append(bad, l.tablePlace(table[spare]))...), id)
			var one []int
			for _, i := range l.members(random.IntN(l.groups)) {
				if i >= 0 && len(one) <= l.parity {
					one = append(one, l.place(i))
				}
			}
			mustNotHeal(t, what+", one too many in a group", lose(data, one...), id)
		}
	}
}

// Neighbours are in different groups: a burst of as many sectors as there is parity heals wherever it begins.
func TestBurst(t *testing.T) {
	data, id, _ := noisePack(5, 3<<19)
	l, _ := findLayout(data)
	length := l.groups * l.parity
	for start := 0; start+length <= l.sectors(); start += 13 {
		var burst []int
		for n := range length {
			burst = append(burst, start+n)
		}
		mustHeal(t, fmt.Sprintf("%d sectors from %d on", length, start), lose(data, burst...), data, id, length)
	}
	mustHeal(t, "the end is missing", bytes.Clone(data[:len(data)-length*sectorSize]), data, id, length)
	mustHeal(t, "it ends in a sector", bytes.Clone(data[:len(data)-100]), data, id, 1)
	mustHeal(t, "something stands behind it", append(bytes.Clone(data), "more"...), data, id, 0)
	for _, n := range []int{0, 100, sectorSize, len(data) / 3} {
		mustNotHeal(t, fmt.Sprintf("%d bytes of it", n), bytes.Clone(data[:n]), id)
	}
}

// What has no parity is not healed, and a pack is not made into another.
func TestHealIsProvenByTheName(t *testing.T) {
	plain, id, _ := noisePack(0, 300_000)
	plain[5000]++
	mustNotHeal(t, "no parity", plain, id)
	data, id, _ := noisePack(5, 300_000)
	other := id
	other[0]++
	mustNotHeal(t, "another name", lose(data, 7), other)
	// A forger has changed a sector, its check in the table, and the table's own check.
	l, _ := findLayout(data)
	forged := lose(data, 7)
	table := l.table(forged)
	sum := checkOf(sector(forged, 7))
	copy(table[0][7*checkSize:], sum[:])
	l.seal(sector(forged, l.tablePlace(0)), 0)
	mustNotHeal(t, "forged", forged, id)
}

// A plain pack has nothing between its frames and its directory, and the end says the version that the start says.
func TestVersionsAreKeptApart(t *testing.T) {
	b := newBuilder(testKey(), Data, 0, [32]byte{1}, nil)
	b.Append(Raw, []byte("x"), 1, []Chunk{{Length: 1}})
	b.buf = append(b.buf, 0)
	data, _, _ := b.Finish()
	if _, _, err := check(data); err == nil {
		t.Error("a plain pack with a gap is read")
	}
	data, _, dir := noisePack(5, 100)
	data[len(data)-12] = plainVersion
	if _, _, err := check(data); err == nil {
		t.Error("a pack of two versions is read")
	}
	f := dir.Frames[0]
	if _, _, err := (Directory{Version: plainVersion, Kind: Data, Salt: dir.Salt}).Opener(testKey()).Open(nil, f.Offset, data[f.Offset:][:f.Stored]); err == nil {
		t.Error("a frame opens in a pack of another version")
	}
}

// Every layout that is made or accepted gives each sector one purpose, and none is left.
func TestLayoutCoversThePack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		front, back := rapid.IntRange(1, 6000).Draw(t, "front"), rapid.IntRange(1, 100).Draw(t, "back")
		l := planLayout(front, back, rapid.IntRange(1, MaxParity).Draw(t, "percent"))
		if rapid.Bool().Draw(t, "any") {
			l = layout{front, back, rapid.IntRange(1, 300).Draw(t, "groups"), rapid.IntRange(1, 255).Draw(t, "parity")}
			if !l.valid() {
				return
			}
		}
		if !l.valid() {
			t.Fatalf("%+v is made, and not accepted", l)
		}
		used := make([]int, l.sectors())
		checks, spare := l.tables()
		for i := range checks + spare {
			used[l.tablePlace(i)]++
		}
		seen := make([]int, l.checked())
		for g := range l.groups {
			members := l.members(g)
			if len(members) != l.shards()+l.parity {
				t.Fatalf("%+v: group %d has %d members", l, g, len(members))
			}
			for k, i := range members {
				if i >= 0 {
					used[l.place(i)]++
					seen[i]++
				} else if k != l.shards()-1 {
					t.Fatalf("%+v: group %d has zeros at %d", l, g, k)
				}
			}
		}
		for n := range used {
			if used[n] != 1 {
				t.Fatalf("%+v: sector %d has %d purposes", l, n, used[n])
			}
		}
		for i := range seen {
			if seen[i] != 1 {
				t.Fatalf("%+v: %d is in %d groups", l, i, seen[i])
			}
		}
	})
}

// The largest packs that varve makes, of 128 MiB and a frame, have a valid layout with any parity.
func TestLargestPack(t *testing.T) {
	for percent := 1; percent <= MaxParity; percent++ {
		front := (130 << 20) / sectorSize
		for l := planLayout(front, 50, percent); l.sectors()*sectorSize > 131<<20; l = planLayout(front, 50, percent) {
			front -= 100
		}
		if l := planLayout(front, 50, percent); !l.valid() {
			t.Errorf("%d %%: %+v", percent, l)
		}
	}
}

// FuzzHeal: whatever a table says does no harm, and what comes back is the pack of that name.
func FuzzHeal(f *testing.F) {
	data, id, _ := noisePack(5, 40_000)
	l, _ := findLayout(data)
	f.Add(uint16(0), []byte{}, uint16(l.tablePlace(0)), uint32(0), uint32(l.front), uint32(l.back), uint16(l.groups), uint16(l.parity))
	f.Add(uint16(5000), []byte("bad"), uint16(3), uint32(1), uint32(1<<16), uint32(1), uint16(1000), uint16(100))
	f.Add(uint16(9), []byte("bad"), uint16(1), uint32(0), uint32(1), uint32(250), uint16(250), uint16(255))
	f.Fuzz(func(t *testing.T, at uint16, bytesThere []byte, place uint16, number, front, back uint32, groups, parity uint16) {
		damaged := bytes.Clone(data)
		copy(damaged[int(at)%len(damaged):], bytesThere)
		s := sector(damaged, int(place)%(len(damaged)/sectorSize))
		copy(s, tableMagic)
		binary.BigEndian.PutUint32(s[8:], number)
		binary.BigEndian.PutUint32(s[12:], front)
		binary.BigEndian.PutUint32(s[16:], back)
		binary.BigEndian.PutUint16(s[20:], groups)
		binary.BigEndian.PutUint16(s[22:], parity)
		sum := checkOf(s[:tableEnd])
		copy(s[tableEnd:], sum[:])
		if m, _, ok := parseTable(s); ok && !m.valid() {
			t.Fatalf("accepted: %+v", m)
		}
		if healed, _, err := Heal(damaged, id); err == nil && !bytes.Equal(healed, data) {
			t.Error("it was made into something else")
		}
	})
}

func BenchmarkParity(b *testing.B) {
	data, id, _ := noisePack(5, 16<<20)
	l, _ := findLayout(data)
	for name, f := range map[string]func(){
		"protect": func() { l.protect(data) },
		"verify":  func() { _ = VerifyParity(data) },
		"heal 5": func() {
			for n := range 5 {
				clear(sector(data, 1000*n)[:8])
			}
			_, _, _ = Heal(data, id)
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				f()
			}
		})
	}
}
