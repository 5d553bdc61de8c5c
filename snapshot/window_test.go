package snapshot

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"
	"varve/image"
)

// TestRestoreOfAPart: a part of a disk, wherever it begins and ends, is restored to a target of its own, new or in use, and compared
// with it; what lies around it has no influence.
func TestRestoreOfAPart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ctx := context.Background()
		d := drawDisk(t)
		if len(d.data) == 0 {
			return
		}
		s := newStore()
		snap, err := create(s, d, nil, 2)
		if err != nil {
			t.Fatal(err)
		}
		unit := rapid.SampledFrom([]int{1, 512, Block}).Draw(t, "unit")
		start := rapid.IntRange(0, (len(d.data)-1)/unit).Draw(t, "start") * unit
		end := min(len(d.data), start+unit*rapid.IntRange(1, (len(d.data)-start)/unit+1).Draw(t, "length"))
		part := Range{int64(start), int64(end - start)}
		if part == (Range{0, int64(len(d.data))}) {
			return
		}
		target := &disk{data: make([]byte, end-start), holes: map[int64]image.Kind{}}
		switch rapid.IntRange(0, 2).Draw(t, "target") {
		case 0:
			target.fresh = true
		case 1:
			copy(target.data, d.data[start:])
			drawEdits(t, target, 3)
		case 2:
			copy(target.data, noise(3, len(target.data)))
		}
		var done atomic.Int64
		result, err := Restore(ctx, s, snap, target, s.hashing, RestoreOptions{Workers: 2, Only: part, Done: &done})
		if err != nil || len(result.Damaged) > 0 {
			t.Fatal(err, result.Damaged)
		}
		if !bytes.Equal(target.data, d.data[start:end]) {
			t.Fatalf("the target is not the part %+v", part)
		}
		for _, differs := range []int{-1, rapid.IntRange(0, len(target.data)-1).Draw(t, "differs")} {
			if differs >= 0 {
				target.data[differs]++
				target.holes = map[int64]image.Kind{}
			}
			got, err := Verify(ctx, s, snap, target, int64(len(target.data)), s.hashing, VerifyOptions{Workers: 2, Only: part, LeftOut: true})
			if err != nil {
				t.Fatal(err)
			}
			if differs < 0 && len(got) > 0 {
				t.Fatalf("%+v of the part %+v differ", got, part)
			}
			if at := int64(start + differs); differs >= 0 && (len(got) != 1 || got[0].Offset > at || got[0].End() <= at || got[0].Length > Block || got[0].within(part) != got[0]) {
				t.Fatalf("%+v of the part %+v differ, not %d", got, part, at)
			}
		}
	})
}

// TestWhatWasLeftOut: it is a hole in the snapshot, zero on a restored disk, and not compared with the disk that was read.
func TestWhatWasLeftOut(t *testing.T) {
	ctx := context.Background()
	d := &disk{data: noise(5, 40*Block), holes: map[int64]image.Kind{}}
	for b := range int64(10) {
		d.holes[4+b], d.holes[20+b] = image.Free, image.Excluded
	}
	s := newStore()
	snap, err := create(s, d, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	if snap.Stats.Free != 10*Block || snap.Stats.Excluded != 10*Block || snap.Stats.Used != 20*Block || snap.Stats.Read != 20*Block {
		t.Errorf("%+v", snap.Stats)
	}
	live := &disk{data: d.data, holes: map[int64]image.Kind{}}
	var skipped atomic.Int64
	if got, err := Verify(ctx, s, snap, live, 40*Block, s.hashing, VerifyOptions{Skipped: &skipped}); err != nil || len(got) > 0 || skipped.Load() != 20*Block {
		t.Errorf("%v, %v, %d bytes were not compared", got, err, skipped.Load())
	}
	want := []Range{{4 * Block, 10 * Block}, {20 * Block, 10 * Block}}
	if got, err := Verify(ctx, s, snap, live, 40*Block, s.hashing, VerifyOptions{LeftOut: true}); err != nil || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Restore(ctx, s, snap, live, s.hashing, RestoreOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, err := Verify(ctx, s, snap, live, 40*Block, s.hashing, VerifyOptions{LeftOut: true}); err != nil || len(got) > 0 {
		t.Errorf("restored: %v, %v", got, err)
	}
	if bytes.Count(live.data, make([]byte, Block)) < 20 {
		t.Error("what was left out is not zero")
	}
}

// TestFreedBlocksStoreNothing: where a filesystem has given blocks back, the rest of their chunks is referred to.
func TestFreedBlocksStoreNothing(t *testing.T) {
	for seed := range uint64(20) {
		d := &disk{data: noise(seed, 600*Block), holes: map[int64]image.Kind{}}
		s := newStore()
		first, err := createParts(s, d, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		for _, from := range []int64{3, 100 + int64(seed), 300} {
			for b := range int64(4) {
				d.holes[from+b] = image.Free
				clear(d.data[(from+b)*Block : (from+b+1)*Block])
			}
		}
		second, err := createParts(s, d, first, 1)
		if err != nil {
			t.Fatal(err)
		}
		checkWhole(t, s, second, d)
		// What is left at the start of a chunk may be too little of it to keep.
		if second.Stats.Added > 3*Block || second.Stats.Free != 12*Block {
			t.Errorf("seed %d: %+v", seed, second.Stats)
		}
		third, err := createParts(s, d, second, 1)
		if err != nil || third.Root != second.Root || third.Stats.Changed != 0 {
			t.Errorf("seed %d: it is scanned again as %+v, %v", seed, third, err)
		}
	}
}
