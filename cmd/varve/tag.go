package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"
	"varve/repo"
	"varve/snapshot"
)

func (a *app) tagCommand() *cobra.Command {
	var filter filterFlags
	var set, add, remove []string
	c := &cobra.Command{
		Use:   "tag [flags] [SNAPSHOT...]",
		Short: "change the tags of snapshots",
		Long: `The tag command changes the tags of the snapshots that are named, or else of all that --host, --tag and --disk select. A
snapshot gets a new id with its new tags; the first one still finds it. --set "" takes all tags away.` +
			exits(exitNoRepository, exitLocked, exitWrongPassword, exitAppendOnly),
		Annotations: removes,
		Example: `  varve tag --add before-upgrade latest
  varve tag --remove nightly --host db1
  varve tag --set golden,2026 1a2b3c4d`,
		RunE: func(c *cobra.Command, args []string) error {
			t, err := tagging(set, add, remove)
			if err != nil {
				return err
			}
			return a.change(c.Context(), args, filter.filter(), "tag", t.Apply)
		},
	}
	filter.add(c)
	c.Flags().StringArrayVar(&set, "set", nil, "the `tag[,tag]` that the snapshots are to have (may be given several times)")
	c.Flags().StringArrayVar(&add, "add", nil, "`tag[,tag]` to add (may be given several times)")
	c.Flags().StringArrayVar(&remove, "remove", nil, "`tag[,tag]` to take away (may be given several times)")
	return c
}

// tagging reads the flags of tag.
func tagging(set, add, remove []string) (t snapshot.Tagging, err error) {
	switch {
	case len(set)+len(add)+len(remove) == 0:
		return t, errors.New("how are the tags to change? say --set, --add or --remove")
	case len(set) > 0 && len(add)+len(remove) > 0:
		return t, errors.New("--set excludes --add and --remove")
	case len(set) == 1 && set[0] == "":
		return snapshot.Tagging{Set: []string{}}, nil
	}
	if t.Set, err = parseTags(set); err != nil {
		return t, err
	}
	if t.Add, err = parseTags(add); err != nil {
		return t, err
	}
	t.Remove, err = parseTags(remove)
	return t, err
}

func (a *app) holdCommand() *cobra.Command {
	return a.holding("hold", true, []string{"protect"}, "keep snapshots from being forgotten",
		"The hold command protects snapshots: forget leaves them alone, whatever its policy, until they are released.",
		"  varve hold latest\n  varve hold 1a2b3c4d 5e6f7a8b")
}

func (a *app) releaseCommand() *cobra.Command {
	return a.holding("release", false, []string{"unprotect"}, "let held snapshots be forgotten again",
		"The release command takes back what hold did.", "  varve release 1a2b3c4d")
}

func (a *app) holding(name string, held bool, aliases []string, short, long, example string) *cobra.Command {
	var filter filterFlags
	c := &cobra.Command{
		Use:         name + " [flags] SNAPSHOT...",
		Aliases:     aliases,
		Short:       short,
		Long:        long + "\n\nA snapshot gets a new id by that; the first one still finds it." + exits(exitNoRepository, exitLocked, exitWrongPassword, exitAppendOnly),
		Annotations: removes,
		Example:     example,
		Args:        cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.change(c.Context(), args, filter.filter(), name, func(s *snapshot.Snapshot) bool {
				changed := s.Held != held
				s.Held = held
				return changed
			})
		},
	}
	filter.add(c)
	return c
}

// change replaces the records of snapshots that f changes.
func (a *app) change(ctx context.Context, names []string, filter snapshot.Filter, purpose string, f func(*snapshot.Snapshot) (changed bool)) error {
	return a.with(ctx, func(r *repo.Repository) error {
		return a.patiently(ctx, func() error {
			// Of two that change one snapshot at the same time, each would leave its own copy.
			return r.Maintain(ctx, purpose, func() error {
				list, err := a.selected(ctx, r, names, filter)
				if err != nil {
					return err
				}
				n := int64(0)
				for _, s := range list {
					old := s.ID
					if !f(s) {
						continue
					}
					if err := snapshot.Replace(ctx, r, s); err != nil {
						return err
					}
					n++
					a.ui.object(map[string]any{"message_type": "changed", "old_snapshot_id": hexID(old), "new_snapshot_id": hexID(s.ID)})
					a.ui.say("snapshot %s is now %s", shortID(old), shortID(s.ID))
				}
				a.ui.object(map[string]any{"message_type": "summary", "changed_snapshots": n})
				a.ui.say("%s changed", count(n, "snapshot", "snapshots"))
				return nil
			})
		})
	})
}
