package xfs

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"

	"varve/image/filesystem"
)

// maxLevels is more than any tree has: a node has 20 entries at least, and there are 2^47 extents in a file at most.
const maxLevels = 12

// none is the pointer that leads nowhere.
const none = 0xffffffff

// blockRun is a run of blocks of one group.
type blockRun struct{ start, count uint32 }

func (r blockRun) end() uint64 { return uint64(r.start) + uint64(r.count) }

// Free goes through the groups. Of each it reads the two trees of free runs, and trusts them when they have the same runs, as many as
// the AGF counts, and none where something else is known to lie: the first sectors, the log, the AGFL, the trees.
func (f *FS) Free(ctx context.Context, free func(filesystem.Range) error) error {
	s := &f.super
	if s.untrusted != "" {
		return filesystem.Untrusted("%s", s.untrusted)
	}
	if f.dirty != "" {
		return filesystem.Untrusted("it %s", f.dirty)
	}
	var pending filesystem.Range
	for number := range s.groups {
		g, err := f.readGroup(ctx, number)
		if err != nil {
			return err
		}
		if err := g.free(func(r blockRun) error {
			next := filesystem.Range{
				Offset: int64(uint64(number)*uint64(s.groupBlocks)+uint64(r.start)) << s.blockLog,
				Length: int64(r.count) << s.blockLog,
			}
			if pending.Length > 0 && pending.End() == next.Offset {
				pending.Length += next.Length
				return nil
			}
			pending, next = next, pending
			if next.Length == 0 {
				return nil
			}
			return free(next)
		}); err != nil {
			return err
		}
	}
	if pending.Length == 0 {
		return nil
	}
	return free(pending)
}

// A group is what its AGF and AGFL say.
type group struct {
	f         *FS
	ctx       context.Context
	number    uint32
	length    uint32
	roots     [2]uint32 // by block, by length
	levels    [2]uint32
	blocks    uint32 // that are free
	longest   uint32
	treeNodes uint32     // blocks of the trees by block, by length, and of owners, but their roots
	ownerTree uint32     // blocks of the tree of owners, when there is one
	used      []blockRun // what is known to be in use, in any order
}

// readGroup reads the AGF and the AGFL of a group.
func (f *FS) readGroup(ctx context.Context, number uint32) (*group, error) {
	s := &f.super
	be := binary.BigEndian
	off := int64(number) * int64(s.groupBlocks) << s.blockLog
	b := make([]byte, s.sectorSize)
	if err := f.read(b, off+s.sectorSize); err != nil {
		return nil, err
	}
	if string(b[:4]) != "XAGF" || be.Uint32(b[4:]) != 1 || be.Uint32(b[8:]) != number {
		return nil, filesystem.Corrupt("allocation group %d has no AGF", number)
	}
	if s.v5 {
		if err := f.identify(b, groupHead, off+s.sectorSize, 0); err != nil {
			return nil, err
		}
	}
	g := &group{
		f: f, ctx: ctx, number: number,
		length:    be.Uint32(b[12:]),
		roots:     [2]uint32{be.Uint32(b[16:]), be.Uint32(b[20:])},
		levels:    [2]uint32{be.Uint32(b[28:]), be.Uint32(b[32:])},
		blocks:    be.Uint32(b[52:]),
		longest:   be.Uint32(b[56:]),
		treeNodes: be.Uint32(b[60:]),
		ownerTree: be.Uint32(b[80:]),
		used:      []blockRun{{0, s.headerBlocks()}},
	}
	if g.length != s.groupLength(number) {
		return nil, filesystem.Untrusted("allocation group %d says it has %d blocks, the superblock %d", number, g.length, s.groupLength(number))
	}
	if s.logStart != 0 && s.logStart>>s.groupLog == uint64(number) {
		g.used = append(g.used, blockRun{uint32(s.logStart & (1<<s.groupLog - 1)), s.logBlocks})
	}
	return g, g.readList(off+3*s.sectorSize, be.Uint32(b[40:]), be.Uint32(b[44:]), be.Uint32(b[48:]))
}

// readList reads the AGFL, a ring in which the blocks from first to last are kept for the trees.
func (g *group) readList(off int64, first, last, count uint32) error {
	be := binary.BigEndian
	b := make([]byte, g.f.super.sectorSize)
	if err := g.f.read(b, off); err != nil {
		return err
	}
	if g.f.super.v5 {
		if string(b[:4]) != "XAFL" || be.Uint32(b[4:]) != g.number {
			return filesystem.Corrupt("allocation group %d has no AGFL", g.number)
		}
		if err := g.f.identify(b, groupList, off, 0); err != nil {
			return err
		}
		b = b[36:]
	}
	room := uint32(len(b) / 4)
	if count == 0 {
		return nil
	}
	if first >= room || last >= room || count != (last+room-first)%room+1 {
		return filesystem.Untrusted("allocation group %d keeps %d blocks, from %d to %d of a list of %d", g.number, count, first, last, room)
	}
	for i := range count {
		g.used = append(g.used, blockRun{be.Uint32(b[(first+i)%room*4:]), 1})
	}
	return nil
}

