package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"varve/repo/storage"
)

// Marker calls node for every tree node and chunk for every chunk that the remaining records refer to. node reports
// whether it sees the id for the first time; what is below a node that was seen need not be marked again.
type Marker func(ctx context.Context, node func(ID) (first bool), chunk func(ID)) error

// PruneOptions says how far a prune goes.
type PruneOptions struct {
	DryRun bool
	// MaxUnused returns how many bytes of garbage may stay in packs, of a repository with used bytes in use. Packs are
	// rewritten, those with most garbage first, until no more is left. nil: 5 %.
	MaxUnused   func(used int64) int64
	Compression Compression // of packs that are rewritten
}

// Pruned says what a prune found and did. Bytes are of the storage.
type Pruned struct {
	Packs, Bytes    int64 // before
	Used            int64 // bytes of packs taken by chunks in use, garbage in rewritten packs not counted
	DeletedPacks    int64 // that held nothing in use
	DeletedBytes    int64
	RepackedPacks   int64 // that were rewritten
	RepackedBytes   int64
	WrittenBytes    int64 // of the packs that replace them
	UnusedBytes     int64 // garbage that stays
	UnreadablePacks int64 // left alone
	CondemnedPacks  int64 // of those above, deleted or rewritten, which a later prune removes: somebody works who began before
	CondemnedBytes  int64
	Waiting         []Lease // of those
}

// Freed returns by how many bytes the repository shrank, or would, those included that a later prune removes.
func (p Pruned) Freed() int64 { return p.DeletedBytes + p.RepackedBytes - p.WrittenBytes }

// fate is what may happen to a pack in a prune.
type fate byte

const (
	free       fate = iota // it goes when nothing in it is in use
	running                // a running session makes it: no record refers to it yet
	ripe                   // condemned, and nobody works who may rely on it
	waiting                // condemned, and somebody does
	unreadable             // its directory cannot be read: it is left alone
)

// candidate is what prune knows of a pack.
type candidate struct {
	id          ID
	size        int64
	fate        fate
	plain, live int64  // bytes of all its chunks, and of those to be kept here
	inUse       int64  // bytes of its chunks that are in use; those count that are kept in another pack
	kept        []bool // by position: the chunks to be kept here; nil when all, or none
}

// share returns which part of the pack is in use.
func (c *candidate) share() float64 { return float64(c.inUse) / float64(max(1, c.plain)) }

// unused estimates how many bytes of the pack are garbage.
func (c *candidate) unused() int64 {
	return int64(float64(c.size) * float64(c.plain-c.live) / float64(max(1, c.plain)))
}

// Prune removes what no record refers to, beside sessions and readers. It fails with *LockedError while another prune, or
// something else that removes, is at work, and with *DamagedError, before it removes anything, when something that is
// referred to is missing.
//
// Nobody must lose a pack on which he relies. So packs go in two steps: what is in use in them is copied into new packs,
// and when these are durable a list condemns the old ones. Sessions that begin from then on do not rely on them. When all
// have ended that began before, all records are looked through again, what is in use in condemned packs only is copied, and
// then they go. Where nobody else works, one prune does it all; else the next prune does the rest.
//
// A crash at any point leaves at worst chunks that are stored twice, and a list that the next prune carries out.
// docs/decisions/prune.md has the argument.
func (r *Repository) Prune(ctx context.Context, o PruneOptions, mark Marker) (Pruned, error) {
	lease, err := r.takeLeaseFor(ctx, Maintenance, "prune", o.DryRun)
	if err != nil {
		return Pruned{}, err
	}
	defer lease.release()
	if o.MaxUnused == nil {
		o.MaxUnused = func(used int64) int64 { return used / 20 }
	}
	p := &pruner{repo: r, lease: lease, options: o, mark: mark}
	err = p.run(ctx)
	if errors.Is(err, syscall.ENOSPC) {
		err = fmt.Errorf("%w; 'varve prune --max-unused unlimited' rewrites nothing, and needs next to no room", err)
	}
	return p.result, err
}

