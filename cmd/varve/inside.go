package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"varve/image"
	"varve/image/filesystem"
	"varve/image/volume"
	"varve/snapshot"
	"varve/snapshot/catalogue"
)

// leaveOptions are the flags that say what a backup leaves out of a disk.
type leaveOptions struct {
	usedBlocks        string
	forensic          bool
	exclude           []string
	excludeFiles      []string
	includePartitions []string
	excludePartitions []string
	allCritical       bool
	noCatalogue       bool

	critical map[string][]int    // with allCritical: the partitions that are wanted, by the path of their disk
	patterns []catalogue.Pattern // of exclude and excludeFiles
}

func (o *leaveOptions) add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.usedBlocks, "used-blocks", "on", "leave out blocks that no filesystem uses: `on` or off")
	f.BoolVar(&o.forensic, "forensic", false, "leave nothing out: no free blocks, no swap, page or hibernation files")
	f.StringArrayVarP(&o.exclude, "exclude", "e", nil, "leave out the content of files that match `pattern` (may be given several times)")
	f.StringArrayVar(&o.excludeFiles, "exclude-file", nil, "read patterns for --exclude from `file`, one a line (may be given several times)")
	f.BoolVar(&o.allCritical, "all-critical", false, "take what a machine needs to start: of all disks, or of those that are named")
	f.StringArrayVar(&o.includePartitions, "include-partition", nil, "take only this `partition`, as p2 or sda:p2, and what is no partition (may be given several times)")
	f.StringArrayVar(&o.excludePartitions, "exclude-partition", nil, "leave out this `partition`, as p2 or sda:p2 (may be given several times)")
	f.BoolVar(&o.noCatalogue, "no-catalogue", false, "do not list the files of filesystems in the snapshot")
	_ = c.RegisterFlagCompletionFunc("used-blocks", cobra.FixedCompletions([]string{"on", "off"}, cobra.ShellCompDirectiveNoFileComp))
}

