package repo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/zeebo/blake3"
	"varve/index"
	"varve/repo/pack"
	"varve/repo/storage"
)

// RepairOptions says what RepairPacks repairs.
type RepairOptions struct {
	Packs       []string // starts of the names of packs; empty: all, which are read in full
	Drop        bool     // removes those of Packs of which nothing can be read
	DryRun      bool
	Compression Compression // of packs that are written
}

// RepairedPack says what was done about one pack, or would be.
type RepairedPack struct {
	ID     ID
	Size   int64  // bytes
	Reason error  // what is wrong with it; nil: nothing, and nothing was done
	Healed bool   // its parity made it whole, under its name
	Left   bool   // nothing of it can be read, or now this and now that: it is where it was
	Gone   bool   // nothing of it could be read, and it was removed
	Chunks int    // that are known to lie in it
	Saved  int    // of these, that are whole, and lie in new packs now
	To     string // where it lies now, when it was moved
}

// Repaired says what RepairPacks did, or would do.
type Repaired struct {
	Packs, Bytes  int64 // read
	Damaged       int64 // packs
	Healed, Moved int64 // of these
	Left, Gone    int64 // of these
	Saved         int64 // chunks that were taken out of damaged packs
	Elsewhere     int64 // chunks that are damaged there, and whole in another pack
	Written       int64 // bytes of new packs
	Lost          map[ID]struct{}
}

// RepairPacks makes the best of packs that are damaged, while nobody else works: *LockedError. A pack with enough parity is
// made whole. Of the others, every chunk that is whole is stored again in new packs; when these are durable, what there is
// of the damaged pack lies under quarantine/ and no longer under its name, so that it counts as gone: the next backup
// stores again what the disk still holds of it. A pack of which nothing can be read stays, unless o says otherwise. report is
// called for each pack that is damaged or was named.
//
// mark walks what records refer to, past what cannot be read: of a pack without a directory, the index may know where in it
// these chunks lie.
//
// It may be interrupted at any point, and makes nothing worse: what could be read before can be read after.
func (r *Repository) RepairPacks(ctx context.Context, o RepairOptions, mark Marker, report func(RepairedPack)) (Repaired, error) {
	lease, err := r.takeLeaseFor(ctx, Exclusive, "repair", o.DryRun)
	if err != nil {
		return Repaired{}, err
	}
	defer lease.release()
	// The index may know what the directories of damaged packs no longer say: it must not be made anew now.
	defer r.keepIndex()()
	known, ledgers, err := r.readLedger(ctx)
	if err != nil {
		return Repaired{}, err
	}
	packs, err := r.storedPacks(ctx, known)
	if err != nil {
		return Repaired{}, err
	}
	if o.Drop && len(o.Packs) == 0 {
		return Repaired{}, errors.New("what cannot be read is removed only where it is named: it could be the storage that is gone")
	}
	if packs, err = o.choose(packs); err != nil {
		return Repaired{}, err
	}
	p := &repairer{repo: r, lease: lease, options: o, report: report, scratch: newFrameScratch(r.secrets.id),
		saved: map[ID]struct{}{}, unsaved: map[ID]struct{}{}, writers: map[pack.Kind]*Writer{}, damaged: map[ID]struct{}{}}
	defer p.close()
	p.result.Lost = map[ID]struct{}{}
	err = p.run(ctx, &dataCheck{repo: r, known: known, ledgers: ledgers, unnoted: lease.none}, packs, mark)
	return p.result, err
}

// choose returns the packs whose names begin as o says.
func (o RepairOptions) choose(packs []StoredPack) ([]StoredPack, error) {
	if len(o.Packs) == 0 {
		return packs, nil
	}
	chosen := map[ID]StoredPack{}
	for _, name := range o.Packs {
		before := len(chosen)
		for _, p := range packs {
			if name != "" && strings.HasPrefix(hex.EncodeToString(p.ID[:]), name) {
				chosen[p.ID] = p
			}
		}
		if len(chosen) == before {
			return nil, fmt.Errorf("there is no pack %q: 'varve check --read-data' names those that are damaged", name)
		}
	}
	return slices.Collect(maps.Values(chosen)), nil
}

// keepIndex keeps the index from being made anew until the function is called that it returns.
func (r *Repository) keepIndex() (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.rebuilt
	r.rebuilt = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.rebuilt = before
	}
}

// repairer is one RepairPacks at work.
type repairer struct {
	repo    *Repository
	lease   *heldLease
	options RepairOptions
	report  func(RepairedPack)
	scratch *frameScratch
	session *Session // nil until there is something to store
	writers map[pack.Kind]*Writer
	result  Repaired

	damaged  map[ID]struct{} // packs
	unlisted []unlisted      // of these, those without a directory
	move     []ID            // of these, those that are copied, and are to go
	saved    map[ID]struct{} // chunks of damaged packs that were whole
	unsaved  map[ID]struct{} // and those that were not
}

