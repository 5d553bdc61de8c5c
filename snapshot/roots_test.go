package snapshot

import (
	"bytes"
	"context"
	"math"
	"testing"
	"time"

	"varve/image"
)

// nodes calls f for all tree nodes that the store has: noise is none.
func (s *store) nodes(f func(id ID, node []byte) error) error {
	for id, data := range s.chunks {
		_, err := decodeLeaf(data, 0)
		if err != nil && len(data) > 1 {
			_, err = decodeInner(data, int(data[1]), 0)
		}
		if err == nil {
			if err := f(id, data); err != nil {
				return err
			}
		}
	}
	return nil
}

func found(t *testing.T, s *store, list ...*Snapshot) []Tree {
	t.Helper()
	trees, err := FindTrees(context.Background(), s, s.nodes, list, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	return trees
}

// A disk is found without its record, with its size to the byte when it ends in data, and reads as it was.
func TestFindTrees(t *testing.T) {
	for _, size := range []int{Segment - 5*Block, Segment, 2*Segment + 40_000, 2*Segment + 64*Block, 3*Segment - 1, 2*Segment + 1} {
		s := newStore()
		d := &disk{data: noise(uint64(size), size), holes: map[int64]image.Kind{}}
		if size > 3*Segment-10 {
			clear(d.data[Segment : 2*Segment]) // a hole in the middle, of a whole segment
		}
		snap, err := create(s, d, nil, 2)
		if err != nil {
			t.Fatal(err)
		}
		trees := found(t, s)
		want := Tree{Root: ID(snap.Root), Size: int64(size), Exact: true}
		if len(trees) != 1 || trees[0].Root != want.Root || trees[0].Size != want.Size || !trees[0].Exact || len(trees[0].Snapshots) != 0 {
			t.Errorf("of %d bytes: %+v, not %+v", size, trees, want)
			continue
		}
		r := Recovered(trees[0], "recovered", "test", time.Now())
		record, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Decode(ID{1}, record)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readBack(s, &again.Disks[0]); err != nil || !bytes.Equal(got, d.data) {
			t.Errorf("of %d bytes: other bytes are read, %v", size, err)
		}
		if trees := found(t, s, again); len(trees) != 1 || len(trees[0].Snapshots) != 1 || trees[0].Snapshots[0] != (ID{1}) {
			t.Errorf("with a record: %+v", trees)
		}
	}
}

// A disk that ends in a hole is found with no less than its size, and all its bytes. Zeros that end a chunk are no hole.
func TestFindTreesThatEndInAHole(t *testing.T) {
	for _, c := range []struct {
		size, data int
		exact      bool
	}{{2*Segment + 20*Block, 100_000, false}, {Segment - 7*Block, Segment - 8*Block, true}, {3 * Segment, 2*Segment + 50_000, false}} {
		s := newStore()
		d := &disk{data: noise(7, c.size), holes: map[int64]image.Kind{}}
		clear(d.data[c.data:])
		snap, err := create(s, d, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		trees := found(t, s)
		if len(trees) != 1 || trees[0].Root != ID(snap.Root) || trees[0].Size < int64(c.size) || trees[0].Exact != c.exact {
			t.Fatalf("of %d bytes: %+v", c.size, trees)
		}
		got, err := readBack(s, &Recovered(trees[0], "x", "", time.Now()).Disks[0])
		if err != nil || !bytes.Equal(got[:c.size], d.data) || len(bytes.Trim(got[c.size:], "\x00")) != 0 {
			t.Errorf("of %d bytes: other bytes are read, %v", c.size, err)
		}
	}
}

// When a root is lost, what is below it is found.
func TestFindTreesBelowALostRoot(t *testing.T) {
	s := newStore()
	d := &disk{data: noise(8, 2*Segment+30_000), holes: map[int64]image.Kind{}}
	snap, err := create(s, d, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	delete(s.chunks, ID(snap.Root))
	trees := found(t, s)
	if len(trees) != 3 || trees[0].Size != Segment || trees[1].Size != Segment || trees[2].Size != 30_000 {
		t.Fatalf("%+v", trees)
	}
	got, err := readBack(s, &Recovered(trees[2], "x", "", time.Now()).Disks[0])
	if err != nil || !bytes.Equal(got, d.data[2*Segment:]) {
		t.Error("the last segment reads as other bytes", err)
	}
}

// Nodes that nobody could have written are no trees, and none is larger than a disk can be.
func TestFindTreesOfNonsense(t *testing.T) {
	s := newStore()
	add := func(node []byte) ID {
		id := s.ID(node)
		s.chunks[id] = node
		return id
	}
	leaf := add(appendLeaf(nil, []Extent{{Kind: Zero, Blocks: segmentBlocks}}))
	add([]byte{leafNode})
	add([]byte{innerNode})
	add([]byte{innerNode, 1})
	add([]byte{innerNode, 0, nodeRun, 1})
	add(appendInner(nil, 3, []child{{hole: Zero}, {id: leaf}})) // a leaf where an inner node belongs
	for level := 5; level < 256; level += 50 {
		many := make([]child, Fanout)
		for i := range many {
			many[i] = child{hole: Zero}
		}
		add(appendInner(nil, level, many))
	}
	damaged := 0
	all := func(f func(id ID, node []byte) error) error {
		for id, node := range s.chunks {
			if err := f(id, node); err != nil {
				return err
			}
		}
		return nil
	}
	trees, err := FindTrees(t.Context(), s, all, nil, func(error) { damaged++ })
	if err != nil || damaged == 0 {
		t.Errorf("%v, %d damaged", err, damaged)
	}
	for _, tree := range trees {
		if tree.Size <= 0 || tree.Size > math.MaxInt64-Segment {
			t.Errorf("%+v", tree)
		}
	}
}

func FuzzMeasure(f *testing.F) {
	f.Add(appendLeaf(nil, []Extent{{Kind: Sparse, Blocks: 300}, {Kind: Chunk, Blocks: 13, ID: idOf(1)}}))
	f.Add(appendInner(nil, 2, []child{{id: idOf(1)}, {hole: Sparse}, {id: idOf(2)}}))
	f.Add(appendInner(nil, 5, []child{{hole: Sparse}, {hole: Zero}}))
	f.Add(appendInner(nil, 255, []child{{id: idOf(2)}}))
	f.Fuzz(func(t *testing.T, node []byte) {
		s := newStore()
		leaf := appendLeaf(nil, []Extent{{Kind: Sparse, Blocks: 3}})
		s.chunks[idOf(2)], s.chunks[idOf(1)], s.chunks[idOf(9)] = leaf, make([]byte, 50_000), node
		tree, err := measure(t.Context(), s, idOf(9))
		if err == nil && (tree.Size <= 0 || tree.Size > math.MaxInt64-Segment) {
			t.Errorf("%x has %d bytes", node, tree.Size)
		}
		if err != nil {
			return
		}
		// What was measured can be read, or is damaged: nothing panics.
		d := tree.Disk("x")
		_, _ = newTree(s, ID(d.Root), d.Size).segment(t.Context(), segments(d.Size)-1)
	})
}
