package main

import (
	"context"
	"fmt"
	"slices"

	"varve/repo"
	"varve/snapshot"
)

// freed says what forgetting some snapshots gives back once the repository is pruned, in bytes.
type freed struct {
	alone    map[snapshot.ID]int64 // each snapshot by itself: what no other refers to
	together int64                 // all that go: what none that stays refers to
	shed     int                   // how many go beyond the policy, for room
}

// weigh finds out what outcomes free, of all snapshots in list.
func (a *app) weigh(ctx context.Context, r *repo.Repository, list []*snapshot.Snapshot, outcomes []snapshot.Outcome, o forgetOptions, p repo.PruneOptions) (*freed, error) {
	var gone []*snapshot.Snapshot
	for _, outcome := range outcomes {
		gone = append(gone, outcome.Remove...)
	}
	spare := snapshot.Spare(outcomes)
	// In this order, those that are left after any of the steps are the first ones: what stays in any case, what may go, the
	// oldest last, and what goes in any case.
	var order []*snapshot.Snapshot
	for _, s := range list {
		if !slices.Contains(spare, s) && !slices.Contains(gone, s) {
			order = append(order, s)
		}
	}
	slices.Reverse(spare)
	order = slices.Concat(order, spare, gone)
	slices.Reverse(spare)
	marks := make([]repo.Marker, len(order))
	for i, s := range order {
		marks[i] = markerOf(r, func(context.Context) ([]*snapshot.Snapshot, error) { return []*snapshot.Snapshot{s}, nil })
	}
	shares, err := r.Shares(ctx, marks)
	a.ui.endSteps()
	if err != nil {
		return nil, fmt.Errorf("finding what would be freed: %w; nothing was removed", err)
	}
	f := &freed{alone: map[snapshot.ID]int64{}}
	for i, s := range order {
		f.alone[s.ID] = shares.Alone[i]
	}
	stay := len(order) - len(gone)
	if o.keepFree > 0 {
		if f.shed, err = shed(ctx, r, shares, stay, len(spare), int64(o.keepFree), p.MaxUnused); err != nil {
			return nil, err
		}
		snapshot.Give(outcomes, spare[:f.shed])
		stay -= f.shed
	}
	f.together = shares.Used(len(order)) - shares.Used(stay)
	return f, nil
}

// shed returns how many of the last spare of stay snapshots have to go, so that want bytes are free after a prune.
func shed(ctx context.Context, r *repo.Repository, shares repo.Shares, stay, spare int, want int64, maxUnused func(int64) int64) (int, error) {
	room, err := r.Free(ctx)
	if err != nil {
		return 0, fmt.Errorf("--keep-free: %w; nothing was removed", err)
	}
	most := int64(0)
	for n := 0; n <= spare; n++ {
		used := shares.Used(stay - n)
		garbage := shares.Packs - shares.Unreadable - used
		if most = room + max(0, garbage-maxUnused(used)); most >= want {
			return n, nil
		}
	}
	return 0, fmt.Errorf("--keep-free: with the newest snapshot of each group and those that are held alone, %s would be free, and not %s; nothing was removed", size(most), size(want))
}

// table is the compact table of snapshots, with what each frees where that is known.
func (f *freed) table(list []*snapshot.Snapshot) (header []string, rows [][]string) {
	header, rows = snapshotTable(list, true)
	if f == nil {
		return header, rows
	}
	header = append(header, ">Alone")
	for i := range rows {
		rows[i] = append(rows[i], size(f.alone[list[i].ID]))
	}
	return header, rows
}

// objects lists snapshots for programs, with what each frees where that is known.
func (f *freed) objects(list []*snapshot.Snapshot) []map[string]any {
	objects := snapshotObjects(list)
	if f != nil {
		for i, s := range list {
			objects[i]["bytes_alone"] = f.alone[s.ID]
		}
	}
	return objects
}
