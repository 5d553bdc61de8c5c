package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"varve/repo/storage"
	"varve/repo/storage/storagetest"
)

// closed is a storage that can be read and takes nothing, for the reason that it gives.
func closed(st storage.Storage, reason error) *storagetest.Faulty {
	f := storagetest.NewFaulty(st)
	f.Fail(storagetest.Fault{Ops: storagetest.Writes, Times: -1, Err: reason})
	return f
}

// reopenTelling is reopen for who wants to see what the user is told.
func reopenTelling(t *testing.T, st storage.Storage) (*Repository, *[]string) {
	t.Helper()
	told := &[]string{}
	o := options(t)
	o.Logf = func(format string, a ...any) { *told = append(*told, fmt.Sprintf(format, a...)) }
	r, err := Open(context.Background(), st, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, told
}

// readers are all who only read.
func readers(r *Repository, ran func()) map[string]func(context.Context) error {
	problem := func(err error) error { return fmt.Errorf("a problem that is none: %w", err) }
	return map[string]func(context.Context) error{
		"beside": func(ctx context.Context) error { return r.Beside(ctx, "restore", func() error { ran(); return nil }) },
		"check": func(ctx context.Context) error {
			var found error
			c, err := r.Check(ctx, CheckOptions{Select: EveryPack}, marker(r), func(err error) { found = problem(err) })
			if err == nil && c.ReadPacks > 0 {
				ran()
			}
			return errors.Join(err, found)
		},
		"index": func(ctx context.Context) error {
			x, err := r.RebuildIndex(ctx)
			if x.Packs > 0 {
				ran()
			}
			return err
		},
		"dry prune": func(ctx context.Context) error {
			p, err := r.Prune(ctx, PruneOptions{DryRun: true}, marker(r))
			if p.Packs > 0 {
				ran()
			}
			return err
		},
		"dry repair of packs": func(ctx context.Context) error {
			p, err := r.RepairPacks(ctx, RepairOptions{DryRun: true}, marker(r), func(RepairedPack) {})
			if p.Packs > 0 {
				ran()
			}
			return err
		},
		"dry repair of config": func(ctx context.Context) error {
			var found error
			_, err := r.RepairConfig(ctx, true, func(err error) { found = problem(err) })
			if err == nil {
				ran()
			}
			return errors.Join(err, found)
		},
	}
}

// TestReadersDoWithoutALease: where nothing can be written, whoever only reads goes on, and the user is told once what that
// means. Whoever wants to write fails with the reason.
func TestReadersDoWithoutALease(t *testing.T) {
	for _, reason := range []error{syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT, syscall.EACCES, syscall.EPERM, syscall.EIO} {
		t.Run(reason.Error(), func(t *testing.T) {
			ctx := t.Context()
			owner, st := newRepository(t)
			chunks := someChunks(1, 20)
			record, _ := save(t, owner, chunks...)
			before := objects(t, st)
			r, told := reopenTelling(t, closed(st, reason))
			ran := false
			for what, read := range readers(r, func() { ran = true }) {
				ran, *told = false, nil
				if err := read(ctx); err != nil || !ran {
					t.Errorf("%s: ran %v, %v", what, ran, err)
				}
				if text := strings.Join(*told, "\n"); len(*told) != 1 || !strings.Contains(text, reason.Error()) || !strings.Contains(text, "without") {
					t.Errorf("%s: the user is told %q", what, *told)
				}
			}
			verify(t, r, record, chunks...)
			if after := objects(t, st); strings.Join(after, " ") != strings.Join(before, " ") {
				t.Errorf("there was %q, and is %q", before, after)
			}
			nothing := func() error { t.Error("it ran"); return nil }
			_, begun := r.Begin(ctx, SessionOptions{Purpose: "backup"})
			_, pruned := r.Prune(ctx, PruneOptions{}, marker(r))
			_, repaired := r.RepairPacks(ctx, RepairOptions{}, marker(r), func(RepairedPack) {})
			_, remade := r.RepairConfig(ctx, false, func(error) {})
			for what, err := range map[string]error{"session": begun, "prune": pruned, "repair of packs": repaired, "repair of config": remade,
				"maintenance": r.Maintain(ctx, "forget", nothing), "exclusive": r.Alone(ctx, "x", nothing)} {
				if !errors.Is(err, reason) || !strings.Contains(err.Error(), "taking a lease") {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
}

// TestReadersWithoutALeaseLookForOthers: whoever is alone keeps them out, as long as he can be alive.
func TestReadersWithoutALeaseLookForOthers(t *testing.T) {
	ctx := t.Context()
	owner, st := newRepository(t)
	save(t, owner, someChunks(1, 20)...)
	r, told := reopenTelling(t, closed(st, syscall.EROFS))
	now := time.Now()
	for _, c := range []struct {
		what   string
		lease  Lease
		locked map[string]bool // those who are kept out
	}{
		{"somebody who is alone", Lease{Mode: Exclusive, Renewed: now}, map[string]bool{"beside": true, "check": true, "index": true, "dry prune": true, "dry repair of packs": true, "dry repair of config": true}},
		{"somebody who removes", Lease{Mode: Maintenance, Renewed: now}, map[string]bool{"dry prune": true, "dry repair of packs": true, "dry repair of config": true}},
		{"somebody who adds", Lease{Mode: Shared, Renewed: now}, map[string]bool{"dry repair of packs": true}},
		{"somebody who was alone", Lease{Mode: Exclusive, Renewed: now.Add(-2 * leaseTTL)}, nil},
		{"somebody who has ended", Lease{Mode: Exclusive, Renewed: now, Ended: true}, nil},
		{"nobody knows who", Lease{Damaged: true}, nil},
	} {
		h := &heldLease{repo: owner, name: "leases/forged", lease: c.lease}
		err := h.write(ctx)
		if c.lease.Damaged {
			err = st.Put(ctx, h.name, []byte("half a lease"))
		}
		if err != nil {
			t.Fatal(err)
		}
		for what, read := range readers(r, func() {}) {
			*told = nil
			var locked *LockedError
			err := read(ctx)
			if c.locked[what] != errors.As(err, &locked) || !c.locked[what] && err != nil {
				t.Errorf("%s beside %s: %v", what, c.what, err)
			}
			if said := strings.Contains(strings.Join(*told, "\n"), "leases/forged"); said != c.lease.Damaged {
				t.Errorf("%s beside %s: the user is told %q", what, c.what, *told)
			}
		}
	}
}

// An error that does not say that nothing can be written is no reason to go on.
func TestReadersTakeALeaseWhereTheyCan(t *testing.T) {
	ctx := t.Context()
	_, st := newRepository(t)
	f := storagetest.NewFaulty(st)
	r := reopen(t, f)
	f.Fail(storagetest.Fault{Ops: storagetest.Put, Prefix: "leases/"})
	if err := r.Beside(ctx, "restore", func() error { t.Error("it ran"); return nil }); !errors.Is(err, storagetest.ErrFault) {
		t.Error(err)
	}
	err := r.Beside(ctx, "restore", func() error {
		if leases := names(t, st, "leases/"); len(leases) != 1 {
			t.Errorf("the leases are %q", leases)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestReadersWithoutALeaseReadNothingWrong: from elsewhere a snapshot is forgotten and pruned in the middle of reading. Another
// one stays readable although its packs were rewritten, and of what has gone nothing comes but errors.
func TestReadersWithoutALeaseReadNothingWrong(t *testing.T) {
	ctx := t.Context()
	owner, st := newRepository(t)
	chunks := someChunks(1, 60)
	forgotten, _ := save(t, owner, chunks...)
	kept, _ := save(t, owner, chunks[5:10]...)
	r := reopen(t, closed(st, syscall.EROFS))
	err := r.Beside(ctx, "restore", func() error {
		if _, err := r.Load(ctx, r.Hasher()(chunks[0]), nil); err != nil {
			t.Error(err)
		}
		if err := owner.DeleteRecord(ctx, forgotten); err != nil {
			t.Fatal(err)
		}
		if p, err := owner.Prune(ctx, PruneOptions{MaxUnused: func(int64) int64 { return 0 }}, marker(owner)); err != nil || p.CondemnedPacks > 0 || p.RepackedPacks == 0 {
			t.Fatalf("%+v, %v", p, err)
		}
		verify(t, r, kept, chunks[5:10]...)
		lost := 0
		for _, want := range chunks {
			got, err := r.Load(ctx, r.Hasher()(want), nil)
			if err != nil {
				lost++
			} else if !bytes.Equal(got, want) {
				t.Error("something else was read")
			}
		}
		if lost == 0 {
			t.Error("nothing has gone: this test shows nothing")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
