package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"varve/image"
	"varve/image/filesystem/extract"
	"varve/repo"
	"varve/snapshot"
)

type dumpOptions struct {
	filter  filterFlags
	target  string
	archive string
	stream  string
}

func (a *app) dumpCommand() *cobra.Command {
	var o dumpOptions
	c := &cobra.Command{
		Use:   "dump [flags] SNAPSHOT[:DISK][:pN[/PATH]]",
		Short: "write a file, a folder as an archive, or a whole disk to standard output",
		Long: `The dump command writes what a snapshot has to standard output or to a file: a file as it is, a folder as a tar or zip
archive, a partition or disk as its bytes, holes as zeros ('varve restore' makes sparse files, and is faster).

Files are read out of the disk's image by varve itself; nothing is mounted. "p2/" is all files of a partition, "p2"
the partition.

What of a folder cannot be read is told and left out, and the exit status is 1.` + exits(exitNoRepository, exitLocked, exitWrongPassword),
		Example: `  varve dump latest:p2/etc/fstab
  varve dump 1a2b3c4d:p3/Users/ann/Documents --archive zip --target ann.zip
  varve dump latest:sda:p1 | gzip > esp.img.gz`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if o.archive != "tar" && o.archive != "zip" {
				return fmt.Errorf("--archive %q: it is tar or zip", o.archive)
			}
			return a.besides(c.Context(), "dump", func(r *repo.Repository) error { return a.dump(c.Context(), r, args[0], o) })
		},
	}
	o.filter.add(c)
	f := c.Flags()
	f.StringVarP(&o.target, "target", "t", "", "write to `file` instead of standard output")
	f.StringVarP(&o.archive, "archive", "a", "tar", "`kind` of archive for a folder: tar or zip")
	f.StringVar(&o.stream, "stream", "", "the stream of this `name` instead of the content (NTFS)")
	_ = c.RegisterFlagCompletionFunc("archive", cobra.FixedCompletions([]string{"tar", "zip"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (a *app) dump(ctx context.Context, r *repo.Repository, address string, o dumpOptions) (err error) {
	list, err := a.list(ctx, r)
	if err != nil {
		return err
	}
	at, err := snapshot.FindAddress(list, address, o.filter.filter())
	if err != nil {
		return err
	}
	to, end, err := a.dumpTarget(r, o.target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end(err == nil)) }()
	switch {
	case at.Volume == nil:
		_, err = io.Copy(to, contextReader{ctx, section(ctx, r, at.Disk, snapshot.Range{Length: at.Disk.Size})})
		return err
	case at.Path == "":
		_, err = io.Copy(to, contextReader{ctx, section(ctx, r, at.Disk, at.Volume.Range())})
		return err
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
	var result extract.Result
	failed := func(name string, err error) { a.ui.warn("dump", name, err) }
	switch {
	case file.Mode.IsRegular():
		content, err := tree.Open(file.Number, o.stream)
		if err != nil {
			return err
		}
		return extract.Copy(ctx, content, to)
	case !file.Mode.IsDir():
		return fmt.Errorf("%s is neither a file nor a folder: 'varve ls --long' shows what it is", at.Path)
	case o.archive == "zip":
		result, err = extract.Zip(ctx, tree, file.Number, baseName(at.Path), to, failed)
	default:
		result, err = extract.Tar(ctx, tree, file.Number, baseName(at.Path), to, failed)
	}
	if err != nil {
		return err
	}
	if result.Failed > 0 {
		return fmt.Errorf("%w: %s could not be written to the archive", errDamaged, count(result.Failed, "file", "files"))
	}
	return nil
}

// dumpTarget opens where a dump goes. end is called with whether all went well: otherwise a new file is removed.
func (a *app) dumpTarget(r *repo.Repository, name string) (w io.Writer, end func(whole bool) error, err error) {
	if name == "" || name == "-" {
		if a.ui.json {
			return nil, nil, errors.New("--json: with it standard output is for objects; name a file with --target")
		}
		return a.ui.out, func(bool) error { return nil }, nil
	}
	if err := a.guard(r, name); err != nil {
		return nil, nil, err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, nil, fmt.Errorf("%w: %s exists; name a new file", image.ErrUnsafe, name)
	}
	if err != nil {
		return nil, nil, err
	}
	return f, func(whole bool) error {
		var err error
		if whole {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
		if !whole || err != nil {
			os.Remove(name)
		}
		return err
	}, nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p[:min(len(p), 4<<20)])
}

// baseName is the last name of a path on a volume, "." for the root.
func baseName(name string) string {
	name = cleanPath(name)
	if name == "" {
		return "."
	}
	return name[strings.LastIndexByte(name, '/')+1:]
}
