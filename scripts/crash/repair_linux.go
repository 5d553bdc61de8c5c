package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"varve/repo"
	"varve/snapshot"
)

// A repair is killed in the middle of what it makes good again. So before each one something is damaged on purpose. From then
// on no byte of any disk that can be read may become unreadable, whenever the repair ends; and what comes next makes good what
// can be made good. In the end the damaged files are put back as they were, which is all that a repository needs.

// ruin is damage that was done on purpose.
type ruin struct {
	files map[string][]byte // as they were, by path
	ends  int               // the status with which the repair of it may end, beside 0
	args  []string          // of the repair; empty: those of the work
	root  snapshot.Root     // of the disk whose record is gone, where it is a record
	sign  string            // a file that appears when the repair begins to change something; may be empty
	packs bool              // the next backup has to store again what it finds on the disk
	cache bool              // it is the cache: the database below the index may die of it, twice while it is opened and once before
}

// take keeps a file as it is and puts harm in its place; nil removes it.
func (r *ruin) take(path string, harm func(data []byte) []byte) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if _, twice := r.files[path]; !twice {
		r.files[path] = data
	}
	if harmed := harm(bytes.Clone(data)); harmed != nil {
		return os.WriteFile(path, harmed, 0o600)
	}
	return os.Remove(path)
}

// undo puts the files back.
func (r *ruin) undo() error {
	for path, data := range r.files {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// harm returns one of the ways in which a file is damaged.
func (k *killer) harm(canGo bool) func(data []byte) []byte {
	n := 4
	if canGo {
		n++
	}
	switch k.random.IntN(n) {
	case 0: // some bits
		return func(data []byte) []byte {
			for range min(len(data), 1+k.random.IntN(3)) {
				data[k.random.IntN(len(data))] ^= 1 << k.random.IntN(8)
			}
			return data
		}
	case 1: // a page
		return func(data []byte) []byte {
			at := k.random.IntN(len(data)/pageSize+1) * pageSize
			clear(data[at:min(len(data), at+pageSize)])
			return data
		}
	case 2: // its end
		return func(data []byte) []byte { return data[:k.random.IntN(len(data)+1)] }
	case 3: // what its end says
		return func(data []byte) []byte {
			for i := max(0, len(data)-100); i < len(data); i++ {
				data[i] = byte(k.random.Uint32())
			}
			return data
		}
	}
	return func([]byte) []byte { return nil }
}

// files returns the files of a folder of the mount, and of those below it.
func (k *killer) files(folder string) (paths []string, err error) {
	err = filepath.WalkDir(filepath.Join(k.mount, folder), func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
			paths = append(paths, path)
		}
		return err
	})
	return paths, err
}

// some does harm to one or two of the files.
func (k *killer) some(r *ruin, paths []string, most int, canGo bool) error {
	for range 1 + k.random.IntN(most) {
		if err := r.take(paths[k.random.IntN(len(paths))], k.harm(canGo)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err // it may be one that has gone just now
		}
	}
	return nil
}

func (k *killer) ruinPacks() (*ruin, error) {
	r := &ruin{files: map[string][]byte{}, ends: 1, packs: true, sign: filepath.Join(k.mount, "repository/quarantine/packs")}
	packs, err := k.files("repository/packs")
	if err != nil {
		return nil, err
	}
	return r, k.some(r, packs, 2, false)
}

// ruinCopy damages one of what is there twice.
func (k *killer) ruinCopy() (*ruin, error) {
	r := &ruin{files: map[string][]byte{}}
	var twice []string
	for _, folder := range []string{"repository/keys", "repository/snapshots"} {
		files, err := k.files(folder)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if slices.Contains(files, file+".copy") {
				twice = append(twice, file, file+".copy")
			}
		}
	}
	twice = append(twice, filepath.Join(k.mount, "repository/config"), filepath.Join(k.mount, "repository/config.copy"))
	return r, r.take(twice[k.random.IntN(len(twice))], k.harm(true))
}

