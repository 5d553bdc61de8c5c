package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"varve/image"
	"varve/image/filesystem/extract"
	"varve/repo"
	"varve/snapshot"
)

type restoreOptions struct {
	filter  filterFlags
	target  string
	verify  bool
	yes     bool
	workers int
}

func (a *app) restoreCommand() *cobra.Command {
	var o restoreOptions
	c := &cobra.Command{
		Use:   "restore [flags] SNAPSHOT[:DISK][:pN[/PATH]] --target TARGET",
		Short: "write a disk, a partition or files of a snapshot to a file, device or folder",
		Long: `The restore command writes a disk of a snapshot, or with pN one partition of it, to TARGET, a file or a device. A new
file is sparse where the disk has holes. On a target that exists only what differs is written; everything on it that
is not in the snapshot is lost.

With a PATH on a partition, TARGET is a folder, and the file or folder at PATH is put into it, with times, modes,
links and extended attributes, and as root with its owner. "p2/" puts all files of a partition there. What has the
same name is replaced. Files are read out of the disk's image by varve itself; nothing is mounted.

SNAPSHOT is the start of an id, or latest, which --host, --tag and --disk narrow down. DISK is needed when the snapshot
has several.

A device has to be confirmed, with --yes or at the terminal, and so does the very disk that the snapshot was made of. A
target that is too small, mounted, in use, or holds the repository is refused.

What cannot be read from the repository is left as it is on the target and listed; everything else is restored, and the
exit status is 1.` + exits(exitNoRepository, exitLocked, exitWrongPassword,
			"13  the target is unsafe or too small, and nothing was written", "14  --verify found that the target differs"),
		Example: `  varve restore latest --target disk.img
  varve restore 1a2b3c4d:sda --target /dev/sdb --yes --verify
  varve restore latest --host db1 --disk sda -t db1.img
  varve restore latest:sda:p2 --target /dev/sdb2 --verify
  varve restore 1a2b3c4d:p3/Users/ann/Documents --target /home/ann/rescued`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if o.target == "" {
				return errors.New("where to? name a file or device with --target")
			}
			return a.besides(c.Context(), "restore", func(r *repo.Repository) error { return a.restore(c.Context(), r, args[0], o) })
		},
	}
	o.filter.add(c)
	f := c.Flags()
	f.StringVarP(&o.target, "target", "t", "", "`file` or device to write")
	f.BoolVar(&o.verify, "verify", false, "read the target back and compare")
	f.BoolVarP(&o.yes, "yes", "y", false, "write to a device, or over the disk that the snapshot was made of, without asking")
	f.IntVar(&o.workers, "workers", 0, "`n` parts to restore at once (default: one for each processor)")
	return c
}

func (a *app) restore(ctx context.Context, r *repo.Repository, address string, o restoreOptions) (err error) {
	list, err := a.list(ctx, r)
	if err != nil {
		return err
	}
	at, err := snapshot.FindAddress(list, address, o.filter.filter())
	if err != nil {
		return err
	}
	if at.Path != "" {
		return a.restoreFiles(ctx, r, at, o)
	}
	s, d, only, what := at.Snapshot, at.Disk, snapshot.Range{Length: at.Disk.Size}, at.Disk.Name
	if at.Volume != nil {
		only, what = at.Volume.Range(), fmt.Sprintf("%s p%d", what, at.Volume.Number)
	}
	if err := a.guard(r, o.target); err != nil {
		return err
	}
	target, err := a.openTarget(ctx, s, d, only.Length, o)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := target.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("closing %s: %w", o.target, closeErr)
		}
	}()
	if bad := badBytes(d); bad > 0 {
		a.ui.note("%s of this disk could not be read when the snapshot was made; they are zero in it", size(bad))
	}
	started := time.Now()
	var done atomic.Int64
	end := a.ui.begin(diskMeter("restoring "+what, only.Length, &done, "bytes_restored"))
	result, err := snapshot.Restore(ctx, r, d, target, r.Hasher, snapshot.RestoreOptions{Workers: workers(o.workers), Done: &done, Only: only})
	end()
	if err != nil {
		return err
	}
	damaged := a.tellDamaged(d, result.Damaged)
	a.ui.object(map[string]any{"message_type": "summary", "snapshot_id": hexID(s.ID), "disk": d.Name, "target": o.target,
		"total_bytes": only.Length, "bytes_restored": only.Length - damaged, "bytes_written": result.Written, "bytes_same": result.Same,
		"bytes_zeroed": result.Zeroed, "bytes_damaged": damaged, "seconds_elapsed": time.Since(started).Seconds()})
	a.ui.say("restored %s of snapshot %s to %s in %s: %s", what, shortID(s.ID), o.target, clock(time.Since(started)), size(only.Length))
	a.ui.say("written %s, already there %s, made zero %s", size(result.Written), size(result.Same), size(result.Zeroed))
	if damaged > 0 {
		return fmt.Errorf("%w: %s were not restored; everything else was. 'varve check' tells more", errDamaged, size(damaged))
	}
	if o.verify {
		target.Forget()
		return a.compare(ctx, r, comparison{snapshot: s, disk: d, only: only, what: what, leftOut: true}, target, o.target, only.Length, o.workers)
	}
	return nil
}

