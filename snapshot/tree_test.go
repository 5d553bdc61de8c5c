package snapshot

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"
)

// nodes keeps tree nodes in memory.
type nodes map[ID][]byte

func (n nodes) save(node []byte) (ID, error) {
	id := ID(sha256.Sum256(node))
	n[id] = append([]byte(nil), node...)
	return id, nil
}

func (n nodes) Load(_ context.Context, id ID, _ []byte) ([]byte, error) {
	node, found := n[id]
	if !found {
		return nil, fmt.Errorf("node %x is not there", id[:4])
	}
	return node, nil
}

func TestTreeFindsEveryLeaf(t *testing.T) {
	for _, n := range []int64{1, 2, 255, 256, 257, 512, 65535, 65536, 65537, 70000} {
		for _, tail := range []int64{Segment, 1} {
			size := (n-1)*Segment + tail
			store := nodes{}
			b := treeBuilder{save: store.save}
			leaf := func(i int64) child {
				if i%1000 < 600 && n > 1 {
					return child{hole: Sparse}
				}
				var id ID
				id[0], id[1], id[2], id[3] = byte(i), byte(i>>8), byte(i>>16), 1
				return child{id: id}
			}
			// Leaves arrive out of order, as workers finish.
			order := make([]int64, n)
			for i := range order {
				order[i] = int64(i)
			}
			random := rand.New(rand.NewPCG(uint64(n), 1))
			for at := 0; at < len(order); at += 8 {
				part := order[at:min(at+8, len(order))]
				random.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
			}
			for _, i := range order {
				if err := b.add(0, i, leaf(i)); err != nil {
					t.Fatal(err)
				}
			}
			root, err := b.finish(size)
			if err != nil {
				t.Fatalf("%d segments: %v", n, err)
			}
			tree := newTree(store, root, size)
			for i := int64(0); i < n; i += 1 + n/3000 {
				if got, err := tree.leafRef(context.Background(), i); err != nil || got != leaf(i) {
					t.Fatalf("%d segments: leaf %d is %v, %v", n, i, got, err)
				}
			}
			if got, err := tree.leafRef(context.Background(), n-1); err != nil || got != leaf(n-1) {
				t.Fatalf("%d segments: the last leaf is %v, %v", n, got, err)
			}
		}
	}
}

func TestTreeOfOneHole(t *testing.T) {
	for _, size := range []int64{1, Segment, Segment + 1, 256 * Segment, 4 << 40} {
		store := nodes{}
		b := treeBuilder{save: store.save}
		for i := range segments(size) {
			if err := b.add(0, i, child{hole: Sparse}); err != nil {
				t.Fatal(err)
			}
		}
		root, err := b.finish(size)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if len(store) != 1 {
			t.Errorf("%d bytes: %d nodes for one hole", size, len(store))
		}
		extents, err := newTree(store, root, size).segment(context.Background(), segments(size)-1)
		if err != nil || len(extents) != 1 || extents[0].Kind != Sparse {
			t.Errorf("%d bytes: %v, %v", size, extents, err)
		}
	}
}

func TestTreeRefusesAMissingLeaf(t *testing.T) {
	b := treeBuilder{save: nodes{}.save}
	for _, i := range []int64{0, 1, 3} {
		if err := b.add(0, i, child{hole: Zero}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.finish(4 * Segment); err == nil {
		t.Error("a tree that lacks a leaf is accepted")
	}
}
