package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/blake3"
	"varve/index"
	"varve/repo/pack"
	"varve/repo/storage"
)

// StoredPack is a pack as it was listed.
type StoredPack struct {
	ID       ID
	Size     int64     // bytes
	Verified time.Time // when it was last read in full and found whole, as far as is known; zero: never
}

// CheckOptions says how much of the data a check reads.
type CheckOptions struct {
	// Select returns which of packs, that come in the order of their names, are read in full, in which order. nil: none.
	Select func(packs []StoredPack) []StoredPack
	// MaxDuration ends the reading after so long: no further pack is begun. 0: it goes on to the end.
	MaxDuration time.Duration
}

// EveryPack is for CheckOptions.Select.
func EveryPack(packs []StoredPack) []StoredPack { return packs }

// Checked says what a check looked at.
type Checked struct {
	Packs, Chunks        int64
	ReadPacks, ReadBytes int64
	LeftPacks, LeftBytes int64           // that were to be read, but the time was over
	UnreferredChunks     int64           // in packs, but in no snapshot: prune removes them
	Oldest               time.Time       // when that pack was read in full which was not for longest
	NeverRead            int64           // packs that never were read in full
	Problems             int64           // that report was told
	Damaged              []ID            // packs that are not what was stored, as far as was looked
	Healable             []ID            // of these, of which nothing is lost: their parity makes up for it
	Lost                 map[ID]struct{} // chunks and tree nodes that snapshots may refer to and that cannot be read
}

