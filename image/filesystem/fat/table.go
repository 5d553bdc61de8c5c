package fat

import (
	"cmp"
	"slices"

	"varve/image/filesystem"
)

// Values of an entry, of whatever width, in the 28 bits of a FAT32.
const (
	freeEntry = 0
	badEntry  = 0x0FFFFFF7 // those behind it are the last of a chain
)

// entry returns entry i of the table or part of a table in buf. Values that are no cluster are those of a FAT32.
func entry(buf []byte, i, bits int) uint32 {
	switch bits {
	case 12:
		v := uint32(le.Uint16(buf[i/2*3+i&1:]))
		if i&1 != 0 {
			v >>= 4
		}
		if v &= 0xFFF; v >= 0xFF6 {
			v |= 0x0FFFF000
		}
		return v
	case 16:
		v := uint32(le.Uint16(buf[2*i:]))
		if v >= 0xFFF6 {
			v |= 0x0FFF0000
		}
		return v
	}
	return le.Uint32(buf[4*i:]) & 0x0FFFFFFF // the other 4 bits are reserved
}

// tableBytes is how many bytes the entries of so many clusters take.
func tableBytes(clusters uint32, bits int) int64 { return ((int64(clusters)+2)*int64(bits) + 7) / 8 }

// table reads the active table.
type table struct {
	fs     *FS
	offset int64
}

// windowSize is how much of a table is read at once to follow a chain. No entry, of 12 bits or others, crosses a multiple of it.
const windowSize = 12 << 10

// window is a part of a table.
type window struct {
	*table
	buf   []byte
	first uint32 // entry of buf
}

// next returns the entry of cluster c.
func (w *window) next(c uint32) (uint32, error) {
	per := uint32(windowSize * 8 / w.fs.bits)
	if w.buf == nil || c/per != w.first/per {
		first := c / per * per
		from := int64(c/per) * windowSize
		buf := make([]byte, min(windowSize, tableBytes(w.fs.clusters, w.fs.bits)-from))
		if err := w.fs.read(buf, w.offset+from); err != nil {
			return 0, err
		}
		w.buf, w.first = buf, first
	}
	return entry(w.buf, int(c-w.first), w.fs.bits), nil
}

// chain returns where the clusters of the chain that begins at first lie. It wants so many of them: a file may have more than it
// needs. With less than 0 it wants all; there are at most -want. With an error it returns what it has so far, except of a ring.
func (t *table) chain(first uint32, want int64) ([]filesystem.Extent, error) {
	list, err := t.follow(first, want)
	if overlap(list) {
		return nil, filesystem.Corrupt("the chain of clusters from %d on is a ring", first)
	}
	return list, err
}

// follow is chain, and stops anywhere in a ring.
func (t *table) follow(first uint32, want int64) (list []filesystem.Extent, err error) {
	w := window{table: t}
	look := 16 // for a ring, when there are so many extents
	for c, n := first, int64(0); n != want; {
		switch {
		case !t.fs.has(c):
			return list, filesystem.Corrupt("a chain of clusters leads to %d", c)
		case n == -want:
			return list, filesystem.Corrupt("the chain of clusters from %d on is longer than a folder can be", first)
		}
		list = t.fs.append(list, c)
		if n++; n == want {
			break
		}
		if len(list) == look {
			if overlap(list) {
				break
			}
			look *= 2
		}
		if c, err = w.next(c); err != nil {
			return list, err
		}
		if c > badEntry {
			if want < 0 {
				break
			}
			return list, filesystem.Corrupt("a chain ends after %d of %d clusters", n, want)
		}
	}
	return list, nil
}

// overlap says whether a cluster is in list twice.
func overlap(list []filesystem.Extent) bool {
	if len(list) < 2 {
		return false
	}
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b filesystem.Extent) int { return cmp.Compare(a.Disk, b.Disk) })
	for i := range sorted[1:] {
		if sorted[i].Disk+sorted[i].Stored > sorted[i+1].Disk {
			return true
		}
	}
	return false
}

// append adds a cluster to the extents of a file.
func (b *boot) append(list []filesystem.Extent, c uint32) []filesystem.Extent {
	at := b.at(c)
	if i := len(list) - 1; i >= 0 && list[i].Disk+list[i].Stored == at {
		list[i].Length += b.cluster
		list[i].Stored += b.cluster
		return list
	}
	offset := int64(0)
	if i := len(list) - 1; i >= 0 {
		offset = list[i].Offset + list[i].Length
	}
	return append(list, filesystem.Extent{Kind: filesystem.Plain, Offset: offset, Length: b.cluster, Disk: at, Stored: b.cluster})
}
