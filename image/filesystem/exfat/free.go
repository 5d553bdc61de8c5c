package exfat

import (
	"cmp"
	"context"
	"slices"

	"varve/image/filesystem"
)

const (
	pieceSize = 256 << 10 // bytes of the bitmap that are read at once
	maxUpper  = 128 << 10 // the longest table of upper case letters
)

// Free implements filesystem.Filesystem. The bitmap is believed when the boot sectors have their checksum and say that all is at rest,
// the root folder has nothing that is unknown, the table of upper case letters has its checksum, and the clusters of all of
// these are marked as used.
func (fs *FS) Free(ctx context.Context, free func(filesystem.Range) error) error {
	if fs.info.Dirty != "" {
		return filesystem.Untrusted("the filesystem %s", fs.info.Dirty)
	}
	head := make([]byte, 8)
	if err := fs.read(head, fs.table); err != nil {
		return err
	}
	if le.Uint32(head) != 0xFFFFFFF8 || le.Uint32(head[4:]) != 0xFFFFFFFF {
		return filesystem.Untrusted("its table begins with %x", head)
	}
	structures, bitmap, err := fs.structures(ctx)
	if err != nil {
		return err
	}
	m := marks{fs: fs, structures: structures, free: free}
	buf := make([]byte, min(pieceSize, bitmapBytes(fs.clusters)))
	left := bitmapBytes(fs.clusters)
	for _, extent := range bitmap {
		for at := extent.Disk; at < extent.Disk+extent.Length && left > 0; {
			if err := ctx.Err(); err != nil {
				return err
			}
			piece := buf[:min(int64(len(buf)), extent.Disk+extent.Length-at, left)]
			if err := fs.read(piece, at); err != nil {
				return err
			}
			at += int64(len(piece))
			left -= int64(len(piece))
			if err := m.add(piece); err != nil {
				return err
			}
		}
	}
	return m.end()
}

// bitmapBytes is how many bytes the bitmap of so many clusters has.
func bitmapBytes(clusters uint32) int64 { return (int64(clusters) + 7) / 8 }

// structures returns where the root folder, the bitmap and the table of upper case letters lie, in the order of the disk; and the
// bitmap once more, in its own.
func (fs *FS) structures(ctx context.Context) (all, bitmap []filesystem.Extent, err error) {
	all, _, err = fs.folder(root)
	if err != nil {
		return nil, nil, err
	}
	var bitmaps, uppers []place
	var sum uint32
	if err := fs.entries(ctx, all, func(at int64, e []byte) (bool, error) {
		p := place{first: le.Uint32(e[20:]), length: le.Uint64(e[24:])}
		switch {
		case e[0] == typeBitmap:
			bitmaps = append(bitmaps, p)
		case e[0] == typeUpper:
			uppers, sum = append(uppers, p), le.Uint32(e[4:])
		case e[0]&(inUse|benign|secondary) == inUse && e[0] != typeLabel && e[0] != typeFile:
			return false, filesystem.Untrusted("its root folder has an entry of the unknown type %#x", e[0])
		}
		if len(bitmaps) > 1 || len(uppers) > 1 {
			return false, filesystem.Untrusted("it has a second bitmap of its clusters, or a second table of upper case letters")
		}
		return true, nil
	}); err != nil {
		return nil, nil, err
	}
	if len(bitmaps) == 0 || len(uppers) == 0 {
		return nil, nil, filesystem.Untrusted("it has no bitmap of its clusters, or no table of upper case letters")
	}
	if bitmaps[0].length < uint64(bitmapBytes(fs.clusters)) {
		return nil, nil, filesystem.Untrusted("the bitmap of its %d clusters has %d bytes", fs.clusters, bitmaps[0].length)
	}
	if bitmap, err = fs.extents(bitmaps[0]); err != nil {
		return nil, nil, err
	}
	upper, err := fs.checkUpper(uppers[0], sum)
	if err != nil {
		return nil, nil, err
	}
	all = slices.Concat(all, bitmap, upper)
	if overlap(all) {
		return nil, nil, filesystem.Untrusted("two of its structures are in one place")
	}
	slices.SortFunc(all, func(a, b filesystem.Extent) int { return cmp.Compare(a.Disk, b.Disk) })
	return all, bitmap, nil
}

// checkUpper reads the table of upper case letters (section 7.2), of which only the checksum matters here.
func (fs *FS) checkUpper(p place, want uint32) ([]filesystem.Extent, error) {
	if p.length == 0 || p.length > maxUpper {
		return nil, filesystem.Untrusted("its table of upper case letters has %d bytes", p.length)
	}
	list, err := fs.extents(p)
	if err != nil {
		return nil, err
	}
	left, sum := int64(p.length), uint32(0)
	for _, extent := range list {
		part := make([]byte, min(left, extent.Length))
		if err := fs.read(part, extent.Disk); err != nil {
			return nil, err
		}
		for _, b := range part {
			sum = sum>>1 | sum<<31
			sum += uint32(b)
		}
		left -= int64(len(part))
	}
	if sum != want {
		return nil, filesystem.Untrusted("the checksum of its table of upper case letters is wrong")
	}
	return list, nil
}

// marks makes runs of the bits of the bitmap.
type marks struct {
	fs         *FS
	structures []filesystem.Extent // that were not passed yet
	free       func(filesystem.Range) error

	next  int64 // bit that comes next
	start int64 // of the free run before it
	open  bool  // there is one
}

// add takes more of the bitmap.
func (m *marks) add(part []byte) error {
	for _, b := range part {
		if b == 0 && m.open || b == 0xFF && !m.open {
			m.next += 8
			continue
		}
		for bit := range 8 {
			if used := b>>bit&1 != 0; used == m.open {
				if err := m.turn(); err != nil {
					return err
				}
			}
			m.next++
		}
	}
	return nil
}

// turn begins or ends a free run.
func (m *marks) turn() error {
	m.open = !m.open
	if m.open {
		m.start = m.next
		return nil
	}
	return m.tell()
}

// end comes behind the last cluster, or among the bits that fill its byte.
func (m *marks) end() error {
	if !m.open {
		return nil
	}
	return m.tell()
}

// tell calls free for the run before the next bit.
func (m *marks) tell() error {
	end := min(m.next, int64(m.fs.clusters))
	if m.start >= end {
		return nil
	}
	r := filesystem.Range{Offset: m.fs.data + m.start*m.fs.cluster, Length: (end - m.start) * m.fs.cluster}
	for len(m.structures) > 0 && m.structures[0].Disk+m.structures[0].Stored <= r.Offset {
		m.structures = m.structures[1:]
	}
	if len(m.structures) > 0 && m.structures[0].Disk < r.End() {
		return filesystem.Untrusted("clusters of its own structures are marked as free")
	}
	return m.free(r)
}
