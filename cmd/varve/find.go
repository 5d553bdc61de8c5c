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
	"varve/snapshot/catalogue"
)

type findOptions struct {
	filter     filterFlags
	snapshots  []string
	ignoreCase bool
	kind       string
	newest     string
	oldest     string
}

func (a *app) findCommand() *cobra.Command {
	var o findOptions
	c := &cobra.Command{
		Use:   "find [flags] PATTERN...",
		Short: "find files in all snapshots",
		Long: `The find command looks for files whose path matches a pattern, in all snapshots or in those that are selected. Each
version of a file is shown once, with the snapshots that have it. Nothing of the disks is read.

A pattern without a slash is compared with the name of a file, one that begins with a slash with its whole path on the
partition, another one with the end of its path. * stands for any characters, ? for one, [a-z] for one of these, and
** between slashes for any number of folders. On NTFS, FAT and exFAT the case of letters does not matter.` +
			exits(exitNoRepository, exitLocked, exitWrongPassword),
		Example: `  varve find '*.docx'
  varve find --snapshot latest '/etc/**/*.conf'
  varve find --host db1 --oldest "2026-01-01 00:00:00" pg_hba.conf --json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.besides(c.Context(), "find", func(r *repo.Repository) error { return a.find(c.Context(), r, args, o) })
		},
	}
	o.filter.add(c)
	f := c.Flags()
	f.StringArrayVarP(&o.snapshots, "snapshot", "s", nil, "look in this `snapshot` only (may be given several times)")
	f.BoolVarP(&o.ignoreCase, "ignore-case", "i", false, "do not distinguish the case of letters")
	f.StringVar(&o.kind, "type", "", "only this `type`: file, dir or symlink")
	f.StringVarP(&o.newest, "newest", "N", "", "only files modified at this `time` or before")
	f.StringVarP(&o.oldest, "oldest", "O", "", "only files modified at this `time` or after")
	_ = c.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"file", "dir", "symlink"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// place is a volume of a disk over the snapshots.
type place struct {
	host, disk string
	number     int
	ignoreCase bool
	at         []snapshot.Address // where it is, in each snapshot that has it with a catalogue, oldest first
	roots      []catalogue.Root   // of each
}

// places sorts the catalogues of snapshots by the volumes that they are of.
func places(list []*snapshot.Snapshot, r catalogue.Loader) []*place {
	var all []*place
	for _, s := range list {
		for i := range s.Disks {
			d := &s.Disks[i]
			for k := range d.Volumes {
				v := &d.Volumes[k]
				files, err := v.Files(r)
				if err != nil {
					continue // it has none
				}
				n := slices.IndexFunc(all, func(p *place) bool { return p.host == s.Host && p.disk == d.Name && p.number == v.Number })
				if n < 0 {
					n = len(all)
					all = append(all, &place{host: s.Host, disk: d.Name, number: v.Number, ignoreCase: files.IgnoreCase})
				}
				all[n].at = append(all[n].at, snapshot.Address{Snapshot: s, Disk: d, Volume: v})
				all[n].roots = append(all[n].roots, *v.Catalogue)
			}
		}
	}
	return all
}

func (a *app) find(ctx context.Context, r *repo.Repository, texts []string, o findOptions) error {
	var exact, folded []catalogue.Pattern
	for _, text := range texts {
		p, err := catalogue.ParsePattern(text)
		if err != nil {
			return fmt.Errorf("pattern %q: %w", text, err)
		}
		exact, folded = append(exact, p), append(folded, p.IgnoreCase())
	}
	if o.kind != "" && !slices.Contains([]string{"file", "dir", "symlink"}, o.kind) {
		return fmt.Errorf("--type %q: it is file, dir or symlink", o.kind)
	}
	var from, to time.Time
	for _, limit := range []struct {
		flag, text string
		time       *time.Time
	}{{"--oldest", o.oldest, &from}, {"--newest", o.newest, &to}} {
		if limit.text != "" {
			var err error
			if *limit.time, err = parseTime(limit.text, time.Now()); err != nil {
				return fmt.Errorf("%s: %w", limit.flag, err)
			}
		}
	}
	list, err := a.selected(ctx, r, o.snapshots, o.filter.filter())
	if err != nil {
		return err
	}
	all := places(list, r)
	if len(all) == 0 && len(list) > 0 {
		return errors.New("none of these snapshots has a list of files: those that backups make from now on do, of filesystems that varve can read")
	}
	hits := int64(0)
	for _, p := range all {
		patterns := exact
		if p.ignoreCase || o.ignoreCase {
			patterns = folded
		}
		query := catalogue.Query{
			Match: func(path string, e catalogue.Entry) bool {
				if o.kind != "" && typeName(e.Mode) != o.kind || !from.IsZero() && e.Modified.Before(from) || !to.IsZero() && e.Modified.After(to) {
					return false
				}
				return slices.ContainsFunc(patterns, func(p catalogue.Pattern) bool { return p.Match(path) })
			},
			Below: func(folder string) bool {
				return slices.ContainsFunc(patterns, func(p catalogue.Pattern) bool { return p.Below(folder) })
			},
		}
		named := false
		show := func(hit catalogue.Hit) {
			hits++
			var ids []string
			for _, i := range hit.In {
				ids = append(ids, hexID(p.at[i].Snapshot.ID))
			}
			object := entryObject("match", hit.Path, &hit.Entry)
			object["hostname"], object["disk"], object["partition"], object["snapshots"] = p.host, p.disk, p.number, ids
			a.ui.object(object)
			if !named {
				a.ui.print("host %s, disk %s, p%d:", p.host, p.disk, p.number)
				named = true
			}
			a.ui.print("  %s  %s", longEntry(hit.Path, &hit.Entry), p.inSnapshots(hit.In))
		}
		var versions []catalogue.Hit // of one path
		showAll := func() {
			for _, v := range versions {
				show(v)
			}
			versions = versions[:0]
		}
		err := catalogue.Find(ctx, r, p.roots, query, func(hit catalogue.Hit) error {
			if len(versions) > 0 && versions[0].Path != hit.Path {
				showAll()
			}
			for i := range versions {
				if p.sameContent(ctx, r, versions[i], hit) {
					versions[i].In = slices.Sorted(slices.Values(slices.Concat(versions[i].In, hit.In)))
					return nil
				}
			}
			versions = append(versions, hit)
			return ctx.Err()
		})
		showAll()
		if err != nil {
			return fmt.Errorf("disk %s, p%d: %w", p.disk, p.number, err)
		}
	}
	a.ui.object(map[string]any{"message_type": "summary", "matches": hits, "snapshots": len(list)})
	a.ui.say("%s in %s", count(hits, "match", "matches"), count(int64(len(list)), "snapshot", "snapshots"))
	return nil
}

// sameContent reports whether two versions of a file differ in digest or number only, and have the same bytes all the same: these were cut in
// another way, or moved.
func (p *place) sameContent(ctx context.Context, r *repo.Repository, x, y catalogue.Hit) bool {
	e := y.Entry
	e.Digest, e.Number = x.Entry.Digest, x.Entry.Number
	if !e.Mode.IsRegular() || e != x.Entry {
		return false
	}
	one, two := p.at[x.In[0]], p.at[y.In[0]]
	one.Path, two.Path = x.Path, y.Path
	same, err := sameFile(ctx, r, one, two)
	return err == nil && same // what cannot be read is shown as it is listed
}

// inSnapshots says in which snapshots something is, for people: the first, the last, and how many.
func (p *place) inSnapshots(in []int) string {
	var ids []string
	for _, i := range in {
		ids = append(ids, shortID(p.at[i].Snapshot.ID))
	}
	if len(ids) > 3 {
		return fmt.Sprintf("[%s … %s, %d snapshots]", ids[0], ids[len(ids)-1], len(ids))
	}
	return "[" + strings.Join(ids, " ") + "]"
}
