package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"varve/image"
	"varve/repo"
	"varve/repo/storage"
)

// victim is a repository with snapshots of known disks.
type victim struct {
	st       *storage.Memory
	disks    map[ID]model // by snapshot
	keys     []string     // passwords
	original map[string][]byte
}

var victimKDF = repo.KDF{Time: 1, Memory: 64, Threads: 1}

// newVictim makes two snapshots of a disk of two segments, and with that two packs of chunks, two of tree nodes with inner
// nodes and leaves, two records and two keys.
func newVictim(t *testing.T) *victim {
	t.Helper()
	v := &victim{st: storage.NewMemory(), disks: map[ID]model{}, keys: []string{"one", "two"}}
	r, err := repo.Init(t.Context(), v.st, repo.Options{Password: []byte("one")}, victimKDF, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.AddKey(t.Context(), []byte("two"), victimKDF, "second"); err != nil {
		t.Fatal(err)
	}
	d := &disk{data: make([]byte, Segment+3*Block), holes: map[int64]image.Kind{}}
	for b := range int64(len(d.data) / Block) {
		d.holes[b] = image.Sparse
	}
	write := func(block int64, data []byte) {
		copy(d.data[block*Block:], data)
		for i := range int64(len(data) / Block) {
			delete(d.holes, block+i)
		}
	}
	write(10, noise(1, 40*Block))
	write(1000, bytes.Repeat(noise(2, 512), 30*Block/512))
	write(Segment/Block, noise(3, Block))
	v.backup(t, r, d)
	write(30, noise(4, 25*Block))
	write(Segment/Block+2, noise(5, Block))
	v.backup(t, r, d)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	v.original = v.objects(t)
	return v
}

// backup stores d as a snapshot in a session of its own.
func (v *victim) backup(t *testing.T, r *repo.Repository, d *disk) ID {
	t.Helper()
	ctx := t.Context()
	s, err := r.Begin(ctx, repo.SessionOptions{Purpose: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	made, err := Create(ctx, d, CreateOptions{Chunker: testChunker(), Workers: 1, Load: r,
		DataWriter: func() (Writer, error) { return s.DataWriter() }, TreeWriter: func() (Writer, error) { return s.TreeWriter() }})
	if err != nil {
		t.Fatal(err)
	}
	record, err := (&Snapshot{Version: 1, Time: time.Now(), Host: "host", Disks: []Disk{*made}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.Commit(ctx, record)
	if err != nil {
		t.Fatal(err)
	}
	v.disks[id] = modelOf(d)
	return id
}

// objects returns a copy of all that is stored.
func (v *victim) objects(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := v.st.List(t.Context(), "", func(name string, _ int64) error {
		data, err := v.st.Get(t.Context(), name, 0, -1, nil)
		all[name] = data
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// clone is for another goroutine.
func (v *victim) clone(t *testing.T) *victim {
	t.Helper()
	c := &victim{st: storage.NewMemory(), disks: v.disks, keys: v.keys, original: v.original}
	c.restock(t, v.original)
	return c
}

// restock makes the storage hold just these objects.
func (v *victim) restock(t *testing.T, objects map[string][]byte) {
	t.Helper()
	for name := range v.objects(t) {
		if _, stays := objects[name]; !stays {
			if err := v.st.Delete(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, data := range objects {
		if err := v.st.Put(t.Context(), name, data); err != nil {
			t.Fatal(err)
		}
	}
}

// seen is what a user learns of a repository: what messages say, and which snapshots are all there.
type seen struct {
	opened bool
	text   string
	whole  map[ID]bool
}

// names reports whether a message names the object.
func (s *seen) names(name string) bool { return strings.Contains(s.text, name) }

// look does what a user would: opens the repository, restores every snapshot, and lets it be checked. It fails the test
// when a byte that was restored is not the right one.
func (v *victim) look(t *testing.T, what string) *seen {
	t.Helper()
	ctx := t.Context()
	s := &seen{whole: map[ID]bool{}}
	var mu sync.Mutex
	say := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		s.text += err.Error() + "\n"
	}
	var r *repo.Repository
	for _, password := range v.keys { // whoever still has a password
		var err error
		r, err = repo.Open(ctx, v.st, repo.Options{Password: []byte(password), Logf: func(format string, a ...any) { say(fmt.Errorf(format, a...)) }})
		if err == nil {
			s.opened = true
			break
		}
		say(err)
	}
	if !s.opened {
		return s
	}
	defer r.Close()
	list, err := List(ctx, r, say)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	for _, snap := range list {
		disk, known := v.disks[snap.ID]
		if !known || len(snap.Disks) != 1 || snap.Disks[0].Size != disk.size {
			t.Fatalf("%s: a snapshot that nobody made: %+v", what, snap)
		}
		target := &blocks{size: disk.size, written: map[int64][]byte{}}
		result, err := Restore(ctx, r, &snap.Disks[0], target, func() func([]byte) ID { return r.Hasher() }, RestoreOptions{Workers: 1})
		if err != nil {
			t.Fatalf("%s: restoring: %v", what, err)
		}
		for _, d := range result.Damaged {
			say(d.Err)
		}
		if block, bad := target.wrong(disk, result.Damaged); bad {
			t.Fatalf("%s: block %d of snapshot %s was restored wrong, and nothing said so", what, block, short(snap.ID))
		}
		s.whole[snap.ID] = len(result.Damaged) == 0
	}
	_, err = r.Check(ctx, repo.CheckOptions{Select: repo.EveryPack}, func(ctx context.Context, node func(ID) bool, chunk func(ID)) error {
		list, err := List(ctx, r, say)
		if err != nil {
			return err
		}
		return Walk(ctx, r, list, Walker{Node: node, Chunk: chunk, Broken: func(err error) error { say(err); return nil }})
	}, say)
	if err != nil {
		t.Fatalf("%s: check: %v", what, err)
	}
	return s
}

// blocks is a fresh target that keeps only what is written.
type blocks struct {
	mu      sync.Mutex
	size    int64
	written map[int64][]byte
}

func (b *blocks) WriteAt(p []byte, off int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if off%Block != 0 || len(p)%Block != 0 || off+int64(len(p)) > b.size {
		return 0, fmt.Errorf("a write of %d bytes at %d", len(p), off)
	}
	for at := 0; at < len(p); at += Block {
		b.written[off/Block+int64(at/Block)] = bytes.Clone(p[at : at+Block])
	}
	return len(p), nil
}

func (b *blocks) ReadAt([]byte, int64) (int, error) {
	return 0, errors.New("a fresh target is not read")
}
func (b *blocks) Info() image.Info { return image.Info{Size: b.size} }
func (b *blocks) Map(int64, int64) ([]image.Extent, error) {
	return nil, errors.New("a fresh target has no map")
}
func (b *blocks) Fresh() bool                  { return true }
func (b *blocks) Zero(off, length int64) error { return errors.New("a fresh target is zero") }
func (b *blocks) Sync() error                  { return nil }
func (b *blocks) Forget()                      {}
func (b *blocks) Close() error                 { return nil }

// model is what a disk holds: its blocks that are not zero, by number.
type model struct {
	size   int64
	blocks map[int64][]byte
}

func modelOf(d *disk) model {
	m := model{int64(len(d.data)), map[int64][]byte{}}
	for i, zero := int64(0), make([]byte, Block); i < m.size/Block; i++ {
		if block := d.data[i*Block : (i+1)*Block]; !bytes.Equal(block, zero) {
			m.blocks[i] = bytes.Clone(block)
		}
	}
	return m
}

// wrong returns a block that is not as in m, and not in a range of which the restore said that it is damaged.
func (b *blocks) wrong(m model, damaged []DamagedRange) (int64, bool) {
	for i, got := range b.written {
		if want, there := m.blocks[i]; there && !bytes.Equal(got, want) || !there && !bytes.Equal(got, make([]byte, Block)) {
			return i, true
		}
	}
	for i := range m.blocks {
		told := slices.ContainsFunc(damaged, func(d DamagedRange) bool { return d.Offset <= i*Block && (i+1)*Block <= d.End() })
		if _, there := b.written[i]; !there && !told {
			return i, true
		}
	}
	return 0, false
}

// twice reports whether an object has a copy that stands in for it.
func twice(name string) bool {
	return strings.HasPrefix(name, "config") || strings.HasPrefix(name, "keys/")
}

// demand fails the test unless the damage to the named objects was found and named, and cost no more than it must.
func (v *victim) demand(t *testing.T, s *seen, what string, harmed ...string) {
	t.Helper()
	single := true // what is harmed has a copy that is whole
	for _, name := range harmed {
		other := name + ".copy"
		if base, isCopy := strings.CutSuffix(name, ".copy"); isCopy {
			other = base
		}
		single = single && twice(name) && !slices.Contains(harmed, other)
		if !s.names(name) {
			t.Errorf("%s: nothing names %s:\n%s", what, name, s.text)
		}
	}
	if !s.opened && single {
		t.Errorf("%s: the repository cannot be opened, and there is a copy:\n%s", what, s.text)
	}
	for id := range v.disks {
		if single && !s.whole[id] {
			t.Errorf("%s: snapshot %s is not whole:\n%s", what, short(id), s.text)
		}
	}
}