// restoreFiles takes a file or folder out of a partition.
func (a *app) restoreFiles(ctx context.Context, r *repo.Repository, at snapshot.Address, o restoreOptions) error {
	if o.verify {
		return errors.New("--verify compares disks and partitions; files are compared with their digests as they are read")
	}
	if err := a.guard(r, o.target); err != nil {
		return err
	}
	if st, err := os.Stat(o.target); err == nil && !st.IsDir() {
		return fmt.Errorf("%w: %s is no folder; files are restored into one", image.ErrUnsafe, o.target)
	}
	tree, err := a.tree(ctx, r, at)
	if err != nil {
		return err
	}
	file, err := findFile(ctx, tree, at.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return noSuchFile(at)
	}
	if err != nil {
		return err
	}
	started := time.Now()
	result, err := extract.Folder(ctx, tree, file.Number, baseName(at.Path), o.target, func(name string, err error) { a.ui.warn("restore", name, err) })
	if err != nil {
		return err
	}
	a.ui.object(map[string]any{"message_type": "summary", "snapshot_id": hexID(at.Snapshot.ID), "disk": at.Disk.Name, "partition": at.Volume.Number,
		"target": o.target, "files_restored": result.Files, "folders_restored": result.Folders, "bytes_restored": result.Bytes,
		"files_failed": result.Failed, "seconds_elapsed": time.Since(started).Seconds()})
	a.ui.say("restored %s and %s from snapshot %s to %s in %s: %s", count(result.Files, "file", "files"), count(result.Folders, "folder", "folders"),
		shortID(at.Snapshot.ID), o.target, clock(time.Since(started)), size(result.Bytes))
	if result.Failed > 0 {
		return fmt.Errorf("%w: %s were not restored in full", errDamaged, count(result.Failed, "file", "files"))
	}
	return nil
}

// noSuchFile says that there is no file at an address.
func noSuchFile(at snapshot.Address) error {
	return fmt.Errorf("there is no %s on p%d of disk %s in snapshot %s: 'varve find' and 'varve history' look in all of them",
		cleanPath(at.Path), at.Volume.Number, at.Disk.Name, shortID(at.Snapshot.ID))
}

// diskMeter shows how much of a disk is done.
func diskMeter(what string, total int64, done *atomic.Int64, field string) *meter {
	return &meter{what: what, total: func() int64 { return total }, done: done.Load,
		fields: func() map[string]any { return map[string]any{field: done.Load()} }}
}

func badBytes(d *snapshot.Disk) (n int64) {
	for _, r := range d.Bad {
		n += r.Length
	}
	return n
}

// maxRanges is how many ranges are listed for people unless they want to see more.
const maxRanges = 20

