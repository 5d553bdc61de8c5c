package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"varve/image"
	"varve/repo"
)

// TestTwoDisksOfOneName: a record in which a name means two disks is refused, or one would be restored for the other.
func TestTwoDisksOfOneName(t *testing.T) {
	s := Snapshot{Version: 1, Disks: []Disk{{Name: "sda", Size: 1, Root: Root{1}}, {Name: "sdb", Size: 1, Root: Root{2}}}}
	record, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(ID{}, record); err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(ID{}, bytes.Replace(record, []byte(`"sdb"`), []byte(`"sda"`), 1)); err == nil {
		t.Error("it is taken")
	}
}

// TestDisksThatLookLikeMetadata: what a disk has in it is never anything but its bytes, though it be a record, a tree node
// of the same disk, a sealed object or a pack. Whoever fills a disk cannot make snapshots, or change what others read.
func TestDisksThatLookLikeMetadata(t *testing.T) {
	ctx := context.Background()
	v := newVictim(t)
	r, err := repo.Open(ctx, v.st, repo.Options{Password: []byte("one")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	before, err := List(ctx, r, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	// The disk: each sealed object, the records in clear, and every tree node, each from a block's start.
	d := &disk{holes: map[int64]image.Kind{}}
	put := func(data []byte) {
		d.data = append(d.data, data...)
		d.data = append(d.data, make([]byte, (Block-len(d.data)%Block)%Block+4*Block)...) // a run of zeros ends a chunk
	}
	for _, s := range before {
		record, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		put(record)
		err = Walk(ctx, r, []*Snapshot{s}, Walker{Node: func(id ID) bool {
			node, err := r.Load(ctx, id, nil)
			if err != nil {
				t.Fatal(err)
			}
			put(node)
			return true
		}, Chunk: func(ID) {}})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, data := range v.original {
		put(data)
	}
	v.backup(t, r, d)
	all := func(what string) {
		seen := v.look(t, what) // it knows which snapshots there may be, and what is on their disks
		for id := range v.disks {
			if !seen.whole[id] {
				t.Errorf("%s: snapshot %s is not whole", what, short(id))
			}
		}
		if seen.text != "" {
			t.Errorf("%s: %s", what, seen.text)
		}
	}
	all("stored")
	_, err = r.Prune(ctx, repo.PruneOptions{MaxUnused: func(int64) int64 { return 0 }}, func(ctx context.Context, node func(ID) bool, chunk func(ID)) error {
		list, err := List(ctx, r, func(err error) { t.Error(err) })
		if err != nil {
			return err
		}
		return Walk(ctx, r, list, Walker{Node: node, Chunk: chunk})
	})
	if err != nil {
		t.Fatal(err)
	}
	all("pruned")
}
