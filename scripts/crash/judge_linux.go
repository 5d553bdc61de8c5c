package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"varve/repo"
	"varve/repo/storage"
	"varve/snapshot"
)

// promised is what must be found after a power cut at some moment.
type promised struct {
	opens bool     // the repository is there
	clean bool     // a check finds nothing
	tags  []string // of snapshots that are there
	doing string   // what was under way
}

// promise returns what was promised when n changes had been made to the device: what a command did that had ended.
func (s *session) promise(n int) promised {
	p := promised{clean: true, doing: "nothing"}
	gone := func(st step) {
		p.tags = slices.DeleteFunc(p.tags, func(tag string) bool { return slices.Contains(st.removes, tag) })
	}
	for _, st := range s.steps {
		switch {
		case st.end <= n:
			p.opens = true
			gone(st)
			if st.makes != "" {
				p.tags = append(p.tags, st.makes)
			}
		case st.begin < n:
			gone(st) // they may be there or not
			p.doing = st.String()
			p.clean = !st.keys
		}
	}
	return p
}

// judge looks at what a power cut has left below the mount, as a user would whose machine is back, and returns what is lost
// or wrong, and the tags of the snapshots that are there.
func (s *session) judge(ctx context.Context, p promised) (tags []string, err error) {
	at, err := found(ctx, filepath.Join(s.mount, "repository"))
	if err == nil {
		var r *repo.Repository
		if r, err = repo.Open(ctx, at, repo.Options{Password: []byte(password)}); err == nil {
			defer r.Close()
			return s.judgeOpen(ctx, r, p)
		}
	}
	if p.opens {
		return nil, fmt.Errorf("the repository does not open: %w", err)
	}
	return nil, nil // it was being made
}

// found returns a copy of the storage in a folder: what has no files open can be unmounted.
func found(ctx context.Context, folder string) (storage.Storage, error) {
	from, err := storage.OpenLocal(folder, false)
	if err != nil {
		return nil, err
	}
	to := storage.NewMemory()
	return to, from.List(ctx, "", func(name string, _ int64) error {
		data, err := from.Get(ctx, name, 0, -1, nil)
		if err != nil {
			return err
		}
		return to.Put(ctx, name, data)
	})
}

func (s *session) judgeOpen(ctx context.Context, r *repo.Repository, p promised) (tags []string, err error) {
	var mu sync.Mutex
	var problems []error
	problem := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		problems = append(problems, err)
	}
	list, err := snapshot.List(ctx, r, problem)
	if err != nil {
		return nil, err
	}
	for _, snap := range list {
		tag := snap.Tags[slices.IndexFunc(snap.Tags, func(tag string) bool { return strings.HasPrefix(tag, "day") })]
		tags = append(tags, tag)
		got, err := io.ReadAll(io.NewSectionReader(snapshot.NewReader(ctx, r, &snap.Disks[0]), 0, snap.Disks[0].Size))
		if err != nil {
			problem(fmt.Errorf("reading the snapshot of %s: %w", tag, err))
		} else if !bytes.Equal(got, s.days[tag]) {
			problem(fmt.Errorf("the snapshot of %s reads back as something else", tag))
		}
	}
	for _, tag := range p.tags {
		if !slices.Contains(tags, tag) {
			problem(fmt.Errorf("the snapshot of %s is lost", tag))
		}
	}
	if p.clean {
		_, err = r.Check(ctx, repo.CheckOptions{Select: repo.EveryPack}, func(ctx context.Context, node func(repo.ID) bool, chunk func(repo.ID)) error {
			return snapshot.Walk(ctx, r, list, snapshot.Walker{Node: node, Chunk: chunk})
		}, problem)
	}
	return tags, errors.Join(append(problems, err)...)
}

// goOn does what a user does then, with the program itself and the index that the power cut has left: all commands work.
func (s *session) goOn(p promised) error {
	if !p.opens {
		return nil
	}
	disk, want := filepath.Join(s.folder, "again.img"), s.days["day1"]
	if err := os.WriteFile(disk, want, 0o600); err != nil {
		return err
	}
	restored := filepath.Join(s.folder, "restored.img")
	defer os.Remove(restored)
	for _, args := range [][]string{
		{"backup", "-q", "--host", "other", disk},
		{"prune", "-q"},
		{"check", "-q", "--read-data"},
		{"restore", "-q", "latest", "--target", restored},
	} {
		r, err := s.start(args, func() {})
		if err == nil {
			err = r.wait()
		}
		if err != nil && p.clean {
			return fmt.Errorf("and then %w", err)
		}
	}
	if got, err := os.ReadFile(restored); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("and then a backup is restored as something else: %w", err)
	}
	return nil
}
