package snapshot

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
	"strings"
)

// Records is where the records of snapshots are kept.
type Records interface {
	Records(ctx context.Context) ([]ID, error)
	Record(ctx context.Context, id ID) ([]byte, error) // fs.ErrNotExist when there is no such record (any more)
}

// List reads all snapshots, oldest first. A record that cannot be read is passed to damaged and left out.
func List(ctx context.Context, r Records, damaged func(error)) ([]*Snapshot, error) {
	ids, err := r.Records(ctx)
	if err != nil {
		return nil, err
	}
	var list []*Snapshot
	for _, id := range ids {
		record, err := r.Record(ctx, id)
		var s *Snapshot
		if err == nil {
			s, err = Decode(id, record)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since the records were listed
		}
		if err != nil {
			damaged(err)
			continue
		}
		list = append(list, s)
	}
	sort.SliceStable(list, func(i, j int) bool {
		if !list[i].Time.Equal(list[j].Time) {
			return list[i].Time.Before(list[j].Time)
		}
		return string(list[i].ID[:]) < string(list[j].ID[:])
	})
	return list, nil
}

// Filter selects snapshots. Each field that is not empty has to fit.
type Filter struct {
	Hosts []string   // one of them
	Disks []string   // it has a disk of one of these names or paths
	Tags  [][]string // it has all tags of one of these lists; a list of one empty tag fits snapshots without tags
}

// Match reports whether f selects s.
func (f Filter) Match(s *Snapshot) bool {
	if len(f.Hosts) > 0 && !slices.Contains(f.Hosts, s.Host) {
		return false
	}
	if len(f.Disks) > 0 && !slices.ContainsFunc(s.Disks, func(d Disk) bool {
		return slices.Contains(f.Disks, d.Name) || slices.Contains(f.Disks, d.Path)
	}) {
		return false
	}
	return len(f.Tags) == 0 || slices.ContainsFunc(f.Tags, s.HasTags)
}

// Select returns those of list that f selects.
func (f Filter) Select(list []*Snapshot) []*Snapshot {
	var selected []*Snapshot
	for _, s := range list {
		if f.Match(s) {
			selected = append(selected, s)
		}
	}
	return selected
}

// ErrNoSnapshot says that an address names no snapshot, or more than one.
var ErrNoSnapshot = errors.New("no such snapshot")

// Find returns the snapshot of list, oldest first, that name means: the start of its id or of the id that it had before
// its tags were changed, or "latest" for the newest that f selects.
func Find(list []*Snapshot, name string, f Filter) (*Snapshot, error) {
	if name == "latest" {
		selected := f.Select(list)
		if len(selected) == 0 {
			return nil, fmt.Errorf("%w: there is none yet, or none that --host, --tag and --disk select", ErrNoSnapshot)
		}
		return selected[len(selected)-1], nil
	}
	if name == "" {
		return nil, fmt.Errorf("%w: the id is missing; 'varve snapshots' lists them, and latest is the newest", ErrNoSnapshot)
	}
	var found []*Snapshot
	for _, s := range list {
		if strings.HasPrefix(hex.EncodeToString(s.ID[:]), name) {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		for _, s := range list {
			if strings.HasPrefix(s.Original, name) {
				found = append(found, s)
			}
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: %q; 'varve snapshots' lists them, and latest is the newest", ErrNoSnapshot, name)
	case 1:
		return found[0], nil
	}
	return nil, fmt.Errorf("%w: %q is the start of the ids of %d snapshots; write more of it", ErrNoSnapshot, name, len(found))
}

// FindDisk returns the snapshot and the disk that an address means: SNAPSHOT or SNAPSHOT:DISK.
func FindDisk(list []*Snapshot, address string, f Filter) (*Snapshot, *Disk, error) {
	name, disk, named := strings.Cut(address, ":")
	s, err := Find(list, name, f)
	if err != nil {
		return nil, nil, err
	}
	// A filter that selects one disk by name says which disk is meant as well.
	if !named && len(s.Disks) > 1 && len(f.Disks) == 1 {
		for i := range s.Disks {
			if s.Disks[i].Name == f.Disks[0] || s.Disks[i].Path == f.Disks[0] {
				return s, &s.Disks[i], nil
			}
		}
	}
	d, err := s.Disk(disk)
	return s, d, err
}
