package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"varve/repo"
	"varve/snapshot"
)

func errUnreadablePacks(n int64) error {
	return fmt.Errorf("%s cannot be read and were left alone; 'varve check' tells more", count(n, "pack", "packs"))
}

func (a *app) checkCommand() *cobra.Command {
	var s selection
	var readData bool
	var part string
	var maxAge span
	var maxDuration time.Duration
	c := &cobra.Command{
		Use:   "check [flags]",
		Short: "look for damage in the repository",
		Long: `The check command looks whether everything that snapshots refer to is in the repository, and whether the directories of
packs can be read. With --read-data it reads and hashes every byte of the packs too; with --read-data-subset a part of
them: 2/10 is the second of ten parts; 5% and 1G are so many of those that were not read for longest.

The repository keeps a note of when each pack was read in full and found whole. --max-age reads only packs that were not
since, --max-duration stops reading when the time is over; both begin with what was not read for longest, and read all
packs unless --read-data-subset says less. So a run each night keeps every pack read within a time that is known.

What cannot be read is read again before it is called damaged. The command names all that is wrong, and which bytes of
which snapshots are hurt, and in a repository with parity which packs are damaged without that anything is lost. Backups
and prunes may run meanwhile.` +
			exits("1  failed, or something is wrong", exitNoRepository, exitLocked, exitWrongPassword),
		Example: `  varve check
  varve check --read-data
  varve check --read-data-subset 10%
  varve check --max-age 30d --max-duration 1h`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o := repo.CheckOptions{MaxDuration: maxDuration}
			var err error
			switch {
			case readData && part != "":
				return errors.New("--read-data and --read-data-subset exclude each other")
			case maxDuration < 0:
				return errors.New("--max-duration: it is a length of time such as 1h30m")
			case part != "":
				if s.subset, err = parseSubset(part); err != nil {
					return fmt.Errorf("--read-data-subset: %w", err)
				}
			}
			if maxAge.Span != (snapshot.Span{}) {
				s.before = maxAge.Before(time.Now())
			}
			if readData || part != "" || maxDuration > 0 || !s.before.IsZero() {
				o.Select = s.choose
			}
			return a.with(c.Context(), func(r *repo.Repository) error { return a.check(c.Context(), r, o, nil) })
		},
	}
	c.Flags().BoolVar(&readData, "read-data", false, "read all packs in full")
	c.Flags().StringVar(&part, "read-data-subset", "", "read a `part` of the packs in full: n/t, a percentage or a size")
	c.Flags().Var(&maxAge, "max-age", "read only packs that were not read in full for this `span`, as 30d or 1y")
	c.Flags().DurationVar(&maxDuration, "max-duration", 0, "stop reading after this `time`, as 30m or 2h")
	return c
}

// selection says which packs a check reads in full.
type selection struct {
	subset           // zero: all
	before time.Time // only those that were not read since; zero: all
}

// choose returns the packs that s selects, those first that were not read for longest.
func (s selection) choose(packs []repo.StoredPack) []repo.StoredPack {
	var chosen []repo.StoredPack
	for i, p := range packs {
		if (s.parts == 0 || int64(i)%s.parts == s.part-1) && (s.before.IsZero() || p.Verified.Before(s.before)) {
			chosen = append(chosen, p)
		}
	}
	// Names are hashes: among packs that were read at the same time, or never, their order is as good as any.
	slices.SortStableFunc(chosen, func(a, b repo.StoredPack) int { return a.Verified.Compare(b.Verified) })
	n := len(chosen)
	switch {
	case s.percent > 0:
		n = max(1, int(float64(len(packs))*s.percent/100+0.5))
	case s.bytes > 0:
		left := s.bytes
		for n = 0; n < len(chosen) && left > 0; n++ {
			left -= chosen[n].Size
		}
	}
	return chosen[:min(n, len(chosen))]
}

