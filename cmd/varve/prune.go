package main

import (
	"context"

	"github.com/spf13/cobra"
	"varve/repo"
	"varve/snapshot"
)

// pruneFlags say how far a prune goes.
type pruneFlags struct {
	maxUnused   string
	compression string
}

func (p *pruneFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&p.maxUnused, "max-unused", "5%", "garbage that may stay: a `limit` in percent of the repository, a size, or unlimited")
	addStoreFlags(c, &p.compression, nil)
}

func (p *pruneFlags) options(dryRun bool) (repo.PruneOptions, error) {
	o := repo.PruneOptions{DryRun: dryRun}
	var err error
	if o.MaxUnused, err = parseMaxUnused(p.maxUnused); err != nil {
		return o, err
	}
	o.Compression, err = parseCompression(p.compression)
	return o, err
}

func (a *app) pruneCommand() *cobra.Command {
	var flags pruneFlags
	var dryRun bool
	c := &cobra.Command{
		Use:   "prune [flags]",
		Short: "remove what no snapshot refers to",
		Long: `The prune command removes packs that hold nothing that any snapshot refers to, and rewrites those that are mostly
garbage, until no more garbage is left than --max-unused allows. Backups, restores and checks may go on meanwhile. Packs
on which one that is running may rely are only marked now; the next prune removes them.

It may be interrupted at any time: at worst some things are stored twice then, and the next run removes them.` +
			exits(exitNoRepository, exitLocked, exitWrongPassword, exitAppendOnly),
		Annotations: removes,
		Example: `  varve prune
  varve prune --dry-run --max-unused 0%
  varve prune --max-unused unlimited    # rewrites nothing`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o, err := flags.options(dryRun)
			if err != nil {
				return err
			}
			return a.with(c.Context(), func(r *repo.Repository) error { return a.prune(c.Context(), r, o, all(r)) })
		},
	}
	flags.add(c)
	c.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "only show what would be done")
	return c
}

// prune removes what the listed snapshots do not refer to, and tells how much.
func (a *app) prune(ctx context.Context, r *repo.Repository, o repo.PruneOptions, list func(context.Context) ([]*snapshot.Snapshot, error)) error {
	var p repo.Pruned
	err := a.patiently(ctx, func() (err error) {
		p, err = r.Prune(ctx, o, markerOf(r, list))
		return err
	})
	a.ui.endSteps()
	if err != nil {
		return err
	}
	a.ui.object(map[string]any{"message_type": "summary", "dry_run": o.DryRun, "packs_total": p.Packs, "bytes_total": p.Bytes, "bytes_used": p.Used,
		"packs_removed": p.DeletedPacks, "bytes_removed": p.DeletedBytes, "packs_rewritten": p.RepackedPacks, "bytes_rewritten": p.RepackedBytes,
		"bytes_written": p.WrittenBytes, "bytes_freed": p.Freed(), "bytes_unused": p.UnusedBytes, "packs_unreadable": p.UnreadablePacks,
		"packs_condemned": p.CondemnedPacks, "bytes_condemned": p.CondemnedBytes})
	would := ""
	if o.DryRun {
		would = "would be "
	}
	a.ui.say("in the repository    %s in %s", size(p.Bytes), count(p.Packs, "pack", "packs"))
	a.ui.say("in use               %s", size(p.Used))
	a.ui.say("%-20s %s in %s", would+"removed", size(p.DeletedBytes), count(p.DeletedPacks, "pack", "packs"))
	a.ui.say("%-20s %s in %s, as %s", would+"rewritten", size(p.RepackedBytes), count(p.RepackedPacks, "pack", "packs"), size(p.WrittenBytes))
	a.ui.say("%-20s %s", would+"freed", size(p.Freed()))
	a.ui.say("garbage that stays   %s (%s)", size(p.UnusedBytes), percent(p.UnusedBytes, p.Bytes-p.Freed()))
	if p.CondemnedPacks > 0 {
		a.ui.say("still there          %s in %s, which the next prune removes: somebody works who may rely on them", size(p.CondemnedBytes), count(p.CondemnedPacks, "pack", "packs"))
		for _, l := range p.Waiting {
			a.ui.say("                     %s", l)
		}
	}
	if p.UnreadablePacks > 0 {
		a.ui.warn("prune", "", errUnreadablePacks(p.UnreadablePacks))
	}
	return nil
}
