package btrfs

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"varve/image/filesystem"
)

// free returns what Free says.
func free(r io.ReaderAt, size int64) error {
	f, err := Open(r, size)
	if err != nil {
		return err
	}
	return f.Free(context.Background(), func(filesystem.Range) error { return nil })
}

// A leaf is a leaf of a small filesystem whose items can be changed.
type leaf struct {
	block []byte
	owner uint64
	items []item
}

// leaves returns the leaves of some trees in s, in no order.
func (s *small) leaves(owners ...uint64) (list []leaf) {
	super := s.blocks[superblockOffsets[0]]
	for off, b := range s.blocks {
		owner := binary.LittleEndian.Uint64(b[88:])
		if off == superblockOffsets[0] || !bytes.Equal(b[32:48], super[32:48]) || b[levelOffset] != 0 || !slices.Contains(owners, owner) {
			continue
		}
		l := leaf{block: b, owner: owner}
		parsed := block{data: b}
		for i := range int(binary.LittleEndian.Uint32(b[96:])) {
			item := parsed.item(i)
			item.data = bytes.Clone(item.data)
			l.items = append(l.items, item)
		}
		list = append(list, l)
	}
	return list
}

// write writes the items to the block.
func (l leaf) write() {
	le := binary.LittleEndian
	le.PutUint32(l.block[96:], uint32(len(l.items)))
	end := len(l.block)
	for i, item := range l.items {
		end -= copy(l.block[end-len(item.data):], item.data)
		entry := l.block[headerSize+i*itemSize:]
		le.PutUint64(entry, item.key.object)
		entry[8] = item.key.kind
		le.PutUint64(entry[9:], item.key.offset)
		le.PutUint32(entry[17:], uint32(end-headerSize))
		le.PutUint32(entry[21:], uint32(len(item.data)))
	}
}

// change calls f with the last item of some kind in a tree, and writes what it changes.
func (s *small) change(t *testing.T, tree uint64, kind byte, f func(*item)) {
	t.Helper()
	var found *item
	var in leaf
	for _, l := range s.leaves(tree) {
		for i := range l.items {
			if item := &l.items[i]; item.key.kind == kind && (found == nil || item.key.compare(found.key) > 0) {
				found, in = item, l
			}
		}
	}
	if found == nil {
		t.Fatalf("no item of kind %d in tree %d", kind, tree)
	}
	f(found)
	in.write()
}

// add adds to a number of 8 bytes.
func add(b []byte, n uint64) {
	binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)+n)
}

