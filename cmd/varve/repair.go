package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"varve/repo"
	"varve/snapshot"
)

func (a *app) repairCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "repair",
		Short: "make the best of a damaged repository",
		Long: `The repair commands put right what can be put right. They make nothing worse: what is damaged is never thrown away but
kept in the folder quarantine of the repository, and what could be read before can be read after, at whichever moment
they are interrupted.

Begin with 'varve check --read-data', which says what is wrong. Then

    a copy of the config, a key or a record is damaged           varve repair config
    a pack is damaged                                            varve repair packs, then varve backup
    a pack is missing                                            varve backup
    the record of a snapshot is damaged or was deleted           varve repair snapshots
    the index on this machine is suspected of being wrong        varve repair index` +
			exits(exitNoRepository, exitLocked, exitWrongPassword),
		Example: `  varve check --read-data
  varve repair packs --dry-run
  varve repair packs
  varve backup /dev/sda`,
	}
	c.AddCommand(a.repairConfigCommand(), a.repairIndexCommand(), a.repairPacksCommand(), a.repairSnapshotsCommand())
	return c
}

func (a *app) repairConfigCommand() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:   "config [flags]",
		Short: "make damaged copies of config, keys and records anew",
		Long: `The repair config command makes the copies of the config and of the keys that are missing or damaged, each from the
other copy, of which one is enough to open the repository. In a repository with parity the records of snapshots are
there twice too. What was damaged is kept in quarantine.` +
			exits("1  failed, or something has no copy that is whole", exitNoRepository, exitLocked, exitWrongPassword, exitAppendOnly),
		Annotations: removes,
		Example:     "  varve repair config",
		Args:        cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(r *repo.Repository) error {
				var made []string
				problems := 0
				err := a.patiently(c.Context(), func() (err error) {
					made, err = r.RepairConfig(c.Context(), dryRun, func(err error) { problems++; a.ui.warn("repair", "config", err) })
					return err
				})
				if err != nil {
					return err
				}
				a.ui.object(map[string]any{"message_type": "summary", "dry_run": dryRun, "made": made, "num_errors": problems})
				for _, name := range made {
					a.ui.say("%s %s", done(dryRun, "made anew:"), name)
				}
				if problems > 0 {
					return fmt.Errorf("%w: %d found that cannot be repaired", errProblems, problems)
				}
				if len(made) == 0 {
					a.ui.say("all copies are whole")
				}
				return nil
			})
		},
	}
	addDryRun(c, &dryRun)
	return c
}

func (a *app) repairIndexCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "index",
		Short: "make the index on this machine anew",
		Long: `The repair index command makes the index that this machine keeps of the repository anew, from the packs. The index is a
cache, and makes itself anew when it is found to be wrong: this command is for those who do not want to wait for that.` +
			exits("1  failed, or some packs cannot be read", exitNoRepository, exitLocked, exitWrongPassword),
		Example: "  varve repair index",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.with(c.Context(), func(r *repo.Repository) error {
				var x repo.Reindexed
				err := a.patiently(c.Context(), func() (err error) {
					x, err = r.RebuildIndex(c.Context())
					return err
				})
				a.ui.endSteps()
				if err != nil {
					return err
				}
				a.ui.object(map[string]any{"message_type": "summary", "packs": x.Packs, "chunks": x.Chunks, "unreadable_packs": hexIDs(x.Unreadable), "packs_gone": x.Gone})
				a.ui.say("the index has %s in %s", count(x.Chunks, "chunk", "chunks"), count(x.Packs, "pack", "packs"))
				if x.Gone > 0 {
					a.ui.say("%s that it knew before are not there; 'varve check' says whether anything needs them", count(x.Gone, "pack", "packs"))
				}
				if n := len(x.Unreadable); n > 0 {
					return fmt.Errorf("%s cannot be read: run 'varve repair packs'", count(int64(n), "pack", "packs"))
				}
				return nil
			})
		},
	}
}

func (a *app) repairPacksCommand() *cobra.Command {
	var o repo.RepairOptions
	var compression string
	c := &cobra.Command{
		Use:   "packs [flags] [PACK...]",
		Short: "save what is whole in damaged packs",
		Long: `The repair packs command reads all packs, or those that are named by the start of their names, and repairs those that
are damaged. A pack with enough parity is made whole. Of the others, everything that is still whole is stored again in
new packs; what is left lies in quarantine then, and counts as gone.

That is the point: what counts as gone, the next backup of a disk stores again, if the disk still holds it, and every
snapshot has it back. The command ends with what 'varve check' would say: which bytes of which disks are hurt now.

A pack of which nothing at all can be read stays where it is: it may be the server that is gone, or a cable. When its
medium is beyond help, name it with --drop-unreadable, and it is removed.

Run it on the machine that makes the backups, if you can: where a pack does not say any more what is in it, the index of
that machine may still know. The command needs the repository for itself.` +
			exits("1  failed, or something is lost, for now at least", exitNoRepository, exitLocked, exitWrongPassword, exitAppendOnly),
		Annotations: removes,
		Example: `  varve repair packs --dry-run
  varve repair packs 3fa85f64
  varve repair packs --drop-unreadable 3fa85f64`,
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			o.Packs = args
			if o.Drop && len(args) == 0 {
				return errors.New("--drop-unreadable: name the packs that are to go; 'varve repair packs' says which cannot be read")
			}
			if o.Compression, err = parseCompression(compression); err != nil {
				return err
			}
			return a.with(c.Context(), func(r *repo.Repository) error { return a.repairPacks(c.Context(), r, o) })
		},
	}
	addStoreFlags(c, &compression, nil)
	addDryRun(c, &o.DryRun)
	c.Flags().BoolVar(&o.Drop, "drop-unreadable", false, "remove those of the named packs of which nothing can be read")
	return c
}