// unlisted is a pack without a directory, which is read a second time.
type unlisted struct {
	RepairedPack
	sum ID // BLAKE3 of what could be read of it
}

func (p *repairer) run(ctx context.Context, d *dataCheck, packs []StoredPack, mark Marker) error {
	d.damaged = func(s StoredPack, e examined, err error) error { return p.one(ctx, s, e, err) }
	err := d.read(ctx, packs, 0)
	p.result.Packs, p.result.Bytes = d.packs, d.bytes
	if err != nil {
		return err
	}
	for _, s := range packs {
		if _, bad := p.damaged[s.ID]; !bad && len(p.options.Packs) > 0 {
			p.report(RepairedPack{ID: s.ID, Size: s.Size})
		}
	}
	if len(p.unlisted) > 0 {
		if err := p.byIndex(ctx, mark); err != nil {
			return err
		}
	}
	if err := p.elsewhere(ctx); err != nil {
		return err
	}
	if p.options.DryRun || len(p.move) == 0 {
		return nil
	}
	return p.remove(ctx)
}

// one deals with one pack that is damaged.
func (p *repairer) one(ctx context.Context, s StoredPack, e examined, reason error) error {
	p.damaged[s.ID] = struct{}{}
	p.result.Damaged++
	done := RepairedPack{ID: s.ID, Size: s.Size, Reason: reason}
	if whole, err := p.repo.healPack(ctx, s.ID, s.Size); err == nil {
		if !p.options.DryRun {
			if err := p.repo.storage.Put(ctx, packName(s.ID), whole.data); err != nil {
				return fmt.Errorf("storing pack %s, which was healed: %w", short(s.ID), err)
			}
		}
		done.Healed = true
		p.result.Healed++
		p.report(done)
		return nil
	}
	if e.unread && !p.options.Drop {
		p.leave(done)
		return nil
	}
	if done.Gone = e.unread; done.Gone || !e.listed {
		p.unlisted = append(p.unlisted, unlisted{done, blake3.Sum256(e.data)})
		return nil
	}
	return p.salvage(ctx, done, e.data, e.dir, indexEntries(e.dir))
}

// leave leaves a pack where it is.
func (p *repairer) leave(done RepairedPack) {
	done.Left = true
	p.result.Left++
	p.report(done)
}

// byIndex deals with the packs without a directory: of those of their chunks that are in use, the index may know the place.
func (p *repairer) byIndex(ctx context.Context, mark Marker) error {
	r := p.repo
	places := map[ID][]index.Entry{}
	packs := map[ID]index.Pack{}
	for _, done := range p.unlisted {
		places[done.ID] = nil
	}
	x, err := r.reading(ctx)
	if err != nil {
		r.logf("the index cannot tell what is in packs without a directory: %v", err)
	} else {
		nodes := map[ID]struct{}{}
		note := func(id ID) {
			place, found := x.Lookup(id)
			q, live := x.Pack(place.Pack)
			if _, wanted := places[q.ID]; found && live && wanted {
				packs[q.ID] = q
				places[q.ID] = append(places[q.ID], index.Entry{ID: id, Offset: place.Offset, Stored: place.Stored, At: place.At, Length: place.Length})
			}
		}
		err := mark(ctx, func(id ID) bool {
			if _, seen := nodes[id]; seen {
				return false
			}
			nodes[id] = struct{}{}
			note(id)
			return true
		}, note)
		if err != nil {
			return fmt.Errorf("finding what is in packs without a directory: %w", err)
		}
	}
	for _, done := range p.unlisted {
		e, _ := r.examine(ctx, StoredPack{ID: done.ID, Size: done.Size}, nil, p.scratch)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if e.unread != done.Gone || blake3.Sum256(e.data) != done.sum { // its medium says now this, now that
			p.leave(done.RepairedPack)
			continue
		}
		entries := places[done.ID]
		slices.SortFunc(entries, func(a, b index.Entry) int {
			return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.At, b.At))
		})
		entries = slices.Compact(entries)
		if err := p.salvage(ctx, done.RepairedPack, e.data, directoryOf(packs[done.ID]), entries); err != nil {
			return err
		}
	}
	return nil
}

