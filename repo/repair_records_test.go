package repo

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"varve/repo/storage"
	"varve/repo/storage/storagetest"
)

func anyRecord(ID, []byte) error { return nil }

// A record that is damaged is moved to quarantine as it is, the others stay, and a second run has nothing to do.
func TestRepairRecords(t *testing.T) {
	r, st := newRepository(t)
	var records []ID
	for i := range uint64(5) {
		record, _ := save(t, r, someChunks(70+i, 3)...)
		records = append(records, record)
	}
	whole := bytes.Clone(object(t, st, recordName(records[0])))
	harm := map[ID][]byte{records[1]: flipped(whole), records[2]: whole[:20], records[3]: {}}
	for id, data := range harm {
		if err := st.Put(t.Context(), recordName(id), data); err != nil {
			t.Fatal(err)
		}
	}
	for _, dryRun := range []bool{true, false} {
		told := map[ID]bool{}
		err := r.RepairRecords(t.Context(), dryRun, func(id ID, _ []byte) error {
			if id == records[4] {
				return errors.New("it says nonsense")
			}
			return nil
		}, func(p RepairedRecord) { told[p.ID] = p.Reason != nil && !p.Left })
		if err != nil || len(told) != 4 || !told[records[1]] || !told[records[2]] || !told[records[3]] || !told[records[4]] {
			t.Errorf("dry run %v: %v, %v", dryRun, told, err)
		}
		if n := len(names(t, st, "snapshots/")); dryRun && n != 5 || !dryRun && n != 1 {
			t.Errorf("dry run %v: %d records", dryRun, n)
		}
	}
	for id, data := range harm {
		if got := object(t, st, "quarantine/"+recordName(id)); !bytes.Equal(got, data) {
			t.Errorf("in quarantine are %d other bytes, not %d", len(got), len(data))
		}
	}
	if err := r.RepairRecords(t.Context(), false, anyRecord, func(p RepairedRecord) { t.Errorf("again: %+v", p) }); err != nil {
		t.Error(err)
	}
}

// Where records are there twice, one is enough; and what cannot be read at all stays.
func TestRepairRecordsWithCopies(t *testing.T) {
	r, st := newParity(t, 10)
	record, _ := save(t, r, someChunks(80, 3)...)
	pair := []string{recordName(record), recordCopy(record)}
	whole := bytes.Clone(object(t, st, pair[0]))
	for _, name := range pair {
		for what, harm := range map[string]func() error{
			"missing": func() error { return st.Delete(t.Context(), name) },
			"flipped": func() error { return st.Put(t.Context(), name, flipped(whole)) },
			"lost":    func() error { st.Lose(name, 0); return nil },
		} {
			if err := harm(); err != nil {
				t.Fatal(err)
			}
			if err := r.RepairRecords(t.Context(), false, anyRecord, func(p RepairedRecord) { t.Errorf("%s %s: %+v", name, what, p) }); err != nil {
				t.Error(err)
			}
			if err := st.Put(t.Context(), name, whole); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range pair {
		st.Lose(name, 0)
	}
	left := false
	if err := r.RepairRecords(t.Context(), false, anyRecord, func(p RepairedRecord) { left = p.Left }); err != nil || !left {
		t.Errorf("a record of which nothing can be read: left %v, %v", left, err)
	}
	if n := len(names(t, st.Storage, "snapshots/")); n != 2 {
		t.Errorf("%d objects are left", n)
	}
	for _, name := range pair {
		if err := st.Put(t.Context(), name, flipped(whole)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.RepairRecords(t.Context(), false, anyRecord, func(p RepairedRecord) { left = p.Left }); err != nil || left {
		t.Errorf("a record of which neither copy is whole: left %v, %v", left, err)
	}
	if n, kept := len(names(t, st.Storage, "snapshots/")), len(names(t, st.Storage, "quarantine/")); n != 0 || kept != 2 {
		t.Errorf("%d objects are left, %d in quarantine", n, kept)
	}
}

// Whatever fails, nothing of a record is thrown away.
func TestRepairRecordsDiesAnywhere(t *testing.T) {
	for nth := 1; ; nth++ {
		r, st := newRepository(t)
		record, _ := save(t, r, someChunks(90, 3)...)
		bad := flipped(object(t, st, recordName(record)))
		if err := st.Put(t.Context(), recordName(record), bad); err != nil {
			t.Fatal(err)
		}
		faulty := storagetest.NewFaulty(st)
		again := reopen(t, faulty)
		faulty.Fail(storagetest.Fault{Nth: nth, Times: -1, How: []storagetest.How{storagetest.Before, storagetest.After}[nth%2]})
		_ = again.RepairRecords(t.Context(), false, anyRecord, func(RepairedRecord) {})
		kept := slices.ContainsFunc(append(names(t, st, "snapshots/"), names(t, st, "quarantine/")...), func(name string) bool {
			return bytes.Equal(object(t, st, name), bad)
		})
		if !kept {
			t.Errorf("with operation %d failing it is gone", nth)
		}
		if faulty.Fired() == 0 {
			return
		}
	}
}

// All tree nodes are found, and nothing else; what cannot be read is told.
func TestEachNode(t *testing.T) {
	w := newWreck(t)
	want := map[ID]bool{} // every third chunk of a session is saved as a node
	hash := reopen(t, w.st).Hasher()
	for _, chunks := range [][][]byte{lifeChunks[:8], lifeChunks[5:]} {
		for i := 2; i < len(chunks); i += 3 {
			want[hash(chunks[i])] = true
		}
	}
	nodes := func(st storage.Storage) (found map[ID]bool, damaged int) {
		found = map[ID]bool{}
		err := reopen(t, st).EachNode(t.Context(), func(id ID, node []byte) error {
			found[id] = true
			if !bytes.Equal(node, w.known[id]) {
				t.Error("a node has other bytes")
			}
			return nil
		}, func(error) { damaged++ })
		if err != nil {
			t.Error(err)
		}
		return found, damaged
	}
	all, damaged := nodes(w.st)
	for id := range all {
		if _, known := w.known[id]; !known {
			t.Errorf("%s is no chunk", short(id))
		}
	}
	if damaged != 0 || len(all) == 0 || len(all) > len(want) {
		t.Errorf("%d nodes of %d, %d damaged", len(all), len(want), damaged)
	}
	for _, name := range w.packs {
		flipIn(t, w.st, name, 200)
	}
	if some, damaged := nodes(w.st); damaged == 0 || len(some) >= len(all) {
		t.Errorf("with damage %d of %d nodes, %d damaged", len(some), len(all), damaged)
	}
}
