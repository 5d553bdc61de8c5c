package repo

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/zeebo/blake3"
	"varve/repo/storage"
)

func sumOf(data []byte) string {
	sum := blake3.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// names lists the objects below a folder.
func names(t *testing.T, st storage.Storage, prefix string) (list []string) {
	t.Helper()
	err := st.List(context.Background(), prefix, func(name string, _ int64) error { list = append(list, name); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Damage to packs and records is found by check, never restored as if it were right, and does not spread.
func TestDamageIsFoundAndContained(t *testing.T) {
	ctx := context.Background()
	harm := map[string]func(data []byte) []byte{
		"missing":         func([]byte) []byte { return nil },
		"cut":             func(data []byte) []byte { return data[:len(data)*2/3] },
		"empty":           func([]byte) []byte { return []byte{} },
		"header flipped":  func(data []byte) []byte { data[20] ^= 1; return data },
		"middle flipped":  func(data []byte) []byte { data[len(data)/2] ^= 1; return data },
		"end flipped":     func(data []byte) []byte { data[len(data)-3] ^= 1; return data },
		"bytes at end":    func(data []byte) []byte { return append(data, 1, 2, 3) },
		"zeros in middle": func(data []byte) []byte { clear(data[len(data)/2 : len(data)/2+100]); return data },
	}
	for what, f := range harm {
		for _, folder := range []string{"packs/", "snapshots/"} {
			r, st := newRepository(t)
			good := someChunks(10, 30)
			goodRecord, _ := save(t, r, good...)
			before := names(t, st, folder)
			hurt := someChunks(11, 30)
			hurtRecord, _ := save(t, r, hurt...)
			var name string
			for _, n := range names(t, st, folder) {
				if !strings.Contains(strings.Join(before, " "), n) {
					name = n
				}
			}
			data, err := st.Get(ctx, name, 0, -1, nil)
			if err != nil {
				t.Fatal(err)
			}
			if damaged := f(bytes.Clone(data)); damaged == nil {
				err = st.Delete(ctx, name)
			} else {
				err = st.Put(ctx, name, damaged)
			}
			if err != nil {
				t.Fatal(err)
			}
			for how, r := range map[string]*Repository{"the same process": r, "another process": reopen(t, st)} {
				verify(t, r, goodRecord, good...)
				failed := 0
				record, err := r.Record(ctx, hurtRecord)
				if err != nil {
					failed++
				}
				for i, id := range decodeList(record) {
					got, err := r.Load(ctx, id, nil)
					var damaged *DamagedError
					switch {
					case err == nil && !bytes.Equal(got, hurt[i]):
						t.Fatalf("%s %s, %s: wrong bytes", folder, what, how)
					case err != nil && !errors.As(err, &damaged) && !errors.Is(err, ErrNotFound):
						t.Errorf("%s %s, %s: %v", folder, what, how, err)
					case err != nil:
						failed++
					}
				}
				problems := 0
				mark := marker(r)
				if folder == "snapshots/" {
					mark = marker(r, hurtRecord) // reading records is the marker's business
					if _, err := r.Record(ctx, hurtRecord); err == nil {
						t.Errorf("%s %s, %s: the record is read", folder, what, how)
					}
					problems++
				}
				_, err = r.Check(ctx, CheckOptions{Select: EveryPack}, mark, func(err error) { problems++ })
				if err != nil || problems == 0 {
					t.Errorf("%s %s, %s: check finds nothing, %v", folder, what, how, err)
				}
				// The index knows all that stands in header and footer.
				harmless := what == "bytes at end" || how == "the same process" && (what == "header flipped" || what == "end flipped")
				if failed == 0 && !harmless {
					t.Errorf("%s %s, %s: all was read as if nothing had happened", folder, what, how)
				}
			}
			// What was in a pack without a directory is stored again by the next backup, and then all is well.
			if folder == "packs/" && !strings.Contains(what, "middle") {
				fresh := reopen(t, st)
				again, _ := save(t, fresh, hurt...)
				verify(t, fresh, again, hurt...)
			}
		}
	}
}

// A prune that finds something missing removes nothing.
func TestPruneRefusesDamage(t *testing.T) {
	ctx := context.Background()
	r, st := newRepository(t)
	first, _ := save(t, r, someChunks(12, 30)...)
	save(t, r, someChunks(13, 30)...)
	if err := r.DeleteRecord(ctx, first); err != nil {
		t.Fatal(err)
	}
	packs := names(t, st, "packs/")
	refused := 0
	for _, harmed := range packs {
		data, err := st.Get(ctx, harmed, 0, -1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Delete(ctx, harmed); err != nil {
			t.Fatal(err)
		}
		before := len(names(t, st, "packs/"))
		other := reopen(t, st)
		_, err = other.Prune(ctx, PruneOptions{DryRun: true}, marker(other))
		var damaged *DamagedError
		if errors.As(err, &damaged) { // a pack that is in use is missing
			refused++
			if _, err := other.Prune(ctx, PruneOptions{}, marker(other)); !errors.As(err, &damaged) {
				t.Errorf("without a dry run: %v", err)
			}
			if after := len(names(t, st, "packs/")); after != before {
				t.Errorf("%d of %d packs are left after a prune that refused", after, before)
			}
		} else if err != nil {
			t.Error(err)
		}
		if err := st.Put(ctx, harmed, data); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 || refused == len(packs) {
		t.Errorf("%d of %d packs were missed", refused, len(packs))
	}
}
