package snapshot

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// FuzzDecode: what is taken for a record can be used without further checks, and is written as it was read.
func FuzzDecode(f *testing.F) {
	whole := &Snapshot{Version: 1, Time: time.Unix(1e9, 0).UTC(), Host: "host", Tags: []string{"a"}, Disks: []Disk{{
		Name: "sda", Size: 1 << 20, Root: Root{1}, Table: "gpt", Bad: []Range{{4096, 512}},
		Volumes: []Volume{{Number: 1, Offset: 4096, Length: 8192, Filesystem: "ext4"}},
	}, {Name: "empty"}}}
	record, err := whole.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(record)
	f.Add([]byte(`{"version":1,"disks":[{"name":"a","size":-1}]}`))
	f.Add([]byte(`{"version":1,"disks":[{"name":"a","size":9223372036854775807,"root":"` + string(bytes.Repeat([]byte("01"), 32)) +
		`","volumes":[{"number":1,"offset":9223372036854775807,"length":9223372036854775807}],"unreadable":[{"offset":-1,"length":-1}]}]}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, record []byte) {
		s, err := Decode(ID{1}, record)
		if err != nil {
			return
		}
		for i := range s.Disks {
			d := &s.Disks[i]
			if d.Size < 0 || d.Size > 0 && d.Root == (Root{}) {
				t.Errorf("a disk of %d bytes", d.Size)
			}
			for _, v := range d.Volumes {
				if v.Offset < 0 || v.Length < 0 || v.Offset > d.Size-v.Length {
					t.Errorf("a volume of %d bytes at %d of %d", v.Length, v.Offset, d.Size)
				}
				if _, err := FindAddress([]*Snapshot{s}, "latest:"+d.Name+":p1/a", Filter{}); err == nil && len(d.Volumes) == 0 {
					t.Error("a volume was found where there is none")
				}
			}
			// Nothing is stored: what the record refers to is missing, and said to be.
			if r := NewReader(context.Background(), nothing{}, d); d.Size > 0 {
				if _, err := r.ReadAt(make([]byte, 10), 0); err == nil {
					t.Error("a disk was read of which nothing is stored")
				}
			}
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatalf("it cannot be written: %v", err)
		}
		second, err := Decode(ID{1}, again)
		if err != nil {
			t.Fatalf("it cannot be read again: %v", err)
		}
		third, err := second.Encode()
		if err != nil || !bytes.Equal(again, third) {
			t.Errorf("%s, then %s, %v", again, third, err)
		}
	})
}

var errNothing = errors.New("there is nothing")

// nothing is a repository in which nothing is.
type nothing struct{}

func (nothing) Load(context.Context, ID, []byte) ([]byte, error) { return nil, errNothing }

// FuzzFindAddress: an address finds a volume of the snapshot, or is refused.
func FuzzFindAddress(f *testing.F) {
	list := []*Snapshot{{ID: ID{0xab}, Version: 1, Time: time.Unix(1e9, 0), Host: "host", Disks: []Disk{
		{Name: "sda", Size: 1 << 20, Root: Root{1}, Volumes: []Volume{{Number: 1, Length: 4096}, {Number: 2, Offset: 8192, Length: 4096}}},
		{Name: "p1", Size: 1 << 20, Root: Root{2}, Volumes: []Volume{{Number: 1, Length: 1 << 20}}},
		{Name: "a:b", Size: 4096, Root: Root{3}},
	}}}
	for _, address := range []string{"latest", "ab:sda", "latest:sda:p1/etc", "latest:p1", "latest:p1:p1/x", "latest:a:b", "latest:a:b:p1", "::", "latest:sda:p99999999999999999999", "latest:sda:p-1", "\xff:p1"} {
		f.Add(address)
	}
	f.Fuzz(func(t *testing.T, address string) {
		a, err := FindAddress(list, address, Filter{})
		if err != nil {
			return
		}
		if a.Snapshot != list[0] || a.Disk == nil && len(a.Snapshot.Disks) == 1 {
			t.Errorf("%q is %+v", address, a)
		}
		if a.Volume != nil && (a.Disk == nil || !slices.ContainsFunc(a.Disk.Volumes, func(v Volume) bool { return v.Number == a.Volume.Number })) {
			t.Errorf("%q is a volume that is on no disk: %+v", address, a)
		}
	})
}
