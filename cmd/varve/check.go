package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/spf13/cobra"
	"varve/repo"
	"varve/snapshot"
)

func errUnreadablePacks(n int64) error {
	return fmt.Errorf("%s cannot be read and were left alone; 'varve check' tells more", count(n, "pack", "packs"))
}

func (a *app) checkCommand() *cobra.Command {
	var readData bool
	var part string
	c := &cobra.Command{
		Use:   "check [flags]",
		Short: "look for damage in the repository",
		Long: `The check command looks whether everything that snapshots refer to is in the repository, and whether the directories of
packs can be read. With --read-data it reads and hashes every byte of the packs too; with --read-data-subset a part of
them: 2/10 is the second of ten parts, 5% and 1G are packs chosen at random.

It names all that is wrong, and the snapshots that are hurt.` + exits("1  failed, or something is wrong", exitNoRepository, exitLocked, exitWrongPassword),
		Example: `  varve check
  varve check --read-data
  varve check --read-data-subset 10%`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o := repo.CheckOptions{}
			switch {
			case readData && part != "":
				return errors.New("--read-data and --read-data-subset exclude each other")
			case readData:
				o.ReadPack = func(int, int, int64) bool { return true }
			case part != "":
				s, err := parseSubset(part)
				if err != nil {
					return fmt.Errorf("--read-data-subset: %w", err)
				}
				o.ReadPack = s.choose(rand.Float64)
			}
			return a.with(c.Context(), func(r *repo.Repository) error { return a.check(c.Context(), r, o) })
		},
	}
	c.Flags().BoolVar(&readData, "read-data", false, "read all packs in full")
	c.Flags().StringVar(&part, "read-data-subset", "", "read a `part` of the packs in full: n/t, a percentage or a size")
	return c
}

// choose returns what picks packs for a check. random returns numbers from 0 to 1.
func (s subset) choose(random func() float64) func(i, n int, size int64) bool {
	if s.parts > 0 {
		return func(i, _ int, _ int64) bool { return int64(i)%s.parts == s.part-1 }
	}
	if s.percent > 0 {
		// Of the packs that are left, as many as are missing: exactly so many in the end, and each as likely. At least one.
		picked := 0
		return func(i, n int, _ int64) bool {
			want := max(1, int(float64(n)*s.percent/100+0.5))
			if random()*float64(n-i) >= float64(want-picked) {
				return false
			}
			picked++
			return true
		}
	}
	left := s.bytes
	return func(i, n int, size int64) bool {
		if left <= 0 || random()*float64(n-i)*float64(max(1, size)) >= float64(left) {
			return false
		}
		left -= size
		return true
	}
}

func (a *app) check(ctx context.Context, r *repo.Repository, o repo.CheckOptions) error {
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
	if problems > 0 {
		if hurt, err = a.hurt(ctx, r, list, c); err != nil {
			return err
		}
	}
	a.ui.object(map[string]any{"message_type": "summary", "num_errors": problems, "snapshots": len(list), "unreadable_snapshots": records, "hurt_snapshots": hurt, "packs": c.Packs,
		"chunks": c.Chunks, "packs_read": c.ReadPacks, "bytes_read": c.ReadBytes, "chunks_unused": c.UnreferredChunks, "suggest_prune": c.UnreferredChunks > 0})
	a.ui.say("checked %s, %s and %s", count(int64(len(list)), "snapshot", "snapshots"), count(c.Packs, "pack", "packs"), count(c.Chunks, "chunk", "chunks"))
	if o.ReadPack != nil {
		a.ui.say("read %s in %s in full", size(c.ReadBytes), count(c.ReadPacks, "pack", "packs"))
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

// hurt tells of which snapshots something cannot be restored.
func (a *app) hurt(ctx context.Context, r *repo.Repository, list []*snapshot.Snapshot, c repo.Checked) ([]map[string]any, error) {
	loss := snapshot.Loss{Load: r, Lost: func(id snapshot.ID) bool { _, lost := c.Lost[id]; return lost }}
	hurt := []map[string]any{}
	for _, s := range list {
		for i := range s.Disks {
			d := &s.Disks[i]
			bytes, err := loss.Of(ctx, d)
			if err != nil {
				return nil, err
			}
			if bytes == 0 {
				continue
			}
			hurt = append(hurt, map[string]any{"id": hexID(s.ID), "disk": d.Name, "bytes": bytes})
			if !a.ui.json {
				a.ui.warn("check", "snapshot "+shortID(s.ID)+" of "+stamp(s.Time), fmt.Errorf("%s of %s cannot be restored", size(bytes), d.Name))
			}
		}
	}
	return hurt, nil
}
