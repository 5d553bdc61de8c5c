package main

import (
	"context"
	"errors"
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
		Use:   "verify [flags] SNAPSHOT[:DISK][:pN] PATH",
		Short: "compare a disk of a snapshot with a file or device",
		Long: `The verify command compares a disk of a snapshot, or one partition of it, with a file or device, and lists the ranges
that differ. What is equal is recognised by its hash, without reading it from the repository; 'varve check
--read-data' reads that. What was left out of the snapshot, such as free blocks, is not compared.` +
			exits(exitNoRepository, exitLocked, exitWrongPassword, "14  they differ"),
		Example: `  varve verify latest disk.img
  varve verify 1a2b3c4d:sda /dev/sda --json`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			return a.besides(ctx, "verify", func(r *repo.Repository) error { return a.verify(ctx, r, args[0], args[1], filter.filter(), n) })
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
	at, err := snapshot.FindAddress(list, address, f)
	if err != nil {
		return err
	}
	if at.Path != "" {
		return errors.New("verify compares disks and partitions, not files")
	}
	only, what := snapshot.Range{Length: at.Disk.Size}, at.Disk.Name
	if at.Volume != nil {
		only, what = at.Volume.Range(), fmt.Sprintf("%s p%d", what, at.Volume.Number)
	}
	src, err := image.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	return a.compare(ctx, r, comparison{snapshot: at.Snapshot, disk: at.Disk, only: only, what: what}, src, path, src.Info().Size, n)
}

// comparison is what of a snapshot is compared.
type comparison struct {
	snapshot *snapshot.Snapshot
	disk     *snapshot.Disk
	only     snapshot.Range // of the disk
	what     string         // for people
	leftOut  bool           // what was left out counts as zeros
}

// compare tells whether the size bytes of other are those of c: errDiffers.
func (a *app) compare(ctx context.Context, r *repo.Repository, c comparison, other snapshot.Mapped, path string, bytes int64, n int) error {
	started := time.Now()
	var done, skipped atomic.Int64
	end := a.ui.begin(diskMeter("comparing "+c.what, min(bytes, c.only.Length), &done, "bytes_compared"))
	ranges, err := snapshot.Verify(ctx, r, c.disk, other, bytes, r.Hasher,
		snapshot.VerifyOptions{Workers: workers(n), Done: &done, Only: c.only, LeftOut: c.leftOut, Skipped: &skipped})
	end()
	if err != nil {
		return err
	}
	differ := int64(0)
	for _, x := range ranges {
		differ += x.Length
	}
	a.showRanges(c.disk.Name, ranges)
	compared := min(bytes, c.only.Length) - skipped.Load()
	a.ui.object(map[string]any{"message_type": "summary", "snapshot_id": hexID(c.snapshot.ID), "disk": c.disk.Name, "path": path, "equal": differ == 0,
		"bytes_compared": compared, "bytes_left_out": skipped.Load(), "bytes_different": differ, "ranges_different": len(ranges), "seconds_elapsed": time.Since(started).Seconds()})
	if differ > 0 {
		return fmt.Errorf("%w: %s of %s, in %s", errDiffers, size(differ), path, count(int64(len(ranges)), "range", "ranges"))
	}
	a.ui.say("%s is equal to %s of snapshot %s: %s compared in %s", path, c.what, shortID(c.snapshot.ID), size(compared), clock(time.Since(started)))
	if left := skipped.Load(); left > 0 {
		a.ui.say("not compared: %s that were left out of the snapshot, free or not wanted", size(left))
	}
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
