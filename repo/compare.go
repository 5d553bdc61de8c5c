package repo

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"varve/repo/blocks"
	"varve/repo/pack"
)

// digests returns the folder of the digests of blocks, and false when no cache is kept.
func (r *Repository) digests() (blocks.Folder, bool) {
	return blocks.Folder{Dir: filepath.Join(r.options.CacheDir, r.id, "blocks"), Secret: r.secrets.blocks}, r.options.CacheDir != ""
}

// digestsOf returns what makes the digests of a new pack, nil when they are not wanted.
func (r *Repository) digestsOf(kind pack.Kind) *blocks.Builder {
	if _, kept := r.digests(); !kept || kind != pack.Data {
		return nil
	}
	return blocks.NewBuilder(r.secrets.blocks)
}

// keepDigests puts the digests of a pack into the cache. They are not worth failing for.
func (r *Repository) keepDigests(id ID, b *blocks.Builder) {
	folder, _ := r.digests()
	if file := b.Finish(id); file != nil {
		if err := folder.Save(id, file); err != nil {
			r.logf("the digests of the blocks of pack %s are not kept: %v", short(id), err)
		}
	}
}

// dropDigests removes from the cache what belongs to no pack that exists.
func (r *Repository) dropDigests(exists func(ID) bool) {
	if folder, kept := r.digests(); kept {
		if err := folder.Keep(exists); err != nil {
			r.logf("removing digests of packs that are gone: %v", err)
		}
	}
}

const (
	digestCacheBytes = 16 << 20  // digests kept in memory for all Comparers
	worthLoading     = 256 << 10 // bytes of a pack's chunks that are hashed in about the time of reading the pack's digests
	worthFinding     = 64 << 10  // bytes that are hashed in about the time of finding a chunk in the index
	recentFiles      = 4         // in which a chunk is looked for before that
)

// Comparer compares blocks of a disk with those of chunks: with their digests in the cache, or else, where the storage is near, with
// their bytes. It is for one goroutine, and best for chunks that were stored one after the other.
type Comparer struct {
	repo    *Repository
	hasher  *blocks.Hasher
	frames  *FrameReader
	recent  []*blocks.File // which Holds asked, the last one first
	unknown map[ID]int     // bytes of which Holds did not know whether the pack's chunks hold them; at most worthLoading of a pack
}

// Comparer returns a new one.
func (r *Repository) Comparer() *Comparer {
	return &Comparer{repo: r, hasher: blocks.NewHasher(r.secrets.blocks), frames: r.FrameReader(), unknown: map[ID]int{}}
}

// Compare notes in same, for each block of 4 KiB of data, whether it is the one that chunk id has there, from the chunk's block first
// on; a block beyond its end is not. It returns the chunk's length in bytes, 0 when it could be known only by reading from a storage
// that is far away: same is of no use then. Errors are those of Load.
func (c *Comparer) Compare(ctx context.Context, id ID, first int, data []byte, same []bool) (length int, err error) {
	_, p, err := c.repo.find(ctx, id)
	if err != nil {
		return 0, err
	}
	if file := c.repo.digestFile(p.ID); file != nil {
		if length, known := file.Compare(c.hasher, id, first, data, same); known {
			return length, nil
		}
	}
	if !c.repo.storage.Near() {
		return 0, nil
	}
	chunk, err := c.frames.Load(ctx, id, nil)
	if err != nil {
		return 0, err
	}
	blocks.CompareBytes(chunk, first, data, same)
	return len(chunk), nil
}

// Holds reports whether data, whole blocks of 4 KiB but for the last, is what chunk id has from its block first on. It returns the
// chunk's length in bytes, 0 when that cannot be told sooner than by hashing data: nothing of the repository is read, and the digests
// of a pack only when they were missed often enough to be worth it.
func (c *Comparer) Holds(ctx context.Context, id ID, first int, data []byte) (holds bool, length int) {
	for i, file := range c.recent { // neighbours on a disk are mostly neighbours in a pack
		if holds, length, known := file.Holds(c.hasher, id, first, data); known {
			copy(c.recent[1:i+1], c.recent[:i])
			c.recent[0] = file
			return holds, length
		}
	}
	if len(data) < worthFinding {
		return false, 0
	}
	x, err := c.repo.reading(ctx)
	if err != nil {
		return false, 0
	}
	_, p, found := lookup(x, id)
	if !found {
		return false, 0
	}
	file, kept := c.repo.digestFiles.kept(p.ID)
	if !kept {
		if c.unknown[p.ID] += len(data); c.unknown[p.ID] < worthLoading {
			return false, 0
		}
		delete(c.unknown, p.ID)
		file = c.repo.digestFile(p.ID)
	}
	if file == nil {
		return false, 0
	}
	holds, length, known := file.Holds(c.hasher, id, first, data)
	if known {
		c.recent = slices.Insert(c.recent, 0, file)[:min(len(c.recent)+1, recentFiles)]
	}
	return holds, length
}

// digestFile returns the digests of a pack, nil when there are none of use.
func (r *Repository) digestFile(pack ID) *blocks.File {
	file, _ := r.digestFiles.get(pack, func() (*blocks.File, error) {
		folder, kept := r.digests()
		if !kept {
			return nil, nil
		}
		file, err := folder.Load(pack)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.logf("digests of blocks: %v", err)
		}
		return file, nil // what is not there now will not be there later
	})
	return file
}
