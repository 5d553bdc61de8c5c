package btrfs

import (
	"context"
	"encoding/binary"
	"iter"
	"math"

	"varve/image/filesystem"
)

// A run is a run of addresses.
type run struct{ logical, length uint64 }

// Free reads the chunk tree, the device tree, the extent tree and, where there is one, the tree of free space. What no chunk takes of the
// device is free, and in a chunk what no extent covers, in all copies; superblocks and the first MiB never are. All counts have to
// agree: those of each block group, of the device and of the superblock. The tree of free space has to list what the extent tree
// leaves.
//
// It cannot see whether the filesystem is mounted: who calls must know. Of one that is, it tells what was free at the last commit.
func (f *FS) Free(ctx context.Context, free func(filesystem.Range) error) error {
	if f.super.untrusted != "" {
		return filesystem.Untrusted("%s", f.super.untrusted)
	}
	v, err := f.volume()
	if err != nil {
		return err
	}
	a, err := newAudit(ctx, v)
	if err != nil {
		return err
	}
	out := newEmitter(f.super.device.size, free)
	at := int64(0)
	for _, s := range v.chunks.stripes() {
		if err := out.add(at, s.off); err != nil {
			return err
		}
		unused := a.unused(s.chunk)
		if s.copy == 0 {
			unused = a.counted(s.chunk)
		}
		for r, err := range unused {
			if err != nil {
				return err
			}
			from := s.off + int64(r.logical-s.chunk.logical)
			if err := out.add(from, from+int64(r.length)); err != nil {
				return err
			}
		}
		at = s.off + int64(s.chunk.length)
	}
	if a.used != f.super.used {
		return filesystem.Untrusted("its superblock counts %d bytes in use, and its extents have %d", f.super.used, a.used)
	}
	if err := out.add(at, f.super.device.size); err != nil {
		return err
	}
	return out.flush()
}

// An audit compares the trees that tell what is in use.
type audit struct {
	ctx     context.Context
	volume  *volume
	extents tree
	groups  map[uint64]uint64 // bytes in use of each block group; nil when the extent tree tells
	spaces  *tree             // nil when there is none, or it is out of date
	used    uint64            // bytes of all extents that were counted
}

// newAudit checks what can be checked without going through the extents.
func newAudit(ctx context.Context, v *volume) (*audit, error) {
	a := &audit{ctx: ctx, volume: v}
	var err error
	if a.extents, err = v.tree(extentTree); err != nil {
		return nil, err
	}
	if err := a.checkGaps(); err != nil {
		return nil, err
	}
	if v.super.freeSpaceTree {
		spaces, err := v.tree(freeSpaceTree)
		if err != nil {
			return nil, err
		}
		a.spaces = &spaces
	}
	if v.super.blockGroupTree {
		if err := a.readGroups(); err != nil {
			return nil, err
		}
	}
	if err := a.checkDevice(); err != nil {
		return nil, err
	}
	return a, a.checkRoots()
}

// checkGaps checks that all extents are in chunks. (The tree of free space may have some runs that are not: mkfs.btrfs forgets to remove
// those of its first chunk.)
func (a *audit) checkGaps() error {
	next := uint64(0)
	for _, c := range a.volume.chunks {
		if err := a.checkGap(next, c.logical); err != nil {
			return err
		}
		next = c.end()
	}
	return a.checkGap(next, math.MaxUint64)
}

// checkGap checks that there is no item from an address to before another.
func (a *audit) checkGap(from, to uint64) error {
	if from == to {
		return a.ctx.Err()
	}
	found, ok, err := a.extents.last(key{object: from}, key{to - 1, math.MaxUint8, math.MaxUint64})
	if ok {
		return filesystem.Untrusted("the extent tree has an item %v, which is in no chunk", found.key)
	}
	return err
}

