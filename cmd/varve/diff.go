package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"varve/repo"
	"varve/snapshot"
)

func (a *app) diffCommand() *cobra.Command {
	var filter filterFlags
	c := &cobra.Command{
		Use:   "diff [flags] OLD[:DISK] NEW[:DISK]",
		Short: "show what differs between two snapshots",
		Long: `The diff command lists the ranges in which disks of two snapshots differ, as far as their chunks tell: where whole
chunks were stored, a range may be somewhat longer than what really changed. Only the trees are read. Disks that only
one of the snapshots has are named.` +
			exits(exitNoRepository, exitLocked, exitWrongPassword),
		Example: `  varve diff 1a2b3c4d latest
  varve diff 1a2b3c4d:sda 5e6f7a8b:sda --verbose`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			return a.with(ctx, func(r *repo.Repository) error {
				return a.patiently(ctx, func() error {
					return r.Beside(ctx, "diff", func() error { return a.diff(ctx, r, args[0], args[1], filter.filter()) })
				})
			})
		},
	}
	filter.add(c)
	return c
}

func (a *app) diff(ctx context.Context, r *repo.Repository, before, after string, f snapshot.Filter) error {
	list, err := a.list(ctx, r)
	if err != nil {
		return err
	}
	p, err := snapshot.Pairs(list, before, after, f)
	if err != nil {
		return err
	}
	var changed, ranges, stored, parts int64
	for _, pair := range p.Disks {
		var found []snapshot.Range
		err := snapshot.Diff(ctx, r, pair[0], pair[1], func(x snapshot.Range) error {
			changed += x.Length
			ranges++
			if len(found) <= maxRanges || a.ui.verbose || a.ui.json {
				found = append(found, x)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("disk %s: %w", pair[1].Name, err)
		}
		a.showRanges(pair[1].Name, found)
		stored += pair[1].Stats.Stored
		parts += pair[1].Stats.Parts
	}
	for _, d := range p.Removed {
		a.ui.object(map[string]any{"message_type": "change", "disk": d.Name, "modifier": "-"})
		a.ui.print("%s: only in snapshot %s", d.Name, shortID(p.Before.ID))
	}
	for _, d := range p.Added {
		a.ui.object(map[string]any{"message_type": "change", "disk": d.Name, "modifier": "+"})
		a.ui.print("%s: only in snapshot %s", d.Name, shortID(p.After.ID))
	}
	a.ui.object(map[string]any{"message_type": "statistics", "source_snapshot": hexID(p.Before.ID), "target_snapshot": hexID(p.After.ID),
		"changed_bytes": changed, "changed_ranges": ranges, "stored_bytes": stored, "parts_bytes": parts,
		"added_disks": len(p.Added), "removed_disks": len(p.Removed)})
	a.ui.say("%s differ between snapshots %s and %s, in %s", size(changed), shortID(p.Before.ID), shortID(p.After.ID), count(ranges, "range", "ranges"))
	a.ui.say("for the second %s were stored when it was made; %s of it are parts of chunks of earlier snapshots", size(stored), size(parts))
	return nil
}
