package snapshot

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"varve/snapshot/catalogue"
)

// Tree is a tree that was found without a record. What stood in the record only is not known: a name, a time, and the size
// as far as the tree does not say it.
type Tree struct {
	Root ID
	Size int64 // bytes
	// Exact reports whether the disk had Size bytes. Otherwise it ended in a hole, and may have been shorter by a part of it.
	Exact     bool
	Snapshots []ID // records that have it
}

// Disk returns the disk of that tree.
func (t Tree) Disk(name string) Disk {
	return Disk{Name: name, Path: name, Type: "file", Size: t.Size, Root: Root(t.Root)}
}

// FindTrees returns the trees that nodes are the roots of, the largest first. Roots are those that no other node refers to;
// so a tree is not found that is all of a part of another one, or whose root is lost: then the trees below it are. nodes
// calls f for all tree nodes that there are, and list has the snapshots. What cannot be measured is passed to damaged.
func FindTrees(ctx context.Context, load Loader, nodes func(f func(id ID, node []byte) error) error, list []*Snapshot, damaged func(error)) ([]Tree, error) {
	type state struct{ there, below bool }
	states := map[ID]state{}
	err := nodes(func(id ID, node []byte) error {
		if catalogue.IsPage(node) {
			return nil // a list of files
		}
		s := states[id]
		if s.there {
			return nil
		}
		s.there = true
		states[id] = s
		if len(node) < 2 || node[0] != innerNode {
			return nil // a leaf has nothing below it
		}
		children, err := decodeInner(node, int(node[1]), 0)
		if err != nil {
			damaged(fmt.Errorf("tree node %s: %w", short(id), err))
			return nil
		}
		for _, c := range children {
			if c.hole == 0 {
				s := states[c.id]
				s.below = true
				states[c.id] = s
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	named := map[ID][]ID{}
	for _, s := range list {
		for _, d := range s.Disks {
			named[ID(d.Root)] = append(named[ID(d.Root)], s.ID)
		}
	}
	var trees []Tree
	for id, s := range states {
		if !s.there || s.below {
			continue
		}
		t, err := measure(ctx, load, id)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			damaged(fmt.Errorf("tree %s: %w", short(id), err))
			continue
		}
		t.Snapshots = named[t.Root]
		trees = append(trees, t)
	}
	slices.SortFunc(trees, func(a, b Tree) int { return cmp.Or(cmp.Compare(b.Size, a.Size), bytes.Compare(a.Root[:], b.Root[:])) })
	return trees, nil
}

// measure returns the tree at root, or below it when root has one child: such a node is the end of a larger tree.
func measure(ctx context.Context, load Loader, root ID) (Tree, error) {
	for {
		node, err := load.Load(ctx, root, nil)
		if err != nil {
			return Tree{}, err
		}
		if len(node) > 1 && node[0] == innerNode {
			children, err := decodeInner(node, int(node[1]), 0)
			if err != nil {
				return Tree{}, err
			}
			if len(children) == 1 && children[0].hole == 0 {
				root = children[0].id
				continue
			}
		}
		size, exact, err := sizeOf(ctx, load, node)
		if err == nil && size > math.MaxInt64-Segment {
			err = errors.New("it is larger than any disk")
		}
		return Tree{Root: root, Size: size, Exact: exact}, err
	}
}

// sizeOf returns how many bytes the disk has of which node is the root.
func sizeOf(ctx context.Context, load Loader, node []byte) (size int64, exact bool, err error) {
	if len(node) < 2 || node[0] != innerNode {
		return leafSize(ctx, load, node)
	}
	level := int(node[1])
	children, err := decodeInner(node, level, 0)
	if err != nil {
		return 0, false, err
	}
	span := int64(Segment) // bytes under one child
	for range level - 1 {
		if span > math.MaxInt64/Fanout {
			return 0, false, errors.New("it is larger than any disk")
		}
		span *= Fanout
	}
	last := len(children) - 1
	if level < 1 || int64(last) >= math.MaxInt64/span {
		return 0, false, errors.New("it is larger than any disk")
	}
	before := int64(last) * span
	if children[last].hole != 0 {
		return before + span, false, nil
	}
	below, err := load.Load(ctx, children[last].id, nil)
	if err != nil {
		return 0, false, err
	}
	if want := level - 1; want > 0 && (len(below) < 2 || below[0] != innerNode || int(below[1]) != want) || want == 0 && (len(below) == 0 || below[0] != leafNode) {
		return 0, false, fmt.Errorf("the node below it is not of level %d", want)
	}
	size, exact, err = sizeOf(ctx, load, below)
	return before + size, exact, err
}

// leafSize returns how many bytes a leaf covers that is the last one of its disk.
func leafSize(ctx context.Context, load Loader, node []byte) (size int64, exact bool, err error) {
	extents, err := decodeLeaf(node, 0)
	if err != nil {
		return 0, false, err
	}
	for i := range extents {
		size += int64(extents[i].Blocks) * Block
	}
	last := extents[len(extents)-1]
	if last.Kind.hole() {
		return size, false, nil
	}
	chunk, err := load.Load(ctx, last.ID, nil)
	if err != nil {
		return size, false, ctx.Err() // a damaged chunk, of which only the length is wanted
	}
	short := int64(last.First+last.Blocks)*Block - int64(len(chunk))
	if short < 0 && last.Kind == Part {
		short = 0
	}
	if short < 0 || short >= Block {
		return 0, false, fmt.Errorf("chunk %x is not as long as its extent", last.ID[:6])
	}
	return size - short, true, nil
}

// Recovered returns a record for a tree.
func Recovered(t Tree, name, program string, now time.Time) *Snapshot {
	return &Snapshot{Version: 1, Time: now, Host: "recovered", Program: program, Tags: []string{"recovered"}, Disks: []Disk{t.Disk(name)}}
}
