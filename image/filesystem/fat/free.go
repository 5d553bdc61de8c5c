package fat

import (
	"bytes"
	"context"

	"varve/image/filesystem"
)

// pieceSize is how much of each table is read at once. No entry crosses a multiple of it.
const pieceSize = 384 << 10

// Free implements filesystem.Filesystem. All copies of the table that are in use have to be the same, and each chain in it has to
// lead through clusters that are not free and that no other chain has. Clusters marked as bad are not free.
func (fs *FS) Free(ctx context.Context, free func(filesystem.Range) error) error {
	switch {
	case fs.info.Dirty != "":
		return filesystem.Untrusted("the filesystem %s", fs.info.Dirty)
	case fs.doubt != "":
		return filesystem.Untrusted("%s", fs.doubt)
	}
	used, err := fs.usedClusters(ctx)
	if err != nil {
		return err
	}
	for from := uint32(0); from < fs.clusters; {
		if from%64 == 0 && used[from/64] == ^uint64(0) {
			from += 64
			continue
		}
		if used.has(from) {
			from++
			continue
		}
		end := from + 1
		for end < fs.clusters && !used.has(end) {
			end++
			for end%64 == 0 && end < fs.clusters && used[end/64] == 0 {
				end += 64
			}
		}
		end = min(end, fs.clusters)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := free(filesystem.Range{Offset: fs.at(from + 2), Length: int64(end-from) * fs.cluster}); err != nil {
			return err
		}
		from = end
	}
	return nil
}

// bitmap has a bit for each cluster, from cluster 2 on.
type bitmap []uint64

func newBitmap(clusters uint32) bitmap { return make(bitmap, (int64(clusters)+63)/64) }
func (m bitmap) has(i uint32) bool     { return m[i/64]>>(i%64)&1 != 0 }
func (m bitmap) set(i uint32)          { m[i/64] |= 1 << (i % 64) }
func (m bitmap) within(other bitmap) (in bool) {
	for i := range m {
		if m[i]&^other[i] != 0 {
			return false
		}
	}
	return true
}

// usedClusters reads the tables and returns which clusters are not free.
func (fs *FS) usedClusters(ctx context.Context) (bitmap, error) {
	used, linked := newBitmap(fs.clusters), newBitmap(fs.clusters)
	length := tableBytes(fs.clusters, fs.bits)
	buf, other := make([]byte, min(pieceSize, length)), make([]byte, min(pieceSize, length))
	perPiece := pieceSize * 8 / fs.bits
	for from, first := int64(0), 0; from < length; from, first = from+pieceSize, first+perPiece {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		buf := buf[:min(pieceSize, length-from)]
		if err := fs.read(buf, fs.table.offset+from); err != nil {
			return nil, err
		}
		for i := 1; i < fs.copies && fs.mirrored; i++ {
			other := other[:len(buf)]
			if err := fs.read(other, fs.tables+int64(i)*fs.tableSize+from); err != nil {
				return nil, err
			}
			if !bytes.Equal(buf, other) {
				return nil, filesystem.Untrusted("the copies of the table of its clusters differ")
			}
		}
		for i := range min(perPiece, int(fs.clusters)+2-first) {
			c, next := uint32(first+i), entry(buf, i, fs.bits)
			if next == freeEntry || c < 2 {
				continue
			}
			used.set(c - 2)
			switch {
			case next >= badEntry:
			case !fs.has(next):
				return nil, filesystem.Untrusted("cluster %d is followed by %d, which it does not have", c, next)
			case linked.has(next - 2):
				return nil, filesystem.Untrusted("cluster %d belongs to two files", next)
			default:
				linked.set(next - 2)
			}
		}
	}
	switch {
	case !linked.within(used):
		return nil, filesystem.Untrusted("a file leads through clusters that are marked as free")
	case fs.bits == 32 && (!fs.has(fs.rootCluster) || !used.has(fs.rootCluster-2)):
		return nil, filesystem.Untrusted("the cluster of its root folder is marked as free")
	}
	return used, nil
}
