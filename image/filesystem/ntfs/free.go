package ntfs

import (
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"slices"
	"sort"

	"varve/image/filesystem"
)

// maxOwn is how many files of the filesystem itself are looked at: Windows has about 30.
const maxOwn = 1000

// Free calls free for each run of clusters that $Bitmap has as free. It is not trusted when the filesystem is not at rest, has a version
// that is not known, does not fit on the partition, or the map has as free what a file of the filesystem itself occupies. What
// ntfs-3g has mounted looks as if it were at rest: that it is mounted is for the caller to know. The copy of the boot sector lies
// behind the last cluster, and so is never free.
func (f *FS) Free(ctx context.Context, free func(filesystem.Range) error) error {
	switch f.version {
	case [2]byte{1, 2}, [2]byte{3, 0}, [2]byte{3, 1}: // of Windows NT 4, 2000, XP and all since
	default:
		return filesystem.Untrusted("version %d.%d of NTFS is not known", f.version[0], f.version[1])
	}
	if f.boot.sectors*f.boot.sector > f.size {
		return filesystem.Untrusted("the filesystem has %d bytes, and the partition only %d", f.boot.sectors*f.boot.sector, f.size)
	}
	if f.dirty != "" {
		return filesystem.Untrusted("the filesystem %s", f.dirty)
	}
	used, err := f.own(ctx)
	if err != nil {
		return err
	}
	bitmap, err := f.bitmap()
	if err != nil {
		return err
	}
	return f.eachFree(ctx, bitmap, func(first, end int64) error {
		i := sort.Search(len(used), func(i int) bool { return used[i].lcn+used[i].length > first })
		if i < len(used) && used[i].lcn < end {
			return filesystem.Untrusted("its map has cluster %d as free, and the filesystem itself uses it", max(first, used[i].lcn))
		}
		return free(filesystem.Range{Offset: first * f.boot.cluster, Length: (end - first) * f.boot.cluster})
	})
}

// own returns which clusters the files of the filesystem itself have, in the order of the partition.
func (f *FS) own(ctx context.Context) ([]run, error) {
	var files []*file
	for n := range filesystem.Number(firstUser) {
		r, err := f.record(uint64(n))
		if err != nil {
			return nil, fmt.Errorf("the filesystem's own file %d: %w", n, err)
		}
		if r.flags&recordInUse == 0 || r.base != 0 {
			if n <= recordUpCase {
				return nil, filesystem.Untrusted("the filesystem's own file %d is not there", n)
			}
			continue
		}
		x, err := f.load(n)
		if err != nil {
			return nil, err
		}
		files = append(files, x)
		if n != recordExtend || !x.folder() {
			continue
		}
		if err := f.readFolder(ctx, x, func(more filesystem.Number, _ name) error {
			if len(files) == maxOwn {
				return filesystem.Untrusted("it has more than %d files of its own", maxOwn)
			}
			x, err := f.load(more)
			files = append(files, x)
			return err
		}); err != nil {
			return nil, err
		}
	}
	var list []run
	for _, x := range files {
		for i := range x.attributes {
			a := &x.attributes[i]
			if !a.elsewhere {
				continue
			}
			runs, err := parseRuns(a.pairs, a.first, a.last, f.boot.clusters)
			if err != nil {
				return nil, fmt.Errorf("attribute %#x of file %d: %w", a.kind, x.number&numberMask, err)
			}
			for _, r := range runs {
				if r.lcn != hole {
					list = append(list, r)
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b run) int { return cmp.Compare(a.lcn, b.lcn) })
	for i := 1; i < len(list); i++ {
		if list[i].lcn < list[i-1].lcn+list[i-1].length {
			return nil, filesystem.Untrusted("cluster %d belongs to two of the filesystem's own files", list[i].lcn)
		}
	}
	return list, nil
}

// bitmap returns the content of $Bitmap: a bit for each cluster, 1 for one in use.
func (f *FS) bitmap() (*stream, error) {
	x, err := f.load(recordBitmap)
	if err != nil {
		return nil, err
	}
	content, err := f.content(x, typeData, "")
	if err != nil {
		return nil, err
	}
	s, ok := content.(*stream)
	if !ok || s.refusal != nil {
		return nil, filesystem.Untrusted("its map of clusters is not stored as it should be")
	}
	for _, r := range s.runs {
		if r.lcn == hole {
			return nil, filesystem.Untrusted("its map of clusters has holes")
		}
	}
	if need := (f.boot.clusters + 7) / 8; s.size < need || s.initialized < need {
		return nil, filesystem.Untrusted("its map of clusters has %d bytes, %d written, of %d", s.size, s.initialized, need)
	}
	return s, nil
}

// eachFree calls free for each run of zeros in the bitmap, from a first cluster to before another.
func (f *FS) eachFree(ctx context.Context, bitmap *stream, free func(first, end int64) error) error {
	const none = -1
	buf := make([]byte, 256<<10)
	first := int64(none)
	for base := int64(0); base < f.boot.clusters; base += 8 * int64(len(buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		need := min(int64(len(buf)), (f.boot.clusters-base+7)/8)
		if n, err := bitmap.ReadAt(buf[:need], base/8); int64(n) < need {
			return fmt.Errorf("reading the map of clusters: %w", err)
		}
		for i := need; i%8 != 0; i++ {
			buf[i] = 0xff // behind the last cluster everything is in use
		}
		for i := int64(0); i < need; i += 8 {
			used := le.Uint64(buf[i:])
			if left := f.boot.clusters - base - i*8; left < 64 {
				used |= ^uint64(0) << left
			}
			for bit := 0; bit < 64; {
				if first == none {
					bit += bits.TrailingZeros64(^(used >> bit))
					if bit < 64 {
						first = base + i*8 + int64(bit)
					}
					continue
				}
				if n := bits.TrailingZeros64(used >> bit); n < 64 {
					bit += n
					if err := free(first, base+i*8+int64(bit)); err != nil {
						return err
					}
					first = none
				} else {
					bit = 64
				}
			}
		}
	}
	if first == none {
		return nil
	}
	return free(first, f.boot.clusters)
}