// pruner is one prune at work.
type pruner struct {
	repo    *Repository
	lease   *heldLease
	options PruneOptions
	mark    Marker
	result  Pruned

	marked  marked
	running map[[16]byte]struct{}
	fates   map[ID]fate // of packs that are not free: condemned, or found to be damaged
	twice   *idSet      // of marked chunks, those that are in more than one place
}

func (p *pruner) run(ctx context.Context) error {
	r := p.repo
	due, err := p.condemnedBefore(ctx)
	if err != nil {
		return err
	}
	x, err := r.follow(ctx)
	if err != nil {
		return err
	}
	p.marked.live.expect(x.Stats().Chunks)
	if err := p.markAll(ctx); err != nil {
		return err
	}
	packs, err := p.weigh(ctx)
	if err != nil {
		return err
	}
	dead, rewrite := p.plan(packs)
	for !p.options.DryRun {
		damaged, err := p.verifyKept(ctx, packs, append(slices.Concat(dead, rewrite), withFate(packs, ripe)...))
		if err != nil {
			return err
		}
		if !damaged {
			break
		}
		if packs, err = p.weigh(ctx); err != nil {
			return err
		}
		dead, rewrite = p.plan(packs)
	}
	if p.options.DryRun {
		for _, c := range rewrite {
			p.result.WrittenBytes += c.size - c.unused()
		}
		return nil
	}
	if err := p.carryOut(ctx, due, packs, rewrite); err != nil {
		return err
	}
	if len(dead)+len(rewrite) > 0 {
		if err := p.remove(ctx, slices.Concat(dead, rewrite)); err != nil {
			return err
		}
	}
	_, err = r.follow(ctx)
	return err
}

// condemnedBefore finds out about the packs that earlier prunes have condemned, and returns the lists that are ripe. It
// also notes who works now.
func (p *pruner) condemnedBefore(ctx context.Context) (due []*condemned, err error) {
	r := p.repo
	lists, damaged, reasons, err := r.condemnedLists(ctx)
	if err != nil {
		return nil, err
	}
	if len(damaged) > 0 {
		r.logf("%v; what it condemns is no longer condemned, and is looked at anew", reasons)
	}
	for _, name := range damaged {
		if p.options.DryRun {
			break
		}
		if err := r.storage.Delete(ctx, name); err != nil && !errors.Is(err, storage.ErrNotExist) {
			return nil, fmt.Errorf("removing a damaged list of condemned packs: %w", err)
		}
	}
	p.fates = map[ID]fate{}
	for _, c := range lists {
		others, err := r.waitingFor(ctx, c, p.lease.name, p.options.DryRun)
		if err != nil {
			return nil, err
		}
		fate := waiting
		if len(others) == 0 {
			fate = ripe
			due = append(due, c)
		}
		for _, id := range c.Packs {
			p.fates[ID(id)] = fate
		}
	}
	leases, err := r.Leases(ctx)
	if err != nil {
		return nil, err
	}
	p.running = map[[16]byte]struct{}{}
	for _, l := range leases {
		if l.Name != p.lease.name && !l.stale(time.Now()) {
			p.running[makerOf(l.Name)] = struct{}{}
		}
	}
	return due, nil
}

// markAll adds to marked what the records refer to that are there now.
func (p *pruner) markAll(ctx context.Context) error {
	if err := p.marked.add(ctx, p.mark); err != nil {
		return fmt.Errorf("finding what is in use: %w; nothing more was removed: run 'varve check'", err)
	}
	return nil
}

