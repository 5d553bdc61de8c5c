package repo

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"varve/index"
	"varve/repo/pack"
	"varve/repo/storage"
)

// listPacks calls f for every pack.
func (r *Repository) listPacks(ctx context.Context, f func(id ID, size int64)) error {
	err := r.storage.List(ctx, "packs/", func(name string, size int64) error {
		id, err := ParseID(name[strings.LastIndexByte(name, '/')+1:])
		if err != nil || packName(id) != name {
			r.logf("ignored %s: it is not the name of a pack", name)
			return nil
		}
		f(id, size)
		return nil
	})
	if err != nil {
		return fmt.Errorf("listing packs: %w", err)
	}
	return nil
}

// maxPack bounds a pack that is read, in bytes: what storage says of one is not believed without a limit.
const maxPack = 1 << 28

// readDirectory reads the directory of a stored pack, which is healed when it has to be.
func (r *Repository) readDirectory(ctx context.Context, id ID, size int64) (dir pack.Directory, err error) {
	err = r.healing(ctx, id, size, func() error {
		if p := r.healer.find(id); p != nil {
			size = int64(len(p.data)) // the stored one may have lost its end
		}
		dir, err = r.decodeDirectory(id, size, func(offset, length int64) ([]byte, error) {
			return r.packRange(ctx, id, offset, length, nil)
		})
		return err
	})
	return dir, err
}

// storedDirectory is readDirectory for the pack as it is.
func (r *Repository) storedDirectory(ctx context.Context, id ID, size int64) (pack.Directory, error) {
	return r.decodeDirectory(id, size, func(offset, length int64) ([]byte, error) {
		return r.storage.Get(ctx, packName(id), offset, length, nil)
	})
}

// decodeDirectory reads the directory of a pack of size bytes with get.
func (r *Repository) decodeDirectory(id ID, size int64, get func(offset, length int64) ([]byte, error)) (pack.Directory, error) {
	if size > maxPack {
		return pack.Directory{}, &DamagedError{Object: packName(id), Reason: fmt.Sprintf("it is %d bytes long, which no pack is", size)}
	}
	dir, err := pack.ReadDirectory(r.secrets.pack, &storageReader{get: get, size: size}, size)
	var corrupt *pack.CorruptError
	if errors.As(err, &corrupt) {
		return dir, &DamagedError{Object: packName(id), Reason: err.Error()}
	}
	if err != nil {
		return dir, fmt.Errorf("reading the directory of pack %s: %w", short(id), err)
	}
	return dir, nil
}

// follow opens the index, if it is not open, and brings it up to date with the packs in the storage.
func (r *Repository) follow(ctx context.Context) (*index.Index, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.index == nil {
		r.index = r.openIndex()
	}
	return r.index, r.catchUp(ctx, r.index)
}

// openIndex opens the index in the cache folder or, where that cannot be used, one that lasts as long as this process:
// work never fails because of a cache.
func (r *Repository) openIndex() *index.Index {
	if r.options.CacheDir == "" {
		return index.Memory(errors.New("no cache folder is in use"))
	}
	x, err := index.Open(r.indexDir(), index.Options{Logf: r.logf})
	if err != nil {
		r.logf("the index is kept in memory for this run: %v", err)
		return index.Memory(err)
	}
	return x
}

// catchUp reads the directories of packs that x does not know, and tells it which ones have gone. r.mu is held.
func (r *Repository) catchUp(ctx context.Context, x *index.Index) error {
	// Before the packs are listed: of a list that has gone meanwhile, the packs have gone too.
	if err := r.readCondemned(ctx, x); err != nil {
		return err
	}
	there := map[ID]int64{}
	if err := r.listPacks(ctx, func(id ID, size int64) { there[id] = size }); err != nil {
		return err
	}
	exists := func(id ID) bool { _, found := there[id]; return found }
	gone := x.SetLive(exists)
	if s := x.Stats(); s.DeadChunks > s.Chunks/2 && s.DeadChunks > 10_000 && r.expendable(ctx, x, there) == nil {
		if err := x.Reset(); err != nil { // mostly garbage: smaller and faster when made anew
			return fmt.Errorf("making the index anew: %w", err)
		}
	}
	known := x.Known()
	if gone > 0 || len(known) == 0 { // or what has gone is not known
		r.dropDigests(exists)
	}
	var unknown []ID
	for id := range there {
		if _, found := known[id]; !found {
			unknown = append(unknown, id)
		}
	}
	r.broken = map[ID]struct{}{}
	for i, id := range unknown {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(unknown) > 16 {
			r.progress("reading the directories of packs", i, len(unknown))
		}
		var dir pack.Directory
		err := r.again(ctx, packName(id), func() (err error) {
			dir, err = r.readDirectory(ctx, id, there[id])
			return err
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, storage.ErrNotExist) {
			continue // a prune has removed it since it was listed
		}
		if err != nil {
			// What it held is stored again by the next backup that meets it.
			r.logf("%v; 'varve check' tells more", err)
			r.broken[id] = struct{}{}
			continue
		}
		if err := x.Add(indexPack(id, there[id], dir), indexEntries(dir)); err != nil {
			return fmt.Errorf("adding pack %s to the index: %w", short(id), err)
		}
	}
	if len(unknown) > 16 {
		r.progress("reading the directories of packs", len(unknown), len(unknown))
	}
	return nil
}

// rebuild makes the index anew from the packs, once in the life of r. It reports whether it did.
func (r *Repository) rebuild(ctx context.Context) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rebuilt || r.index == nil {
		return false, nil
	}
	r.rebuilt = true
	there := map[ID]int64{}
	if err := r.listPacks(ctx, func(id ID, size int64) { there[id] = size }); err != nil {
		return false, err
	}
	if err := r.expendable(ctx, r.index, there); err != nil {
		r.logf("%v", err)
		return false, ctx.Err()
	}
	if err := r.index.Reset(); err != nil {
		return false, fmt.Errorf("making the index anew: %w", err)
	}
	return true, r.catchUp(ctx, r.index)
}

// Trusted reports whether the tree root was seen complete with the packs that are here now, so that a scan may take its
// extents over without looking each of them up. Trust remembers that.
func (r *Repository) Trusted(root ID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.index != nil && len(r.broken) == 0 && r.index.Trusted(root)
}

// Trust remembers that all that the trees roots refer to is here. It is called after their record is committed.
func (r *Repository) Trust(roots ...ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.index != nil {
		if err := r.index.Trust(roots...); err != nil {
			r.logf("noting that the snapshot is complete: %v", err)
		}
	}
}

// indexPack is a pack of size bytes as the index wants it: its version and kind are a byte there, which opener takes apart.
func indexPack(id ID, size int64, dir pack.Directory) index.Pack {
	return index.Pack{ID: id, Size: size, Kind: (dir.Version-1)<<4 | byte(dir.Kind), Salt: dir.Salt}
}

// indexEntries lists the chunks of a pack as the index wants them.
func indexEntries(dir pack.Directory) []index.Entry {
	n := 0
	for _, f := range dir.Frames {
		n += len(f.Chunks)
	}
	entries := make([]index.Entry, 0, n)
	for _, f := range dir.Frames {
		at := uint32(0)
		for _, c := range f.Chunks {
			entries = append(entries, index.Entry{ID: c.ID, Offset: f.Offset, Stored: f.Stored, At: at, Length: c.Length})
			at += c.Length
		}
	}
	return entries
}
