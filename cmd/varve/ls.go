package main

import (
	"context"
	"errors"
	"io/fs"

	"github.com/spf13/cobra"
	"varve/repo"
	"varve/snapshot"
	"varve/snapshot/catalogue"
)

func (a *app) lsCommand() *cobra.Command {
	var filter filterFlags
	var long, recursive bool
	c := &cobra.Command{
		Use:   "ls [flags] SNAPSHOT[:DISK][:pN[/PATH]]",
		Short: "list files on a disk of a snapshot",
		Long: `The ls command lists what is in a folder on a partition of a disk, or names one file. Nothing of the disk is read: the
snapshot has a list of the files of each filesystem that varve can read.

pN is the number of the partition as the system counts them; a disk without partitions is its own p1. It can be left
out where only one has files.` + exits(exitNoRepository, exitLocked, exitWrongPassword),
		Example: `  varve ls latest:p2/
  varve ls 1a2b3c4d:p3/Users/ann --long
  varve ls latest:sda:p2/etc --recursive --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.besides(c.Context(), "ls", func(r *repo.Repository) error {
				return a.ls(c.Context(), r, args[0], filter.filter(), long, recursive)
			})
		},
	}
	filter.add(c)
	c.Flags().BoolVarP(&long, "long", "l", false, "show modes, owners, sizes and times")
	c.Flags().BoolVar(&recursive, "recursive", false, "list what is in folders, too")
	return c
}

// besides opens the repository and runs f, which reads, under a lease.
func (a *app) besides(ctx context.Context, purpose string, f func(*repo.Repository) error) error {
	return a.with(ctx, func(r *repo.Repository) error {
		return a.patiently(ctx, func() error {
			return r.Beside(ctx, purpose, func() error { return f(r) })
		})
	})
}

func (a *app) ls(ctx context.Context, r *repo.Repository, address string, f snapshot.Filter, long, recursive bool) error {
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
	files, err := a.listing(ctx, r, at)
	if err != nil {
		return err
	}
	top, err := files.lookup(ctx, at.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return noSuchFile(at)
	}
	if err != nil {
		return err
	}
	prefix := cleanPath(at.Path)
	show := func(path, shown string, e *catalogue.Entry) {
		a.ui.object(entryObject("node", path, e))
		if long {
			shown = longEntry(shown, e)
		}
		a.ui.print("%s", shown)
	}
	if !top.Mode.IsDir() {
		show(prefix, prefix, &top)
		return nil
	}
	var walk func(prefix string, folder catalogue.Entry) error
	walk = func(prefix string, folder catalogue.Entry) error {
		return files.list(ctx, folder, func(e catalogue.Entry) error {
			path := prefix + "/" + e.Name
			if !recursive {
				show(path, e.Name, &e)
				return ctx.Err()
			}
			show(path, path, &e)
			if e.Mode.IsDir() {
				return walk(path, e)
			}
			return ctx.Err()
		})
	}
	if err := walk(prefix, top); err != nil {
		return err
	}
	if top.Incomplete {
		a.ui.warn("ls", at.Path, errors.New("this folder could not be read in full when the snapshot was made: there may be more in it"))
	}
	return nil
}

// cleanPath is a path with one slash before each name, "" for the root.
func cleanPath(path string) string {
	clean := ""
	for name := range splitPath(path) {
		clean += "/" + name
	}
	return clean
}