// check looks for damage, and says what is hurt by it, and by the loss of the chunks in lost.
func (a *app) check(ctx context.Context, r *repo.Repository, o repo.CheckOptions, lost map[repo.ID]struct{}) error {
	var list []*snapshot.Snapshot
	var problems, records int64
	report := func(err error) {
		problems++
		a.ui.warn("check", "", err)
	}
	mark := func(ctx context.Context, node func(repo.ID) bool, chunk func(repo.ID)) error {
		var err error
		if list, err = snapshot.List(ctx, r, func(err error) { records++; report(err) }); err != nil {
			return err
		}
		return snapshot.Walk(ctx, r, list, snapshot.Walker{Node: node, Chunk: chunk, Broken: func(err error) error { report(err); return nil }})
	}
	var c repo.Checked
	err := a.patiently(ctx, func() (err error) {
		c, err = r.Check(ctx, o, mark, report)
		return err
	})
	a.ui.endSteps()
	if err != nil {
		return err
	}
	hurt := []map[string]any{}
	if problems > 0 || len(lost) > 0 {
		maps.Copy(c.Lost, lost)
		if hurt, err = a.hurt(ctx, r, list, c.Lost); err != nil {
			return err
		}
		problems = max(problems, int64(len(hurt)))
	}
	summary := map[string]any{"message_type": "summary", "num_errors": problems, "snapshots": len(list), "unreadable_snapshots": records, "hurt_snapshots": hurt,
		"damaged_packs": hexIDs(c.Damaged), "healable_packs": hexIDs(c.Healable), "packs": c.Packs, "chunks": c.Chunks, "packs_read": c.ReadPacks, "bytes_read": c.ReadBytes, "packs_left": c.LeftPacks,
		"bytes_left": c.LeftBytes, "packs_never_read": c.NeverRead, "chunks_unused": c.UnreferredChunks, "suggest_prune": c.UnreferredChunks > 0}
	if !c.Oldest.IsZero() {
		summary["oldest_read"] = c.Oldest
	}
	a.ui.object(summary)
	a.ui.say("checked %s, %s and %s", count(int64(len(list)), "snapshot", "snapshots"), count(c.Packs, "pack", "packs"), count(c.Chunks, "chunk", "chunks"))
	if o.Select != nil {
		a.ui.say("read %s in %s in full", size(c.ReadBytes), count(c.ReadPacks, "pack", "packs"))
	}
	if c.LeftPacks > 0 {
		a.ui.say("the time was over: %s in %s are left to read", size(c.LeftBytes), count(c.LeftPacks, "pack", "packs"))
	}
	switch {
	case c.NeverRead > 0 && c.NeverRead < c.Packs && !c.Oldest.IsZero():
		a.ui.say("%s never read in full, the others since %s", count(c.NeverRead, "pack was", "packs were"), stamp(c.Oldest))
	case c.NeverRead > 0:
		a.ui.say("%s never read in full; --read-data does that", count(c.NeverRead, "pack was", "packs were"))
	case !c.Oldest.IsZero():
		a.ui.say("all packs were read in full since %s", stamp(c.Oldest))
	}
	if len(c.Healable) > 0 {
		a.ui.say("%s damaged, and nothing of that is lost: parity makes up for it", count(int64(len(c.Healable)), "pack is", "packs are"))
	}
	if c.UnreferredChunks > 0 {
		a.ui.say("%s not in use; 'varve prune' removes them", count(c.UnreferredChunks, "chunk is", "chunks are"))
	}
	if problems > 0 {
		return fmt.Errorf("%w: %d found", errProblems, problems)
	}
	a.ui.say("no errors were found")
	return nil
}

const (
	hurtLines  = 50  // of snapshots' disks that are told; the others are counted
	hurtRanges = 8   // of one disk that are told to people
	hurtListed = 200 // and to programs
)

// hurt tells of which snapshots something cannot be restored: which bytes of which disk.
func (a *app) hurt(ctx context.Context, r *repo.Repository, list []*snapshot.Snapshot, lost map[repo.ID]struct{}) ([]map[string]any, error) {
	loss := snapshot.Loss{Load: r, Lost: func(id snapshot.ID) bool { _, found := lost[id]; return found }}
	hurt := []map[string]any{}
	for _, s := range list {
		for i := range s.Disks {
			d := &s.Disks[i]
			var ranges []snapshot.Range
			more := 0
			bytes, err := loss.Of(ctx, d, func(r snapshot.Range) {
				if len(ranges) < hurtListed {
					ranges = append(ranges, r)
				} else {
					more++
				}
			})
			if err != nil {
				return nil, err
			}
			if bytes == 0 {
				continue
			}
			hurt = append(hurt, map[string]any{"id": hexID(s.ID), "disk": d.Name, "bytes": bytes, "ranges": ranges, "more_ranges": more})
			if !a.ui.json && len(hurt) <= hurtLines {
				a.ui.warn("check", "snapshot "+shortID(s.ID)+" of "+stamp(s.Time), fmt.Errorf("%s of %s cannot be restored: %s", size(bytes), d.Name, rangesText(ranges, more)))
			}
		}
	}
	if !a.ui.json && len(hurt) > hurtLines {
		a.ui.warn("check", "", fmt.Errorf("and %s more; --json lists them", count(int64(len(hurt)-hurtLines), "disk of a snapshot", "disks of snapshots")))
	}
	return hurt, nil
}

// rangesText names a few ranges, and counts the others together with more.
func rangesText(ranges []snapshot.Range, more int) string {
	var text strings.Builder
	text.WriteString("bytes ")
	for i, r := range ranges[:min(len(ranges), hurtRanges)] {
		if i > 0 {
			text.WriteString(", ")
		}
		fmt.Fprintf(&text, "%d to %d", r.Offset, r.End()-1)
	}
	if more += len(ranges) - hurtRanges; more > 0 {
		fmt.Fprintf(&text, " and %d more ranges", more)
	}
	return text.String()
}

func hexIDs(ids []repo.ID) []string {
	texts := []string{}
	for _, id := range ids {
		texts = append(texts, hexID(id))
	}
	return texts
}
