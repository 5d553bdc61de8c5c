package snapshot

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"varve/image"
)

// shelf keeps records in memory.
type shelf map[ID][]byte

func (s shelf) Records(context.Context) ([]ID, error) { return slices.Collect(maps.Keys(s)), nil }

func (s shelf) Record(_ context.Context, id ID) ([]byte, error) {
	record, found := s[id]
	if !found {
		return nil, fmt.Errorf("no record %s", short(id))
	}
	return record, nil
}

func (s shelf) ReplaceRecord(_ context.Context, old ID, data []byte) (ID, error) {
	delete(s, old)
	id := newStore().ID(data)
	s[id] = data
	return id, nil
}

// put stores a snapshot under an id of its own choice, 0 to 255.
func (s shelf) put(t *testing.T, id byte, x Snapshot) {
	t.Helper()
	x.Version = 1
	record, err := x.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s[ID{id}] = record
}

func list(t *testing.T, s shelf) []*Snapshot {
	t.Helper()
	l, err := List(context.Background(), s, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// shelfOfFour has four snapshots of two hosts, oldest first: 0x11, 0x12, 0x20, 0x30.
func shelfOfFour(t *testing.T) shelf {
	s := shelf{}
	a, b := Disk{Name: "sda", Path: "/dev/sda", Type: "device"}, Disk{Name: "b.img", Path: "/vm/b.img", Type: "file"}
	s.put(t, 0x12, Snapshot{Time: at("2026-01-02 00:00"), Host: "one", Tags: []string{"x", "y"}, Disks: []Disk{a}})
	s.put(t, 0x11, Snapshot{Time: at("2026-01-01 00:00"), Host: "one", Tags: []string{"x"}, Disks: []Disk{a}})
	s.put(t, 0x30, Snapshot{Time: at("2026-01-04 00:00"), Host: "two", Disks: []Disk{a, b}, Original: hex.EncodeToString([]byte{0x77, 0x77})})
	s.put(t, 0x20, Snapshot{Time: at("2026-01-03 00:00"), Host: "two", Disks: []Disk{b}})
	return s
}

func TestListIsInOrderAndTellsDamage(t *testing.T) {
	s := shelfOfFour(t)
	s[ID{0x99}] = []byte("no JSON")
	s[ID{0x98}] = []byte(`{"version":2}`)
	var damage []string
	l, err := List(context.Background(), s, func(err error) { damage = append(damage, err.Error()) })
	if err != nil {
		t.Fatal(err)
	}
	var ids []byte
	for _, x := range l {
		ids = append(ids, x.ID[0])
	}
	if want := []byte{0x11, 0x12, 0x20, 0x30}; !slices.Equal(ids, want) {
		t.Errorf("the order is %x, not %x", ids, want)
	}
	if slices.Sort(damage); len(damage) != 2 || !strings.Contains(damage[0], "newer varve") || !strings.Contains(damage[1], "damaged") {
		t.Errorf("damage told: %q", damage)
	}
}

func TestFind(t *testing.T) {
	l := list(t, shelfOfFour(t))
	for _, c := range []struct {
		name   string
		filter Filter
		want   byte
	}{
		{"latest", Filter{}, 0x30},
		{"latest", Filter{Hosts: []string{"one"}}, 0x12},
		{"latest", Filter{Tags: [][]string{{"x"}}}, 0x12},
		{"latest", Filter{Tags: [][]string{{"nobody"}, {"x", "y"}}}, 0x12},
		{"latest", Filter{Tags: [][]string{{""}}}, 0x30},
		{"latest", Filter{Disks: []string{"/dev/sda"}, Hosts: []string{"one", "two"}}, 0x30},
		{"20", Filter{}, 0x20},
		{"11", Filter{Hosts: []string{"two"}}, 0x11}, // a name needs no filter
		{hex.EncodeToString((&ID{0x12})[:]), Filter{}, 0x12},
		{"7777", Filter{}, 0x30}, // by the id that it had first
	} {
		s, err := Find(l, c.name, c.filter)
		if err != nil || s.ID != (ID{c.want}) {
			t.Errorf("%q with %+v is %v, %v, not %x", c.name, c.filter, s, err, c.want)
		}
	}
	for name, f := range map[string]Filter{"": {}, "1": {}, "5": {}, "LATEST": {}, "latest": {Hosts: []string{"three"}}} {
		if s, err := Find(l, name, f); !errors.Is(err, ErrNoSnapshot) {
			t.Errorf("%q with %+v is %v, %v", name, f, s, err)
		}
	}
}

func TestFindDisk(t *testing.T) {
	l := list(t, shelfOfFour(t))
	for _, c := range []struct {
		address string
		filter  Filter
		want    string
	}{
		{"20", Filter{}, "b.img"}, {"30:sda", Filter{}, "sda"}, {"latest:b.img", Filter{}, "b.img"},
		{"latest", Filter{Disks: []string{"/vm/b.img"}}, "b.img"}, {"latest", Filter{Disks: []string{"sda"}}, "sda"},
	} {
		if _, d, err := FindDisk(l, c.address, c.filter); err != nil || d.Name != c.want {
			t.Errorf("%q with %+v is %+v, %v, not %s", c.address, c.filter, d, err, c.want)
		}
	}
	for address, want := range map[string]error{"30": ErrNoDisk, "30:c": ErrNoDisk, "20:sda": ErrNoDisk, "55:sda": ErrNoSnapshot} {
		if _, _, err := FindDisk(l, address, Filter{}); !errors.Is(err, want) {
			t.Errorf("%q: %v, not %v", address, err, want)
		}
	}
}

func TestPairs(t *testing.T) {
	l := list(t, shelfOfFour(t))
	p, err := Pairs(l, "20", "30", Filter{})
	if err != nil || len(p.Disks) != 1 || p.Disks[0][0].Name != "b.img" || len(p.Added) != 1 || p.Added[0].Name != "sda" || len(p.Removed) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = Pairs(l, "30", "20", Filter{}); err != nil || len(p.Removed) != 1 || p.Removed[0].Name != "sda" {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = Pairs(l, "11", "20", Filter{}); err != nil || len(p.Disks) != 1 { // the only disks, whatever their names
		t.Errorf("%+v, %v", p, err)
	}
	if p, err = Pairs(l, "11", "30:b.img", Filter{}); err != nil || p.Disks[0][1].Name != "b.img" || len(p.Added) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err = Pairs(l, "11", "30:c", Filter{}); !errors.Is(err, ErrNoDisk) {
		t.Error(err)
	}
}

func TestParent(t *testing.T) {
	old := Snapshot{ID: ID{1}, Host: "h", Disks: []Disk{{Name: "sda", Path: "/dev/sda", Model: "M", Serial: "S1"}, {Name: "f", Path: "/f"}}}
	young := Snapshot{ID: ID{2}, Host: "h", Disks: []Disk{{Name: "sda", Path: "/dev/sda", Model: "M", Serial: "S2"}}}
	other := Snapshot{ID: ID{3}, Host: "elsewhere", Disks: []Disk{{Name: "f", Path: "/f"}}}
	l := []*Snapshot{&old, &young, &other}
	for _, c := range []struct {
		what string
		disk image.Info
		want *Snapshot
	}{
		{"path", image.Info{Path: "/f"}, &old},
		{"serial number, at another path", image.Info{Path: "/dev/sdb", Model: "M", Serial: "S1"}, &old},
		{"serial number, at the path of another disk", image.Info{Path: "/dev/sda", Model: "M", Serial: "S1"}, &old},
		{"path, without a serial number", image.Info{Path: "/dev/sda"}, &young},
		{"path of a disk with another serial number", image.Info{Path: "/dev/sda", Model: "M", Serial: "S3"}, nil},
		{"path that is not there", image.Info{Path: "/g"}, nil},
	} {
		s, d := Parent(l, "h", c.disk)
		if s != c.want || (d == nil) != (s == nil) {
			t.Errorf("%s: %+v", c.what, s)
		}
	}
}

func TestUnchanged(t *testing.T) {
	then := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	s := &Snapshot{Time: then}
	d := Disk{Type: "file", Size: 10, Inode: 1, Device: 2, ModTime: then.Add(-time.Hour), ChangeTime: then.Add(-time.Minute)}
	file := image.Info{Type: "file", Size: 10, Inode: 1, Device: 2, ModTime: d.ModTime, ChangeTime: d.ChangeTime}
	if !Unchanged(s, &d, file, LeftOut{}) {
		t.Error("the same file counts as changed")
	}
	for what, change := range map[string]func(d *Disk, f *image.Info){
		"size":                  func(_ *Disk, f *image.Info) { f.Size++ },
		"inode":                 func(_ *Disk, f *image.Info) { f.Inode++ },
		"device":                func(_ *Disk, f *image.Info) { f.Device++ },
		"mtime":                 func(_ *Disk, f *image.Info) { f.ModTime = f.ModTime.Add(1) },
		"ctime":                 func(_ *Disk, f *image.Info) { f.ChangeTime = f.ChangeTime.Add(1) },
		"type":                  func(_ *Disk, f *image.Info) { f.Type = "device" },
		"unreadable before":     func(d *Disk, _ *image.Info) { d.Bad = []Range{{0, 1}} },
		"less to be left out":   func(d *Disk, _ *image.Info) { d.LeftOut.Free = true },
		"others to be left out": func(d *Disk, _ *image.Info) { d.LeftOut.Exclude = []string{"*.iso"} },
		"no times":              func(d *Disk, f *image.Info) { d.ModTime, f.ModTime = time.Time{}, time.Time{} },
		"changed a moment before that backup": func(d *Disk, f *image.Info) {
			d.ChangeTime = then.Add(-time.Second)
			f.ChangeTime = d.ChangeTime
		},
	} {
		d, file := d, file
		if change(&d, &file); Unchanged(s, &d, file, LeftOut{}) {
			t.Errorf("%s: the file counts as unchanged", what)
		}
	}
}

func TestReplaceKeepsTheFirstID(t *testing.T) {
	ctx := context.Background()
	s := shelfOfFour(t)
	x := list(t, s)[0]
	first := hex.EncodeToString(x.ID[:])
	for _, tag := range []string{"a", "b"} {
		if !(Tagging{Add: []string{tag}}).Apply(x) {
			t.Fatal("nothing changed")
		}
		if err := Replace(ctx, s, x); err != nil {
			t.Fatal(err)
		}
	}
	l := list(t, s)
	if len(l) != 4 {
		t.Fatalf("%d snapshots", len(l))
	}
	found, err := Find(l, first[:8], Filter{})
	if err != nil || found.ID != x.ID || !slices.Equal(found.Tags, []string{"x", "a", "b"}) || found.Original != first {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestForget(t *testing.T) {
	l, now := list(t, shelfOfFour(t)), time.Now()
	l[0].Held = true
	if _, err := Forget(l, nil, Policy{}, false, now); !errors.Is(err, ErrNoPolicy) {
		t.Error(err)
	}
	outcomes, err := Forget(l, []string{"host"}, Policy{Last: 1}, false, now)
	if err != nil || len(outcomes) != 2 {
		t.Fatalf("%+v, %v", outcomes, err)
	}
	if o := outcomes[0]; o.Host != "one" || len(o.Keep) != 2 || len(o.Remove) != 0 {
		t.Errorf("a held snapshot goes: %+v", o)
	}
	if o := outcomes[1]; o.Host != "two" || len(o.Keep) != 1 || len(o.Remove) != 1 || o.Remove[0] != l[2] {
		t.Errorf("%+v", o)
	}
	if _, err := Forget(l, []string{"host"}, Policy{Tags: [][]string{{"x"}}}, false, now); !errors.Is(err, ErrRemoveAll) {
		t.Error(err)
	}
	if outcomes, err = Forget(l, []string{"host"}, Policy{}, true, now); err != nil || len(outcomes[0].Remove) != 1 || len(outcomes[1].Remove) != 2 {
		t.Errorf("%+v, %v", outcomes, err)
	}
	if _, err := ForgetNamed(l, []string{"12", "11"}, Filter{}); !errors.Is(err, ErrHeld) {
		t.Error(err)
	}
	o, err := ForgetNamed(l, []string{"12", "12", "latest"}, Filter{})
	if err != nil || len(o.Remove) != 2 || len(o.Keep) != 2 {
		t.Errorf("%+v, %v", o, err)
	}
}
