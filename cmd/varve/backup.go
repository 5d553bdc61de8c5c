package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"varve/image"
	"varve/image/volume"
	"varve/repo"
	"varve/snapshot"
)

// backupOptions are the flags of backup.
type backupOptions struct {
	stdin           bool
	stdinFilename   string
	tags            []string
	host            string
	time            string
	parent          string
	force           bool
	fullRead        bool
	compression     string
	packSize        string
	badSectors      string
	workers         int
	skipIfUnchanged bool
	wholeChunks     bool
	leaveOptions
}

func (a *app) backupCommand() *cobra.Command {
	var o backupOptions
	c := &cobra.Command{
		Use:   "backup [flags] SOURCE...",
		Short: "store the state of disks as a new snapshot",
		Long: `The backup command reads one or more disks, devices or image files, and stores what the repository lacks of them. The
snapshot exists when all of them are stored. SOURCE may be - for standard input.

The newest snapshot of the same disk on the same host guides the work. Where little has changed since, only the blocks
of 4 KiB that have are stored, and the snapshot refers to the others inside the chunks of the one before. An image file
whose size, times and inode are what they were then is not read again; --full-read reads it all the same, and --force
does so without a guide. Devices and pipes are always read.

varve looks at the partitions of a disk and the filesystems on them. Blocks that a filesystem does not use are not
read and not stored, nor is what is in swap areas, page and hibernation files; on the restored disk they are zero, and
everything else is as it was. A filesystem that is mounted, was not unmounted, or has anything that varve does not
know is read in full, and a note says so. --used-blocks off keeps free blocks, --forensic everything. The files of
each filesystem are listed in the snapshot, for ls, find, history and diff.

With --all-critical only the partitions are taken that a machine needs to start, each with the reason, of all disks or
of those that are named; --include-partition and --exclude-partition have the last word. Partitions that are not taken
are zero in the snapshot.

What cannot be read of a disk is tried again in small pieces. What stays unreadable is zero in the snapshot, which lists
it, and the exit status is 3; with --bad-sectors fail there is no snapshot.

An interrupted backup leaves no snapshot, but what it stored is found again by the next one.` +
			exits("3  stored, but some of the source could not be read", exitNoRepository, exitLocked, exitWrongPassword),
		Example: `  varve backup /dev/sda
  varve backup --tag before-upgrade vm/root.img vm/data.img
  varve backup --all-critical
  varve backup --exclude '*.iso' --exclude /home/ann/Downloads /dev/sda
  pg_basebackup ... | varve backup - --stdin-filename database.tar`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] == "-" {
				o.stdin, args = true, nil
			}
			return a.with(c.Context(), func(r *repo.Repository) error { return a.backup(c.Context(), r, o, args) })
		},
	}
	f := c.Flags()
	f.BoolVar(&o.stdin, "stdin", false, "read one disk from standard input, as SOURCE - does")
	f.StringVar(&o.stdinFilename, "stdin-filename", "stdin", "`name` of the disk that is read from standard input")
	f.StringArrayVar(&o.tags, "tag", nil, "`tag[,tag]` of the snapshot (may be given several times)")
	f.StringVarP(&o.host, "host", "H", "", "`name` of the host of the snapshot (VARVE_HOST; default: this one's)")
	f.StringVar(&o.time, "time", "now", "`time` of the snapshot, as \"2026-01-31 23:59:00\"")
	f.StringVar(&o.parent, "parent", "", "`snapshot` that guides (default: the newest of the same host and disk)")
	f.BoolVarP(&o.force, "force", "f", false, "read everything, without a guide")
	f.BoolVar(&o.fullRead, "full-read", false, "read everything, even a file that looks unchanged")
	f.BoolVar(&o.wholeChunks, "whole-chunks", false, "store whole chunks around a change, not just its blocks")
	f.StringVar(&o.badSectors, "bad-sectors", "zero", "what cannot be read is `zero`, or lets the backup fail")
	f.IntVar(&o.workers, "read-concurrency", 0, "parts of a disk to read at once (default: one for each processor)")
	f.IntVar(&o.workers, "workers", 0, "the same as --read-concurrency")
	f.BoolVar(&o.skipIfUnchanged, "skip-if-unchanged", false, "make no snapshot when all is as in the one before")
	o.leaveOptions.add(c)
	addStoreFlags(c, &o.compression, &o.packSize)
	_ = c.RegisterFlagCompletionFunc("bad-sectors", cobra.FixedCompletions([]string{"zero", "fail"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// addStoreFlags adds the flags that say how packs are written; packSize may be nil.
func addStoreFlags(c *cobra.Command, compression, packSize *string) {
	c.Flags().StringVar(compression, "compression", "", "`level`: off, fastest, default, better or max (VARVE_COMPRESSION)")
	if packSize != nil {
		c.Flags().StringVar(packSize, "pack-size", "", "`size` of packs, in MiB unless it has a unit (default 16M)")
	}
	var names []string
	for _, level := range repo.Compressions {
		names = append(names, string(level))
	}
	_ = c.RegisterFlagCompletionFunc("compression", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
}

// parseCompression returns the level that the flag or else the environment names. restic's "auto" is the default.
func parseCompression(flag string) (repo.Compression, error) {
	if flag == "" {
		flag = os.Getenv("VARVE_COMPRESSION")
	}
	if flag == "" || flag == "auto" {
		return repo.CompressionDefault, nil
	}
	level := repo.Compression(flag)
	if !slices.Contains(repo.Compressions, level) {
		return "", fmt.Errorf("unknown compression %q: it is one of %v", flag, repo.Compressions)
	}
	return level, nil
}

// Packs may be no smaller, so that there are not too many, and no larger, since they are built in memory.
const (
	minPackSize = 1 << 20
	maxPackSize = 128 << 20
)

func parsePackSize(text string) (int, error) {
	if text == "" {
		return repo.DefaultPackSize, nil
	}
	n, err := parseSize(text, 1<<20)
	if err == nil && (n < minPackSize || n > maxPackSize) {
		err = fmt.Errorf("it is not within %s to %s", size(minPackSize), size(maxPackSize))
	}
	if err != nil {
		return 0, fmt.Errorf("--pack-size: %w", err)
	}
	return int(n), nil
}

// backup stores a snapshot of sources.
func (a *app) backup(ctx context.Context, r *repo.Repository, o backupOptions, paths []string) error {
	started := time.Now()
	b := &backup{app: a, repo: r, options: o, snapshot: &snapshot.Snapshot{Version: 1, Host: cmp.Or(o.host, os.Getenv("VARVE_HOST")), User: userName(), Program: "varve " + programVersion()}}
	var err error
	if b.snapshot.Tags, err = parseTags(o.tags); err != nil {
		return err
	}
	if b.snapshot.Time, err = parseTime(o.time, started); err != nil {
		return err
	}
	if b.snapshot.Host == "" {
		b.snapshot.Host, _ = os.Hostname()
	}
	if o.badSectors != "zero" && o.badSectors != "fail" {
		return fmt.Errorf("--bad-sectors %q: it is zero or fail", o.badSectors)
	}
	if err := b.options.prepare(); err != nil {
		return err
	}
	s := repo.SessionOptions{Purpose: "backup"}
	if s.Compression, err = parseCompression(o.compression); err != nil {
		return err
	}
	if s.PackSize, err = parsePackSize(o.packSize); err != nil {
		return err
	}
	if err := r.Settings(&b.settings); err != nil {
		return err
	}
	if err := b.settings.Chunker.Validate(); err != nil {
		return fmt.Errorf("the settings of the repository: %w", err)
	}
	sources, err := b.open(ctx, paths)
	if err != nil {
		return err
	}
	defer func() {
		for _, src := range sources {
			src.Close()
		}
	}()
	if err := a.patiently(ctx, func() error { b.session, err = r.Begin(ctx, s); return err }); err != nil {
		return err
	}
	defer b.session.Close()
	if err := b.findParents(ctx); err != nil {
		return err
	}
	if err := b.disks(ctx, sources); err != nil {
		return err
	}
	b.snapshot.Duration = time.Since(started).Seconds()
	if o.skipIfUnchanged && b.unchanged() {
		return a.reportBackup(b, started, "")
	}
	record, err := b.snapshot.Encode()
	if err != nil {
		return err
	}
	id, err := b.session.Commit(ctx, record)
	if err != nil {
		return err
	}
	a.made(r, hexID(id))
	for _, d := range b.snapshot.Disks {
		if d.Size > 0 {
			r.Trust(snapshot.ID(d.Root))
		}
		for _, v := range d.Volumes {
			if v.Catalogue != nil {
				r.Trust(snapshot.ID(v.Catalogue.ID))
			}
		}
	}
	return a.reportBackup(b, started, hexID(id))
}

// backup is one run of the command.
type backup struct {
	*app
	repo     *repo.Repository
	options  backupOptions
	settings settings
	session  *repo.Session
	snapshot *snapshot.Snapshot
	earlier  []*snapshot.Snapshot // from which parents are taken
	parents  []*snapshot.Snapshot // of each disk so far; nil where there is none
	counters snapshot.Counters
	data     writerPool
	tree     writerPool
}

// open opens all sources, so that a wrong one is known before the work begins.
func (b *backup) open(ctx context.Context, paths []string) ([]image.Source, error) {
	if b.options.stdin {
		if len(paths) > 0 {
			return nil, errors.New("standard input is a source by itself: do not name others beside it")
		}
		if err := checkDiskName(b.options.stdinFilename); err != nil {
			return nil, fmt.Errorf("--stdin-filename: %w", err)
		}
		return []image.Source{image.Stream(b.ui.stdin(ctx), b.options.stdinFilename)}, nil
	}
	if b.options.allCritical && len(paths) == 0 {
		var err error
		if paths, err = image.Disks(); err != nil {
			return nil, err
		}
	}
	if len(paths) == 0 {
		return nil, errors.New("what is to be stored? name a device or an image file, or - for standard input")
	}
	var sources []image.Source
	failed := func(err error) ([]image.Source, error) {
		for _, src := range sources {
			src.Close()
		}
		return nil, err
	}
	place, err := b.location()
	if err != nil {
		return failed(err)
	}
	for i, path := range paths {
		for _, earlier := range paths[:i] {
			if image.SameFile(path, earlier) {
				return failed(fmt.Errorf("%s and %s are the same disk", earlier, path))
			}
		}
		if err := outside(path, place); err != nil {
			return failed(err)
		}
		src, err := image.Open(path)
		if err != nil {
			return failed(err)
		}
		sources = append(sources, src)
	}
	if b.options.allCritical {
		chosen, err := b.chooseCritical(sources)
		if err != nil {
			return failed(err)
		}
		return chosen, nil
	}
	return sources, nil
}

// findParents reads the snapshots that may guide this backup.
func (b *backup) findParents(ctx context.Context) error {
	if b.options.force {
		return nil
	}
	list, err := snapshot.List(ctx, b.repo, func(err error) { b.ui.warn("list", "snapshots", err) })
	if err != nil {
		return err
	}
	b.earlier = list
	b.miss(b.repo, list)
	if b.options.parent != "" {
		s, err := snapshot.Find(list, b.options.parent, snapshot.Filter{Hosts: []string{b.snapshot.Host}})
		if err != nil {
			return fmt.Errorf("--parent: %w", err)
		}
		b.earlier = []*snapshot.Snapshot{s}
	}
	return nil
}

// parent returns what guides the backup of a disk.
func (b *backup) parent(info image.Info) (*snapshot.Snapshot, *snapshot.Disk) {
	if b.options.parent == "" {
		return snapshot.Parent(b.earlier, b.snapshot.Host, info)
	}
	s := b.earlier[0] // named by the user: its host and path do not matter
	if d := s.Like(info); d != nil {
		return s, d
	}
	if len(s.Disks) == 1 {
		return s, &s.Disks[0]
	}
	return nil, nil
}

// disks stores one disk after the other.
func (b *backup) disks(ctx context.Context, sources []image.Source) error {
	names := make([]string, len(sources))
	total := int64(0)
	for i, src := range sources {
		names[i] = src.Info().Name
		if n := src.Info().Size; n < 0 || total < 0 {
			total = -1
		} else {
			total += n
		}
	}
	names = uniqueNames(names)
	end := b.ui.begin(&meter{
		what:  "scanning " + strings.Join(names, ", "),
		total: func() int64 { return total },
		done:  b.counters.Scanned.Load,
		detail: func() string {
			return size(b.counters.Changed.Load()) + " changed  " + size(b.counters.Added.Load()) + " added"
		},
		fields: func() map[string]any {
			return map[string]any{"current_files": names, "bytes_read": b.counters.Read.Load(), "bytes_changed": b.counters.Changed.Load(),
				"bytes_added": b.counters.Added.Load()}
		},
	})
	defer end()
	b.data.make, b.tree.make = b.session.DataWriter, b.session.TreeWriter
	for i, src := range sources {
		d, err := b.disk(ctx, src, names[i])
		if err != nil {
			return err
		}
		b.snapshot.Disks = append(b.snapshot.Disks, *d)
	}
	return nil
}

// disk stores one disk.
func (b *backup) disk(ctx context.Context, src image.Source, name string) (*snapshot.Disk, error) {
	info := src.Info()
	ps, pd := b.parent(info)
	b.parents = append(b.parents, ps)
	trusted := pd != nil && b.repo.Trusted(snapshot.ID(pd.Root))
	out := b.options.leftOut(name, info.Path)
	if trusted && !b.options.fullRead && snapshot.Unchanged(ps, pd, info, out) && b.trustsLists(pd) {
		d := *pd
		d.Name, d.Path, d.Parent = name, info.Path, hexID(ps.ID)
		d.Stats = snapshot.DiskStats{Used: pd.Stats.Used, Parts: pd.Stats.Parts, Chunks: pd.Stats.Chunks}
		b.counters.Scanned.Add(d.Size)
		return &d, nil
	}
	var in *inside
	if info.Size >= 0 {
		var err error
		if src, in, err = b.look(ctx, src, name, out); err != nil {
			return nil, err
		}
	}
	var bad badRanges
	if b.options.badSectors == "zero" && info.Type != "stream" { // what a pipe has lost cannot be asked for again
		src = image.Salvage(src, func(r image.Bad) { bad.add(b.ui, name, r) })
	}
	var parentLost sync.Once
	b.data.used, b.tree.used = 0, 0
	before := b.session.Added().Stored
	d, err := snapshot.Create(ctx, src, snapshot.CreateOptions{
		Chunker: b.settings.Chunker, Workers: workers(b.options.workers), Parent: pd, ParentComplete: trusted,
		ParentLost: func(err error) {
			parentLost.Do(func() {
				b.ui.warn("guide", name, fmt.Errorf("part of the snapshot before cannot be read (%w); run 'varve check'", err))
			})
		},
		Parts: b.parts(), Load: b.repo, DataWriter: b.data.next, TreeWriter: b.tree.next, Counters: &b.counters,
	})
	if err != nil {
		return nil, err
	}
	if err := b.session.Sync(ctx); err != nil {
		return nil, err
	}
	d.Name = name
	if in == nil && d.Size > 0 { // of a stream it can be known only now
		in = &inside{layout: volume.Find(snapshot.NewReader(ctx, b.repo, d), d.Size, 0)}
	}
	if in != nil {
		in.record(d)
		if info.Size >= 0 {
			d.LeftOut = out
		}
		if err := b.list(ctx, in, d, pd); err != nil {
			return nil, err
		}
		if err := b.session.Sync(ctx); err != nil {
			return nil, err
		}
	}
	d.Stats.Stored, d.Bad = b.session.Added().Stored-before, bad.merged()
	if ps != nil {
		d.Parent = hexID(ps.ID)
	}
	bad.summarize(b.ui, name)
	return d, nil
}

// trustsLists reports whether the catalogues of a disk are in the repository, as far as it has any.
func (b *backup) trustsLists(d *snapshot.Disk) bool {
	return !slices.ContainsFunc(d.Volumes, func(v snapshot.Volume) bool {
		return v.Catalogue != nil && !b.repo.Trusted(snapshot.ID(v.Catalogue.ID))
	})
}

// parts makes what compares with chunks of the parent: nil when whole chunks are wanted.
func (b *backup) parts() func() snapshot.Comparer {
	if b.options.wholeChunks {
		return nil
	}
	return func() snapshot.Comparer { return b.repo.Comparer() }
}

// unchanged reports whether all disks are as in one earlier snapshot, which guided them.
func (b *backup) unchanged() bool {
	ps := b.parents[0]
	if ps == nil || len(ps.Disks) != len(b.snapshot.Disks) {
		return false
	}
	for i := range b.snapshot.Disks {
		d := &b.snapshot.Disks[i]
		pd, err := ps.Disk(d.Name)
		if err != nil || b.parents[i] != ps || d.Root != pd.Root || d.Size != pd.Size || !slices.Equal(d.Bad, pd.Bad) {
			return false
		}
	}
	return true
}

// reportBackup tells how the backup went. id is empty when there is no new snapshot.
func (a *app) reportBackup(b *backup, started time.Time, id string) error {
	added, s := b.session.Added(), b.snapshot
	var total, read, bad int64
	var disks []map[string]any
	var rows [][]string
	for _, d := range s.Disks {
		total += d.Size
		read += d.Stats.Read
		for _, r := range d.Bad {
			bad += r.Length
		}
		disks = append(disks, diskObject(&d))
		rows = append(rows, []string{d.Name, size(d.Size), size(d.Stats.Used), size(d.Stats.Changed), size(d.Stats.Added), size(d.Stats.Stored)})
	}
	elapsed := time.Since(started)
	object := map[string]any{
		"message_type": "summary", "data_blobs": added.Chunks, "data_added": added.Bytes, "data_added_packed": added.Stored,
		"total_files_processed": len(s.Disks), "total_bytes_processed": total, "bytes_read": read, "bytes_unreadable": bad,
		"total_duration": elapsed.Seconds(), "backup_start": started, "backup_end": time.Now(), "disks": disks,
	}
	if id != "" {
		object["snapshot_id"] = id
	}
	a.ui.object(object)
	if !a.ui.quiet {
		a.ui.table([]string{"Disk", ">Size", ">Used", ">Changed", ">Added", ">Stored"}, rows)
	}
	a.ui.say("\nread %s in %s", size(read), clock(elapsed))
	if id == "" {
		a.ui.say("no snapshot was made: nothing has changed")
	} else {
		a.ui.say("snapshot %s saved", id[:8])
	}
	if bad > 0 {
		return fmt.Errorf("%w (%s)", errIncomplete, size(bad))
	}
	return nil
}

// workers returns how many goroutines to use.
func workers(n int) int {
	if n > 0 {
		return n
	}
	return runtime.GOMAXPROCS(0)
}
