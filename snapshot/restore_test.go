package snapshot

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
	"varve/image"
)

// A restore gives the disk back, on a new target and on one that holds something else, and writes no more than it must.
func TestRestore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		d := drawDisk(t)
		s := newStore()
		snap, err := create(s, d, nil, 2)
		if err != nil {
			t.Fatal(err)
		}
		fresh := &disk{data: make([]byte, len(d.data)), fresh: true, holes: map[int64]image.Kind{}}
		result, err := Restore(ctx, s, snap, fresh, s.hashing, RestoreOptions{Workers: 2})
		if err != nil || len(result.Damaged) > 0 {
			t.Fatal(err, result.Damaged)
		}
		if !bytes.Equal(fresh.data, d.data) {
			t.Fatal("a new target is not the disk")
		}
		if result.Written != fresh.wrote || result.Written > snap.Stats.Used {
			t.Fatalf("%+v, %d bytes were written of %d in use", result, fresh.wrote, snap.Stats.Used)
		}
		target := d.clone()
		target.fresh, target.holes = false, map[int64]image.Kind{}
		drawEdits(t, target, rapid.IntRange(0, 5).Draw(t, "edits"))
		differ := int64(0)
		for at := 0; at < len(d.data); at += Block {
			end := min(at+Block, len(d.data))
			if !bytes.Equal(d.data[at:end], target.data[at:end]) {
				differ += int64(end - at)
			}
		}
		result, err = Restore(ctx, s, snap, target, s.hashing, RestoreOptions{Workers: 2})
		if err != nil || len(result.Damaged) > 0 {
			t.Fatal(err, result.Damaged)
		}
		if !bytes.Equal(target.data, d.data) {
			t.Fatal("a target in use is not the disk")
		}
		if result.Written > differ {
			t.Fatalf("%d bytes were written, %d differed", result.Written, differ)
		}
	})
}

// What is damaged is named; the rest is restored.
func TestRestoreOfDamage(t *testing.T) {
	ctx := context.Background()
	d := &disk{data: noise(5, 2*Segment), holes: map[int64]image.Kind{}}
	s := newStore()
	snap, err := create(s, d, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	extents, err := newTree(s, ID(snap.Root), snap.Size).segment(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	delete(s.chunks, extents[2].ID)
	at := int64(Segment + (extents[0].Blocks+extents[1].Blocks)*Block)
	n := int64(extents[2].Blocks * Block)
	target := &disk{data: make([]byte, len(d.data)), fresh: true}
	result, err := Restore(ctx, s, snap, target, s.hashing, RestoreOptions{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Damaged) != 1 || result.Damaged[0].Range != (Range{at, n}) || result.Damaged[0].Err == nil {
		t.Errorf("damaged: %+v, want %d bytes at %d", result.Damaged, n, at)
	}
	clear(d.data[at : at+n])
	if !bytes.Equal(target.data, d.data) {
		t.Error("what was not damaged is not restored")
	}
	// In no way of reading does the damage pass for data.
	buf := make([]byte, 100)
	if _, err := NewReader(ctx, s, snap).ReadAt(buf, at+50); err == nil {
		t.Error("the damaged chunk was read")
	}
}

func TestVerifyFindsWhatDiffers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		d := drawDisk(t)
		s := newStore()
		snap, err := create(s, d, nil, 2)
		if err != nil {
			t.Fatal(err)
		}
		other := d.clone()
		other.holes = map[int64]image.Kind{}
		drawEdits(t, other, rapid.IntRange(0, 4).Draw(t, "edits"))
		if rapid.IntRange(0, 3).Draw(t, "resize") == 0 {
			resized := make([]byte, drawSize(t))
			copy(resized, other.data)
			other.data, other.holes = resized, map[int64]image.Kind{}
		}
		var want []Range
		m := merger{f: func(r Range) error { want = append(want, r); return nil }}
		common := min(len(d.data), len(other.data))
		for at := 0; at < common; at += Block {
			end := min(at+Block, common)
			if !bytes.Equal(d.data[at:end], other.data[at:end]) {
				m.add(Range{int64(at), int64(end - at)})
			}
		}
		if long := max(len(d.data), len(other.data)); long > common {
			m.add(Range{int64(common), int64(long - common)})
		}
		if err := m.finish(); err != nil {
			t.Fatal(err)
		}
		got, err := Verify(ctx, s, snap, other, int64(len(other.data)), s.hashing, VerifyOptions{Workers: 2, LeftOut: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Fatalf("%v differ, want %v", got, want)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%v differ, want %v", got, want)
			}
		}
	})
}

