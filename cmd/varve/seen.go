package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"varve/repo"
	"varve/snapshot"
)

// seen is what this machine remembers of repositories, in seen.json in the folder of caches: whoever controls a storage can
// put another repository there, or an older state of the same one, and nothing in the storage itself would tell. It is
// lost with the cache, and then nothing is noticed.
type seen struct {
	Places map[string][]string `json:"places"` // ids of the repositories that were at a location
	Newest map[string]made     `json:"newest"` // the last snapshot that was made from here, by id of the repository

	path string // where it is kept; empty where nothing is
}

// made is a snapshot that was made here.
type made struct {
	Snapshot string    `json:"snapshot"`
	Time     time.Time `json:"time"`
}

// maxPlaces bounds how many repositories are remembered of one location: disks that take turns.
const maxPlaces = 32

// remembered reads what is remembered; what cannot be read is not.
func (a *app) remembered() *seen {
	s := &seen{}
	if dir, err := a.caches(); err == nil && dir != "" {
		s.path = filepath.Join(dir, "seen.json")
		if data, err := os.ReadFile(s.path); err == nil && json.Unmarshal(data, s) != nil {
			*s = seen{path: s.path}
		}
	}
	if s.Places == nil {
		s.Places = map[string][]string{}
	}
	if s.Newest == nil {
		s.Newest = map[string]made{}
	}
	return s
}

// keep writes it. Of two processes at the same time one's news may be lost: then it is news once more.
func (s *seen) keep() error {
	if s.path == "" {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return err
	}
	temp := fmt.Sprintf("%s.%d", s.path, os.Getpid())
	if err := os.WriteFile(temp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temp, s.path)
}

// meet notes that r was opened, and warns when other repositories were where it is, and this one never.
func (a *app) meet(r *repo.Repository) {
	s := a.remembered()
	place := r.Location()
	ids := s.Places[place]
	if slices.Contains(ids, r.ID()) {
		return
	}
	if len(ids) > 0 {
		a.ui.warn("open", "", fmt.Errorf("the repository at %s is %s, and was %s before: is the right disk there? This is told once", place, r.ID()[:10], ids[len(ids)-1][:10]))
	}
	s.Places[place] = append(ids[max(0, len(ids)-maxPlaces+1):], r.ID())
	if err := s.keep(); err != nil {
		a.ui.note("noting which repository is at %s: %v", place, err)
	}
}

// miss warns when the last snapshot that was made from here is not among those that r has now.
func (a *app) miss(r *repo.Repository, list []*snapshot.Snapshot) {
	s := a.remembered()
	last, found := s.Newest[r.ID()]
	if !found || slices.ContainsFunc(list, func(s *snapshot.Snapshot) bool {
		return hexID(s.ID) == last.Snapshot || s.Original == last.Snapshot
	}) {
		return
	}
	a.ui.warn("list", "snapshots", fmt.Errorf("snapshot %.8s, made from here at %s, is gone; unless somebody forgot it, the repository was put back to an older state", last.Snapshot, stamp(last.Time)))
	a.made(r, "")
}

// made notes the newest snapshot that was made from here; none when id is empty.
func (a *app) made(r *repo.Repository, id string) {
	s := a.remembered()
	delete(s.Newest, r.ID())
	if id != "" {
		s.Newest[r.ID()] = made{Snapshot: id, Time: time.Now()}
	}
	if err := s.keep(); err != nil {
		a.ui.note("noting the snapshot: %v", err)
	}
}

// forgotten takes note that snapshots went because somebody wanted it.
func (a *app) forgotten(r *repo.Repository, outcomes []snapshot.Outcome) {
	last := a.remembered().Newest[r.ID()].Snapshot
	for _, o := range outcomes {
		for _, s := range o.Remove {
			if last != "" && (hexID(s.ID) == last || s.Original == last) {
				a.made(r, "")
			}
		}
	}
}
