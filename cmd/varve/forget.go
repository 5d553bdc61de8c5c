package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"varve/repo"
	"varve/snapshot"
)

type forgetOptions struct {
	filter filterFlags

	last, hourly, daily, weekly, monthly, yearly                                 keepCount
	within, withinHourly, withinDaily, withinWeekly, withinMonthly, withinYearly span

	keepTags  tagLists
	keepFree  byteSize
	groupBy   string
	dryRun    bool
	compact   bool
	prune     bool
	removeAll bool
	pruneWith pruneFlags
}

func (a *app) forgetCommand() *cobra.Command {
	var o forgetOptions
	c := &cobra.Command{
		Use:   "forget [flags] [SNAPSHOT...]",
		Short: "remove snapshots, by a policy or by name",
		Long: `The forget command removes snapshots: those that are named, or else those that no --keep flag keeps. Each host and set
of disks is looked at by itself (--group-by). What the snapshots held stays in the repository until it is pruned, which
--prune does at once.

--keep-daily 7 keeps the newest snapshot of each of the last 7 days that have one, and so on; a snapshot that any flag
keeps is kept. --keep-within 2y5m7d3h keeps all that is not older than that, counted from the newest that is not in
the future. Where there are fewer days, months or the like than asked for, or all lie within the span, the oldest
snapshot is kept as well. Held snapshots are kept.

Whoever can add snapshots can add many with times that suit him, and so push good ones out of rules that count. Rules of
time (--keep-within and its like) and held snapshots cannot be used up like that.

--keep-free 200G removes more than the other flags do: of what they keep the oldest, one after the other, until that
much would be free where the repository lies after a prune. Held snapshots and the newest of each group stay; when
that is not enough, nothing is removed. Alone, it keeps all that there is room for. Where packs are rewritten, what
that gives back is reckoned from what their chunks take now.

--dry-run tells why each snapshot stays, what only this one needs (Alone: removing it by itself frees that much), and
what no other than those that go need. A chunk takes its part of its pack's bytes, in proportion to its length; all
parts of a pack are the pack. What prune then gives back is told as well: it counts whole packs, leaves as much
garbage as --max-unused allows, and removes what was garbage before.

It refuses to remove all snapshots of a group. Backups may go on meanwhile.` + exits(exitNoRepository, exitLocked, exitWrongPassword, exitAppendOnly),
		Annotations: removes,
		Example: `  varve forget --keep-last 7 --keep-daily 30 --keep-monthly 12 --prune
  varve forget --keep-within 30d --dry-run
  varve forget 1a2b3c4d`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 && (!o.policy().Empty() || o.keepFree > 0) {
				return errors.New("name snapshots, or say with --keep flags which stay, not both")
			}
			p, err := o.pruneWith.options(o.dryRun)
			if err != nil {
				return err
			}
			return a.with(c.Context(), func(r *repo.Repository) error { return a.forget(c.Context(), r, o, p, args) })
		},
	}
	f := c.Flags()
	f.VarP(&o.last, "keep-last", "l", "keep the newest `n` snapshots (or \"unlimited\", here and below)")
	f.VarP(&o.hourly, "keep-hourly", "H", "keep one snapshot of each of the last `n` hours")
	f.VarP(&o.daily, "keep-daily", "d", "keep one snapshot of each of the last `n` days")
	f.VarP(&o.weekly, "keep-weekly", "w", "keep one snapshot of each of the last `n` weeks")
	f.VarP(&o.monthly, "keep-monthly", "m", "keep one snapshot of each of the last `n` months")
	f.VarP(&o.yearly, "keep-yearly", "y", "keep one snapshot of each of the last `n` years")
	f.Var(&o.within, "keep-within", "keep what is not older than this `span`, as 1y5m7d2h, counted from the newest")
	f.Var(&o.withinHourly, "keep-within-hourly", "keep one snapshot an hour within this `span`")
	f.Var(&o.withinDaily, "keep-within-daily", "keep one snapshot a day within this `span`")
	f.Var(&o.withinWeekly, "keep-within-weekly", "keep one snapshot a week within this `span`")
	f.Var(&o.withinMonthly, "keep-within-monthly", "keep one snapshot a month within this `span`")
	f.Var(&o.withinYearly, "keep-within-yearly", "keep one snapshot a year within this `span`")
	f.Var(&o.keepTags, "keep-tag", "keep snapshots that have all these `tag[,tag]` (may be given several times)")
	f.Var(&o.keepFree, "keep-free", "beyond that, remove the oldest until this `size` is free where the repository lies, once it is pruned")
	f.StringArrayVar(&o.filter.hosts, "host", nil, "only snapshots of this `host` (may be given several times)")
	f.Var(&o.filter.tags, "tag", "only snapshots that have all these `tag[,tag]` (may be given several times)")
	f.StringArrayVar(&o.filter.disks, "disk", nil, "only snapshots of this `disk`, its name or path (may be given several times)")
	f.StringVarP(&o.groupBy, "group-by", "g", "host,disks", "`by` what to group: host, disks, tags, joined by commas, or empty")
	f.BoolVarP(&o.dryRun, "dry-run", "n", false, "only show what would go, and what a prune would free then")
	f.BoolVarP(&o.compact, "compact", "c", false, "show less of each snapshot")
	f.BoolVar(&o.prune, "prune", false, "remove what is no longer referred to as well")
	f.BoolVar(&o.removeAll, "unsafe-allow-remove-all", false, "let all snapshots of a group go; they must be selected with --host, --tag or --disk")
	o.pruneWith.add(c)
	return c
}