// Check looks for damage: the copies of the config and the keys, the lists of condemned packs, the names and directories of packs, that everything
// that records refer to is in a pack and, for the packs that o selects, every byte. mark walks all records; it is to
// report what it cannot read itself and go on. Each problem is passed to report. An error means that the check could
// not be done. Others may add and prune meanwhile.
func (r *Repository) Check(ctx context.Context, o CheckOptions, mark Marker, report func(error)) (Checked, error) {
	var result Checked
	problem := func(err error) { result.Problems++; report(err) }
	lease, err := r.takeReadersLease(ctx, Shared, "check")
	if err != nil {
		return result, err
	}
	defer lease.release()
	if err := r.checkConfig(ctx, problem); err != nil {
		return result, err
	}
	if err := r.checkRecords(ctx, problem); err != nil {
		return result, err
	}
	_, _, unclear, err := r.condemnedLists(ctx)
	if err != nil {
		return result, err
	}
	if unclear != nil {
		problem(fmt.Errorf("%w; 'varve prune' clears that up", unclear))
	}
	known, ledgers, err := r.readLedger(ctx)
	if err != nil {
		return result, err
	}
	packs, err := r.storedPacks(ctx, known)
	if err != nil {
		return result, err
	}
	there := &idSet{}
	readable := make([]StoredPack, 0, len(packs))
	for i, p := range packs {
		r.progress("checking packs", i, len(packs))
		result.Packs++
		var dir pack.Directory
		err := r.again(ctx, packName(p.ID), func() (err error) {
			dir, err = r.storedDirectory(ctx, p.ID, p.Size)
			return err
		})
		if ctx.Err() != nil {
			return result, ctx.Err()
		}
		if errors.Is(err, storage.ErrNotExist) {
			continue // a prune has removed it since it was listed
		}
		if err == nil {
			readable = append(readable, p)
		} else if r.damaged(ctx, p, err, &result, problem) {
			if dir, err = r.readDirectory(ctx, p.ID, p.Size); err != nil {
				return result, err
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
	bad := map[ID]int{} // in how many places a chunk was found to be damaged
	if o.Select != nil {
		d := dataCheck{repo: r, known: known, ledgers: ledgers, unnoted: lease.none, damaged: func(p StoredPack, e examined, err error) error {
			if r.damaged(ctx, p, &DamagedError{Object: packName(p.ID), Reason: err.Error()}, &result, problem) {
				return nil
			}
			for i, f := range e.dir.Frames {
				for _, c := range f.Chunks {
					if e.bad[i] {
						bad[c.ID]++
					}
				}
			}
			return nil
		}}
		err := d.read(ctx, o.Select(readable), o.MaxDuration)
		result.ReadPacks, result.ReadBytes, result.LeftPacks, result.LeftBytes = d.packs, d.bytes, d.leftPacks, d.leftBytes
		if err != nil {
			return result, err
		}
	}
	result.Oldest, result.NeverRead = known.oldest(readable)
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
			seen[p.ID] = struct{}{}
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

// damaged notes that a pack is damaged, and how, and reports whether its parity makes up for that.
func (r *Repository) damaged(ctx context.Context, p StoredPack, err error, result *Checked, problem func(error)) bool {
	result.Damaged = append(result.Damaged, p.ID)
	whole, healErr := r.healPack(ctx, p.ID, p.Size)
	if healErr != nil {
		if beyond := tooDamaged(healErr); beyond != "" {
			err = fmt.Errorf("%w%s", err, beyond)
		}
		problem(err)
		return false
	}
	result.Healable = append(result.Healable, p.ID)
	reason := "it could be read only in another attempt"
	if whole.harm != "" {
		reason = whole.harm + "; its parity makes up for that, and nothing of it is lost"
	}
	problem(&DamagedError{Object: packName(p.ID), Reason: reason})
	return true
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
		if _, err := r.readConfig(ctx, name); err != nil {
			problem(fmt.Errorf("%w; the other copy is in use, and 'varve repair config' makes this one anew", err))
		}
	}
	ids, err := listKeys(ctx, r.storage)
	if err != nil {
		return err
	}
	for _, id := range ids {
		for _, name := range []string{keyName(id), keyName(id) + ".copy"} {
			if _, err := r.readKeyCopy(ctx, name, id); err != nil {
				problem(err)
			}
		}
	}
	return nil
}

// readConfig reads one copy of the config.
func (r *Repository) readConfig(ctx context.Context, name string) (data []byte, err error) {
	err = r.again(ctx, name, func() error {
		if data, err = r.storage.Get(ctx, name, 0, -1, nil); err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		line, sealed, _ := strings.Cut(string(data), "\n")
		if _, err := unseal(r.secrets.meta, "varve config"+line, []byte(sealed)); err != nil {
			return &DamagedError{Object: name, Reason: err.Error()}
		}
		return nil
	})
	return data, err
}

// readKeyCopy reads one copy of a key slot.
func (r *Repository) readKeyCopy(ctx context.Context, name string, id ID) (data []byte, err error) {
	err = r.again(ctx, name, func() error {
		data, err = r.storage.Get(ctx, name, 0, -1, nil)
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		if blake3.Sum256(data) != id {
			return &DamagedError{Object: name, Reason: "its bytes do not have the hash that is its name"}
		}
		return nil
	})
	return data, err
}

// checkRecords looks for records of which only the copy can be read, or only the record itself. What cannot be read at all is
// found by whoever wants it.
func (r *Repository) checkRecords(ctx context.Context, problem func(error)) error {
	ids, err := r.Records(ctx)
	if err != nil || r.own.Parity == 0 {
		return err
	}
	for _, id := range ids {
		var failed [2]error
		for i, name := range []string{recordName(id), recordCopy(id)} {
			failed[i] = r.again(ctx, name, func() error {
				_, err := r.readRecord(ctx, name, id)
				return err
			})
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		switch {
		case failed[0] != nil && failed[1] == nil:
			problem(fmt.Errorf("%w; its copy is in use, and 'varve repair config' makes this one anew", failed[0]))
		case failed[0] == nil && failed[1] != nil && !errors.Is(failed[1], ErrNotFound): // that may be a removal under way
			problem(fmt.Errorf("%w; the record itself is in use, and 'varve repair config' makes this one anew", failed[1]))
		}
	}
	return nil
}

// storedPacks lists all packs in the order of their names; known may be nil.
func (r *Repository) storedPacks(ctx context.Context, known ledger) ([]StoredPack, error) {
	var packs []StoredPack
	err := r.listPacks(ctx, func(id ID, size int64) { packs = append(packs, StoredPack{id, size, known[id]}) })
	slices.SortFunc(packs, func(a, b StoredPack) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return packs, err
}

// dataCheck reads packs in full.
type dataCheck struct {
	repo    *Repository
	known   ledger
	ledgers []string // objects that hold it
	unnoted bool     // it stays as it is
	damaged func(p StoredPack, e examined, err error) error

	packs, bytes         int64 // that were read
	leftPacks, leftBytes int64 // that were not, as the time was over
}

// ledgerEvery is how often what was read is noted: what a long check has done is not lost when it is broken off.
const ledgerEvery = 5 * time.Minute

// read reads packs, one after the other, passes on those that are damaged, and notes in the ledger which are whole.
func (d *dataCheck) read(ctx context.Context, packs []StoredPack, most time.Duration) error {
	r, scratch := d.repo, newFrameScratch(d.repo.secrets.id)
	var buf []byte
	defer d.note(ctx)
	noted, begun := time.Now(), time.Now()
	for i, p := range packs {
		r.progress("reading packs", i, len(packs))
		if most > 0 && time.Since(begun) >= most {
			for _, left := range packs[i:] {
				d.leftPacks++
				d.leftBytes += left.Size
			}
			break
		}
		e, err := r.examine(ctx, p, buf, scratch)
		buf = e.data
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, storage.ErrNotExist) {
			continue // a prune has removed it since it was listed
		}
		d.packs++
		d.bytes += p.Size
		if err == nil {
			d.known[p.ID] = time.Now()
		} else {
			delete(d.known, p.ID)
			if err := d.damaged(p, e, err); err != nil {
				return err
			}
		}
		if time.Since(noted) > ledgerEvery {
			d.note(ctx)
			noted = time.Now()
		}
	}
	r.progress("reading packs", len(packs), len(packs))
	return nil
}

// note stores the ledger, without the packs that are no more.
func (d *dataCheck) note(ctx context.Context) {
	if d.unnoted {
		return
	}
	ctx = context.WithoutCancel(ctx)
	there := map[ID]struct{}{}
	if d.repo.listPacks(ctx, func(id ID, _ int64) { there[id] = struct{}{} }) == nil {
		maps.DeleteFunc(d.known, func(id ID, _ time.Time) bool { _, found := there[id]; return !found })
	}
	d.ledgers = d.repo.writeLedger(ctx, d.known, d.ledgers)
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