// readGroups reads the tree of block groups, one for each chunk.
func (a *audit) readGroups() error {
	t, err := a.volume.tree(blockGroupTree)
	if err != nil {
		return err
	}
	a.groups = map[uint64]uint64{}
	for item, err := range t.items(key{}, key{math.MaxUint64, math.MaxUint8, math.MaxUint64}) {
		if err != nil {
			return err
		}
		c, err := a.volume.chunks.find(item.key.object, 1)
		if err != nil {
			return err
		}
		if a.groups[c.logical], err = parseGroup(item, c); err != nil {
			return err
		}
	}
	return a.ctx.Err()
}

// parseGroup parses the BLOCK_GROUP_ITEM of chunk c, and returns how many bytes are in use.
//
//	used 8, 256 8, kind 8
func parseGroup(item item, c *chunk) (uint64, error) {
	le := binary.LittleEndian
	if item.key != (key{c.logical, blockGroupKind, c.length}) || len(item.data) != 24 || le.Uint64(item.data[16:]) != c.kind {
		return 0, filesystem.Untrusted("the block group %v is not the chunk at %d", item.key, c.logical)
	}
	return le.Uint64(item.data), nil
}

// checkDevice checks that the device tree has exactly what the chunks say.
//
//	DEV_EXTENT   chunk tree 8, 256 8, address of the chunk 8, length 8, uuid of the chunk tree 16
func (a *audit) checkDevice() error {
	le := binary.LittleEndian
	s := a.volume.super
	t, err := a.volume.tree(deviceTree)
	if err != nil {
		return err
	}
	stripes, total := a.volume.chunks.stripes(), uint64(0)
	for item, err := range t.items(key{}, key{math.MaxUint64, math.MaxUint8, math.MaxUint64}) {
		switch {
		case err != nil:
			return err
		case item.key.kind != deviceExtentKind:
			continue // statistics
		case len(item.data) != 48 || len(stripes) == 0 || item.key != (key{s.device.id, deviceExtentKind, uint64(stripes[0].off)}) ||
			le.Uint64(item.data[16:]) != stripes[0].chunk.logical || le.Uint64(item.data[24:]) != stripes[0].chunk.length:
			return filesystem.Untrusted("its device tree has %v, which is no chunk", item.key)
		}
		total += stripes[0].chunk.length
		stripes = stripes[1:]
	}
	if len(stripes) > 0 {
		return filesystem.Untrusted("its device tree lacks the chunk at %d", stripes[0].chunk.logical)
	}
	if total != s.device.used {
		return filesystem.Untrusted("its superblock counts %d bytes of chunks, and they have %d", s.device.used, total)
	}
	return a.ctx.Err()
}

// checkRoots checks that the roots of all trees are extents.
func (a *audit) checkRoots() error {
	v := a.volume
	for _, root := range []pointer{v.super.root, v.super.chunkRoot} {
		if err := a.checkRoot(root); err != nil {
			return err
		}
	}
	roots := tree{v, rootTree, v.super.root}
	for item, err := range roots.items(key{}, key{math.MaxUint64, math.MaxUint8, math.MaxUint64}) {
		if err != nil {
			return err
		}
		if item.key.kind != rootKind {
			continue
		}
		root, err := parseRootItem(item.data)
		if err != nil {
			return err
		}
		if err := a.checkRoot(root.pointer); err != nil {
			return err
		}
	}
	return a.ctx.Err()
}

func (a *audit) checkRoot(root pointer) error {
	found, ok, err := a.extents.last(key{root.logical, extentKind, 0}, key{root.logical, metadataKind, math.MaxUint64})
	if err != nil {
		return err
	}
	if !ok || found.key.kind == metadataKind && found.key.offset != uint64(root.level) ||
		found.key.kind == extentKind && found.key.offset != uint64(a.volume.super.nodeSize) {
		return filesystem.Untrusted("the root of a tree at address %d is no extent", root.logical)
	}
	return nil
}