// tellDamaged lists what could not be restored and returns how many bytes that is.
func (a *app) tellDamaged(d *snapshot.Disk, damaged []snapshot.DamagedRange) (bytes int64) {
	damaged = mergeDamaged(damaged)
	for i, r := range damaged {
		bytes += r.Length
		if i < maxRanges || a.ui.verbose || a.ui.json {
			a.ui.warn("restore", d.Name, fmt.Errorf("%d bytes at %d were not restored: %w", r.Length, r.Offset, r.Err))
		} else if i == maxRanges {
			a.ui.warn("restore", d.Name, fmt.Errorf("and %d more ranges were not restored; --verbose lists them", len(damaged)-maxRanges))
		}
	}
	return bytes
}

// mergeDamaged sorts ranges and makes one of those that touch, with the error of the first.
func mergeDamaged(ranges []snapshot.DamagedRange) []snapshot.DamagedRange {
	slices.SortFunc(ranges, func(x, y snapshot.DamagedRange) int { return cmp.Compare(x.Offset, y.Offset) })
	var merged []snapshot.DamagedRange
	for _, r := range ranges {
		if last := len(merged) - 1; last >= 0 && merged[last].End() == r.Offset {
			merged[last].Length += r.Length
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// guard refuses a target on which the repository lies.
func (a *app) guard(r *repo.Repository, target string) error {
	place, err := a.location()
	if err != nil {
		return err
	}
	if outside(target, place) != nil {
		return fmt.Errorf("%w: %s is part of the repository itself; choose another target", image.ErrUnsafe, target)
	}
	return nil
}

// isOriginal reports whether a target is what the snapshot was made of.
func isOriginal(s *snapshot.Snapshot, d *snapshot.Disk, path string, target image.Info) bool {
	host, err := os.Hostname()
	if err != nil || host != s.Host {
		return false
	}
	return image.SameFile(path, d.Path) || target.Serial != "" && target.Serial == d.Serial && target.Model == d.Model
}

// confirm asks before what cannot be taken back.
func (a *app) confirm(ctx context.Context, path string, info image.Info, original, yes bool) error {
	about := fmt.Sprintf("%s, %s", path, size(info.Size))
	if info.Model != "" || info.Serial != "" {
		about += fmt.Sprintf(", model %q, serial number %q", info.Model, info.Serial)
	}
	if original {
		about += ", which is the disk that the snapshot was made of"
	}
	a.ui.note("the target is %s", about)
	switch {
	case yes:
		return nil
	case !a.ui.interactive():
		return fmt.Errorf("%w: all that is on %s would be lost; say --yes if that is what you want", image.ErrUnsafe, about)
	}
	want := "yes"
	if info.Serial != "" {
		want = info.Serial
	}
	answer, err := a.ui.ask(ctx, fmt.Sprintf("All that is on %s will be lost.\nType %s to go on: ", about, want))
	if err != nil {
		return err
	}
	if strings.TrimSpace(answer) != want {
		return fmt.Errorf("%w: it was not confirmed, nothing was written", image.ErrUnsafe)
	}
	return nil
}

// openTarget opens the target, once it is known to be what the user means.
func (a *app) openTarget(ctx context.Context, s *snapshot.Snapshot, d *snapshot.Disk, bytes int64, o restoreOptions) (image.Target, error) {
	// A file is made as long as the disk when it is opened, so the question comes first.
	if st, err := os.Stat(o.target); err == nil && st.Mode().IsRegular() {
		info := image.Info{Size: st.Size()}
		if isOriginal(s, d, o.target, info) {
			if err := a.confirm(ctx, o.target, info, true, o.yes); err != nil {
				return nil, err
			}
		}
	}
	target, err := image.OpenTarget(o.target, bytes)
	if err != nil {
		return nil, err
	}
	// Opening a device changes nothing, and only what could be written to is worth a question.
	if info := target.Info(); info.Type == "device" {
		if err := a.confirm(ctx, o.target, info, isOriginal(s, d, o.target, info), o.yes); err != nil {
			target.Close()
			return nil, err
		}
	}
	return target, nil
}
