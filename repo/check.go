package repo

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/zeebo/blake3"
	"varve/index"
	"varve/repo/pack"
	"varve/repo/storage"
)

// CheckOptions says how much of the data a check reads.
type CheckOptions struct {
	// ReadPack reports whether pack number i of n, of size bytes, is to be read in full; n counts them in the order of
	// their names. nil: none.
	ReadPack func(i, n int, size int64) bool
}

// Checked says what a check looked at.
type Checked struct {
	Packs, Chunks    int64
	ReadPacks        int64
	ReadBytes        int64
	UnreferredChunks int64 // in packs, but in no snapshot: prune removes them
	Problems         int64
	Lost             map[ID]struct{} // chunks and tree nodes that snapshots may refer to and that cannot be read
}

// Check looks for damage: the copies of the config and the keys, the names and directories of packs, that everything
// that records refer to is in a pack and, for the packs that o selects, every byte. mark walks all records; it is to
// report what it cannot read itself and go on. Each problem is passed to report. An error means that the check could
// not be done. Others may add and prune meanwhile.
func (r *Repository) Check(ctx context.Context, o CheckOptions, mark Marker, report func(error)) (Checked, error) {
	var result Checked
	problem := func(err error) { result.Problems++; report(err) }
	lease, err := r.takeLease(ctx, Shared, "check")
	if err != nil {
		return result, err
	}
	defer lease.release()
	if err := r.checkConfig(ctx, problem); err != nil {
		return result, err
	}
	type stored struct {
		id   ID
		size int64
	}
	var packs []stored
	if err := r.listPacks(ctx, func(id ID, size int64) { packs = append(packs, stored{id, size}) }); err != nil {
		return result, err
	}
	slices.SortFunc(packs, func(a, b stored) int { return bytes.Compare(a.id[:], b.id[:]) })
	there := &idSet{}
	bad := map[ID]int{} // in how many places a chunk was found to be damaged
	scratch := newFrameScratch(r.secrets.id)
	for i, p := range packs {
		if err := ctx.Err(); err != nil {
			return result, err
		}
		r.progress("checking packs", i, len(packs))
		result.Packs++
		dir, err := r.readDirectory(ctx, p.id, p.size)
		if errors.Is(err, storage.ErrNotExist) {
			continue // a prune has removed it since it was listed
		}
		if err != nil {
			problem(err)
			continue
		}
		if o.ReadPack != nil && o.ReadPack(i, len(packs), p.size) {
			result.ReadPacks++
			result.ReadBytes += p.size
			if err := r.checkPack(ctx, p.id, dir, scratch, bad); err != nil && !errors.Is(err, storage.ErrNotExist) {
				if ctx.Err() != nil {
					return result, ctx.Err()
				}
				problem(&DamagedError{Object: packName(p.id), Reason: err.Error()})
			}
		}
		for _, f := range dir.Frames {
			for _, c := range f.Chunks {
				result.Chunks++
				there.add(c.ID)
			}
		}
	}
	r.progress("checking packs", len(packs), len(packs))
	if result.Lost, err = r.withoutCopy(ctx, bad); err != nil {
		return result, err
	}
	nodes, missing := map[ID]struct{}{}, map[ID]struct{}{}
	err = mark(ctx, func(id ID) bool {
		if _, seen := nodes[id]; seen {
			return false
		}
		nodes[id] = struct{}{}
		there.claim(id)
		return true
	}, func(id ID) {
		there.claim(id)
		if !there.has(id) {
			missing[id] = struct{}{}
		}
	})
	if err == nil && len(missing) > 0 {
		seen := map[ID]struct{}{}
		for _, p := range packs {
			seen[p.id] = struct{}{}
		}
		err = r.foundSince(ctx, seen, missing)
	}
	told := 0
	for id := range missing {
		result.Lost[id] = struct{}{}
		if told++; told <= 20 {
			problem(fmt.Errorf("chunk %s is in no readable pack", short(id)))
		} else {
			result.Problems++
		}
	}
	if told > 20 {
		report(fmt.Errorf("and %d more chunks are in no readable pack", told-20))
	}
	result.UnreferredChunks = int64(there.unclaimed())
	return result, err
}

