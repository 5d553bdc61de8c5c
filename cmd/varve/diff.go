package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"varve/repo"
	"varve/snapshot"
	"varve/snapshot/catalogue"
)

func (a *app) diffCommand() *cobra.Command {
	var o diffOptions
	c := &cobra.Command{
		Use:   "diff [flags] OLD[:DISK] NEW[:DISK]",
		Short: "show which files and which bytes differ between two snapshots",
		Long: `The diff command lists the files that differ between disks of two snapshots, partition by partition, and then the
ranges of bytes in which the disks do. Nothing of the disks is read. Before each file stands what happened to it:

    +  it was added        M  its content has changed
    -  it was removed      U  something else has: time, mode, owner
                           T  it has become another type of file

Ranges are as exact as the chunks: where whole chunks were stored, one may be somewhat longer than what really
changed. Disks that only one of the snapshots has are named.` +
			exits(exitNoRepository, exitLocked, exitWrongPassword),
		Example: `  varve diff 1a2b3c4d latest
  varve diff 1a2b3c4d:sda 5e6f7a8b:sda --files
  varve diff 1a2b3c4d latest --ranges --verbose`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return a.besides(c.Context(), "diff", func(r *repo.Repository) error { return a.diff(c.Context(), r, args[0], args[1], o) })
		},
	}
	o.filter.add(c)
	c.Flags().BoolVar(&o.files, "files", false, "list files only")
	c.Flags().BoolVar(&o.ranges, "ranges", false, "list ranges only")
	c.Flags().BoolVar(&o.metadata, "metadata", false, "list files of which only time, mode or owner has changed, too")
	return c
}

type diffOptions struct {
	filter                  filterFlags
	files, ranges, metadata bool
}

func (a *app) diff(ctx context.Context, r *repo.Repository, before, after string, o diffOptions) error {
	list, err := a.list(ctx, r)
	if err != nil {
		return err
	}
	p, err := snapshot.Pairs(list, before, after, o.filter.filter())
	if err != nil {
		return err
	}
	if o.files == o.ranges || o.files {
		for _, pair := range p.Disks {
			if err := a.diffFiles(ctx, r, p, pair, o.metadata); err != nil {
				return fmt.Errorf("disk %s: %w", pair[1].Name, err)
			}
		}
	}
	if o.files && !o.ranges {
		return nil
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

// diffFiles lists the files that differ between two states of a disk.
func (a *app) diffFiles(ctx context.Context, r *repo.Repository, p snapshot.Paired, disks [2]*snapshot.Disk, metadata bool) error {
	before, after := disks[0], disks[1]
	for i := range after.Volumes {
		now := &after.Volumes[i]
		then, err := before.Volume(now.Number)
		if err != nil || then.Catalogue == nil || now.Catalogue == nil {
			continue
		}
		var counts [catalogue.Type + 1]int64
		var grown, shrunk int64
		err = catalogue.Diff(ctx, r, *then.Catalogue, *now.Catalogue, func(c catalogue.Change) error {
			if x, y := &c.Old, &c.New; c.Kind == catalogue.Content && x.Mode.IsRegular() && x.Size == y.Size && x.Modified.Equal(y.Modified) &&
				x.Changed.Equal(y.Changed) && !x.Incomplete && !y.Incomplete {
				// Only what the disk's tree refers to there has changed: the same bytes may have been cut in another way.
				same, err := sameFile(ctx, r, snapshot.Address{Snapshot: p.Before, Disk: before, Volume: then, Path: c.Path},
					snapshot.Address{Snapshot: p.After, Disk: after, Volume: now, Path: c.Path})
				if err == nil && same {
					return nil
				}
			}
			counts[c.Kind]++
			if d := sizeOf(&c.New) - sizeOf(&c.Old); d > 0 {
				grown += d
			} else {
				shrunk -= d
			}
			if c.Kind == catalogue.Metadata && !metadata {
				return nil
			}
			a.showChange(after.Name, now.Number, c)
			return nil
		})
		if err != nil {
			return fmt.Errorf("p%d: %w", now.Number, err)
		}
		a.ui.object(map[string]any{"message_type": "files", "disk": after.Name, "partition": now.Number, "added": counts[catalogue.Added],
			"removed": counts[catalogue.Removed], "changed": counts[catalogue.Content], "metadata_changed": counts[catalogue.Metadata],
			"type_changed": counts[catalogue.Type], "bytes_grown": grown, "bytes_shrunk": shrunk})
		a.ui.say("%s p%d: %s added, %d removed, %d changed, %d with other metadata, %d of another type; %s more, %s less\n", after.Name, now.Number,
			count(counts[catalogue.Added], "file", "files"), counts[catalogue.Removed], counts[catalogue.Content], counts[catalogue.Metadata],
			counts[catalogue.Type], size(grown), size(shrunk))
	}
	return nil
}

// sizeOf is how large a regular file is.
func sizeOf(e *catalogue.Entry) int64 {
	if !e.Mode.IsRegular() {
		return 0
	}
	return e.Size
}

// marks are how people see what happened to a file, as restic shows it.
var marks = map[catalogue.ChangeKind]string{catalogue.Added: "+", catalogue.Removed: "-", catalogue.Content: "M", catalogue.Metadata: "U", catalogue.Type: "T"}

// showChange lists one file.
func (a *app) showChange(disk string, number int, c catalogue.Change) {
	object := map[string]any{"message_type": "change", "disk": disk, "partition": number, "path": c.Path, "modifier": marks[c.Kind]}
	sizes := ""
	switch c.Kind {
	case catalogue.Added:
		object["size"] = c.New.Size
		if c.New.Mode.IsRegular() {
			sizes = "  " + size(c.New.Size)
		}
	case catalogue.Removed:
		object["old_size"] = c.Old.Size
		if c.Old.Mode.IsRegular() {
			sizes = "  " + size(c.Old.Size)
		}
	default:
		object["size"], object["old_size"] = c.New.Size, c.Old.Size
		if c.Old.Size != c.New.Size {
			sizes = fmt.Sprintf("  %s → %s", size(c.Old.Size), size(c.New.Size))
		}
	}
	a.ui.object(object)
	a.ui.print("%s  %s%s", marks[c.Kind], c.Path, sizes)
}
