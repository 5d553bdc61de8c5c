package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"varve/index"
	"varve/repo/storage"
)

// Reindexed says what an index was made of.
type Reindexed struct {
	Packs, Chunks int64
	Unreadable    []ID  // packs that are there and have no directory: what is in them is not in the index
	Gone          int64 // packs that the index knew before and that are not there
}

// RebuildIndex makes the index of this machine anew from the directories of packs. It refuses, with *DamagedError, while
// the index knows what is in a pack whose directory cannot be read: nothing else does.
func (r *Repository) RebuildIndex(ctx context.Context) (Reindexed, error) {
	lease, err := r.takeReadersLease(ctx, Shared, "repair index")
	if err != nil {
		return Reindexed{}, err
	}
	defer lease.release()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.index == nil {
		r.index = r.openIndex()
	}
	there := map[ID]int64{}
	if err := r.listPacks(ctx, func(id ID, size int64) { there[id] = size }); err != nil {
		return Reindexed{}, err
	}
	if err := r.expendable(ctx, r.index, there); err != nil {
		return Reindexed{}, err
	}
	var result Reindexed
	for id := range r.index.Known() {
		if _, found := there[id]; !found {
			result.Gone++
		}
	}
	r.rebuilt = true
	if err := r.index.Reset(); err != nil {
		return result, fmt.Errorf("making the index anew: %w", err)
	}
	if err := r.catchUp(ctx, r.index); err != nil {
		return result, err
	}
	for id := range r.broken {
		result.Unreadable = append(result.Unreadable, id)
	}
	result.Packs, result.Chunks = int64(len(r.index.Known())), r.index.Stats().Chunks
	return result, nil
}

// expendable returns nil when all that x knows of the packs in there can be read from them again. Else, only x knows what is
// in some pack: it must not be made anew before that pack is repaired.
func (r *Repository) expendable(ctx context.Context, x *index.Index, there map[ID]int64) error {
	for id := range x.Known() {
		size, found := there[id]
		if !found {
			continue
		}
		err := r.again(ctx, packName(id), func() error {
			_, err := r.readDirectory(ctx, id, size)
			return err
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !errors.Is(err, storage.ErrNotExist) {
			return fmt.Errorf("%w; only the index knows what is in it, and was left as it is: run 'varve repair packs'", err)
		}
	}
	return nil
}

// RepairConfig makes the copies of the config, of the keys and, where these are there twice, of records that are missing or
// damaged, each from the other one, and returns their names. What has no copy that is whole is told to problem. A damaged one is kept in quarantine.
func (r *Repository) RepairConfig(ctx context.Context, dryRun bool, problem func(error)) (made []string, err error) {
	lease, err := r.takeLeaseFor(ctx, Maintenance, "repair config", dryRun)
	if err != nil {
		return nil, err
	}
	defer lease.release()
	pairs := map[string]func(name string) ([]byte, error){"config": func(name string) ([]byte, error) { return r.readConfig(ctx, name) }}
	keys, err := listKeys(ctx, r.storage)
	if err != nil {
		return nil, err
	}
	for _, id := range keys {
		pairs[keyName(id)] = func(name string) ([]byte, error) { return r.readKeyCopy(ctx, name, id) }
	}
	if r.own.Parity > 0 {
		records, err := r.Records(ctx)
		if err != nil {
			return nil, err
		}
		for _, id := range records {
			pairs[recordName(id)] = func(name string) (sealed []byte, err error) {
				err = r.again(ctx, name, func() error {
					sealed, err = r.sealedRecord(ctx, name, id)
					return err
				})
				return sealed, err
			}
		}
	}
	for name, read := range pairs {
		other := name + ".copy"
		first, firstErr := read(name)
		second, secondErr := read(other)
		if ctx.Err() != nil {
			return made, ctx.Err()
		}
		bad, from, good, harmed := "", "", first, second
		switch {
		case errors.Is(firstErr, ErrNotFound) && errors.Is(secondErr, ErrNotFound): // a record that was taken back since
		case firstErr != nil && secondErr != nil:
			problem(fmt.Errorf("neither copy is whole: %w; %w", firstErr, secondErr))
		case firstErr != nil:
			bad, from, good, harmed = name, other, second, first
		case secondErr != nil || !bytes.Equal(first, second):
			bad, from = other, name
		}
		if bad == "" {
			continue
		}
		made = append(made, bad)
		if dryRun {
			continue
		}
		if harmed != nil {
			if _, err := r.quarantine(ctx, bad, harmed); err != nil {
				return made, err
			}
		}
		if err := r.storage.Put(ctx, bad, good); err != nil {
			return made, fmt.Errorf("storing %s: %w", bad, err)
		}
		// What is being removed at this moment must not come back.
		if _, err := r.storage.Get(ctx, from, 0, -1, nil); errors.Is(err, storage.ErrNotExist) {
			if err := r.storage.Delete(ctx, bad); err != nil && !errors.Is(err, storage.ErrNotExist) {
				return made, fmt.Errorf("taking %s back, of which the other copy was just removed: %w", bad, err)
			}
		}
	}
	return made, nil
}