// tally is what two trees with the same runs have in common.
type tally struct {
	runs    uint64
	blocks  uint64
	longest uint32
	mixed   uint64 // sum of hashes of the runs
}

func (t *tally) add(r blockRun) {
	t.runs++
	t.blocks += uint64(r.count)
	t.longest = max(t.longest, r.count)
	// The finisher of splitmix64: the sum does not depend on the order.
	x := uint64(r.start)<<32 | uint64(r.count)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	t.mixed += x ^ x>>31
}

// free calls free for each free run of the group, in order.
func (g *group) free(free func(blockRun) error) error {
	var byBlock, byLength tally
	var lengths, nodes treeWalk

	// First where the trees lie, of the tree by block without reading its leaves; then its runs.
	lengths = treeWalk{group: g, magic: "ABTC", magic5: "AB3C", compare: compareLengths, record: func(r blockRun) error {
		byLength.add(r)
		return nil
	}}
	if err := lengths.walk(g.roots[1], g.levels[1]); err != nil {
		return err
	}
	nodes = treeWalk{group: g, magic: "ABTB", magic5: "AB3B", compare: compareStarts}
	if err := nodes.walk(g.roots[0], g.levels[0]); err != nil {
		return err
	}
	if err := g.sortUsed(slices.Concat(lengths.blocks, nodes.blocks)); err != nil {
		return err
	}
	used := g.used
	runs := treeWalk{group: g, magic: "ABTB", magic5: "AB3B", compare: compareStarts, record: func(r blockRun) error {
		for len(used) > 0 && used[0].end() <= uint64(r.start) {
			used = used[1:]
		}
		if len(used) > 0 && uint64(used[0].start) < r.end() {
			return filesystem.Untrusted("block %d of allocation group %d is free and in use", max(used[0].start, r.start), g.number)
		}
		byBlock.add(r)
		return free(r)
	}}
	if err := runs.walk(g.roots[0], g.levels[0]); err != nil {
		return err
	}
	return g.compare(byBlock, byLength, len(lengths.blocks)+len(runs.blocks)-2)
}

// sortUsed adds the blocks of the trees to what is in use, and sorts it.
func (g *group) sortUsed(blocks []uint32) error {
	for _, b := range blocks {
		g.used = append(g.used, blockRun{b, 1})
	}
	slices.SortFunc(g.used, compareStarts)
	for i, r := range g.used {
		if r.end() > uint64(g.length) || i > 0 && uint64(r.start) < g.used[i-1].end() {
			return filesystem.Untrusted("block %d of allocation group %d has two uses", r.start, g.number)
		}
	}
	return nil
}

// compare compares what was found with what the AGF counts. nodes are the blocks of both trees but their roots.
func (g *group) compare(byBlock, byLength tally, nodes int) error {
	if byBlock != byLength {
		return filesystem.Untrusted("the free blocks of allocation group %d are %d in %d runs by block, and %d in %d by length",
			g.number, byBlock.blocks, byBlock.runs, byLength.blocks, byLength.runs)
	}
	if byBlock.blocks != uint64(g.blocks) || byBlock.longest != g.longest {
		return filesystem.Untrusted("allocation group %d counts %d free blocks, %d in a row, and has %d, %d in a row",
			g.number, g.blocks, g.longest, byBlock.blocks, byBlock.longest)
	}
	if !g.f.super.lazy {
		return nil // the blocks of trees are not counted
	}
	if g.f.super.owners {
		nodes += int(g.ownerTree) - 1
	}
	if nodes != int(g.treeNodes) {
		return filesystem.Untrusted("allocation group %d counts %d blocks of trees, and has %d", g.number, g.treeNodes, nodes)
	}
	return nil
}

func compareStarts(a, b blockRun) int { return cmp.Compare(a.start, b.start) }

func compareLengths(a, b blockRun) int {
	return cmp.Or(cmp.Compare(a.count, b.count), cmp.Compare(a.start, b.start))
}

// A treeWalk goes through a tree of free runs. It ends, because each leaf begins behind where the one before it ended.
type treeWalk struct {
	group         *group
	magic, magic5 string
	compare       func(a, b blockRun) int
	record        func(blockRun) error // nil: the leaves are not read

	blocks []uint32 // that the tree takes
	before []uint32 // of each level, the block before
	behind []uint32 // of each level, the one that should come next
	buffer [][]byte // of each level
	last   blockRun
}

