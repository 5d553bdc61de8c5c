package snapshot

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Replacer replaces one record by another: repo.Repository does.
type Replacer interface {
	ReplaceRecord(ctx context.Context, old ID, data []byte) (ID, error)
}

// Replace stores a changed snapshot in place of what it was, and sets its new id. Original keeps the first one.
func Replace(ctx context.Context, r Replacer, s *Snapshot) error {
	changed := *s
	if changed.Original == "" {
		changed.Original = hex.EncodeToString(s.ID[:])
	}
	record, err := changed.Encode()
	if err != nil {
		return err
	}
	if changed.ID, err = r.ReplaceRecord(ctx, s.ID, record); err != nil {
		return err
	}
	*s = changed
	return nil
}

// Tagging says how tags change: to Set when that is not nil, else by Add and Remove.
type Tagging struct{ Set, Add, Remove []string }

// Apply changes the tags of s and reports whether they are others now.
func (t Tagging) Apply(s *Snapshot) bool {
	before := s.Tags
	var tags []string
	add := func(list []string) {
		for _, tag := range list {
			if !slices.Contains(tags, tag) && (t.Set != nil || !slices.Contains(t.Remove, tag)) {
				tags = append(tags, tag)
			}
		}
	}
	if t.Set != nil {
		add(t.Set)
	} else {
		add(s.Tags)
		add(t.Add)
	}
	s.Tags = tags
	return !slices.Equal(before, tags)
}

// Outcome is what forgetting does to one group.
type Outcome struct {
	Group
	Keep   []Kept
	Remove []*Snapshot
}

// Errors of Forget and ForgetNamed.
var (
	ErrNoPolicy  = errors.New("nothing says which snapshots to keep")
	ErrRemoveAll = errors.New("all snapshots of a group would go")
	ErrHeld      = errors.New("the snapshot is held")
)

// Forget applies p to each group of list by itself. It refuses to remove all snapshots of a group, unless removeAll.
func Forget(list []*Snapshot, by []string, p Policy, removeAll bool, now time.Time) ([]Outcome, error) {
	if p.Empty() && !removeAll {
		return nil, fmt.Errorf("%w: give at least one --keep flag, or name snapshots", ErrNoPolicy)
	}
	groups, err := GroupBy(list, by)
	if err != nil {
		return nil, err
	}
	var outcomes []Outcome
	for _, g := range groups {
		o := Outcome{Group: g}
		o.Keep, o.Remove = p.Apply(g.Snapshots, now)
		if len(o.Keep) == 0 && !removeAll {
			return nil, fmt.Errorf("%w: host %q, disks %q, tags %q; if that is what you want, say --unsafe-allow-remove-all", ErrRemoveAll, g.Host, g.Disks, g.Tags)
		}
		outcomes = append(outcomes, o)
	}
	return outcomes, nil
}

// ForgetNamed removes the snapshots that are named: ErrNoSnapshot, or ErrHeld when one is held.
func ForgetNamed(list []*Snapshot, names []string, f Filter) (Outcome, error) {
	var o Outcome
	for _, name := range names {
		s, err := Find(list, name, f)
		if err != nil {
			return Outcome{}, err
		}
		if s.Held {
			return Outcome{}, fmt.Errorf("%w: %s; 'varve release %s' lets it go", ErrHeld, short(s.ID), short(s.ID))
		}
		if !slices.Contains(o.Remove, s) {
			o.Remove = append(o.Remove, s)
		}
	}
	for _, s := range list {
		if !slices.Contains(o.Remove, s) {
			o.Keep = append(o.Keep, Kept{s, nil})
		}
	}
	return o, nil
}