// ruinRecord damages the record of one snapshot, with its copy.
func (k *killer) ruinRecord() (*ruin, error) {
	r := &ruin{files: map[string][]byte{}}
	list, err := k.list()
	if err != nil {
		return nil, err
	}
	roots := map[snapshot.Root]int{}
	for _, s := range list {
		roots[s.Disks[0].Root]++
	}
	list = slices.DeleteFunc(list, func(s *snapshot.Snapshot) bool { return roots[s.Disks[0].Root] > 1 }) // another one would have its tree
	if len(list) == 0 {
		return nil, nil
	}
	s := list[k.random.IntN(len(list))]
	r.root = s.Disks[0].Root
	r.args = []string{"repair", "snapshots", "--json", "--recover", hex.EncodeToString(r.root[:])}
	records, err := filepath.Glob(filepath.Join(k.mount, "repository/snapshots", hex.EncodeToString(s.ID[:])+"*"))
	if err != nil {
		return nil, err
	}
	for _, record := range records {
		if err := r.take(record, k.harm(true)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// ruinCache damages what the machine keeps for itself. It is not put back: nobody misses it.
func (k *killer) ruinCache() (*ruin, error) {
	r := &ruin{files: map[string][]byte{}, cache: true}
	cache, err := k.files("cache")
	if errors.Is(err, fs.ErrNotExist) { // who should have made it anew was killed before
		err = nil
	} else if err == nil && len(cache) > 0 {
		err = k.some(r, cache, 3, true)
	}
	clear(r.files)
	return r, err
}

// open opens a copy of the repository as another machine does, or with a copy of the cache as this one does.
func (k *killer) open(ctx context.Context, cached bool) (*repo.Repository, error) {
	at, err := found(ctx, filepath.Join(k.mount, "repository"))
	if err != nil {
		return nil, err
	}
	o := repo.Options{Password: []byte(password)}
	if cached {
		o.CacheDir = filepath.Join(k.folder, "cache")
		if err := os.RemoveAll(o.CacheDir); err != nil {
			return nil, err
		}
		if err := os.CopyFS(o.CacheDir, os.DirFS(filepath.Join(k.mount, "cache"))); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return repo.Open(ctx, at, o)
}

// list returns the snapshots whose records can be read.
func (k *killer) list() ([]*snapshot.Snapshot, error) {
	ctx := context.Background()
	r, err := k.open(ctx, false)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return snapshot.List(ctx, r, func(error) {})
}

// piece is how much of a disk is read at once, in bytes, to tell what can be read.
const piece = 16 << 10

// readable says of pieces of the disks of snapshots whether they can be read: by whether the cache is used, the number of the
// snapshot, and that of the piece.
type readable [2][][]bool

// measure finds out what can be read of the snapshots, whether their records are there or not. Nothing else than what was
// stored may be read.
func (k *killer) measure(list []*snapshot.Snapshot, r *ruin) (all readable, err error) {
	ctx := context.Background()
	for cached := range all {
		if cached == 1 && r.cache {
			break // this process is not to die of it
		}
		opened, err := k.open(ctx, cached == 1)
		if err != nil {
			return all, err
		}
		for _, s := range list {
			want, d := k.days[dayOf(s)], &s.Disks[0]
			reader := snapshot.NewReader(ctx, opened, d)
			var can []bool
			buf := make([]byte, piece)
			for at := 0; at < len(want); at += piece {
				part := want[at:min(len(want), at+piece)]
				_, err := reader.ReadAt(buf[:len(part)], int64(at))
				if err == nil && !bytes.Equal(buf[:len(part)], part) {
					_ = opened.Close()
					return all, fmt.Errorf("the snapshot of %s is read at %d as something else", dayOf(s), at)
				}
				can = append(can, err == nil)
			}
			all[cached] = append(all[cached], can)
		}
		if err := opened.Close(); err != nil {
			return all, err
		}
	}
	return all, nil
}

// dayOf returns the tag that says which day it is.
func dayOf(s *snapshot.Snapshot) string {
	i := slices.IndexFunc(s.Tags, func(tag string) bool { return strings.HasPrefix(tag, "day") })
	if i < 0 {
		return ""
	}
	return s.Tags[i]
}

// worse reports what cannot be read any more.
func (before readable) worse(after readable, list []*snapshot.Snapshot) error {
	for cached, disks := range before {
		for i, pieces := range disks {
			for j, could := range pieces {
				if could && !after[cached][i][j] {
					return fmt.Errorf("the snapshot of %s could be read at %d, and cannot any more (with the index of the machine: %v)", dayOf(list[i]), j*piece, cached == 1)
				}
			}
		}
	}
	return nil
}

// whole reports whether all of a snapshot's disk can be read.
func (all readable) whole(i int) bool { return !slices.Contains(all[0][i], false) }

// repair damages something, and kills its repair. What could be read can be read; the repair is done again, and makes good what
// it can.
func (k *killer) repair(w work) (killed bool, err error) {
	list, err := k.list()
	if err != nil {
		return false, err
	}
	r, err := w.ruin(k)
	if err != nil || r == nil {
		return false, err
	}
	if r.args == nil {
		r.args = w.args
	}
	before, err := k.measure(list, r)
	if err != nil {
		return false, err
	}
	killed, _, err = k.strike(w.name, r.args, nil, r.sign)
	if err = r.ended(err); err != nil && !r.cache {
		return false, err
	}
	there := func() error { // also from the list
		after, err := k.measure(list, r)
		if err != nil {
			return err
		}
		now, err := k.list()
		if err != nil {
			return err
		}
		for _, s := range list {
			if s.Disks[0].Root != r.root && !slices.ContainsFunc(now, func(n *snapshot.Snapshot) bool { return n.ID == s.ID }) {
				return fmt.Errorf("the record of %s is lost", dayOf(s))
			}
		}
		return before.worse(after, list)
	}
	if err := there(); err != nil {
		return killed, fmt.Errorf("after a killed repair: %w", err)
	}
	if err := k.again(r); err != nil {
		return killed, fmt.Errorf("the repair again: %w", err)
	}
	if err := there(); err != nil {
		return killed, fmt.Errorf("after a repair: %w", err)
	}
	if err := k.made(r, list); err != nil {
		return killed, fmt.Errorf("after a repair: %w", err)
	}
	if err := r.undo(); err != nil {
		return killed, err
	}
	return killed, os.RemoveAll(filepath.Join(k.mount, "repository/quarantine"))
}

// ended returns the error of a repair, which may end with a status that says that something is lost.
func (r *ruin) ended(err error) error {
	var status *exec.ExitError
	if errors.As(err, &status) && status.ExitCode() == r.ends {
		return nil
	}
	return err
}

// again repairs to the end, unless the first repair has made a record anew, which is done once.
func (k *killer) again(r *ruin) error {
	recovered, err := k.recovered(r)
	if err != nil || recovered {
		return err
	}
	for try := 1; ; try++ {
		if _, err := k.run(r.args...); err == nil || !r.cache || try > 3 {
			return r.ended(err)
		}
	}
}

// recovered reports whether the disk of a record that is gone has a new one.
func (k *killer) recovered(r *ruin) (bool, error) {
	if r.root == (snapshot.Root{}) {
		return false, nil
	}
	list, err := k.list()
	return slices.ContainsFunc(list, func(s *snapshot.Snapshot) bool {
		return s.Disks[0].Root == r.root && slices.Contains(s.Tags, "recovered")
	}), err
}

// made looks whether all is made good that can be: by the repair itself and, of a disk that still has the bytes, by the next
// backup of it.
func (k *killer) made(r *ruin, list []*snapshot.Snapshot) error {
	switch {
	case r.root != (snapshot.Root{}):
		recovered, err := k.recovered(r)
		if err != nil {
			return err
		}
		if !recovered {
			return errors.New("the snapshot whose record is gone was not recovered")
		}
		k.healed++
		_, err = k.run("forget", "--host", "recovered", "--unsafe-allow-remove-all", "--keep-tag", "none")
		return err
	case r.packs:
		before := fmt.Sprintf("day%d", k.last)
		k.last++
		tag := fmt.Sprintf("day%d", k.last)
		k.days[tag] = k.days[before]
		args, err := k.backupOf(tag)
		if err != nil {
			return err
		}
		if _, err := k.run(args...); err != nil {
			return err
		}
		k.there = append(k.there, tag)
		now, err := k.list()
		if err != nil {
			return err
		}
		after, err := k.measure(now, r)
		if err != nil {
			return err
		}
		for i, s := range now {
			if dayOf(s) == tag && !after.whole(i) {
				return errors.New("a backup of what was damaged is not whole")
			}
			if after.whole(i) { // and others, as far as the disk holds what they have lost
				k.healed++
			}
		}
	}
	return nil
}
