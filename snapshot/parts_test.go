package snapshot

import (
	"bytes"
	"context"
	"testing"

	"pgregory.net/rapid"
	"varve/image"
)

// mostExtents is more extents than any MiB may have: what is cut by content adds some to those that rule 3 allows.
const mostExtents = maxExtents + 48

// checkWhole fails unless snap reads as d and keeps the bounds on fragmentation. It returns the bytes that snap uses, and
// those of the chunks that it refers to.
func checkWhole(t rapid.TB, s *store, snap *Disk, d *disk) (used, held int) {
	t.Helper()
	got, err := readBack(s, snap)
	if err != nil || !bytes.Equal(got, d.data) {
		t.Fatalf("the snapshot does not read as the disk: %v", err)
	}
	tree := newTree(s, ID(snap.Root), snap.Size)
	chunks := map[ID]bool{}
	for i := range segments(snap.Size) {
		extents, err := tree.segment(context.Background(), i)
		if err != nil {
			t.Fatal(err)
		}
		var perMiB [Segment >> 20]int
		at := 0
		for k := range extents {
			e := &extents[k]
			start := int(i)*Segment + at*Block
			perMiB[at*Block>>20]++
			at += e.Blocks
			if e.Kind.hole() {
				continue
			}
			if end := min(start+Block, len(d.data)); bytes.Count(d.data[start:end], []byte{0}) == end-start {
				t.Fatalf("an extent with data starts with a zero block, where the next scan finds a hole")
			}
			if e.Kind == Part && s.ID(d.data[start:min(start+e.Blocks*Block, len(d.data))]) != e.Digest {
				t.Fatalf("a part does not have the digest of its bytes")
			}
			used += e.Blocks * Block
			if !chunks[e.ID] {
				chunks[e.ID] = true
				held += len(s.chunks[e.ID])
			}
		}
		for mib, n := range perMiB {
			if n > mostExtents {
				t.Fatalf("MiB %d of segment %d has %d extents", mib, i, n)
			}
		}
	}
	return used, held
}

// prune removes from s what none of the disks refers to.
func (s *store) prune(t rapid.TB, disks []*Disk) {
	live := map[ID]bool{}
	first := func(id ID) bool { seen := live[id]; live[id] = true; return !seen }
	for _, d := range disks {
		if err := Mark(context.Background(), s, d, first, func(id ID) { live[id] = true }); err != nil {
			t.Fatal(err)
		}
	}
	for id := range s.chunks {
		if !live[id] {
			delete(s.chunks, id)
		}
	}
}

// differing counts the bytes of the blocks in which two states of a disk differ.
func differing(before, now []byte) (n int) {
	for at := 0; at < len(now); at += Block {
		if end := min(at+Block, len(now)); !bytes.Equal(before[at:end], now[at:end]) {
			n += end - at
		}
	}
	return n
}

// Every snapshot of a random history reads back, whatever mixture of parts, chunks and holes it is, and whatever was
// forgotten and pruned; what is told to have changed is no less than what did.
func TestPartsOverRandomHistories(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := drawDisk(t)
		s := newStore()
		var snaps []*Disk
		var states []*disk
		var parent *Disk
		for range rapid.IntRange(2, 6).Draw(t, "days") {
			backup := createParts
			if rapid.IntRange(0, 5).Draw(t, "whole") == 0 {
				backup = create
			}
			snap, err := backup(s, d, parent, 2)
			if err != nil {
				t.Fatal(err)
			}
			if parent != nil {
				if n := differing(states[len(states)-1].data, d.data); snap.Stats.Changed < int64(n) {
					t.Fatalf("%d bytes are told to have changed of %d", snap.Stats.Changed, n)
				}
			}
			snaps, states, parent = append(snaps, snap), append(states, d.clone()), snap
			if len(snaps) > 1 && rapid.Bool().Draw(t, "forget") {
				i := rapid.IntRange(0, len(snaps)-2).Draw(t, "which")
				snaps, states = append(snaps[:i:i], snaps[i+1:]...), append(states[:i:i], states[i+1:]...)
				s.prune(t, snaps)
			}
			for i := range snaps {
				checkWhole(t, s, snaps[i], states[i])
			}
			drawEdits(t, d, rapid.IntRange(0, 6).Draw(t, "edits"))
			for range rapid.IntRange(0, 40).Draw(t, "pages") { // as databases write them
				at := rapid.IntRange(0, (len(d.data)-1)/Block).Draw(t, "page") * Block
				copy(d.data[at:min(at+Block, len(d.data))], noise(uint64(rapid.IntRange(500, 60000).Draw(t, "content")), Block))
				delete(d.holes, int64(at/Block))
			}
		}
	})
}

