package repo

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"varve/repo/storage"
	"varve/repo/storage/storagetest"
)

// A disk that is full stops a session with an error that says so. What was committed stays, and what was stored before
// the disk was full is not stored again.
func TestFullStorage(t *testing.T) {
	for room := range 8 {
		p := &past{st: storage.NewMemory(), told: map[ID][][]byte{}, doomed: map[ID]struct{}{}}
		for _, s := range life[:2] {
			if err := s.run(t.Context(), p.st, p); err != nil {
				t.Fatal(err)
			}
		}
		before := len(names(t, p.st, "packs/"))
		full := storagetest.NewFaulty(p.st)
		full.Fail(storagetest.Fault{Ops: storagetest.Put | storagetest.PutNew, Nth: room + 1, Times: -1, Err: syscall.ENOSPC})
		err := life[2].run(t.Context(), full, p)
		if full.Fired() == 0 {
			if room < 4 || err != nil {
				t.Errorf("room for %d objects was enough: %v", room, err)
			}
			return
		}
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "no space left") {
			t.Errorf("room for %d objects: %v", room, err)
		}
		p.judge(t, fmt.Sprintf("room for %d objects", room))
		stored := len(names(t, p.st, "packs/"))
		if err := life[2].run(t.Context(), p.st, p); err != nil {
			t.Error(err)
		}
		p.judge(t, "when there is room again")
		chunks := map[string]int{}
		if err := p.as(t.Context(), p.st, func(r *Repository) error {
			m, err := r.Measure(t.Context(), marker(r))
			chunks["distinct"] = int(m.Chunks)
			result, checkErr := r.Check(t.Context(), CheckOptions{}, marker(r), func(err error) { t.Error(err) })
			chunks["stored"] = int(result.Chunks)
			return errors.Join(err, checkErr)
		}); err != nil {
			t.Error(err)
		}
		if chunks["stored"] != chunks["distinct"] {
			t.Errorf("room for %d objects, %d packs before, %d when it was full: %v chunks", room, before, stored, chunks)
		}
	}
	t.Error("a session needs more room than this test knows")
}

// The same at every write of every step, a prune too: the error says that there is no room, what was committed stays, and
// with room the step is done.
func TestFullStorageAtEveryWrite(t *testing.T) {
	p := &past{st: storage.NewMemory(), told: map[ID][][]byte{}, doomed: map[ID]struct{}{}}
	for _, s := range life {
		t.Run(s.name, func(t *testing.T) {
			for room := 0; ; room++ {
				c := p.clone(t)
				full := storagetest.NewFaulty(c.st)
				full.Fail(storagetest.Fault{Ops: storagetest.Put | storagetest.PutNew, Nth: room + 1, Times: -1, Err: syscall.ENOSPC})
				err := s.run(t.Context(), full, c)
				if full.Fired() == 0 {
					if err != nil {
						t.Fatal(err)
					}
					t.Logf("%s: no room at any of %d writes", s.name, room)
					return
				}
				when := fmt.Sprintf("%s, room for %d objects", s.name, room)
				if !errors.Is(err, syscall.ENOSPC) {
					t.Errorf("%s: %v", when, err)
				}
				if left := names(t, c.st, "leases/"); len(left) > 0 {
					t.Errorf("%s: %v are left", when, left)
				}
				if s.name == "init" {
					c.initAgain(t, s, when, func() {})
					continue
				}
				c.judge(t, when)
				if err := s.run(t.Context(), c.st, c); err != nil {
					t.Errorf("%s, and then there is room: %v", when, err)
				}
				c.judge(t, when+", and then there is room")
			}
		})
		if err := s.run(t.Context(), p.st, p); err != nil {
			t.Fatal(err)
		}
	}
}