// foundSince takes out of missing what is in packs that are not in seen: a session or a prune has added them since.
func (r *Repository) foundSince(ctx context.Context, seen, missing map[ID]struct{}) error {
	added := map[ID]int64{}
	if err := r.listPacks(ctx, func(id ID, size int64) {
		if _, old := seen[id]; !old {
			added[id] = size
		}
	}); err != nil {
		return err
	}
	for id, size := range added {
		dir, err := r.readDirectory(ctx, id, size)
		var damaged *DamagedError
		if err != nil && !errors.As(err, &damaged) && !errors.Is(err, storage.ErrNotExist) {
			return err
		}
		for _, e := range indexEntries(dir) {
			delete(missing, e.ID)
		}
	}
	return nil
}

// checkConfig looks at both copies of what opens the repository.
func (r *Repository) checkConfig(ctx context.Context, problem func(error)) error {
	for _, name := range []string{"config", "config.copy"} {
		data, err := r.storage.Get(ctx, name, 0, -1, nil)
		if err != nil {
			problem(fmt.Errorf("reading %s: %w; the other copy is in use", name, err))
			continue
		}
		line, sealed, _ := strings.Cut(string(data), "\n")
		if _, err := unseal(r.secrets.meta, "varve config"+line, []byte(sealed)); err != nil {
			problem(&DamagedError{Object: name, Reason: err.Error() + "; the other copy is in use"})
		}
	}
	ids, err := listKeys(ctx, r.storage)
	if err != nil {
		return err
	}
	for _, id := range ids {
		for _, name := range []string{keyName(id), keyName(id) + ".copy"} {
			data, err := r.storage.Get(ctx, name, 0, -1, nil)
			if err != nil {
				problem(fmt.Errorf("reading %s: %w", name, err))
			} else if blake3.Sum256(data) != id {
				problem(&DamagedError{Object: name, Reason: "its bytes do not have the hash that is its name"})
			}
		}
	}
	return nil
}

// checkPack reads a whole pack: its name, every frame, every chunk. Chunks of a frame that is bad are counted in bad.
func (r *Repository) checkPack(ctx context.Context, id ID, dir pack.Directory, scratch *frameScratch, bad map[ID]int) error {
	data, err := r.storage.Get(ctx, packName(id), 0, -1, nil)
	if errors.Is(err, storage.ErrNotExist) {
		return err
	}
	if err != nil {
		for _, f := range dir.Frames {
			for _, c := range f.Chunks {
				bad[c.ID]++
			}
		}
		return err
	}
	var problems error
	if sum := blake3.Sum256(data); sum != id {
		problems = fmt.Errorf("its bytes have the hash %s", hex.EncodeToString(sum[:6]))
	}
	opener := dir.Opener(r.secrets.pack)
	frames := 0
	for _, f := range dir.Frames {
		err := errors.New("the pack ends before it")
		if uint64(f.Offset)+uint64(f.Stored) <= uint64(len(data)) {
			err = scratch.verify(opener, f, data[f.Offset:f.Offset+f.Stored])
		}
		if err != nil {
			for _, c := range f.Chunks {
				bad[c.ID]++
			}
			if frames++; frames == 1 {
				problems = errors.Join(problems, fmt.Errorf("frame at %d: %w", f.Offset, err))
			}
		}
	}
	if frames > 1 {
		problems = errors.Join(problems, fmt.Errorf("and %d more frames", frames-1))
	}
	return problems
}

// withoutCopy returns the chunks that lie in no more places than are bad.
func (r *Repository) withoutCopy(ctx context.Context, bad map[ID]int) (map[ID]struct{}, error) {
	lost := map[ID]struct{}{}
	if len(bad) == 0 {
		return lost, nil
	}
	places := map[ID]int{}
	err := r.eachPlace(ctx, func(_ index.Pack, e index.Entry) {
		if _, damaged := bad[e.ID]; damaged {
			places[e.ID]++
		}
	})
	for id, n := range bad {
		if places[id] <= n {
			lost[id] = struct{}{}
		}
	}
	return lost, err
}
