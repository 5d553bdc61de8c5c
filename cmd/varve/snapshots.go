package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"varve/repo"
	"varve/snapshot"
)

// filterFlags select snapshots.
type filterFlags struct {
	hosts, disks []string
	tags         tagLists
}

func (f *filterFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVarP(&f.hosts, "host", "H", nil, "only snapshots of this `host` (may be given several times)")
	c.Flags().Var(&f.tags, "tag", "only snapshots that have all these `tag[,tag]` (may be given several times)")
	c.Flags().StringArrayVar(&f.disks, "disk", nil, "only snapshots of this `disk`, its name or path (may be given several times)")
}

func (f *filterFlags) filter() snapshot.Filter {
	return snapshot.Filter{Hosts: f.hosts, Disks: f.disks, Tags: f.tags}
}

// list reads all snapshots, oldest first, and warns of those that cannot be read.
func (a *app) list(ctx context.Context, r *repo.Repository) ([]*snapshot.Snapshot, error) {
	return snapshot.List(ctx, r, func(err error) { a.ui.warn("list", "snapshots", err) })
}

// selected returns the snapshots that addresses name, or else all that f selects, oldest first.
func (a *app) selected(ctx context.Context, r *repo.Repository, addresses []string, f snapshot.Filter) ([]*snapshot.Snapshot, error) {
	all, err := a.list(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(addresses) == 0 {
		return f.Select(all), nil
	}
	var list []*snapshot.Snapshot
	for _, address := range addresses {
		s, err := snapshot.Find(all, address, f)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list, nil
}

func (a *app) snapshotsCommand() *cobra.Command {
	var filter filterFlags
	var groupBy string
	var latest int
	var compact bool
	c := &cobra.Command{
		Use:     "snapshots [flags] [SNAPSHOT...]",
		Aliases: []string{"list"},
		Short:   "list snapshots",
		Long: `The snapshots command lists the snapshots of a repository, oldest first: when, of which host and disks, and for each
disk its size, how much of it is in use, how much had changed since the snapshot before, and how many bytes it added to
the repository.

SNAPSHOT is the start of an id, or latest.` + exits(exitNoRepository, exitLocked, exitWrongPassword),
		Example: `  varve snapshots
  varve snapshots --host db1 --latest 3
  varve snapshots --group-by host,tags --json`,
		RunE: func(c *cobra.Command, args []string) error {
			if latest < 0 {
				return errors.New("--latest: it is a number of snapshots")
			}
			return a.with(c.Context(), func(r *repo.Repository) error {
				list, err := a.selected(c.Context(), r, args, filter.filter())
				if err != nil {
					return err
				}
				return a.showSnapshots(list, groupBy, latest, compact)
			})
		},
	}
	filter.add(c)
	c.Flags().StringVarP(&groupBy, "group-by", "g", "", "`by` what to group: host, disks, tags, joined by commas")
	c.Flags().IntVar(&latest, "latest", 0, "only the newest `n` of each host and disk")
	c.Flags().BoolVarP(&compact, "compact", "c", false, "show less of each")
	return c
}

// splitGroupBy reads the value of --group-by.
func splitGroupBy(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// newest returns the newest n snapshots of each host and set of disks, oldest first.
func newest(list []*snapshot.Snapshot, n int) ([]*snapshot.Snapshot, error) {
	groups, err := snapshot.GroupBy(list, []string{"host", "disks"})
	if err != nil {
		return nil, err
	}
	keep := map[*snapshot.Snapshot]bool{}
	for _, g := range groups {
		for _, s := range g.Snapshots[max(0, len(g.Snapshots)-n):] {
			keep[s] = true
		}
	}
	var kept []*snapshot.Snapshot
	for _, s := range list {
		if keep[s] {
			kept = append(kept, s)
		}
	}
	return kept, nil
}

func (a *app) showSnapshots(list []*snapshot.Snapshot, groupBy string, latest int, compact bool) error {
	if latest > 0 {
		var err error
		if list, err = newest(list, latest); err != nil {
			return err
		}
	}
	groups, err := snapshot.GroupBy(list, splitGroupBy(groupBy))
	if err != nil {
		return err
	}
	if groupBy == "" {
		a.ui.object(snapshotObjects(list))
		a.ui.table(snapshotTable(list, compact))
		a.ui.print("%s", count(int64(len(list)), "snapshot", "snapshots"))
		return nil
	}
	objects := []map[string]any{}
	for _, g := range groups {
		objects = append(objects, map[string]any{"group_key": groupKey(g), "snapshots": snapshotObjects(g.Snapshots)})
		a.ui.print("%s", groupTitle(g))
		a.ui.table(snapshotTable(g.Snapshots, compact))
		a.ui.print("%s\n", count(int64(len(g.Snapshots)), "snapshot", "snapshots"))
	}
	a.ui.object(objects)
	return nil
}

func groupKey(g snapshot.Group) map[string]any {
	return map[string]any{"hostname": g.Host, "paths": append([]string{}, g.Disks...), "tags": append([]string{}, g.Tags...)}
}

func groupTitle(g snapshot.Group) string {
	var parts []string
	for _, p := range []struct{ name, value string }{{"host", g.Host}, {"disks", strings.Join(g.Disks, ",")}, {"tags", strings.Join(g.Tags, ",")}} {
		if p.value != "" {
			parts = append(parts, p.name+" "+p.value)
		}
	}
	if len(parts) == 0 {
		return "all snapshots:"
	}
	return "snapshots of " + strings.Join(parts, ", ") + ":"
}

// stamp is a time for people.
func stamp(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// snapshotTable lists snapshots for people, a row for each disk.
func snapshotTable(list []*snapshot.Snapshot, compact bool) (header []string, rows [][]string) {
	header = []string{"ID", "Time", "Host", "Disk", ">Size", ">Used", ">Changed", ">Stored", "Tags"}
	if compact {
		header = []string{"ID", "Time", "Host", "Disks", "Tags"}
	}
	for _, s := range list {
		tags := strings.Join(s.Tags, ",")
		if s.Held {
			tags = strings.TrimSpace("held " + tags)
		}
		if compact {
			var names []string
			for i := range s.Disks {
				names = append(names, s.Disks[i].Name)
			}
			rows = append(rows, []string{shortID(s.ID), stamp(s.Time), s.Host, strings.Join(names, ","), tags})
			continue
		}
		for i := range s.Disks {
			d := &s.Disks[i]
			name := d.Name
			if len(d.Bad) > 0 {
				name += " (partly unreadable)"
			}
			row := []string{"", "", "", name, size(d.Size), size(d.Stats.Used), size(d.Stats.Changed), size(d.Stats.Stored), ""}
			if i == 0 {
				row[0], row[1], row[2], row[8] = shortID(s.ID), stamp(s.Time), s.Host, tags
			}
			rows = append(rows, row)
		}
	}
	return header, rows
}

// snapshotObjects lists snapshots for programs, with restic's names where it has one.
func snapshotObjects(list []*snapshot.Snapshot) []map[string]any {
	objects := []map[string]any{}
	for _, s := range list {
		var paths []string
		var disks []map[string]any
		for i := range s.Disks {
			paths = append(paths, s.Disks[i].Path)
			disks = append(disks, diskObject(&s.Disks[i]))
		}
		o := map[string]any{"time": s.Time, "paths": paths, "hostname": s.Host, "username": s.User, "program_version": s.Program,
			"duration": s.Duration, "disks": disks, "held": s.Held, "id": hexID(s.ID), "short_id": shortID(s.ID)}
		if len(s.Tags) > 0 {
			o["tags"] = s.Tags
		}
		if s.Original != "" {
			o["original"] = s.Original
		}
		objects = append(objects, o)
	}
	return objects
}

func diskObject(d *snapshot.Disk) map[string]any {
	o := map[string]any{"name": d.Name, "path": d.Path, "type": d.Type, "size": d.Size, "used": d.Stats.Used, "free": d.Stats.Free, "excluded": d.Stats.Excluded, "left_out": d.LeftOut, "read": d.Stats.Read,
		"changed": d.Stats.Changed, "added": d.Stats.Added, "stored": d.Stats.Stored, "parts": d.Stats.Parts, "chunks": d.Stats.Chunks}
	if d.Parent != "" {
		o["parent"] = d.Parent
	}
	if d.Model != "" {
		o["model"] = d.Model
	}
	if d.Serial != "" {
		o["serial"] = d.Serial
	}
	if len(d.Bad) > 0 {
		o["unreadable"] = d.Bad
	}
	return o
}