// walk calls record for each run in order.
func (t *treeWalk) walk(root, levels uint32) error {
	if levels == 0 || levels > maxLevels {
		return filesystem.Corrupt("a tree of allocation group %d has %d levels", t.group.number, levels)
	}
	t.before = slices.Repeat([]uint32{none}, int(levels))
	t.behind = slices.Repeat([]uint32{root}, int(levels))
	t.buffer = make([][]byte, levels)
	for i := range t.behind[:levels-1] {
		t.behind[i] = none - 1 // the first of a level is whatever it is
	}
	if err := t.visit(root, int(levels)-1); err != nil {
		return err
	}
	for level, next := range t.behind {
		if next != none && (level > 0 || t.record != nil) {
			return filesystem.Corrupt("a tree of allocation group %d ends before block %d", t.group.number, next)
		}
	}
	return nil
}

// visit reads a block of the tree, and what is below it.
func (t *treeWalk) visit(number uint32, level int) error {
	g := t.group
	if uint64(len(t.blocks)) >= uint64(g.length) {
		return filesystem.Corrupt("the trees of allocation group %d have more blocks than it", g.number)
	}
	t.blocks = append(t.blocks, number)
	if level == 0 && t.record == nil {
		return nil
	}
	if err := g.ctx.Err(); err != nil {
		return err
	}
	b, entries, err := t.read(number, level)
	if err != nil {
		return err
	}
	be := binary.BigEndian
	if level == 0 {
		return t.leaf(b, entries)
	}
	room := len(b) / 12 // a key has 8 bytes, a pointer 4
	if entries == 0 || entries > room {
		return filesystem.Corrupt("block %d of allocation group %d has %d entries", number, g.number, entries)
	}
	for i := range entries {
		if err := t.visit(be.Uint32(b[room*8+i*4:]), level-1); err != nil {
			return err
		}
	}
	return nil
}

// read reads a block of the tree and returns what is behind its header, and how many entries it says to have.
func (t *treeWalk) read(number uint32, level int) ([]byte, int, error) {
	g, s := t.group, &t.group.f.super
	if number < s.headerBlocks() || number >= g.length {
		return nil, 0, filesystem.Corrupt("a tree of allocation group %d leads to block %d", g.number, number)
	}
	if t.buffer[level] == nil {
		t.buffer[level] = make([]byte, s.blockSize())
	}
	b := t.buffer[level]
	off := int64(uint64(g.number)*uint64(s.groupBlocks)+uint64(number)) << s.blockLog
	if err := g.f.read(b, off); err != nil {
		return nil, 0, err
	}
	be := binary.BigEndian
	magic, size := t.magic, 16
	if s.v5 {
		magic, size = t.magic5, 56
		if err := g.f.identify(b, groupTree, off, 0); err != nil {
			return nil, 0, err
		}
		if owner := be.Uint32(b[48:]); owner != g.number {
			return nil, 0, filesystem.Corrupt("block %d of allocation group %d is that of group %d", number, g.number, owner)
		}
	}
	before, behind := be.Uint32(b[8:]), be.Uint32(b[12:])
	if string(b[:4]) != magic || int(be.Uint16(b[4:])) != level {
		return nil, 0, filesystem.Corrupt("block %d of allocation group %d is not level %d of a tree of free runs", number, g.number, level)
	}
	if before != t.before[level] || t.behind[level] != number && t.behind[level] != none-1 {
		return nil, 0, filesystem.Corrupt("block %d of allocation group %d does not follow the one before it", number, g.number)
	}
	t.before[level], t.behind[level] = number, behind
	return b[size:], int(be.Uint16(b[6:])), nil
}

// leaf calls record for the runs of a leaf.
func (t *treeWalk) leaf(b []byte, entries int) error {
	g := t.group
	be := binary.BigEndian
	if entries > len(b)/8 || entries == 0 && len(t.before) > 1 {
		return filesystem.Corrupt("a leaf of allocation group %d has %d entries", g.number, entries)
	}
	for i := range entries {
		r := blockRun{be.Uint32(b[i*8:]), be.Uint32(b[i*8+4:])}
		if r.count == 0 || r.end() > uint64(g.length) || t.last.count != 0 && t.compare(t.last, r) >= 0 {
			return filesystem.Corrupt("%d free blocks at %d of allocation group %d are out of order", r.count, r.start, g.number)
		}
		if t.last.count != 0 && t.last.start < r.start && t.last.end() > uint64(r.start) {
			return filesystem.Corrupt("free blocks at %d of allocation group %d are there twice", r.start, g.number)
		}
		t.last = r
		if err := t.record(r); err != nil {
			return err
		}
	}
	return nil
}
