package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/spf13/cobra"
	"varve/repo"
	"varve/snapshot"
	"varve/snapshot/catalogue"
)

func (a *app) historyCommand() *cobra.Command {
	var filter filterFlags
	c := &cobra.Command{
		Use:   "history [flags] SNAPSHOT[:DISK][:pN]/PATH",
		Short: "show every version of a file over all snapshots",
		Long: `The history command shows each version that a file had, with its size and time and the snapshots that have it, and
when it was not there. SNAPSHOT says of which host, disk and partition; the file need not be in that one. 'varve dump'
gets any of the versions.

A version is another one when the size, the time of modification or the content is. The content is compared by what the
snapshots refer to; only where this alone differs the bytes are read.` + exits(exitNoRepository, exitLocked, exitWrongPassword),
		Example: `  varve history latest:p2/etc/passwd
  varve history latest:sda:p3/Users/ann/thesis.docx --json
  varve dump 1a2b3c4d:p2/etc/passwd > passwd.old`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.besides(c.Context(), "history", func(r *repo.Repository) error { return a.history(c.Context(), r, args[0], filter.filter()) })
		},
	}
	filter.add(c)
	return c
}

// fileVersion is a file as it was in some snapshots in a row.
type fileVersion struct {
	entry     *catalogue.Entry // nil: it was not there
	snapshots []*snapshot.Snapshot
	at        snapshot.Address // in the last of them
}

func (a *app) history(ctx context.Context, r *repo.Repository, address string, f snapshot.Filter) error {
	list, err := a.list(ctx, r)
	if err != nil {
		return err
	}
	at, err := snapshot.FindAddress(list, address, f)
	if err == nil {
		at, err = volumeOf(at)
	}
	if err != nil {
		return err
	}
	path := cleanPath(at.Path)
	if path == "" {
		return fmt.Errorf("of which file? write its path behind the partition: %s/PATH", addressOf(at, ""))
	}
	versions, err := a.versions(ctx, r, list, at, path)
	if err != nil {
		return err
	}
	there := 0
	var rows [][]string
	for i, v := range versions {
		first, last := v.snapshots[0], v.snapshots[len(v.snapshots)-1]
		object := map[string]any{"message_type": "version", "path": path, "there": v.entry != nil}
		what := []string{"not there", "", ""}
		if v.entry != nil {
			object = entryObject("version", path, v.entry)
			object["there"] = true
			there++
			what = []string{changeOf(versions, i), size(v.entry.Size), stampOr(v.entry.Modified)}
			if v.entry.Mode.IsDir() {
				what[1] = count(v.entry.Files, "file", "files")
			}
		}
		var ids []string
		for _, s := range v.snapshots {
			ids = append(ids, hexID(s.ID))
		}
		object["snapshots"], object["first_time"], object["last_time"] = ids, first.Time, last.Time
		a.ui.object(object)
		span := shortID(first.ID)
		if len(v.snapshots) > 1 {
			span += " … " + shortID(last.ID)
		}
		rows = append(rows, append([]string{span, stamp(first.Time), stamp(last.Time), fmt.Sprint(len(v.snapshots))}, what...))
	}
	if there == 0 {
		return fmt.Errorf("no snapshot of host %s has %s on p%d of disk %s; 'varve find' looks everywhere", at.Snapshot.Host, path, at.Volume.Number, at.Disk.Name)
	}
	a.ui.table([]string{"Snapshots", "From", "To", ">Number", "What", ">Size", "Modified"}, rows)
	a.ui.say("%s of %s", count(int64(there), "version", "versions"), path)
	return nil
}

// changeOf says in a word how version i came about.
func changeOf(versions []fileVersion, i int) string {
	if i == 0 || versions[i-1].entry == nil {
		return "there"
	}
	before, now := versions[i-1].entry, versions[i].entry
	switch {
	case before.Mode.Type() != now.Mode.Type():
		return "became another type"
	case before.Size != now.Size || before.Digest != now.Digest || before.Target != now.Target:
		return "changed"
	}
	return "touched"
}

// versions finds the versions of a file in the snapshots that have the volume of at, with their lists of files, oldest first.
func (a *app) versions(ctx context.Context, r *repo.Repository, list []*snapshot.Snapshot, at snapshot.Address, path string) ([]fileVersion, error) {
	var versions []fileVersion
	without := 0
	for _, s := range list {
		if s.Host != at.Snapshot.Host {
			continue
		}
		here := snapshot.Address{Snapshot: s, Path: path}
		var err error
		if here.Disk, err = s.Disk(at.Disk.Name); err != nil {
			continue
		}
		if here.Volume, err = here.Disk.Volume(at.Volume.Number); err != nil {
			continue
		}
		files, err := here.Volume.Files(r)
		if err != nil {
			without++
			continue
		}
		var entry *catalogue.Entry
		switch e, err := files.Lookup(ctx, path); {
		case err == nil:
			entry = &e
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("snapshot %s: %w", shortID(s.ID), err)
		}
		last := len(versions) - 1
		same := false
		if last >= 0 {
			if same, err = a.sameVersion(ctx, r, &versions[last], entry, here); err != nil {
				return nil, err
			}
		}
		if same {
			versions[last].snapshots, versions[last].at, versions[last].entry = append(versions[last].snapshots, s), here, entry
		} else {
			versions = append(versions, fileVersion{entry, []*snapshot.Snapshot{s}, here})
		}
	}
	if without > 0 {
		a.ui.note("%s without a list of files are left out", count(int64(without), "snapshot", "snapshots"))
	}
	return versions, nil
}

// sameVersion reports whether entry, in the snapshot of at, is the version v still.
func (a *app) sameVersion(ctx context.Context, r *repo.Repository, v *fileVersion, entry *catalogue.Entry, at snapshot.Address) (bool, error) {
	if v.entry == nil || entry == nil {
		return v.entry == nil && entry == nil, nil
	}
	x, y := v.entry, entry
	switch {
	case x.Mode.Type() != y.Mode.Type() || x.Size != y.Size || !x.Modified.Equal(y.Modified) || x.Target != y.Target || x.Device != y.Device:
		return false, nil
	case x.Mode.IsDir():
		return x.ID == y.ID, nil
	case x.Digest == y.Digest && !x.Incomplete && !y.Incomplete || !x.Mode.IsRegular():
		return true, nil
	}
	// The same bytes may have been cut in another way, or moved.
	same, err := sameFile(ctx, r, v.at, at)
	if err != nil && ctx.Err() == nil {
		a.ui.note("snapshot %s: whether the content is the same cannot be read: %v", shortID(at.Snapshot.ID), err)
		return false, nil
	}
	return same, err
}

// sameFile reads a file in two snapshots and compares.
func sameFile(ctx context.Context, r *repo.Repository, a, b snapshot.Address) (bool, error) {
	x, err := openContent(ctx, r, a)
	if err != nil {
		return false, err
	}
	y, err := openContent(ctx, r, b)
	if err != nil {
		return false, err
	}
	if x.Size() != y.Size() {
		return false, nil
	}
	one, two := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); at < x.Size(); at += int64(len(one)) {
		n := int(min(int64(len(one)), x.Size()-at))
		for _, part := range []struct {
			r   io.ReaderAt
			buf []byte
		}{{x, one}, {y, two}} {
			if k, err := part.r.ReadAt(part.buf[:n], at); k < n {
				return false, err
			}
		}
		if !bytes.Equal(one[:n], two[:n]) {
			return false, nil
		}
	}
	return true, ctx.Err()
}
