package btrfs

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"iter"
	"math"

	"varve/image/filesystem"
)

// Trees.
const (
	rootTree       = 1
	extentTree     = 2
	chunkTree      = 3
	deviceTree     = 4
	topTree        = 5 // the subvolume in which all others are
	checksumTree   = 7
	freeSpaceTree  = 10
	blockGroupTree = 11

	firstSubvolume = 256 // further ones count on from here
)

// Kinds of items.
const (
	inodeKind           = 1
	attributeKind       = 24
	entryKind           = 96  // DIR_INDEX
	extentDataKind      = 108 // a run of a file
	checksumKind        = 128
	rootKind            = 132
	rootRefKind         = 156
	extentKind          = 168
	metadataKind        = 169
	treeBlockRefKind    = 176
	extentDataRefKind   = 178
	sharedBlockRefKind  = 182
	sharedDataRefKind   = 184
	blockGroupKind      = 192
	freeSpaceInfoKind   = 198
	freeSpaceExtentKind = 199
	freeSpaceBitmapKind = 200
	deviceExtentKind    = 204
	chunkKind           = 228
)

// isSubvolume tells whether a tree is one of files. Higher numbers are of groups of quotas, and of passing trees of the kernel.
func isSubvolume(tree uint64) bool { return tree == topTree || tree >= firstSubvolume && tree>>48 == 0 }

// A tree is one version of a tree.
type tree struct {
	volume *volume
	id     uint64
	root   pointer
}

// An item is what a leaf has under a key.
type item struct {
	key      key
	data     []byte // part of the leaf: not to be changed
	physical int64  // where it lies on the partition
}

// items yields the items of a tree from one key to another, both included, in order. Where a block cannot be read it yields the error,
// and goes on behind it. It ends: no two entries of a node lead to one block, because they would have to begin with one key.
func (t tree) items(from, to key) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		t.walk(wanted{pointer: t.root, tree: t.id}, from, to, yield)
	}
}

// walk yields the items of one block and those below it, and returns whether more are wanted.
func (t tree) walk(w wanted, from, to key, yield func(item, error) bool) bool {
	b, err := t.volume.block(w)
	if err != nil {
		return yield(item{}, err)
	}
	for i := max(0, b.floor(from)); i < b.count; i++ {
		k := b.key(i)
		switch {
		case k.compare(to) > 0:
			return true
		case b.level > 0:
			if !t.walk(w.below(b, i), from, to, yield) {
				return false
			}
		case k.compare(from) >= 0:
			if !yield(b.item(i), nil) {
				return false
			}
		}
	}
	return true
}

// below is what is wanted of the block below entry i of b.
func (w wanted) below(b *block, i int) wanted {
	first, end := b.key(i), w.end
	if i+1 < b.count {
		next := b.key(i + 1)
		end = &next
	}
	return wanted{pointer: b.child(i), tree: w.tree, first: &first, end: end}
}

// last returns the last item from one key to another, both included; ok is false when there is none.
func (t tree) last(from, to key) (found item, ok bool, err error) {
	for w := (wanted{pointer: t.root, tree: t.id}); ; {
		b, err := t.volume.block(w)
		if err != nil {
			return item{}, false, err
		}
		i := b.floor(to)
		if i < 0 {
			return item{}, false, nil
		}
		if b.level > 0 {
			w = w.below(b, i)
			continue
		}
		if b.key(i).compare(from) < 0 {
			return item{}, false, nil
		}
		return b.item(i), true, nil
	}
}

// A rootItem is the part of a ROOT_ITEM that matters here: behind an inode item of 160 bytes generation 8, first inode 8,
// address 8, …, references 4 at 216, …, level 1 at 238.
type rootItem struct {
	pointer
	references uint32 // 0: it is being deleted
}

func parseRootItem(b []byte) (rootItem, error) {
	le := binary.LittleEndian
	if len(b) < 239 {
		return rootItem{}, filesystem.Corrupt("the root of a tree has %d bytes", len(b))
	}
	r := rootItem{pointer{logical: le.Uint64(b[176:]), generation: le.Uint64(b[160:]), level: b[238]}, le.Uint32(b[216:])}
	if r.level > maxLevel {
		return r, filesystem.Corrupt("a tree of %d levels", r.level)
	}
	return r, nil
}

// tree finds a tree that has its root in the root tree. The error is fs.ErrNotExist when there is no such subvolume.
func (v *volume) tree(id uint64) (tree, error) {
	roots := tree{v, rootTree, v.super.root}
	found, ok, err := roots.last(key{id, rootKind, 0}, key{id, rootKind, math.MaxUint64})
	if err != nil {
		return tree{}, fmt.Errorf("looking for tree %d: %w", id, err)
	}
	root := rootItem{}
	if ok {
		if root, err = parseRootItem(found.data); err != nil {
			return tree{}, err
		}
	}
	switch {
	case root.references > 0:
		return tree{v, id, root.pointer}, nil
	case isSubvolume(id):
		return tree{}, fmt.Errorf("subvolume %d: %w", id, fs.ErrNotExist)
	}
	return tree{}, filesystem.Corrupt("it has no tree %d", id)
}
