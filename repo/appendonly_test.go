package repo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"varve/repo/storage"
)

// guarded is a storage whose owner lets nobody replace or remove anything, and whose users do not know that beforehand.
type guarded struct{ storage.Storage }

func (g guarded) Put(ctx context.Context, name string, data []byte) error {
	if err := g.Storage.PutNew(ctx, name, data); err != nil {
		return fmt.Errorf("writing %s: %w", name, syscall.EPERM)
	}
	return nil
}

func (g guarded) Delete(_ context.Context, name string) error {
	return fmt.Errorf("deleting %s: %w", name, syscall.EPERM)
}

// TestAGuardedStorageTakesBackups: backups, reading and checks need neither to replace nor to remove anything, whether they
// know that they cannot or not. Who may remove finds nothing in the way afterwards, and cleans up.
func TestAGuardedStorageTakesBackups(t *testing.T) {
	ctx := context.Background()
	for what, guard := range map[string]func(storage.Storage) storage.Storage{
		"unknown": func(st storage.Storage) storage.Storage { return guarded{st} },
		"known":   func(st storage.Storage) storage.Storage { return storage.AppendOnly{Storage: st} },
	} {
		t.Run(what, func(t *testing.T) {
			owner, st := newRepository(t)
			user := reopen(t, guard(st))
			chunks := someChunks(1, 30)
			save(t, user, chunks[:20]...)
			save(t, user, chunks[10:]...)
			if err := user.Beside(ctx, "test", func() error { return nil }); err != nil {
				t.Error(err)
			}
			for _, c := range chunks {
				if _, err := user.Load(ctx, user.Hasher()(c), nil); err != nil {
					t.Error(err)
				}
			}
			checked, err := user.Check(ctx, CheckOptions{}, marker(user), func(err error) { t.Error(err) })
			if err != nil || checked.Problems != 0 {
				t.Errorf("%+v, %v", checked, err)
			}
			records, err := owner.Records(ctx)
			if err != nil || len(records) != 2 {
				t.Fatal(records, err)
			}
			if err := user.DeleteRecord(ctx, records[0]); err == nil {
				t.Error("a record was removed")
			}
			leases, err := owner.Leases(ctx)
			if err != nil || len(leases) == 0 {
				t.Errorf("%v, %v", leases, err)
			}
			for _, l := range leases {
				l.Machine = "another" // where nobody sees whether the process still runs
				if !l.stale(time.Now()) {
					t.Errorf("%v has not ended", l)
				}
			}
			if err := owner.DeleteRecord(ctx, records[0]); err != nil {
				t.Fatal(err)
			}
			result, err := owner.Prune(ctx, PruneOptions{MaxUnused: func(int64) int64 { return 0 }}, marker(owner))
			if err != nil || result.CondemnedPacks != 0 || result.Freed() <= 0 {
				t.Errorf("%+v, %v", result, err)
			}
			if leases, err := owner.Leases(ctx); err != nil || len(leases) != 0 {
				t.Errorf("%v are left, %v", leases, err)
			}
		})
	}
}

// TestALeaseIsRenewedBesideWhatCannotBeReplaced: it counts for hours, until its holder says that it has ended.
func TestALeaseIsRenewedBesideWhatCannotBeReplaced(t *testing.T) {
	owner, st := newRepository(t)
	user := reopen(t, guarded{st})
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		lease, err := user.takeLease(ctx, Shared, "test")
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			time.Sleep(time.Hour)
			synctest.Wait()
			leases, err := owner.Leases(ctx)
			if err != nil || len(leases) != 1 || leases[0].Name != lease.name {
				t.Fatalf("%+v, %v", leases, err)
			}
			leases[0].Machine = "another"
			if leases[0].stale(time.Now()) {
				t.Fatalf("%v counts no more", leases[0])
			}
			if err := lease.check(ctx); err != nil {
				t.Fatal(err)
			}
		}
		lease.release()
		leases, err := owner.Leases(ctx)
		if err != nil || len(leases) != 1 || !leases[0].Ended {
			t.Fatalf("%+v, %v", leases, err)
		}
		if removed, err := owner.Unlock(ctx, false); err != nil || len(removed) != 1 {
			t.Fatalf("%v, %v", removed, err)
		}
		err = st.List(ctx, "leases/", func(name string, _ int64) error { return fmt.Errorf("%s is left", name) })
		if err != nil {
			t.Error(err)
		}
	})
}

// TestALeaseThatWasTakenAwayStaysAway: its renewal does not bring it back, and its holder commits nothing.
func TestALeaseThatWasTakenAwayStaysAway(t *testing.T) {
	for what, guard := range map[string]func(storage.Storage) storage.Storage{
		"guarded": func(st storage.Storage) storage.Storage { return guarded{st} },
		"open":    func(st storage.Storage) storage.Storage { return st },
	} {
		t.Run(what, func(t *testing.T) {
			owner, st := newRepository(t)
			user := reopen(t, guard(st))
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				lease, err := user.takeLease(ctx, Shared, "test")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(6 * time.Minute)
				synctest.Wait()
				if removed, err := owner.Unlock(ctx, true); err != nil || len(removed) != 1 {
					t.Fatalf("%v, %v", removed, err)
				}
				time.Sleep(6 * time.Minute)
				synctest.Wait()
				if err := lease.check(ctx); !errors.Is(err, storage.ErrNotExist) {
					t.Errorf("its holder goes on: %v", err)
				}
				if leases, err := owner.Leases(ctx); err != nil || len(leases) != 0 {
					t.Errorf("%v, %v", leases, err)
				}
				lease.release()
			})
		})
	}
}

func TestAppendOnlyStorageOnlyGrows(t *testing.T) {
	ctx := context.Background()
	under := storage.NewMemory()
	st := storage.AppendOnly{Storage: under}
	for _, put := range []func(context.Context, string, []byte) error{st.Put, st.PutNew} {
		name := fmt.Sprint("object", len(objects(t, under)))
		if err := put(ctx, name, []byte("first")); err != nil {
			t.Fatal(err)
		}
		if err := put(ctx, name, []byte("second")); err == nil {
			t.Errorf("%s was replaced", name)
		}
		if err := st.Put(ctx, name, []byte("third")); !errors.Is(err, storage.ErrAppendOnly) {
			t.Error(err)
		}
		if err := st.Delete(ctx, name); !errors.Is(err, storage.ErrAppendOnly) {
			t.Error(err)
		}
		if data, err := st.Get(ctx, name, 0, -1, nil); err != nil || string(data) != "first" {
			t.Errorf("%q, %v", data, err)
		}
	}
	if _, err := st.Free(ctx); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if !slices.Equal(objects(t, under), []string{"object0", "object1"}) {
		t.Error(objects(t, under))
	}
}

// objects returns the names of all objects.
func objects(t *testing.T, st storage.Storage) (names []string) {
	t.Helper()
	if err := st.List(context.Background(), "", func(name string, _ int64) error { names = append(names, name); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}