// prepare checks the flags, before anything is opened.
func (o *leaveOptions) prepare() error {
	if o.usedBlocks != "on" && o.usedBlocks != "off" {
		return fmt.Errorf("--used-blocks %q: it is on or off", o.usedBlocks)
	}
	for _, name := range o.excludeFiles {
		lines, err := patternLines(name)
		if err != nil {
			return fmt.Errorf("--exclude-file: %w", err)
		}
		o.exclude = append(o.exclude, lines...)
	}
	for _, text := range o.exclude {
		p, err := catalogue.ParsePattern(text)
		if err != nil {
			return fmt.Errorf("--exclude %q: %w", text, err)
		}
		o.patterns = append(o.patterns, p)
	}
	if o.forensic && o.allCritical {
		return errors.New("--forensic leaves nothing out: it does not go with --all-critical")
	}
	if o.forensic && len(o.exclude)+len(o.excludePartitions)+len(o.includePartitions) > 0 {
		return errors.New("--forensic leaves nothing out: it does not go with --exclude, --exclude-partition and --include-partition")
	}
	for _, list := range [][]string{o.includePartitions, o.excludePartitions} {
		for _, name := range list {
			if _, _, err := parsePartition(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// patternLines reads the patterns in a file; empty lines, and those that begin with #, are none.
func patternLines(name string) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	for s := bufio.NewScanner(io.LimitReader(f, 16<<20)); s.Scan(); {
		if line := strings.TrimSpace(s.Text()); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// parsePartition splits the name of a partition: p2, or sda:p2 where there are several disks.
func parsePartition(name string) (disk string, number int, err error) {
	part := name
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		disk, part = name[:i], name[i+1:]
	}
	digits, ok := strings.CutPrefix(part, "p")
	if number, err = strconv.Atoi(digits); !ok || err != nil || number < 1 {
		return "", 0, fmt.Errorf("%q is no partition: write p2, or sda:p2 where there are several disks", name)
	}
	return disk, number, nil
}

// chooseCritical keeps of sources the disks that a machine needs to start, and says why; the others are closed.
func (b *backup) chooseCritical(sources []image.Source) ([]image.Source, error) {
	b.options.critical = map[string][]int{}
	var kept []image.Source
	for _, src := range sources {
		info := src.Info()
		if info.Size < 0 {
			return kept, errors.New("--all-critical: what is on standard input is not known before it is read")
		}
		layout := volume.Find(src, info.Size, info.SectorSize)
		reasons := layout.Critical(info.Mounted)
		var wanted []int
		for i := range layout.Volumes {
			v := &layout.Volumes[i]
			why, is := reasons[v.Number]
			if named(b.options.includePartitions, info.Name, v.Number) {
				why, is = "--include-partition", true
			}
			if is && named(b.options.excludePartitions, info.Name, v.Number) {
				b.ui.note("%s: %s is left out (--exclude-partition), although: %s", info.Name, v, why)
				continue
			}
			if !is {
				b.ui.note("%s: %s is left out: nothing says that a machine needs it to start", info.Name, v)
				continue
			}
			b.ui.note("%s: %s: %s", info.Name, v, why)
			wanted = append(wanted, v.Number)
		}
		if len(wanted) == 0 {
			src.Close()
			continue
		}
		b.options.critical[info.Path] = wanted
		kept = append(kept, src)
	}
	if len(kept) == 0 {
		return nil, errors.New("--all-critical: nothing was found that a machine starts from; name disks, or partitions with --include-partition")
	}
	return kept, nil
}

// named reports whether a partition of a disk is in a list of names.
func named(names []string, disk string, number int) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		d, n, _ := parsePartition(name)
		return n == number && (d == "" || d == disk)
	})
}

// leftOut is what the flags ask to leave out of a disk, for its record.
func (o *leaveOptions) leftOut(name, path string) snapshot.LeftOut {
	if o.forensic {
		return snapshot.LeftOut{}
	}
	out := snapshot.LeftOut{Free: o.usedBlocks == "on", Volatile: true, Exclude: slices.Clone(o.exclude)}
	if o.allCritical {
		out.OnlyPartitions = o.critical[path]
		return out
	}
	for _, list := range []struct {
		names []string
		to    *[]int
	}{{o.includePartitions, &out.OnlyPartitions}, {o.excludePartitions, &out.Partitions}} {
		for _, p := range list.names {
			if disk, number, _ := parsePartition(p); disk == "" || disk == name {
				*list.to = append(*list.to, number)
			}
		}
	}
	return out
}

// inside is what is known of what is on a disk that is backed up.
type inside struct {
	layout  *volume.Layout
	reasons map[int]string // why a volume is read in full, by its number
}

// look finds out what is on a disk, and returns it without what is left out.
func (b *backup) look(ctx context.Context, src image.Source, name string, out snapshot.LeftOut) (image.Source, *inside, error) {
	info := src.Info()
	in := &inside{layout: volume.Find(src, info.Size, info.SectorSize), reasons: map[int]string{}}
	for _, note := range in.layout.Notes {
		b.ui.note("%s: %s", name, note)
	}
	for i := range in.layout.Volumes {
		v := &in.layout.Volumes[i]
		for _, m := range info.Mounted {
			if !m.ReadOnly && v.Holds(m, info.Size) && v.Full == "" {
				v.Full = "it is mounted on " + m.Where + " and may change meanwhile"
			}
		}
	}
	if !out.Free && !out.Volatile && len(out.Exclude)+len(out.Partitions)+len(out.OnlyPartitions) == 0 {
		return src, in, nil
	}
	for _, number := range slices.Concat(out.Partitions, out.OnlyPartitions) {
		if !slices.ContainsFunc(in.layout.Volumes, func(v volume.Volume) bool { return v.Number == number }) {
			return nil, nil, fmt.Errorf("%s has no partition p%d; 'varve disks %s' shows which it has", name, number, info.Path)
		}
	}
	want := volume.Leave{Free: out.Free, Volatile: out.Volatile, Whole: func(v *volume.Volume) bool {
		return slices.Contains(out.Partitions, v.Number) || len(out.OnlyPartitions) > 0 && !slices.Contains(out.OnlyPartitions, v.Number)
	}}
	if len(b.options.patterns) > 0 {
		want.Exclude = func(v *volume.Volume, path string) bool {
			return anyPattern(b.options.patterns, filesystem.IgnoresCase(v.Info.Type), path, catalogue.Pattern.Match)
		}
		want.Below = func(v *volume.Volume, path string) bool {
			return anyPattern(b.options.patterns, filesystem.IgnoresCase(v.Info.Type), path, catalogue.Pattern.Below)
		}
	}
	left, err := in.layout.LeaveOut(ctx, want, func(v *volume.Volume, why string) {
		in.reasons[v.Number] = why
		if v.Info.Type != "" {
			b.ui.note("%s: %s is read in full, because %s", name, v, why)
		}
	})
	if err != nil {
		return nil, nil, err
	}
	return image.Mask(src, left.Runs), in, nil
}

func anyPattern(list []catalogue.Pattern, ignoreCase bool, path string, is func(catalogue.Pattern, string) bool) bool {
	return slices.ContainsFunc(list, func(p catalogue.Pattern) bool {
		if ignoreCase {
			p = p.IgnoreCase()
		}
		return is(p, path)
	})
}

// record notes in d what is on it.
func (in *inside) record(d *snapshot.Disk) {
	d.Table, d.Volumes = "", nil
	if in.layout.Table != nil {
		d.Table = in.layout.Table.Scheme
	}
	for i := range in.layout.Volumes {
		v := &in.layout.Volumes[i]
		x := snapshot.Volume{Number: v.Number, Offset: v.Start, Length: v.Length, Filesystem: v.Info.Type, Label: v.Info.Label, UUID: v.Info.UUID,
			Used: max(0, v.Info.Used), InFull: in.reasons[v.Number]}
		if p := v.Partition; p != nil {
			x.Type, x.TypeName, x.ID, x.Name = p.Type, p.TypeName, p.ID, p.Name
		}
		d.Volumes = append(d.Volumes, x)
	}
}

// list makes the catalogues of the volumes of d whose files can be read. Those of the parent are taken over where nothing has changed.
func (b *backup) list(ctx context.Context, in *inside, d, parent *snapshot.Disk) error {
	if b.options.noCatalogue {
		return nil
	}
	digester := snapshot.NewDigester(ctx, b.repo, d)
	saver, err := b.tree.next()
	if err != nil {
		return err
	}
	for i := range in.layout.Volumes {
		v := &in.layout.Volumes[i]
		tree, ok := v.FS.(filesystem.Tree)
		if !ok || slices.Contains(d.LeftOut.Partitions, v.Number) || len(d.LeftOut.OnlyPartitions) > 0 && !slices.Contains(d.LeftOut.OnlyPartitions, v.Number) {
			continue
		}
		if known := b.listed(d, parent, &d.Volumes[i]); known != nil {
			d.Volumes[i].Catalogue = known
			continue
		}
		b.ui.stepTo(fmt.Sprintf("listing the files of %s p%d", d.Name, v.Number), 0, 0)
		root, err := catalogue.Build(ctx, tree, saver, catalogue.BuildOptions{
			Digest: func(extents []filesystem.Extent) (catalogue.Digest, error) {
				ranges := make([]snapshot.Range, len(extents))
				for k, e := range extents {
					switch e.Kind {
					case filesystem.Hole:
						ranges[k] = snapshot.Range{Offset: d.Size, Length: e.Length} // behind the end there are only holes
					default:
						ranges[k] = snapshot.Range{Offset: v.Start + e.Disk, Length: e.Stored}
					}
				}
				return digester.Digest(ranges)
			},
		})
		if err != nil {
			return err
		}
		if root.Problems > 0 {
			b.ui.note("%s: of the files on %s, %d could not be listed in full; the disk itself is stored", d.Name, v, root.Problems)
		}
		d.Volumes[i].Catalogue = &root
	}
	b.ui.endSteps()
	return nil
}

// listed returns the catalogue of a volume that the parent has, when it is certain that it is the same.
func (b *backup) listed(d, parent *snapshot.Disk, v *snapshot.Volume) *catalogue.Root {
	if parent == nil || d.Root != parent.Root || d.Size != parent.Size {
		return nil
	}
	for i := range parent.Volumes {
		if x := &parent.Volumes[i]; x.Catalogue != nil && x.Number == v.Number && x.Range() == v.Range() && x.Filesystem == v.Filesystem &&
			b.repo.Trusted(snapshot.ID(x.Catalogue.ID)) {
			return x.Catalogue
		}
	}
	return nil
}