// weigh finds out what is in use of every pack, and decides in which one each chunk is kept: where it can, in one that is not
// condemned, and else in one that this prune removes, so that it is copied. Another prune that was suspended may remove the
// packs of a list that this one leaves alone.
func (p *pruner) weigh(ctx context.Context) ([]*candidate, error) {
	var packs []*candidate
	if err := p.repo.listPacks(ctx, func(id ID, size int64) {
		packs = append(packs, &candidate{id: id, size: size, fate: p.fates[id]})
	}); err != nil {
		return nil, err
	}
	slices.SortStableFunc(packs, func(a, b *candidate) int { return cmp.Compare(a.fate, b.fate) })
	if err := p.claim(ctx, packs); err != nil {
		return nil, err
	}
	if p.twice.n > 0 {
		// Chunks are kept where most is in use: an interrupted prune has copied them there, and that was not in vain.
		slices.SortStableFunc(packs, func(a, b *candidate) int {
			return cmp.Or(cmp.Compare(a.fate, b.fate), cmp.Compare(b.share(), a.share()))
		})
		if err := p.claim(ctx, packs); err != nil {
			return nil, err
		}
	}
	if n := p.marked.live.unclaimed(); n > 0 {
		return nil, &DamagedError{Object: "the repository", Reason: fmt.Sprintf("%d chunks that snapshots refer to are in no readable pack; nothing more was removed: run 'varve check'", n)}
	}
	return packs, nil
}

// claim reads the directories of packs, in that order, and claims what is in use for the first pack that has it.
func (p *pruner) claim(ctx context.Context, packs []*candidate) error {
	r := p.repo
	p.marked.live.unclaimAll()
	p.twice = &idSet{}
	for i, c := range packs {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.progress("reading the directories of packs", i, len(packs))
		if c.fate == unreadable {
			continue
		}
		dir, err := r.readDirectory(ctx, c.id, c.size)
		if err != nil {
			var damaged *DamagedError
			if !errors.As(err, &damaged) && !errors.Is(err, storage.ErrNotExist) {
				return err
			}
			r.logf("%v; it is left alone", err)
			c.fate = unreadable
			continue
		}
		if _, made := p.running[[16]byte(dir.Salt[:16])]; made && c.fate == free {
			c.fate = running
		}
		c.plain, c.live, c.inUse, c.kept = 0, 0, 0, nil
		var kept []bool
		for _, f := range dir.Frames {
			for _, chunk := range f.Chunks {
				length := int64(chunk.Length)
				c.plain += length
				keep := p.marked.live.claim(chunk.ID)
				kept = append(kept, keep)
				if keep {
					c.live += length
					c.inUse += length
				} else if p.marked.live.has(chunk.ID) {
					c.inUse += length
					p.twice.add(chunk.ID)
				}
			}
		}
		if c.live > 0 && c.live < c.plain {
			c.kept = kept
		}
	}
	r.progress("reading the directories of packs", len(packs), len(packs))
	return nil
}

// withFate returns the packs of that fate.
func withFate(packs []*candidate, f fate) (list []*candidate) {
	for _, c := range packs {
		if c.fate == f {
			list = append(list, c)
		}
	}
	return list
}

// carryOut copies what is in use out of the packs in rewrite and out of those of the lists in due, and removes the latter.
func (p *pruner) carryOut(ctx context.Context, due []*condemned, packs, rewrite []*candidate) error {
	gone := withFate(packs, ripe)
	for _, c := range gone {
		if c.live > 0 { // of a session that has ended since the pack was condemned
			rewrite = append(rewrite, c)
		}
	}
	if len(rewrite) > 0 {
		written, err := p.repack(ctx, rewrite)
		if err != nil {
			return err
		}
		p.result.WrittenBytes += written
	}
	return p.deletePacks(ctx, due, gone)
}