// counted yields what unused yields, adds to what is in use, and compares with the tree of free space.
func (a *audit) counted(c *chunk) iter.Seq2[run, error] {
	return func(yield func(run, error) bool) {
		next, stop := iter.Pull2(a.listed(c))
		defer stop()
		left := c.length
		for r, err := range a.unused(c) {
			if err == nil && a.spaces != nil {
				var listed run
				if listed, err, _ = next(); err == nil && listed != r {
					err = disagree(r.logical)
				}
			}
			if !yield(r, err) {
				return
			}
			left -= r.length
		}
		if listed, err, more := next(); more {
			if err == nil {
				err = disagree(listed.logical)
			}
			yield(run{}, err)
		}
		a.used += left
	}
}

func disagree(logical uint64) error {
	return filesystem.Untrusted("its extents and its tree of free space disagree at address %d", logical)
}

// unused yields the runs of a chunk that no extent covers, and an error unless they are as many as its block group says.
func (a *audit) unused(c *chunk) iter.Seq2[run, error] {
	return func(yield func(run, error) bool) {
		at, used := c.logical, uint64(0) // what was before at
		declared, known := a.groups[c.logical]
		last, n := uint64(math.MaxUint64), 0 // address of the last extent, items
		for item, err := range a.extents.items(key{object: c.logical}, key{c.end() - 1, math.MaxUint8, math.MaxUint64}) {
			if n++; err == nil && n%1024 == 0 {
				err = a.ctx.Err()
			}
			if err != nil {
				yield(run{}, err)
				return
			}
			switch item.key.kind {
			case extentKind, metadataKind:
				length, err := a.parseExtent(item, c)
				if err == nil && (item.key.object < at || length > c.end()-item.key.object) {
					err = filesystem.Untrusted("the extent %v overlaps another", item.key)
				}
				if err != nil {
					yield(run{}, err)
					return
				}
				last = item.key.object
				if last > at && !yield(run{at, last - at}, nil) {
					return
				}
				at, used = last+length, used+length
				continue
			case treeBlockRefKind, extentDataRefKind, sharedBlockRefKind, sharedDataRefKind: // whose the extent is
				if item.key.object == last {
					continue
				}
			case blockGroupKind:
				if !known {
					if declared, err = parseGroup(item, c); err != nil {
						yield(run{}, err)
						return
					}
					known = true
					continue
				}
			}
			yield(run{}, filesystem.Untrusted("the extent tree has an item %v", item.key))
			return
		}
		switch {
		case !known:
			yield(run{}, filesystem.Untrusted("the chunk at %d has no block group", c.logical))
		case declared != used:
			yield(run{}, filesystem.Untrusted("the block group at %d counts %d bytes in use, and its extents have %d", c.logical, declared, used))
		case at < c.end():
			yield(run{at, c.end() - at}, nil)
		}
	}
}

// parseExtent parses an EXTENT_ITEM or METADATA_ITEM in chunk c, and returns its length in bytes.
//
//	references 8, generation 8, flags 8 (1: data, 2: tree block), then whose it is
func (a *audit) parseExtent(item item, c *chunk) (uint64, error) {
	s := a.volume.super
	length := item.key.offset
	if item.key.kind == metadataKind {
		length = uint64(s.nodeSize)
	}
	if len(item.data) < 24 {
		return 0, filesystem.Corrupt("the extent %v has %d bytes", item.key, len(item.data))
	}
	flags := binary.LittleEndian.Uint64(item.data[16:])
	var right bool
	switch flags & 3 {
	case 1:
		right = c.kind&chunkData != 0 && item.key.kind == extentKind
	case 2:
		right = c.kind&(chunkMetadata|chunkSystem) != 0 && length == uint64(s.nodeSize)
	}
	sector := uint64(s.sectorSize)
	if !right || binary.LittleEndian.Uint64(item.data) == 0 || length == 0 || length%sector != 0 || item.key.object%sector != 0 {
		return 0, filesystem.Untrusted("the extent %v with flags %#x is not possible there", item.key, flags)
	}
	return length, nil
}