// TestFreeIsTrustedOnlyWhenAllAgrees changes one thing at a time, with right checksums.
func TestFreeIsTrustedOnlyWhenAllAgrees(t *testing.T) {
	super := func(off int, n uint64) func(*testing.T, *small) {
		return func(_ *testing.T, s *small) { add(s.blocks[superblockOffsets[0]][off:], n) }
	}
	edit := func(tree uint64, kind byte, f func(*item)) func(*testing.T, *small) {
		return func(t *testing.T, s *small) { s.change(t, tree, kind, f) }
	}
	for _, c := range []struct {
		name   string
		change func(*testing.T, *small)
		reason string // "" when it is still right
	}{
		{"nothing", func(*testing.T, *small) {}, ""},
		{"label", super(0x12b, 1), ""},
		{"log", super(0x60, 4096), "it has a log of files"},
		{"error", super(0x38, flagError), "it has noted an error"},
		{"seed", super(0x38, 1<<32), "flags that are not known"},
		{"devices", super(0x88, 1), "spread over 2 devices"},
		{"RAID1C34", super(0xbc, 1<<11), "incompat 0x800"},
		{"zoned", super(0xbc, 1<<12), "incompat 0x1000"},
		{"extent tree v2", super(0xbc, 1<<13), "incompat 0x2000"},
		{"RAID stripe tree", super(0xbc, 1<<14), "incompat 0x4000"},
		{"simple quota", super(0xbc, 1<<16), "incompat 0x10000"},
		{"a feature of the future", super(0xbc, 1<<40), "incompat 0x10000000000"},
		{"a feature for writers", super(0xb4, 1<<20), "ro_compat 0x100000"},
		{"a feature for nobody", super(0xac, 1), "compat 0x1"},
		{"ancient", super(0xbc, ^uint64(0)), "from before 2009"},
		{"used bytes of the superblock", super(0x78, 4096), "its superblock counts"},
		{"used bytes of the device", super(0xc9+16, 4096), "bytes of chunks"},
		{"used bytes of a block group", func(t *testing.T, s *small) {
			tree := uint64(extentTree)
			if len(s.leaves(blockGroupTree)) > 0 {
				tree = blockGroupTree
			}
			s.change(t, tree, blockGroupKind, func(i *item) { add(i.data, 4096) })
		}, "counts"},
		{"references of an extent", edit(extentTree, extentKind, func(i *item) { clear(i.data[:8]) }), "is not possible there"},
		{"kind of an extent", edit(extentTree, extentKind, func(i *item) { i.data[16] = 3 }), "is not possible there"},
		{"kind of an item", edit(extentTree, extentKind, func(i *item) { i.key.kind++ }), "is not possible there"},
		{"an item that is not known", edit(extentTree, metadataKind, func(i *item) { i.key.kind = 171 }), "has an item"},
		{"whose extent there is not", edit(extentTree, metadataKind, func(i *item) { i.key.kind = treeBlockRefKind }), "has an item"},
		{"an extent behind all chunks", edit(extentTree, metadataKind, func(i *item) { i.key.object += 1 << 40 }), "in no chunk"},
		{"address of a device extent", edit(deviceTree, deviceExtentKind, func(i *item) { add(i.data[16:], 4096) }), "which is no chunk"},
		{"length of a device extent", edit(deviceTree, deviceExtentKind, func(i *item) { add(i.data[24:], 4096) }), "which is no chunk"},
		{"device of a device extent", edit(deviceTree, deviceExtentKind, func(i *item) { i.key.object++ }), "which is no chunk"},
		{"runs of free space", edit(freeSpaceTree, freeSpaceInfoKind, func(i *item) { i.data[0]++ }), "and counts"},
		{"free space in bitmaps", edit(freeSpaceTree, freeSpaceInfoKind, func(i *item) { i.data[4] ^= inBitmaps }), "has an item"},
		{"a run of free space", edit(freeSpaceTree, freeSpaceExtentKind, func(i *item) { i.key.offset -= 4096 }), "disagree"},
		{"a run of free space that is too long", edit(freeSpaceTree, freeSpaceExtentKind, func(i *item) { i.key.offset += 4096 }), "has an item"},
		{"root of a tree", edit(rootTree, rootKind, func(i *item) { add(i.data[176:], 1<<20) }), "is no extent"},
		{"level of a tree", edit(rootTree, rootKind, func(i *item) { i.data[238]++ }), "is no extent"},
	} {
		for _, name := range smallNames {
			s := loadSmall(t, name)
			c.change(t, s)
			s.seal()
			err := free(s, s.size)
			var untrusted *filesystem.UntrustedError
			switch {
			case c.reason == "" && err != nil:
				t.Errorf("%s, %s: %v", name, c.name, err)
			case c.reason != "" && (!errors.As(err, &untrusted) || !strings.Contains(err.Error(), c.reason)):
				t.Errorf("%s, %s: %v, want %q", name, c.name, err, c.reason)
			}
		}
	}
}

// TestFreeMissesNothing: there is no item in the trees that tell what is in use which may be missing, also where there is no tree of free
// space to compare with.
func TestFreeMissesNothing(t *testing.T) {
	for k, name := range append(smallNames, smallNames...) {
		whole := loadSmall(t, name)
		alone := k >= len(smallNames)
		trees := []uint64{extentTree, chunkTree, deviceTree, blockGroupTree}
		if alone {
			whole.blocks[superblockOffsets[0]][0xb4] &^= roFreeSpaceTreeValid
			whole.seal()
			if err := free(whole, whole.size); err != nil {
				t.Fatal(err)
			}
		} else {
			trees = append(trees, freeSpaceTree)
		}
		removed := map[byte]int{}
		for n := 0; ; n++ { // the n-th item
			s := whole.clone()
			var gone *item
			i := n
			leaves := s.leaves(trees...)
			slices.SortFunc(leaves, func(a, b leaf) int { return cmp.Compare(a.owner, b.owner) })
			for _, l := range leaves {
				if i >= 0 && i < len(l.items) {
					gone = &item{key: l.items[i].key}
					l.items = slices.Delete(l.items, i, i+1)
					l.write()
				}
				i -= len(l.items)
				if gone != nil {
					break
				}
			}
			if gone == nil {
				break
			}
			switch k := gone.key; {
			case k.kind == deviceKind, k.kind == deviceStatsKind:
				continue // they tell nothing of what is in use
			case k.kind >= freeSpaceInfoKind && k.kind <= freeSpaceBitmapKind && k.object < 5<<20:
				continue // of a chunk that is no more
			}
			s.seal()
			if err := free(s, s.size); err == nil {
				t.Errorf("%s: %v is missing, and what is free is trusted", name, gone.key)
			}
			removed[gone.key.kind]++
		}
		if len(removed) < 5 || removed[metadataKind] < 10 {
			t.Errorf("%s: items by kind %v", name, removed)
		}
	}
}

const (
	deviceKind      = 216
	deviceStatsKind = 249
)