// Diff names every block that differs, and nothing far from one.
func TestDiffCoversChanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		d := drawDisk(t)
		s := newStore()
		old, err := create(s, d, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		before := bytes.Clone(d.data)
		drawEdits(t, d, rapid.IntRange(0, 4).Draw(t, "edits"))
		now, err := create(s, d, old, 2)
		if err != nil {
			t.Fatal(err)
		}
		var total, last int64
		inside := make([]bool, len(d.data)/Block+1)
		err = Diff(ctx, s, old, now, func(r Range) error {
			if r.Offset < last || r.Length <= 0 {
				t.Fatalf("%v comes after %d", r, last)
			}
			last = r.End() + 1 // ranges that touch are one
			total += r.Length
			for b := r.Offset / Block; b*Block < r.End(); b++ {
				inside[b] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(before); at += Block {
			end := min(at+Block, len(before))
			if !bytes.Equal(before[at:end], d.data[at:end]) && !inside[at/Block] {
				t.Fatalf("the block at %d changed, and is in no range", at)
			}
		}
		if total != now.Stats.Changed {
			t.Fatalf("diff finds %d bytes, the backup found %d", total, now.Stats.Changed)
		}
	})
}

func TestDiffOfEqualTreesReadsNothing(t *testing.T) {
	s := newStore()
	snap, err := create(s, &disk{data: noise(6, 3*Segment), holes: map[int64]image.Kind{}}, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	s.loads = 0
	if err := Diff(context.Background(), s, snap, snap, func(r Range) error { t.Errorf("%v differs", r); return nil }); err != nil {
		t.Fatal(err)
	}
	if s.loads > 2 {
		t.Errorf("%d nodes were read", s.loads)
	}
}

func TestReaderAtRandomPlaces(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	data := noise(7, 2*Segment+777)
	clear(data[3<<20 : 9<<20])
	s := newStore()
	snap, err := create(s, &disk{data: data, holes: map[int64]image.Kind{}}, nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	r := NewReader(context.Background(), s, snap)
	for range 300 {
		at := random.Int64N(int64(len(data)) + 100)
		buf := make([]byte, random.IntN(300_000))
		n, err := r.ReadAt(buf, at)
		want := int(max(0, min(int64(len(buf)), int64(len(data))-at)))
		if n != want || (n < len(buf)) != errors.Is(err, io.EOF) || !bytes.Equal(buf[:n], data[min(at, int64(len(data))):][:n]) {
			t.Fatalf("%d bytes at %d: %d, %v", len(buf), at, n, err)
		}
	}
	if _, err := r.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("a negative offset was read")
	}
}

func TestMarkFindsEverything(t *testing.T) {
	d := &disk{data: noise(8, 2*Segment), holes: map[int64]image.Kind{}}
	s := newStore()
	snap, err := create(s, d, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[ID]bool{}
	visit := func(id ID) bool { first := !seen[id]; seen[id] = true; return first }
	if err := Mark(context.Background(), s, snap, visit, func(id ID) { seen[id] = true }); err != nil {
		t.Fatal(err)
	}
	if len(seen) != len(s.chunks) {
		t.Errorf("%d of %d objects were marked", len(seen), len(s.chunks))
	}
}