// remove condemns packs of which nothing is needed any more, and removes them if nobody works who may rely on them.
func (p *pruner) remove(ctx context.Context, packs []*candidate) error {
	r := p.repo
	if err := p.lease.check(ctx); err != nil {
		return err
	}
	list, err := r.condemn(ctx, packs)
	if err != nil {
		return err
	}
	others, err := r.waitingFor(ctx, list, p.lease.name, false)
	if err != nil {
		return err
	}
	if len(others) > 0 {
		p.result.Waiting = others
		for _, c := range packs {
			p.result.CondemnedPacks++
			p.result.CondemnedBytes += c.size
		}
		return nil
	}
	// A session that has ended just now may have left a record that refers to them.
	before := p.marked.live.n
	if err := p.markAll(ctx); err != nil {
		return err
	}
	if p.marked.live.n > before {
		for _, c := range packs {
			p.fates[c.id] = ripe
		}
		all, err := p.weigh(ctx)
		for damaged := true; err == nil && damaged; {
			if damaged, err = p.verifyKept(ctx, all, withFate(all, ripe)); damaged {
				all, err = p.weigh(ctx)
			}
		}
		if err != nil {
			return err
		}
		return p.carryOut(ctx, []*condemned{list}, all, nil)
	}
	return p.deletePacks(ctx, []*condemned{list}, packs)
}

// plan decides which packs go and which are rewritten.
func (p *pruner) plan(packs []*candidate) (dead, rewrite []*candidate) {
	p.result = Pruned{}
	result := &p.result
	var partial []*candidate
	for _, c := range packs {
		result.Packs++
		result.Bytes += c.size
		switch {
		case c.fate == unreadable:
			result.UnreadablePacks++
			continue
		case c.fate == ripe && c.live > 0:
			result.RepackedPacks++
			result.RepackedBytes += c.size
			continue
		case c.fate == ripe:
			result.DeletedPacks++
			result.DeletedBytes += c.size
			continue
		case c.fate == waiting:
			result.CondemnedPacks++
			result.CondemnedBytes += c.size
			continue
		case c.fate == running:
			result.Used += c.size
			continue
		case c.live == 0:
			dead = append(dead, c)
			result.DeletedPacks++
			result.DeletedBytes += c.size
			continue
		case c.live < c.plain:
			partial = append(partial, c)
			result.UnusedBytes += c.unused()
		}
		result.Used += c.size - c.unused()
	}
	slices.SortFunc(partial, func(a, b *candidate) int {
		return cmp.Compare(float64(a.live)/float64(a.plain), float64(b.live)/float64(b.plain))
	})
	limit := p.options.MaxUnused(result.Used)
	for _, c := range partial {
		if result.UnusedBytes <= limit {
			break
		}
		rewrite = append(rewrite, c)
		result.UnusedBytes -= c.unused()
		result.RepackedPacks++
		result.RepackedBytes += c.size
	}
	return dead, rewrite
}

// deletions is how many packs are removed at once: each waits for the storage.
const deletions = 8

// deletePacks removes the packs of lists, as far as they are in packs, and then the lists. Before each hundred it makes sure
// that the lease and the lists still protect it.
func (p *pruner) deletePacks(ctx context.Context, lists []*condemned, packs []*candidate) error {
	r := p.repo
	done := 0
	for part := range slices.Chunk(packs, 100) {
		r.progress("removing packs", done, len(packs))
		if err := cmp.Or(ctx.Err(), p.lease.check(ctx)); err != nil {
			return err
		}
		for _, c := range lists {
			if _, err := r.storage.Get(ctx, c.name, 0, -1, nil); err != nil {
				return fmt.Errorf("the list of the packs that are to go is gone: nothing more was removed; run the command again (%w)", err)
			}
		}
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(deletions)
		for _, c := range part {
			group.Go(func() error {
				if err := r.storage.Delete(ctx, packName(c.id)); err != nil && !errors.Is(err, storage.ErrNotExist) {
					return fmt.Errorf("removing pack %s: %w", short(c.id), err)
				}
				return nil
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		done += len(part)
	}
	r.progress("removing packs", done, len(packs))
	for _, c := range lists {
		if err := r.storage.Delete(ctx, c.name); err != nil && !errors.Is(err, storage.ErrNotExist) {
			return fmt.Errorf("removing the list of packs that have gone: %w", err)
		}
	}
	return nil
}
