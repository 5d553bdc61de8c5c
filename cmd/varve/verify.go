package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"varve/image"
	"varve/repo"
	"varve/snapshot"
)

func (a *app) verifyCommand() *cobra.Command {
	var filter filterFlags
	var n int
	c := &cobra.Command{
		Use:   "verify [flags] SNAPSHOT[:DISK] PATH",
		Short: "compare a disk of a snapshot with a file or device",
		Long: `The verify command compares a disk of a snapshot with a file or device, and lists the ranges that differ. What is equal
is recognised by its hash, without reading it from the repository; 'varve check --read-data' reads that.` +
			exits(exitNoRepository, exitLocked, exitWrongPassword, "14  they differ"),
		Example: `  varve verify latest disk.img
  varve verify 1a2b3c4d:sda /dev/sda --json`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			return a.with(ctx, func(r *repo.Repository) error {
				return a.patiently(ctx, func() error {
					return r.Beside(ctx, "verify", func() error { return a.verify(ctx, r, args[0], args[1], filter.filter(), n) })
				})
			})
		},
	}
	filter.add(c)
	c.Flags().IntVar(&n, "workers", 0, "`n` parts to compare at once (default: one for each processor)")
	return c
}

func (a *app) verify(ctx context.Context, r *repo.Repository, address, path string, f snapshot.Filter, n int) error {
	list, err := a.list(ctx, r)
	if err != nil {
		return err
	}
	s, d, err := snapshot.FindDisk(list, address, f)
	if err != nil {
		return err
	}
	src, err := image.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	return a.compare(ctx, r, s, d, src, path, src.Info().Size, n)
}

// compare tells whether the size bytes of other are those of disk d: errDiffers.
func (a *app) compare(ctx context.Context, r *repo.Repository, s *snapshot.Snapshot, d *snapshot.Disk, other snapshot.Mapped, path string, bytes int64, n int) error {
	started := time.Now()
	var done atomic.Int64
	end := a.ui.begin(diskMeter("comparing "+d.Name, min(bytes, d.Size), &done, "bytes_compared"))
	ranges, err := snapshot.Verify(ctx, r, d, other, bytes, r.Hasher, snapshot.VerifyOptions{Workers: workers(n), Done: &done})
	end()
	if err != nil {
		return err
	}
	differ := int64(0)
	for _, x := range ranges {
		differ += x.Length
	}
	a.showRanges(d.Name, ranges)
	a.ui.object(map[string]any{"message_type": "summary", "snapshot_id": hexID(s.ID), "disk": d.Name, "path": path, "equal": differ == 0,
		"bytes_compared": min(bytes, d.Size), "bytes_different": differ, "ranges_different": len(ranges), "seconds_elapsed": time.Since(started).Seconds()})
	if differ > 0 {
		return fmt.Errorf("%w: %s of %s, in %s", errDiffers, size(differ), path, count(int64(len(ranges)), "range", "ranges"))
	}
	a.ui.say("%s is equal to %s of snapshot %s: %s compared in %s", path, d.Name, shortID(s.ID), size(d.Size), clock(time.Since(started)))
	return nil
}

// showRanges lists ranges that differ: all for programs, the first ones for people unless they want to see more.
func (a *app) showRanges(disk string, ranges []snapshot.Range) {
	for i, r := range ranges {
		a.ui.object(map[string]any{"message_type": "change", "disk": disk, "offset": r.Offset, "length": r.Length})
		if i < maxRanges || a.ui.verbose {
			a.ui.print("%s: %d bytes at %d differ", disk, r.Length, r.Offset)
		} else if i == maxRanges {
			a.ui.print("%s: and %s; --verbose lists them", disk, count(int64(len(ranges)-maxRanges), "more range", "more ranges"))
		}
	}
}
