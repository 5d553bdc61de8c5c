package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"varve/image"
	"varve/image/volume"
	"varve/repo"
	"varve/snapshot"
)

func (a *app) disksCommand() *cobra.Command {
	var filter filterFlags
	c := &cobra.Command{
		Use:   "disks [flags] [PATH|SNAPSHOT[:DISK]...]",
		Short: "show disks, their partitions and filesystems",
		Long: `The disks command shows the disks of this machine, or those that are named: devices, image files, or disks of a
snapshot. Of each partition it shows type, filesystem, label, size, how much of it is in use, where it is mounted, and
whether the machine needs it to start ('varve backup --all-critical').

Reading devices needs root. Without a snapshot no repository is needed.` + exits(exitNoRepository, exitLocked, exitWrongPassword),
		Example: `  varve disks
  varve disks disk.img
  varve disks latest`,
		RunE: func(c *cobra.Command, args []string) error { return a.disks(c.Context(), args, filter.filter()) },
	}
	filter.add(c)
	return c
}

func (a *app) disks(ctx context.Context, names []string, f snapshot.Filter) error {
	var addresses []string
	var paths []string
	for _, name := range names {
		if _, err := os.Stat(name); err == nil || strings.ContainsAny(name, `/\`) {
			paths = append(paths, name)
		} else {
			addresses = append(addresses, name)
		}
	}
	if len(names) == 0 {
		var err error
		if paths, err = image.Disks(); err != nil {
			return err
		}
		if len(paths) == 0 {
			return errors.New("no disks were found")
		}
	}
	failed := 0
	for _, path := range paths {
		if err := a.showDisk(ctx, path); err != nil {
			if len(names) > 0 {
				return err
			}
			failed++
			a.ui.warn("disks", path, err)
		}
	}
	if failed > 0 && failed == len(paths) {
		return fmt.Errorf("none of the disks can be read: reading them needs root")
	}
	if len(addresses) == 0 {
		return nil
	}
	return a.besides(ctx, "disks", func(r *repo.Repository) error {
		list, err := a.list(ctx, r)
		if err != nil {
			return err
		}
		for _, address := range addresses {
			name, _, one := strings.Cut(address, ":")
			s, err := snapshot.Find(list, name, f)
			if err != nil {
				return err
			}
			disks := s.Disks
			if one {
				_, d, err := snapshot.FindDisk(list, address, f)
				if err != nil {
					return err
				}
				disks = []snapshot.Disk{*d}
			}
			for i := range disks {
				a.showStored(s, &disks[i])
			}
		}
		return nil
	})
}

// partitionRow is a partition for people.
type partitionRow struct {
	number                              int
	what, name, filesystem, label, uuid string
	length, used                        int64
	mounted, note                       string
}

// showDisk shows a disk of this machine, or an image file.
func (a *app) showDisk(ctx context.Context, path string) error {
	src, err := image.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: there is no such device, file or snapshot", path)
	}
	if err != nil {
		return err
	}
	defer src.Close()
	info := src.Info()
	layout := volume.Find(src, info.Size, info.SectorSize)
	critical := layout.Critical(info.Mounted)
	scheme := ""
	if layout.Table != nil {
		scheme = layout.Table.Scheme
	}
	var rows []partitionRow
	for i := range layout.Volumes {
		v := &layout.Volumes[i]
		v.CountUsed(ctx)
		row := partitionRow{number: v.Number, filesystem: v.Info.Type, label: v.Info.Label, uuid: v.Info.UUID, length: v.Length, used: v.Info.Used,
			mounted: strings.Join(v.MountedOn(info.Mounted, info.Size), ", "), note: critical[v.Number]}
		if v.Info.Type == "" {
			row.used = -1
		}
		if p := v.Partition; p != nil {
			row.what, row.name = p.TypeName, p.Name
			if row.what == "" {
				row.what = p.Type
			}
		}
		rows = append(rows, row)
	}
	title := fmt.Sprintf("%s  %s", info.Path, size(info.Size))
	if info.Model != "" {
		title += ", model " + info.Model
	}
	if info.Serial != "" {
		title += ", serial number " + info.Serial
	}
	object := map[string]any{"message_type": "disk", "name": info.Name, "path": info.Path, "type": info.Type, "size": info.Size, "model": info.Model,
		"serial": info.Serial, "sector_size": info.SectorSize, "notes": append([]string{}, layout.Notes...)}
	a.showPartitions(title, scheme, rows, object)
	for _, note := range layout.Notes {
		a.ui.print("  note: %s", note)
	}
	a.ui.print("")
	return nil
}

// showStored shows a disk of a snapshot.
func (a *app) showStored(s *snapshot.Snapshot, d *snapshot.Disk) {
	var rows []partitionRow
	for i := range d.Volumes {
		v := &d.Volumes[i]
		row := partitionRow{number: v.Number, what: v.TypeName, name: v.Name, filesystem: v.Filesystem, label: v.Label, uuid: v.UUID, length: v.Length, used: v.Used}
		if row.what == "" {
			row.what = v.Type
		}
		if v.Used == 0 {
			row.used = -1
		}
		if v.Catalogue != nil {
			row.note = count(v.Catalogue.Files, "file", "files")
		}
		rows = append(rows, row)
	}
	title := fmt.Sprintf("%s:%s  %s, %s in chunks", shortID(s.ID), d.Name, size(d.Size), size(d.Stats.Used))
	if left := d.Stats.Free + d.Stats.Excluded; left > 0 {
		title += fmt.Sprintf(", %s left out", size(left))
	}
	object := diskObject(d)
	object["message_type"], object["snapshot_id"] = "disk", hexID(s.ID)
	a.showPartitions(title, d.Table, rows, object)
	a.ui.print("")
}

// showPartitions shows a disk.
func (a *app) showPartitions(title, scheme string, rows []partitionRow, object map[string]any) {
	partitions := []map[string]any{}
	var cells [][]string
	for _, r := range rows {
		p := map[string]any{"number": r.number, "type": r.what, "size": r.length}
		for key, value := range map[string]string{"name": r.name, "filesystem": r.filesystem, "label": r.label, "uuid": r.uuid, "mounted": r.mounted, "note": r.note} {
			if value != "" {
				p[key] = value
			}
		}
		used := ""
		if r.used >= 0 {
			p["used"] = r.used
			used = size(r.used)
		}
		partitions = append(partitions, p)
		what := r.what
		if r.name != "" && r.name != r.what {
			what = strings.TrimSpace(what + " \"" + r.name + "\"")
		}
		cells = append(cells, []string{fmt.Sprintf("p%d", r.number), what, r.filesystem, r.label, size(r.length), used, r.mounted, r.note})
	}
	object["table"], object["partitions"] = scheme, partitions
	a.ui.object(object)
	switch scheme {
	case "":
		title += ", no partition table"
	default:
		title += ", " + strings.ToUpper(scheme)
	}
	a.ui.print("%s", title)
	a.ui.table([]string{"", "Type", "Filesystem", "Label", ">Size", ">Used", "Mounted", ""}, cells)
}
