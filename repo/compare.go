package repo

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"

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

// comparerFiles is how many files of digests a Comparer keeps.
const comparerFiles = 4

// Comparer compares blocks of a disk with those of chunks: with their digests in the cache, or else, where the storage is near, with
// their bytes. It is for one goroutine, and for chunks that were stored one after the other.
type Comparer struct {
	repo   *Repository
	hasher *blocks.Hasher
	files  [comparerFiles]digestFile
	uses   int
	frames *FrameReader
}

// digestFile are the digests of a pack, nil when there are none of use.
type digestFile struct {
	pack ID
	file *blocks.File
	used int // Comparer.uses when it was wanted last; 0: never
}

// Comparer returns a new one.
func (r *Repository) Comparer() *Comparer {
	return &Comparer{repo: r, hasher: blocks.NewHasher(r.secrets.blocks), frames: r.FrameReader()}
}

// Compare notes in same, for each block of 4 KiB of data, whether it is the one that chunk id has there, from the chunk's block first
// on; a block beyond its end is not. It returns the chunk's length in bytes, 0 when it could be known only by reading from a storage
// that is far away: same is of no use then. Errors are those of Load.
func (c *Comparer) Compare(ctx context.Context, id ID, first int, data []byte, same []bool) (length int, err error) {
	_, p, err := c.repo.find(ctx, id)
	if err != nil {
		return 0, err
	}
	if file := c.file(p.ID); file != nil {
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

// Holds reports whether data, whole blocks of 4 KiB but for the last, is what chunk id has from its block first on, as far as digests
// that are at hand can tell: nothing of the repository is read. It returns the chunk's length in bytes, 0 when there are none.
func (c *Comparer) Holds(id ID, first int, data []byte) (holds bool, length int) {
	for i := range c.files { // neighbours on a disk are mostly neighbours in a pack
		if f := &c.files[i]; f.file != nil {
			if holds, length, known := f.file.Holds(c.hasher, id, first, data); known {
				c.uses++
				f.used = c.uses
				return holds, length
			}
		}
	}
	if _, kept := c.repo.digests(); !kept {
		return false, 0
	}
	c.repo.mu.Lock()
	x := c.repo.index
	c.repo.mu.Unlock()
	if x == nil {
		return false, 0
	}
	place, found := x.Lookup(id)
	if !found {
		return false, 0
	}
	p, live := x.Pack(place.Pack)
	if !live {
		return false, 0
	}
	if file := c.file(p.ID); file != nil {
		holds, length, _ = file.Holds(c.hasher, id, first, data)
	}
	return holds, length
}

// file returns the digests of a pack, nil when there are none of use.
func (c *Comparer) file(pack ID) *blocks.File {
	c.uses++
	oldest := &c.files[0]
	for i := range c.files {
		if f := &c.files[i]; f.used > 0 && f.pack == pack {
			f.used = c.uses
			return f.file
		} else if f.used < oldest.used {
			oldest = f
		}
	}
	*oldest = digestFile{pack: pack, used: c.uses}
	if folder, kept := c.repo.digests(); kept {
		var err error
		if oldest.file, err = folder.Load(pack); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.repo.logf("digests of blocks: %v", err)
		}
	}
	return oldest.file
}
