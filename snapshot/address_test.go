package snapshot

import (
	"errors"
	"testing"
)

func TestFindAddress(t *testing.T) {
	volumes := []Volume{{Number: 1, Length: 10}, {Number: 2, Offset: 10, Length: 10}}
	one := &Snapshot{ID: idOf(0x11), Disks: []Disk{{Name: "sda", Size: 100, Volumes: volumes}}}
	two := &Snapshot{ID: idOf(0x22), Disks: []Disk{{Name: "sda", Size: 100, Volumes: volumes}, {Name: "a:b", Size: 50, Volumes: volumes[:1]}, {Name: "p2", Size: 9}}}
	list := []*Snapshot{one, two}
	for _, c := range []struct {
		address, disk string
		volume        int
		path          string
		err           error
	}{
		{"1111", "sda", 0, "", nil},
		{"1111:sda", "sda", 0, "", nil},
		{"1111:p2", "sda", 2, "", nil},
		{"1111:p2/", "sda", 2, "/", nil},
		{"1111:p2/etc/a:b", "sda", 2, "/etc/a:b", nil},
		{"1111:sda:p1/x/y z", "sda", 1, "/x/y z", nil},
		{"1111:p3", "sda", 0, "", ErrNoVolume},
		{"1111:p0/x", "", 0, "", ErrNoDisk},
		{"1111:sda:2", "sda", 0, "", ErrNoVolume},
		{"1111:sdb", "", 0, "", ErrNoDisk},
		{"2222", "", 0, "", ErrNoDisk},
		{"2222:p1", "", 0, "", ErrNoDisk},
		{"2222:p2", "p2", 0, "", nil},
		{"2222:a:b", "a:b", 0, "", nil},
		{"2222:a:b:p1/q", "a:b", 1, "/q", nil},
		{"latest:a:b:p1", "a:b", 1, "", nil},
		{"3333:p1", "", 0, "", ErrNoSnapshot},
	} {
		a, err := FindAddress(list, c.address, Filter{})
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
			t.Errorf("%s: %v, not %v", c.address, err, c.err)
			continue
		}
		if err != nil {
			continue
		}
		number := 0
		if a.Volume != nil {
			number = a.Volume.Number
		}
		if a.Disk.Name != c.disk || number != c.volume || a.Path != c.path {
			t.Errorf("%s: disk %q, p%d, path %q", c.address, a.Disk.Name, number, a.Path)
		}
	}
}
