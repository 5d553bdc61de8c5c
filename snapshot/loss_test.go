package snapshot

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"varve/image"
)

// lossy makes a snapshot of a disk of three segments, and returns the leaf of the second.
func lossy(t *testing.T) (s *store, d *disk, snap *Disk, leaf child) {
	t.Helper()
	d = &disk{data: noise(11, 2*Segment+3*Block), holes: map[int64]image.Kind{}}
	s = newStore()
	snap, err := create(s, d, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err = newTree(s, ID(snap.Root), snap.Size).leafRef(context.Background(), 1); err != nil {
		t.Fatal(err)
	}
	return s, d, snap, leaf
}

func TestLoss(t *testing.T) {
	ctx := context.Background()
	s, _, snap, leaf := lossy(t)
	extents, err := newTree(s, ID(snap.Root), snap.Size).segment(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	of := func(lost ...ID) int64 {
		l := Loss{Load: s, Lost: func(id ID) bool {
			for _, x := range lost {
				if x == id {
					return true
				}
			}
			return false
		}}
		for range 2 { // the second time from memory
			n, err := l.Of(ctx, snap, nil)
			if err != nil {
				t.Fatal(err)
			}
			if again, _ := l.Of(ctx, snap, nil); again != n {
				t.Errorf("%d, and then %d", n, again)
			}
		}
		n, _ := l.Of(ctx, snap, nil)
		return n
	}
	if n := of(); n != 0 {
		t.Errorf("%d bytes of a whole disk are lost", n)
	}
	chunk := int64(extents[1].Blocks * Block)
	if n := of(extents[1].ID); n != chunk {
		t.Errorf("%d bytes are lost with a chunk of %d", n, chunk)
	}
	delete(s.chunks, leaf.id)
	if n := of(extents[1].ID); n != chunk+Segment {
		t.Errorf("%d bytes are lost with a chunk of %d and a segment", n, chunk)
	}
	delete(s.chunks, ID(snap.Root))
	if n := of(); n != snap.Size {
		t.Errorf("%d bytes are lost with the root of %d", n, snap.Size)
	}
}

func TestWalkGoesOnBehindABrokenNode(t *testing.T) {
	ctx := context.Background()
	s, _, snap, leaf := lossy(t)
	delete(s.chunks, leaf.id)
	list := []*Snapshot{{Disks: []Disk{*snap}}}
	broken, chunks := 0, map[ID]bool{}
	w := Walker{Node: func(ID) bool { return true }, Chunk: func(id ID) { chunks[id] = true }, Broken: func(error) error { broken++; return nil }}
	if err := Walk(ctx, s, list, w); err != nil || broken != 1 {
		t.Errorf("%d nodes are broken: %v", broken, err)
	}
	for _, i := range []int64{0, 2} {
		extents, err := newTree(s, ID(snap.Root), snap.Size).segment(ctx, i)
		if err != nil {
			t.Fatal(err)
		}
		if !chunks[extents[0].ID] {
			t.Errorf("segment %d was left out", i)
		}
	}
	w.Broken = nil
	if err := Walk(ctx, s, list, w); err == nil {
		t.Error("a broken node is no error for who did not ask")
	}
	stop := errors.New("stop")
	w.Broken = func(error) error { return stop }
	if err := Walk(ctx, s, list, w); !errors.Is(err, stop) {
		t.Error(err)
	}
}

// A node that cannot be read costs its segment: the others are restored, and a scan goes on there without a guide.
func TestBrokenNode(t *testing.T) {
	ctx := context.Background()
	s, d, snap, leaf := lossy(t)
	saved := s.chunks[leaf.id]
	delete(s.chunks, leaf.id)
	target := &disk{data: make([]byte, len(d.data)), fresh: true}
	result, err := Restore(ctx, s, snap, target, s.hashing, RestoreOptions{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(result.Damaged) != 1 || result.Damaged[0].Range != (Range{Segment, Segment}) || result.Damaged[0].Err == nil {
		t.Errorf("damaged: %+v", result.Damaged)
	}
	want := bytes.Clone(d.data)
	clear(want[Segment : 2*Segment])
	if !bytes.Equal(target.data, want) {
		t.Error("the other segments were not restored")
	}

	var told []error
	o := s.options(snap, 1)
	o.ParentLost = func(err error) { told = append(told, err) }
	again, err := Create(ctx, d, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || again.Root != snap.Root || !bytes.Equal(s.chunks[leaf.id], saved) {
		t.Errorf("told %v; the root is the same: %v; the node is there again: %v", told, again.Root == snap.Root, bytes.Equal(s.chunks[leaf.id], saved))
	}
}