// The worst that can be done to a disk, day after day.
func TestWorstPatterns(t *testing.T) {
	const size = 4 << 20
	patterns := map[string]struct {
		days int
		cost float64 // of the bytes that change, how many may be stored
		edit func(day int, data []byte)
	}{
		"every other block": {40, 1.6, func(day int, data []byte) {
			for at := day % 2 * Block; at < size; at += 2 * Block {
				copy(data[at:at+Block], noise(uint64(day*1000+at/Block), Block))
			}
		}},
		"the same other blocks": {40, 1.6, func(day int, data []byte) {
			for at := 0; at < size; at += 2 * Block {
				copy(data[at:at+Block], noise(uint64(day*1000+at/Block), Block))
			}
		}},
		"a sliding window": {200, 1.5, func(day int, data []byte) {
			at := day * 3 * Block % (size - 16*Block)
			copy(data[at:at+16*Block], noise(uint64(day), 16*Block))
		}},
		"the same block": {1000, 1.01, func(day int, data []byte) {
			copy(data[size/2:size/2+Block], noise(uint64(day), Block))
		}},
		"from the end to the start": {100, 2, func(day int, data []byte) {
			for at := size - (day+1)*10*Block; at < size-day*10*Block; at += 2 * Block {
				copy(data[at:at+Block], noise(uint64(day), Block))
			}
		}},
		"random blocks": {150, 3.3, func(day int, data []byte) {
			r := noise(uint64(day+7777), 80)
			for i := 0; i < len(r); i += 2 {
				at := (int(r[i])<<8 | int(r[i+1])) % (size / Block) * Block
				copy(data[at:at+Block], noise(uint64(day*100+i), Block))
			}
		}},
	}
	for name, p := range patterns {
		t.Run(name, func(t *testing.T) {
			d := &disk{data: noise(99, size), holes: map[int64]image.Kind{}}
			s := newStore()
			var parent *Disk
			stored, changed := 0, 0
			for day := range p.days {
				snap, err := createParts(s, d, parent, 1)
				if err != nil {
					t.Fatal(err)
				}
				if day < 20 || day%10 == 0 {
					if used, held := checkWhole(t, s, snap, d); held > 2*used {
						t.Fatalf("day %d: %d bytes are in use, of chunks of %d bytes", day, used, held)
					}
				}
				if parent != nil {
					stored += int(snap.Stats.Added)
				}
				parent = snap
				s.prune(t, []*Disk{snap})
				before := bytes.Clone(d.data)
				if p.edit(day, d.data); day == p.days-1 {
					break
				}
				changed += differing(before, d.data)
			}
			if ratio := float64(stored) / float64(changed); ratio > p.cost {
				t.Errorf("%.2f of what changed was stored, more than %.2f", ratio, p.cost)
			}
		})
	}
}

// One block of a chunk has changed: one block is stored, and a scan of the same disk stores nothing.
func TestOneBlockChanges(t *testing.T) {
	d := &disk{data: noise(1, 2*Segment+5000), holes: map[int64]image.Kind{}}
	s := newStore()
	first, err := createParts(s, d, nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{10 * Block, Segment - Block, Segment, 2*Segment + 4096} {
		d.data[at+100] ^= 1
	}
	second, err := createParts(s, d, first, 2)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(3*Block + 5000 - 4096); second.Stats.Added != want || second.Stats.Changed != want {
		t.Errorf("%+v; want %d bytes added and changed", second.Stats, want)
	}
	if second.Stats.Parts == 0 {
		t.Error("nothing refers to a part of a chunk")
	}
	third, err := createParts(s, d, second, 2)
	if err != nil {
		t.Fatal(err)
	}
	if third.Root != second.Root || third.Stats.Added != 0 || third.Stats.Changed != 0 {
		t.Errorf("the same disk again: %+v", third.Stats)
	}
}

// A chunk of the parent's that cannot be read is not relied on where it would have to be compared with.
func TestPartsOfALostChunk(t *testing.T) {
	d := &disk{data: noise(5, 1<<20), holes: map[int64]image.Kind{}}
	s := newStore()
	first, err := createParts(s, d, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	extents, err := newTree(s, ID(first.Root), first.Size).segment(context.Background(), 0)
	if err != nil {
		t.Fatal(err)
	}
	delete(s.chunks, extents[0].ID)
	d.data[100] ^= 1
	told := 0
	o := s.options(first, 1)
	o.Parts, o.ParentLost = func() Comparer { return s }, func(error) { told++ }
	second, err := Create(context.Background(), d, o)
	if err != nil || told != 1 {
		t.Fatalf("%v; told %d times", err, told)
	}
	checkWhole(t, s, second, d)
}
