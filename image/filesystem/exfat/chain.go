package exfat

import (
	"cmp"
	"slices"

	"varve/image/filesystem"
)

// place says where the bytes of a file or folder are.
type place struct {
	first  uint32
	length uint64
	piece  bool // they are in one piece, and the table has no chain of them
}

// endOfChain is what the table has for the last cluster of a chain.
const endOfChain = 0xFFFFFFFF

// extents are the clusters of a place.
func (fs *FS) extents(p place) ([]filesystem.Extent, error) {
	want := p.length / uint64(fs.cluster)
	if p.length%uint64(fs.cluster) != 0 {
		want++
	}
	switch {
	case want == 0:
		return nil, nil
	case want > uint64(fs.clusters):
		return nil, filesystem.Corrupt("a file needs %d of %d clusters", want, fs.clusters)
	case !p.piece:
		return fs.chain(p.first, int64(want))
	case !fs.has(p.first) || uint64(p.first-2)+want > uint64(fs.clusters):
		return nil, filesystem.Corrupt("the %d clusters of a file from %d on lead outside", want, p.first)
	}
	length := int64(want) * fs.cluster
	return []filesystem.Extent{{Kind: filesystem.Plain, Length: length, Disk: fs.at(p.first), Stored: length}}, nil
}

// windowSize is how much of the table is read at once to follow a chain.
const windowSize = 4 << 10

// window is a part of the table.
type window struct {
	fs    *FS
	buf   []byte
	first uint32 // entry of buf
}

// next returns the entry of cluster c.
func (w *window) next(c uint32) (uint32, error) {
	const per = windowSize / 4
	if w.buf == nil || c/per != w.first/per {
		first := c / per * per
		buf := make([]byte, min(windowSize, (int64(w.fs.clusters)+2-int64(first))*4))
		if err := w.fs.read(buf, w.fs.table+int64(first)*4); err != nil {
			return 0, err
		}
		w.buf, w.first = buf, first
	}
	return le.Uint32(w.buf[(c-w.first)*4:]), nil
}

// chain returns where the clusters of the chain that begins at first lie. It wants so many of them; with less than 0 it wants all,
// and there are at most -want. With an error it returns what it has so far, except of a ring.
func (fs *FS) chain(first uint32, want int64) ([]filesystem.Extent, error) {
	list, err := fs.follow(first, want)
	if overlap(list) {
		return nil, filesystem.Corrupt("the chain of clusters from %d on is a ring", first)
	}
	return list, err
}

// follow is chain, and stops anywhere in a ring.
func (fs *FS) follow(first uint32, want int64) (list []filesystem.Extent, err error) {
	w := window{fs: fs}
	look := 16 // for a ring, when there are so many extents
	for c, n := first, int64(0); n != want; {
		switch {
		case !fs.has(c):
			return list, filesystem.Corrupt("a chain of clusters leads to %d", c)
		case n == -want:
			return list, filesystem.Corrupt("the chain of clusters from %d on is longer than a folder can be", first)
		}
		list = fs.append(list, c)
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
		if c == endOfChain {
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
	at, offset := b.at(c), int64(0)
	if i := len(list) - 1; i >= 0 {
		if list[i].Disk+list[i].Stored == at {
			list[i].Length += b.cluster
			list[i].Stored += b.cluster
			return list
		}
		offset = list[i].Offset + list[i].Length
	}
	return append(list, filesystem.Extent{Kind: filesystem.Plain, Offset: offset, Length: b.cluster, Disk: at, Stored: b.cluster})
}
