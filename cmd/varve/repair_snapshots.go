package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"varve/repo"
	"varve/snapshot"
)

func (a *app) repairSnapshotsCommand() *cobra.Command {
	var dryRun bool
	var recover []string
	c := &cobra.Command{
		Use:   "snapshots [flags]",
		Short: "bring back snapshots whose records are lost",
		Long: `The repair snapshots command moves the records of snapshots that are damaged to quarantine. Then it reads all tree nodes
that there are, and lists the disks that it finds and that belong to no snapshot: because their record was lost, or
because they were forgotten and not pruned yet. It needs nothing but packs: no index, no cache, no record.

--recover makes a snapshot of a disk in that list, named by the start of its root, or of all of them. Its host and its
tag are "recovered", its time is now, and its disk is called after its root: names and times were in the record.
Look at each with 'varve restore', and keep or forget it.

A disk that ends in a hole is listed with the size that it had at most. When the root of a disk is lost itself, the
parts below it are listed, of 4 GiB or 16 MiB.` + exits(exitNoRepository, exitLocked, exitWrongPassword, exitAppendOnly),
		Annotations: removes,
		Example: `  varve repair snapshots --dry-run
  varve repair snapshots --recover 3fa85f64 --recover 5e0a
  varve repair snapshots --recover all`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(r *repo.Repository) error {
				hold := r.Maintain
				if dryRun {
					hold = r.Beside
				}
				err := a.patiently(c.Context(), func() error {
					return hold(c.Context(), "repair snapshots", func() error { return a.repairSnapshots(c.Context(), r, dryRun, recover) })
				})
				a.ui.endSteps()
				return err
			})
		},
	}
	addDryRun(c, &dryRun)
	c.Flags().StringArrayVar(&recover, "recover", nil, "make a snapshot of the disk with this `root`, or of all (may be given several times)")
	return c
}

// repairSnapshots is the command, while nobody removes anything.
func (a *app) repairSnapshots(ctx context.Context, r *repo.Repository, dryRun bool, recover []string) error {
	usable := func(id repo.ID, record []byte) error {
		_, err := snapshot.Decode(id, record)
		if errors.Is(err, snapshot.ErrNewer) {
			return nil
		}
		return err
	}
	if err := r.RepairRecords(ctx, dryRun, usable, func(p repo.RepairedRecord) { a.reportRecord(p, dryRun) }); err != nil {
		return err
	}
	warn := func(err error) { a.ui.warn("repair", "snapshots", err) }
	list, err := snapshot.List(ctx, r, warn)
	if err != nil {
		return err
	}
	all, err := snapshot.FindTrees(ctx, r, func(f func(id repo.ID, node []byte) error) error {
		return r.EachNode(ctx, f, warn)
	}, list, warn)
	a.ui.endSteps()
	if err != nil {
		return err
	}
	trees := slices.DeleteFunc(all, func(t snapshot.Tree) bool { return len(t.Snapshots) > 0 })
	chosen, err := chooseTrees(trees, recover)
	if err != nil {
		return err
	}
	made, err := a.recoverTrees(ctx, r, chosen, dryRun)
	if err != nil {
		return err
	}
	a.reportTrees(trees, made, dryRun)
	return nil
}

// chooseTrees returns those whose roots begin as one of names says, or all.
func chooseTrees(trees []snapshot.Tree, names []string) ([]snapshot.Tree, error) {
	if slices.Contains(names, "all") {
		return trees, nil
	}
	var chosen []snapshot.Tree
	for _, name := range names {
		found := slices.IndexFunc(trees, func(t snapshot.Tree) bool { return name != "" && strings.HasPrefix(hexID(t.Root), name) })
		if found < 0 {
			return nil, fmt.Errorf("--recover: no disk was found with the root %q; 'varve repair snapshots --dry-run' lists them", name)
		}
		chosen = append(chosen, trees[found])
	}
	return chosen, nil
}

// recoverTrees stores a record for each tree and returns their ids by root.
func (a *app) recoverTrees(ctx context.Context, r *repo.Repository, trees []snapshot.Tree, dryRun bool) (map[snapshot.ID]string, error) {
	made := map[snapshot.ID]string{}
	if dryRun || len(trees) == 0 {
		return made, nil
	}
	s, err := r.Begin(ctx, repo.SessionOptions{Purpose: "repair snapshots"})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	for _, t := range trees {
		record, err := snapshot.Recovered(t, "recovered-"+shortID(t.Root), programVersion(), time.Now()).Encode()
		if err != nil {
			return nil, err
		}
		id, err := s.Commit(ctx, record)
		if err != nil {
			return nil, err
		}
		made[t.Root] = hexID(id)
	}
	return made, nil
}

func (a *app) reportRecord(p repo.RepairedRecord, dryRun bool) {
	a.ui.object(map[string]any{"message_type": "repaired_record", "id": hexID(p.ID), "left": p.Left, "reason": p.Reason.Error()})
	switch {
	case p.Left:
		a.ui.print("the record of snapshot %s cannot be read and stays where it is", shortID(p.ID))
	default:
		a.ui.print("the record of snapshot %s is damaged, and %s to quarantine", shortID(p.ID), done(dryRun, "moved"))
	}
	a.ui.print("    %v", p.Reason)
}

func (a *app) reportTrees(trees []snapshot.Tree, made map[snapshot.ID]string, dryRun bool) {
	objects := []map[string]any{}
	var rows [][]string
	for _, t := range trees {
		objects = append(objects, map[string]any{"root": hexID(t.Root), "size": t.Size, "exact": t.Exact, "snapshot_id": made[t.Root]})
		bytes := size(t.Size)
		if !t.Exact {
			bytes = "at most " + bytes
		}
		id := made[t.Root]
		rows = append(rows, []string{shortID(t.Root), bytes, id[:min(8, len(id))]})
	}
	a.ui.object(map[string]any{"message_type": "summary", "dry_run": dryRun, "trees": objects, "recovered": len(made)})
	if len(rows) > 0 {
		a.ui.table([]string{"Root", ">Size", "Snapshot"}, rows)
	}
	a.ui.say("%s found that belong to no snapshot; %s recovered", count(int64(len(trees)), "disk was", "disks were"), count(int64(len(made)), "was", "were"))
}
