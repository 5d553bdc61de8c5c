package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"varve/repo"
	"varve/snapshot"
)

func (a *app) statsCommand() *cobra.Command {
	var filter filterFlags
	c := &cobra.Command{
		Use:   "stats [flags] [SNAPSHOT...]",
		Short: "show how much snapshots hold and what they take",
		Long: `The stats command adds up snapshots, all of them unless some are named or selected: the size that they restore to, how
much of it is in use, how much had changed and what was stored for that, how much is unique, and how many bytes that
takes in the repository.` +
			exits(exitNoRepository, exitLocked, exitWrongPassword),
		Example: `  varve stats
  varve stats latest
  varve stats --host db1 --json`,
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			return a.besides(ctx, "stats", func(r *repo.Repository) error { return a.stats(ctx, r, args, filter.filter()) })
		},
	}
	filter.add(c)
	return c
}

func (a *app) stats(ctx context.Context, r *repo.Repository, addresses []string, f snapshot.Filter) error {
	list, err := a.selected(ctx, r, addresses, f)
	if err != nil {
		return err
	}
	var disks, restore, used, parts, changed, stored int64
	for _, s := range list {
		for i := range s.Disks {
			disks++
			restore += s.Disks[i].Size
			used += s.Disks[i].Stats.Used
			parts += s.Disks[i].Stats.Parts
			changed += s.Disks[i].Stats.Changed
			stored += s.Disks[i].Stats.Stored
		}
	}
	m, err := r.Measure(ctx, markerOf(r, func(context.Context) ([]*snapshot.Snapshot, error) { return list, nil }))
	if err != nil {
		return err
	}
	x, err := r.IndexStats(ctx)
	if err != nil {
		return err
	}
	ratio := 0.0
	if m.Stored > 0 {
		ratio = float64(m.Bytes) / float64(m.Stored)
	}
	a.ui.object(map[string]any{"message_type": "summary", "snapshots_count": len(list), "total_file_count": disks, "total_restore_size": restore,
		"total_used": used, "total_parts": parts, "total_changed": changed, "total_stored": stored,
		"total_uncompressed_size": m.Bytes, "total_size": m.Stored, "compression_ratio": ratio, "total_blob_count": m.Chunks,
		"missing_blobs": m.Missing, "repository_packs": m.Packs, "repository_size": m.PackBytes, "parity_packs": m.ParityPacks, "parity_size": m.ParityBytes, "index_chunks": x.Chunks, "index_size": x.Bytes})
	a.ui.print("snapshots          %d, with %s", len(list), count(disks, "disk", "disks"))
	a.ui.print("restore size       %s", size(restore))
	a.ui.print("used               %s", size(used))
	a.ui.print("  inside chunks    %s: parts of chunks that are not used as a whole", size(parts))
	a.ui.print("changed            %s, each disk against the one before; %s were stored for it", size(changed), size(stored))
	a.ui.print("unique             %s in %s", size(m.Bytes), count(m.Chunks, "chunk", "chunks"))
	a.ui.print("stored             %s, compressed %.2f times", size(m.Stored), ratio)
	a.ui.print("whole repository   %s in %s", size(m.PackBytes), count(m.Packs, "pack", "packs"))
	if m.ParityPacks > 0 {
		a.ui.print("  parity           %s of it, in %s", size(m.ParityBytes), count(m.ParityPacks, "pack", "packs"))
	}
	a.ui.print("index              %s for %s", size(x.Bytes), count(x.Chunks, "chunk", "chunks"))
	if m.Missing > 0 {
		return fmt.Errorf("%w: %s that these snapshots refer to are missing; 'varve check' tells more", errDamaged, count(m.Missing, "chunk", "chunks"))
	}
	return nil
}

// markerOf returns what marks all that the listed snapshots refer to. The list is made when the marking begins.
func markerOf(r *repo.Repository, list func(context.Context) ([]*snapshot.Snapshot, error)) repo.Marker {
	return func(ctx context.Context, node func(repo.ID) bool, chunk func(repo.ID)) error {
		snapshots, err := list(ctx)
		if err != nil {
			return err
		}
		return snapshot.Walk(ctx, r, snapshots, snapshot.Walker{Node: node, Chunk: chunk})
	}
}

// all reads all snapshots, and fails when one cannot be read: what it refers to is not known.
func all(r *repo.Repository) func(context.Context) ([]*snapshot.Snapshot, error) {
	return func(ctx context.Context) ([]*snapshot.Snapshot, error) {
		var first error
		list, err := snapshot.List(ctx, r, func(err error) {
			if first == nil {
				first = err
			}
		})
		if err == nil {
			err = first
		}
		return list, err
	}
}
