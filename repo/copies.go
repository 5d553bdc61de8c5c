package repo

import (
	"context"

	"varve/index"
	"varve/repo/pack"
)

// copyPlace is a place of a chunk.
type copyPlace struct {
	pack  index.Pack
	place index.Place
}

// A chunk is stored once, except where two sessions met it at the same time, or a prune was interrupted. When the copy that
// the index knows is damaged, another one may not be: copies returns where else the chunk id, of the damaged pack p, lies.
// It reads the directories of all packs, once for each damaged pack.
func (r *Repository) copies(ctx context.Context, id ID, p index.Pack) ([]copyPlace, error) {
	r.copiesMu.Lock()
	defer r.copiesMu.Unlock()
	if found, done := r.copiesOf[p.ID]; done {
		return found[id], nil
	}
	wanted := map[ID]struct{}{id: {}}
	if dir, err := r.readDirectory(ctx, p.ID, p.Size); err == nil {
		for _, f := range dir.Frames {
			for _, c := range f.Chunks {
				wanted[c.ID] = struct{}{}
			}
		}
	}
	found := map[ID][]copyPlace{}
	err := r.eachPlace(ctx, func(q index.Pack, e index.Entry) {
		if _, want := wanted[e.ID]; want && q.ID != p.ID {
			found[e.ID] = append(found[e.ID], copyPlace{q, index.Place{Offset: e.Offset, Stored: e.Stored, At: e.At, Length: e.Length}})
		}
	})
	if err != nil {
		return nil, err
	}
	if r.copiesOf == nil {
		r.copiesOf = map[ID]map[ID][]copyPlace{}
	}
	r.copiesOf[p.ID] = found
	return found[id], nil
}

// eachPlace calls f for every chunk in every directory that can be read.
func (r *Repository) eachPlace(ctx context.Context, f func(index.Pack, index.Entry)) error {
	sizes := map[ID]int64{}
	if err := r.listPacks(ctx, func(id ID, size int64) { sizes[id] = size }); err != nil {
		return err
	}
	for id, size := range sizes {
		if err := ctx.Err(); err != nil {
			return err
		}
		var dir pack.Directory
		err := r.again(ctx, packName(id), func() (err error) {
			dir, err = r.readDirectory(ctx, id, size)
			return err
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			continue // it may hold copies, and nobody can tell
		}
		q := indexPack(id, size, dir)
		for _, e := range indexEntries(dir) {
			f(q, e)
		}
	}
	return nil
}

// loadCopy reads the chunk id from another place than the damaged pack p.
func (r *Repository) loadCopy(ctx context.Context, id ID, p index.Pack, buf []byte) ([]byte, bool) {
	places, err := r.copies(ctx, id, p)
	if err != nil {
		return nil, false
	}
	for _, c := range places {
		if data, err := r.chunkAt(ctx, id, c.pack, c.place, buf); err == nil {
			r.logf("chunk %s is damaged in pack %s and was read from pack %s", short(id), short(p.ID), short(c.pack.ID))
			return data, true
		}
	}
	return nil, false
}