// salvage stores again what is whole of a pack, of which data is what can be read, and copies that out of the way. entries
// are sorted; of dir, it needs no more than the head.
func (p *repairer) salvage(ctx context.Context, done RepairedPack, data []byte, dir pack.Directory, entries []index.Entry) error {
	opener := dir.Opener(p.repo.secrets.pack)
	var plain []byte
	var err error
	for i, e := range entries {
		if i == 0 || e.Offset != entries[i-1].Offset || e.Stored != entries[i-1].Stored {
			plain, err = nil, io.ErrUnexpectedEOF
			if uint64(e.Offset)+uint64(e.Stored) <= uint64(len(data)) {
				plain, err = p.scratch.open(opener, e.Offset, data[e.Offset:e.Offset+e.Stored])
			}
		}
		done.Chunks++
		var chunk []byte
		if err == nil {
			chunk, _ = chunkOf(p.scratch.hasher, plain, index.Place{At: e.At, Length: e.Length}, e.ID)
		}
		if chunk == nil {
			p.unsaved[e.ID] = struct{}{}
			continue
		}
		done.Saved++
		if err := p.save(ctx, dir.Kind, e.ID, chunk); err != nil {
			return err
		}
	}
	p.move = append(p.move, done.ID)
	if done.Gone {
		p.result.Gone++
		p.report(done)
		return nil
	}
	if !p.options.DryRun {
		if done.To, err = p.repo.quarantine(ctx, packName(done.ID), data); err != nil {
			return err
		}
	}
	p.result.Moved++
	p.report(done)
	return nil
}

// save stores a chunk, once.
func (p *repairer) save(ctx context.Context, kind pack.Kind, id ID, chunk []byte) error {
	if _, again := p.saved[id]; again {
		return nil
	}
	p.saved[id] = struct{}{}
	p.result.Saved++
	if p.options.DryRun {
		return nil
	}
	if p.session == nil {
		// It does not look for what is there already: a chunk that is whole here may be rotten where it lies as well.
		x := index.Memory(errors.New("a repair remembers nothing"))
		var err error
		if p.session, err = p.repo.newSession(p.lease, SessionOptions{Compression: p.options.Compression}, x); err != nil {
			return err
		}
		p.session.lent = true
	}
	if p.writers[kind] == nil {
		w, err := p.session.writer(kind)
		if err != nil {
			return err
		}
		p.writers[kind] = w
	}
	return p.writers[kind].put(ctx, id, chunk)
}

// elsewhere looks for the chunks that are damaged in other packs. What is in none is lost.
func (p *repairer) elsewhere(ctx context.Context) error {
	for id := range p.saved {
		delete(p.unsaved, id)
	}
	if len(p.unsaved) == 0 {
		return nil
	}
	found := map[ID]struct{}{}
	err := p.repo.eachPlace(ctx, func(q index.Pack, e index.Entry) {
		_, wanted := p.unsaved[e.ID]
		_, bad := p.damaged[q.ID]
		if _, again := found[e.ID]; !wanted || bad || again {
			return
		}
		place := index.Place{Offset: e.Offset, Stored: e.Stored, At: e.At, Length: e.Length}
		if _, err := p.repo.chunkAt(ctx, e.ID, q, place, nil); err == nil {
			found[e.ID] = struct{}{}
		}
	})
	p.result.Elsewhere = int64(len(found))
	for id := range p.unsaved {
		if _, there := found[id]; !there {
			p.result.Lost[id] = struct{}{}
		}
	}
	return err
}

// remove takes away the packs that are copied, once what was saved of them is durable.
func (p *repairer) remove(ctx context.Context) error {
	r := p.repo
	if p.session != nil {
		if err := p.session.Sync(ctx); err != nil {
			return err
		}
		if err := p.session.present(ctx); err != nil {
			return err
		}
		p.result.Written = p.session.Added().Stored
	}
	if err := cmp.Or(p.lease.check(ctx), ctx.Err()); err != nil {
		return err
	}
	for _, id := range p.move {
		if err := r.storage.Delete(ctx, packName(id)); err != nil && !errors.Is(err, storage.ErrNotExist) {
			return fmt.Errorf("removing pack %s, of which what can be read is in quarantine: %w", short(id), err)
		}
	}
	_, err := r.follow(ctx)
	return err
}

func (p *repairer) close() {
	if p.session != nil {
		p.session.Close()
	}
}

// quarantine stores data, what there is of the damaged object name, where nobody takes it for that object, and returns
// where that is: under quarantine/, and with its hash behind the name where others have been before.
func (r *Repository) quarantine(ctx context.Context, name string, data []byte) (string, error) {
	sum := blake3.Sum256(data)
	for _, to := range []string{"quarantine/" + name, "quarantine/" + name + "-" + hex.EncodeToString(sum[:8])} {
		err := r.storage.PutNew(ctx, to, data)
		if err != nil && !errors.Is(err, storage.ErrExist) {
			return "", fmt.Errorf("storing %s: %w; nothing was removed", to, err)
		}
		stored, err := r.storage.Get(ctx, to, 0, -1, nil)
		if err != nil {
			return "", fmt.Errorf("reading %s back: %w; nothing was removed", to, err)
		}
		if bytes.Equal(stored, data) {
			return to, nil
		}
	}
	return "", fmt.Errorf("what is in quarantine of %s is something else; nothing was removed: move it elsewhere, and try again", name)
}
