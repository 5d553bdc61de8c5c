package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

// cacheFolder is the cache of one repository.
type cacheFolder struct {
	ID    string
	Path  string
	Bytes int64
	Used  time.Time // when something in it was last written
}

// findCaches lists the caches in dir. What is not named as one is left out.
func findCaches(dir string) ([]cacheFolder, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var caches []cacheFolder
	for _, e := range entries {
		if _, err := hex.DecodeString(e.Name()); err != nil || len(e.Name()) != 32 || !e.IsDir() {
			continue
		}
		c := cacheFolder{ID: e.Name(), Path: filepath.Join(dir, e.Name())}
		_ = filepath.WalkDir(c.Path, func(_ string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil // gone meanwhile, or not ours to read: it is not counted
			}
			if info, err := e.Info(); err == nil {
				if info.Mode().IsRegular() {
					c.Bytes += info.Size()
				}
				if info.ModTime().After(c.Used) {
					c.Used = info.ModTime()
				}
			}
			return nil
		})
		caches = append(caches, c)
	}
	return caches, nil
}

func (a *app) cacheCommand() *cobra.Command {
	var cleanup bool
	var maxAge int
	c := &cobra.Command{
		Use:   "cache",
		Short: "list and remove caches on this machine",
		Long: `The cache command lists the caches that varve keeps on this machine, one for each repository. With --cleanup it removes
those that were not used for --max-age days. A cache that is gone is made again when it is needed.` + exits(),
		Example: "  varve cache\n  varve cache --cleanup --max-age 7",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			dir, err := a.caches()
			if err != nil {
				return err
			}
			if dir == "" {
				return errors.New("no cache is kept: --no-cache was given, or there is no place for it")
			}
			if maxAge < 0 {
				return errors.New("--max-age: it is a number of days")
			}
			caches, err := findCaches(dir)
			if err != nil {
				return err
			}
			old := time.Now().AddDate(0, 0, -maxAge)
			objects := []map[string]any{}
			var rows [][]string
			var freed int64
			for _, c := range caches {
				removed := false
				if cleanup && c.Used.Before(old) {
					if err := os.RemoveAll(c.Path); err != nil {
						return fmt.Errorf("removing a cache: %w", err)
					}
					removed = true
					freed += c.Bytes
				}
				objects = append(objects, map[string]any{"id": c.ID, "path": c.Path, "size": c.Bytes, "last_used": c.Used, "removed": removed})
				state := ""
				if removed {
					state = "removed"
				}
				rows = append(rows, []string{c.ID[:10], stamp(c.Used), size(c.Bytes), state})
			}
			a.ui.object(objects)
			a.ui.table([]string{"Repository", "Last used", ">Size", ""}, rows)
			a.ui.print("%s in %s", count(int64(len(caches)), "cache", "caches"), dir)
			if freed > 0 {
				a.ui.say("freed %s", size(freed))
			}
			return nil
		},
	}
	c.Flags().BoolVar(&cleanup, "cleanup", false, "remove caches that were not used for a while")
	c.Flags().IntVar(&maxAge, "max-age", 30, "`days` after which a cache counts as not used")
	return c
}