func addDryRun(c *cobra.Command, dryRun *bool) {
	c.Flags().BoolVarP(dryRun, "dry-run", "n", false, "only show what would be done")
}

// done says what was done, or would be.
func done(dryRun bool, what string) string {
	if dryRun {
		return "would be " + what
	}
	return what
}

func (a *app) repairPacks(ctx context.Context, r *repo.Repository, o repo.RepairOptions) error {
	mark := func(ctx context.Context, node func(repo.ID) bool, chunk func(repo.ID)) error {
		ignore := func(error) {} // the check at the end says it
		list, err := snapshot.List(ctx, r, ignore)
		if err != nil {
			return err
		}
		return snapshot.Walk(ctx, r, list, snapshot.Walker{Node: node, Chunk: chunk, Broken: func(error) error { return nil }})
	}
	var p repo.Repaired
	err := a.patiently(ctx, func() (err error) {
		p, err = r.RepairPacks(ctx, o, mark, func(p repo.RepairedPack) { a.reportPack(p, o.DryRun) })
		return err
	})
	a.ui.endSteps()
	if err != nil {
		return err
	}
	a.ui.object(map[string]any{"message_type": "repair_summary", "dry_run": o.DryRun, "packs": p.Packs, "bytes_read": p.Bytes, "packs_damaged": p.Damaged,
		"packs_healed": p.Healed, "packs_moved": p.Moved, "packs_left": p.Left, "packs_dropped": p.Gone, "chunks_saved": p.Saved, "chunks_elsewhere": p.Elsewhere, "chunks_lost": len(p.Lost),
		"bytes_written": p.Written})
	a.ui.say("read %s in %s: %s damaged", size(p.Bytes), count(p.Packs, "pack", "packs"), count(p.Damaged, "is", "are"))
	if p.Moved+p.Gone > 0 {
		a.ui.say("%s %s of damaged packs, %s lie in other packs too, %s lost", count(p.Saved, "chunk", "chunks"), done(o.DryRun, "saved"), count(p.Elsewhere, "chunk", "chunks"), count(int64(len(p.Lost)), "is", "are"))
	}
	err = a.check(ctx, r, repo.CheckOptions{}, p.Lost)
	switch {
	case p.Left > 0 && err == nil:
		return fmt.Errorf("%s cannot be read at all", count(p.Left, "pack", "packs"))
	case errors.Is(err, errProblems) && !o.DryRun:
		return fmt.Errorf("%w; 'varve backup' of a disk that is hurt stores again what the disk still holds", err)
	}
	return err
}

// reportPack tells what was done about one pack.
func (a *app) reportPack(p repo.RepairedPack, dryRun bool) {
	object := map[string]any{"message_type": "repaired_pack", "id": hexID(p.ID), "size": p.Size, "healed": p.Healed, "left": p.Left, "dropped": p.Gone, "chunks": p.Chunks, "chunks_saved": p.Saved}
	if p.Reason != nil {
		object["reason"] = p.Reason.Error()
	}
	if p.To != "" {
		object["quarantine"] = p.To
	}
	a.ui.object(object)
	name := "pack " + hexID(p.ID)
	switch {
	case p.Reason == nil:
		a.ui.print("%s is whole", name)
		return
	case p.Healed:
		a.ui.print("%s %s", name, done(dryRun, "made whole by its parity"))
	case p.Left:
		a.ui.print("%s cannot be read at all, or not twice the same, and stays where it is: when its medium is beyond help, 'varve repair packs --drop-unreadable %s' removes it", name, hexID(p.ID)[:12])
	case p.Gone && dryRun:
		a.ui.print("%s cannot be read at all and would be removed; %s with it", name, count(int64(p.Chunks), "chunk", "chunks"))
	case p.Gone:
		a.ui.print("%s cannot be read at all and was removed; %s gone with it", name, count(int64(p.Chunks), "chunk", "chunks"))
	case dryRun:
		a.ui.print("%s would be moved to quarantine, and %d of %s saved", name, p.Saved, count(int64(p.Chunks), "chunk", "chunks"))
	default:
		a.ui.print("%s: saved %d of %s, the rest lies in %s", name, p.Saved, count(int64(p.Chunks), "chunk", "chunks"), p.To)
	}
	a.ui.print("    %s", strings.ReplaceAll(p.Reason.Error(), "\n", "; "))
}