func (o *forgetOptions) policy() snapshot.Policy {
	return snapshot.Policy{
		Last: int(o.last), Hourly: int(o.hourly), Daily: int(o.daily), Weekly: int(o.weekly),
		Monthly: int(o.monthly), Yearly: int(o.yearly),
		Within: o.within.Span, WithinHourly: o.withinHourly.Span, WithinDaily: o.withinDaily.Span,
		WithinWeekly: o.withinWeekly.Span, WithinMonthly: o.withinMonthly.Span, WithinYearly: o.withinYearly.Span,
		Tags: o.keepTags,
	}
}

// plan decides what goes, of all snapshots in list.
func (o *forgetOptions) plan(list []*snapshot.Snapshot, names []string) ([]snapshot.Outcome, error) {
	f := o.filter.filter()
	if len(names) > 0 {
		outcome, err := snapshot.ForgetNamed(list, names, f)
		return []snapshot.Outcome{outcome}, err
	}
	if o.removeAll && len(f.Hosts)+len(f.Disks)+len(f.Tags) == 0 {
		return nil, errors.New("--unsafe-allow-remove-all: select with --host, --tag or --disk what may go")
	}
	p := o.policy()
	if p.Empty() && o.keepFree > 0 {
		p.Last = snapshot.Forever // all that there is room for
	}
	return snapshot.Forget(f.Select(list), splitGroupBy(o.groupBy), p, o.removeAll, time.Now())
}

func (a *app) forget(ctx context.Context, r *repo.Repository, o forgetOptions, p repo.PruneOptions, names []string) error {
	var outcomes []snapshot.Outcome
	var frees *freed // nil where nobody asks
	plan := func() error {
		// Nothing may be decided while a record cannot be read: its snapshot might be meant.
		list, err := all(r)(ctx)
		if err != nil {
			return fmt.Errorf("%w; nothing was removed", err)
		}
		if outcomes, err = o.plan(list, names); err != nil {
			return err
		}
		if o.dryRun || o.keepFree > 0 {
			frees, err = a.weigh(ctx, r, list, outcomes, o, p)
		}
		return err
	}
	if o.dryRun {
		if err := plan(); err != nil {
			return err
		}
		a.showForget(outcomes, names, o, frees)
		return a.prune(ctx, r, p, survivors(r, outcomes))
	}
	err := a.patiently(ctx, func() error {
		return r.Maintain(ctx, "forget", func() error {
			if err := plan(); err != nil {
				return err
			}
			for _, outcome := range outcomes {
				for _, s := range outcome.Remove {
					if err := ctx.Err(); err != nil {
						return err
					}
					if err := r.DeleteRecord(ctx, s.ID); err != nil {
						return fmt.Errorf("removing snapshot %s: %w", shortID(s.ID), err)
					}
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	a.forgotten(r, outcomes)
	a.showForget(outcomes, names, o, frees)
	if o.prune {
		return a.prune(ctx, r, p, all(r))
	}
	return nil
}

// survivors lists the snapshots that a dry run leaves.
func survivors(r *repo.Repository, outcomes []snapshot.Outcome) func(context.Context) ([]*snapshot.Snapshot, error) {
	gone := map[snapshot.ID]bool{}
	for _, o := range outcomes {
		for _, s := range o.Remove {
			gone[s.ID] = true
		}
	}
	return func(ctx context.Context) ([]*snapshot.Snapshot, error) {
		list, err := all(r)(ctx)
		var left []*snapshot.Snapshot
		for _, s := range list {
			if !gone[s.ID] {
				left = append(left, s)
			}
		}
		return left, err
	}
}

// showForget tells what stays and why, and what goes. frees may be nil.
func (a *app) showForget(outcomes []snapshot.Outcome, names []string, o forgetOptions, frees *freed) {
	objects := []map[string]any{}
	removed := 0
	verb := "removed"
	if o.dryRun {
		verb = "would be removed"
	}
	for _, g := range outcomes {
		removed += len(g.Remove)
		object := groupKey(g.Group)
		object["remove"] = frees.objects(g.Remove)
		objects = append(objects, object)
		kept, reasons, because := []*snapshot.Snapshot{}, []map[string]any{}, []string{}
		if len(names) == 0 {
			for _, k := range g.Keep {
				kept = append(kept, k.Snapshot)
				because = append(because, strings.Join(k.Reasons, ", "))
				reasons = append(reasons, map[string]any{"snapshot": hexID(k.ID), "matches": k.Reasons})
			}
			object["keep"], object["reasons"] = frees.objects(kept), reasons
		}
		if a.ui.quiet || len(names) > 0 && !o.dryRun {
			continue
		}
		if len(names) == 0 {
			a.ui.print("%s", groupTitle(g.Group))
			a.ui.print("\n%s kept:", count(int64(len(kept)), "snapshot is", "snapshots are"))
			header, rows := frees.table(kept)
			if !o.compact {
				header = append(header, "Because")
				for i := range rows {
					rows[i] = append(rows[i], because[i])
				}
			}
			a.ui.table(header, rows)
		}
		if len(g.Remove) > 0 {
			a.ui.print("\n%s %s:", count(int64(len(g.Remove)), "snapshot", "snapshots"), verb)
			a.ui.table(frees.table(g.Remove))
		}
		a.ui.print("")
	}
	a.ui.object(objects)
	a.ui.say("%s %s", count(int64(removed), "snapshot", "snapshots"), verb)
	if frees != nil {
		a.ui.object(map[string]any{"message_type": "freed", "dry_run": o.dryRun, "snapshots": removed, "bytes_together": frees.together, "snapshots_for_room": frees.shed})
		if frees.shed > 0 {
			a.ui.say("%s because %s are to be free", count(int64(frees.shed), "of them goes", "of them go"), size(int64(o.keepFree)))
		}
		a.ui.say("no other snapshot needs %s of the repository", size(frees.together))
	}
}
