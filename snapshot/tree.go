package snapshot

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync"
)

// segments returns how many segments a disk of size bytes has.
func segments(size int64) int64 { return (size + Segment - 1) / Segment }

// segmentLength returns how many bytes segment number i of a disk of size bytes has.
func segmentLength(size, i int64) int { return int(min(Segment, size-i*Segment)) }

// blocksOf returns how many blocks n bytes take.
func blocksOf(n int) int { return (n + Block - 1) / Block }

// levels returns the level of the root of a tree over n ≥ 1 segments: 0 when it is a leaf.
func levels(n int64) int {
	level := 0
	for span := int64(1); span < n; span *= Fanout {
		level++
	}
	return level
}

// childCount returns how many children the node number i at level has in a tree over n segments.
func childCount(n int64, level int, i int64) int {
	span := int64(1) // segments under one child
	for range level - 1 {
		span *= Fanout
	}
	first := i * Fanout // number of the first child at its own level
	return int(min(Fanout, (n+span-1)/span-first))
}

// treeBuilder makes the inner nodes of a tree, and saves them, from children that arrive in any order. It holds only
// nodes whose children have not all arrived.
type treeBuilder struct {
	save func(node []byte) (ID, error)

	mu     sync.Mutex
	levels []map[int64]*group // [k]: unfinished nodes of level k+1 by number
	nodes  []int64            // [k]: how many children of level k+1 nodes have arrived
	last   []child            // [k]: child number 0 among them, which is the root when it is alone
}

type group struct {
	children [Fanout]child
	arrived  int
}

// add takes child number i of all that stand at level: leaves are at level 0.
func (b *treeBuilder) add(level int, i int64, c child) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.addLocked(level, i, c)
}

func (b *treeBuilder) addLocked(level int, i int64, c child) error {
	for len(b.levels) <= level {
		b.levels = append(b.levels, map[int64]*group{})
		b.nodes = append(b.nodes, 0)
		b.last = append(b.last, child{})
	}
	if i == 0 {
		b.last[level] = c
	}
	b.nodes[level]++
	g := b.levels[level][i/Fanout]
	if g == nil {
		g = &group{}
		b.levels[level][i/Fanout] = g
	}
	g.children[i%Fanout] = c
	if g.arrived++; g.arrived < Fanout {
		return nil
	}
	return b.closeLocked(level, i/Fanout)
}

// closeLocked makes a node of the group number i of children at level and passes it on upwards.
func (b *treeBuilder) closeLocked(level int, i int64) error {
	g := b.levels[level][i]
	delete(b.levels[level], i)
	children := g.children[:g.arrived]
	if kind := children[0].hole; kind != 0 {
		whole := true
		for _, c := range children {
			whole = whole && c.hole == kind
		}
		if whole {
			return b.addLocked(level+1, i, child{hole: kind})
		}
	}
	id, err := b.save(appendInner(nil, level+1, children))
	if err != nil {
		return err
	}
	return b.addLocked(level+1, i, child{id: id})
}

// finish makes the nodes that are left, once the leaves of all segments of a disk of size ≥ 1 bytes have arrived, and
// returns the root.
func (b *treeBuilder) finish(size int64) (ID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := segments(size)
	if len(b.nodes) == 0 || b.nodes[0] != n {
		return ID{}, fmt.Errorf("the tree over %d segments is not complete", n)
	}
	top := levels(n)
	for level := range top {
		for i := range b.levels[level] { // at most one: the last, which is not full
			if err := b.closeLocked(level, i); err != nil {
				return ID{}, err
			}
		}
	}
	root := b.last[top]
	if root.hole == 0 {
		return root.id, nil
	}
	// A disk that is one hole still has a root.
	if top == 0 {
		return b.save(appendLeaf(nil, []Extent{{Kind: root.hole, Blocks: blocksOf(int(size))}}))
	}
	children := make([]child, childCount(n, top, 0))
	for i := range children {
		children[i] = root
	}
	return b.save(appendInner(nil, top, children))
}

// tree reads the tree of one disk. It may be used concurrently.
type tree struct {
	load Loader
	root ID
	size int64

	mu    sync.Mutex
	inner map[ID][]child // decoded inner nodes
}

// innerCacheNodes bounds tree.inner.
const innerCacheNodes = 64

func newTree(load Loader, root ID, size int64) *tree {
	return &tree{load: load, root: root, size: size, inner: map[ID][]child{}}
}

// leafRef returns the leaf of segment i: its id, or the hole that it is.
func (t *tree) leafRef(ctx context.Context, i int64) (child, error) {
	n := segments(t.size)
	c := child{id: t.root}
	for level := levels(n); level > 0 && c.hole == 0; level-- {
		span := int64(1) // segments under one child
		for range level - 1 {
			span *= Fanout
		}
		children, err := t.children(ctx, c.id, level, childCount(n, level, i/(span*Fanout)))
		if err != nil {
			return child{}, err
		}
		c = children[i/span%Fanout]
	}
	return c, nil
}

// children returns the children of an inner node.
func (t *tree) children(ctx context.Context, id ID, level, count int) ([]child, error) {
	t.mu.Lock()
	children, found := t.inner[id]
	t.mu.Unlock()
	if found && len(children) == count {
		return children, nil
	}
	data, err := t.load.Load(ctx, id, nil)
	if err != nil {
		return nil, fmt.Errorf("reading tree node %s: %w", short(id), err)
	}
	if children, err = decodeInner(data, level, count); err != nil {
		return nil, fmt.Errorf("reading tree node %s: %w", short(id), err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.inner) >= innerCacheNodes {
		clear(t.inner)
	}
	t.inner[id] = children
	return children, nil
}

// wholeHoles are the extents of a segment that is one hole, by its kind. A sparse disk of 4 TiB has 260,000 of them.
var wholeHoles = func() (holes [Unreadable + 1][1]Extent) {
	for kind := range holes {
		holes[kind][0] = Extent{Kind: Kind(kind), Blocks: Segment / Block}
	}
	return holes
}()

// extents returns the extents of the leaf c of segment i. Others may have the same ones, so nobody changes them.
func (t *tree) extents(ctx context.Context, i int64, c child) ([]Extent, error) {
	blocks := blocksOf(segmentLength(t.size, i))
	if c.hole.hole() && blocks == Segment/Block {
		return wholeHoles[c.hole][:], nil
	}
	if c.hole != 0 {
		return []Extent{{Kind: c.hole, Blocks: blocks}}, nil
	}
	data, err := t.load.Load(ctx, c.id, nil)
	if err != nil {
		return nil, fmt.Errorf("reading tree node %s: %w", short(c.id), err)
	}
	extents, err := decodeLeaf(data, blocks)
	if err != nil {
		return nil, fmt.Errorf("reading tree node %s: %w", short(c.id), err)
	}
	return extents, nil
}

// segment returns the extents of segment i.
func (t *tree) segment(ctx context.Context, i int64) ([]Extent, error) {
	c, err := t.leafRef(ctx, i)
	if err != nil {
		return nil, err
	}
	return t.extents(ctx, i, c)
}

// short is the form of an id for messages.
func short(id ID) string { return hex.EncodeToString(id[:6]) }
