package ext

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"varve/image/filesystem"
)

// Free calls free for each run of clusters that no bitmap has. It reads the descriptors twice and the bitmaps once, and keeps a range for
// each run of structures.
func (f *FS) Free(ctx context.Context, free func(filesystem.Range) error) error {
	if err := f.trust(); err != nil {
		return untrusted(err)
	}
	used, err := f.structures(ctx)
	if err != nil {
		return untrusted(err)
	}
	s := scan{FS: f, ctx: ctx, free: free, used: used, bitmaps: make([]byte, min(bitmapBytes, f.groups*f.blockSize))}
	if err := s.all(); s.refused == nil {
		return untrusted(err)
	}
	return s.refused
}

// untrusted says of damage that nothing is to be relied on, and leaves other errors as they are.
func untrusted(err error) error {
	var corrupt *filesystem.CorruptError
	if errors.As(err, &corrupt) {
		return filesystem.Untrusted("%v", err)
	}
	return err
}

// trust returns an UntrustedError when something other than the bitmaps says that they must not be relied on.
func (f *FS) trust() error {
	if reason := f.dirty(); reason != "" {
		return filesystem.Untrusted("the filesystem %s", reason)
	}
	if i, r := f.incompat&^incompatKnown, f.readOnly&^roKnown; i|r != 0 {
		return filesystem.Untrusted("the filesystem has features that are unknown here (incompatible 0x%x, read-only 0x%x)", i, r)
	}
	if f.revision > 1 {
		return filesystem.Untrusted("the filesystem has the unknown revision %d", f.revision)
	}
	if f.blocks > f.size/f.blockSize {
		return filesystem.Untrusted("the filesystem is larger than its partition: %d blocks of %d bytes on %d", f.blocks, f.blockSize, f.size)
	}
	if f.inodes != f.groups*f.groupInodes {
		return filesystem.Untrusted("the filesystem has %d inodes, and not %d in each of %d groups", f.inodes, f.groupInodes, f.groups)
	}
	if err := f.trustProtection(); err != nil {
		return err
	}
	return f.trustJournal()
}

// trustProtection looks at the multiple-mount protection.
func (f *FS) trustProtection() error {
	if f.incompat&incompatMMP == 0 {
		return nil
	}
	const clean = 0xFF4D4D50
	b, err := f.blockNow(f.mmpBlock)
	switch {
	case err != nil:
		return err
	case le.Uint32(b) != 0x004D4D50 || f.blockSums && crc32c(f.seed, b[:0x3FC]) != le.Uint32(b[0x3FC:]):
		return filesystem.Corrupt("the block of the multiple-mount protection is none")
	case le.Uint32(b[4:]) != clean:
		return filesystem.Untrusted("some machine has the filesystem in use, or has crashed: the multiple-mount protection is held")
	}
	return nil
}

// trustJournal looks whether an inner journal is as empty as the superblock says.
func (f *FS) trustJournal() error {
	if f.compat&compatJournal == 0 || f.journalInode == 0 {
		return nil // or it is on another disk
	}
	in, err := f.inode(f.journalInode)
	if err != nil {
		return err
	}
	at := int64(-1)
	if err := in.runs(0, 1, func(r run) error {
		if !r.unwritten {
			at = r.disk
		}
		return nil
	}); err != nil {
		return err
	}
	if at < 0 {
		return filesystem.Corrupt("the journal has no first block")
	}
	b, err := f.blockNow(at)
	if err != nil {
		return err
	}
	kind := be.Uint32(b[4:])
	switch {
	case be.Uint32(b) != 0xC03B3998 || kind != 3 && kind != 4:
		return filesystem.Corrupt("the journal has no superblock")
	case be.Uint32(b[0x1C:]) != 0:
		return filesystem.Untrusted("the journal is not empty")
	case be.Uint32(b[0x20:]) != 0:
		return filesystem.Untrusted("the journal has noticed an error")
	}
	return nil
}

// blockNow reads a block from the disk, even when it is in memory.
func (f *FS) blockNow(n int64) ([]byte, error) {
	if n <= 0 || n >= f.blocks {
		return nil, filesystem.Corrupt("block %d of %d", n, f.blocks)
	}
	b := make([]byte, f.blockSize)
	return b, f.read(b, n*f.blockSize)
}

// span is a run of blocks.
type span struct{ start, end int64 }

// structures returns where superblocks, descriptors, bitmaps and inode tables lie, in order. Where two of them lie on one another, or where they
// cannot be, it is a CorruptError.
func (f *FS) structures(ctx context.Context) ([]span, error) {
	var list []span
	tables := f.inodeBlocks()
	err := f.readDescriptors(ctx, func(group int64, d descriptor) error {
		low, high := f.firstBlock, f.blocks
		if f.incompat&incompatFlexBG == 0 {
			low, high = f.groupStart(group), f.groupEnd(group)
		}
		spans := [...]span{
			{f.groupStart(group), f.headEnd(group)},
			{d.blockBitmap, d.blockBitmap + 1},
			{d.inodeBitmap, d.inodeBitmap + 1},
			{d.inodeTable, d.inodeTable + tables},
		}
		for _, s := range spans {
			if s.start < low || s.start >= high || s.end > high {
				return filesystem.Corrupt("structures of group %d lie outside", group)
			}
			last := len(list) - 1
			switch {
			case s.start == s.end: // no copy of the superblock is in this group
			case last >= 0 && list[last].end == s.start:
				list[last].end = s.end
			default:
				list = append(list, s)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	for i := 1; i < len(list); i++ {
		if list[i].start < list[i-1].end {
			return nil, filesystem.Corrupt("structures of groups lie on one another, at block %d", list[i].start)
		}
	}
	return list, nil
}
