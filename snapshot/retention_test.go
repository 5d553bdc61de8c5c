package snapshot

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"
)

func at(text string) time.Time {
	t, err := time.ParseInLocation("2006-01-02 15:04", text, time.Local)
	if err != nil {
		panic(err)
	}
	return t
}

func TestPolicyOnADiary(t *testing.T) {
	var list []*Snapshot
	for day := range 100 { // two a day, from 2026-01-01
		for _, hour := range []int{3, 15} {
			list = append(list, &Snapshot{Time: at("2026-01-01 00:00").AddDate(0, 0, day).Add(time.Duration(hour) * time.Hour)})
		}
	}
	for _, tt := range []struct {
		policy Policy
		want   string // first and last kept, and how many
	}{
		{Policy{Last: 3}, "2026-04-10 15 .. 2026-04-09 15: 3"},
		{Policy{Daily: 7}, "2026-04-10 15 .. 2026-04-04 15: 7"},
		{Policy{Daily: Forever}, "2026-04-10 15 .. 2026-01-01 03: 101"}, // and the oldest
		{Policy{Weekly: 3}, "2026-04-10 15 .. 2026-03-29 15: 3"},
		{Policy{Monthly: 12}, "2026-04-10 15 .. 2026-01-01 03: 5"},
		{Policy{Yearly: 10}, "2026-04-10 15 .. 2026-01-01 03: 2"},
		{Policy{Within: Span{Days: 2}}, "2026-04-10 15 .. 2026-04-09 03: 4"},
		{Policy{WithinDaily: Span{Days: 5}}, "2026-04-10 15 .. 2026-04-06 15: 5"},
		{Policy{Last: 1, Monthly: 2}, "2026-04-10 15 .. 2026-03-31 15: 2"},
	} {
		keep, remove := tt.policy.Apply(list, at("2026-05-01 00:00"))
		const layout = "2006-01-02 15"
		got := fmt.Sprintf("%s .. %s: %d", keep[0].Time.Format(layout), keep[len(keep)-1].Time.Format(layout), len(keep))
		if got != tt.want {
			t.Errorf("%+v keeps %s, want %s", tt.policy, got, tt.want)
		}
		if len(keep)+len(remove) != len(list) {
			t.Errorf("%+v loses snapshots", tt.policy)
		}
	}
}

func TestSpans(t *testing.T) {
	for text, want := range map[string]Span{"1y5m7d2h": {1, 5, 7, 2}, "30d": {Days: 30}, "2h1h": {Hours: 3}} {
		if got, err := ParseSpan(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "7", "d", "1w", "-1d", "1d3", "99999999999999999999d", "1000000h1h", "1000000y1000000y"} {
		if _, err := ParseSpan(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestGroups(t *testing.T) {
	list := []*Snapshot{
		{Host: "a", Tags: []string{"x"}, Disks: []Disk{{Path: "/dev/sda"}}},
		{Host: "a", Disks: []Disk{{Path: "/dev/sdb"}, {Path: "/dev/sda"}}},
		{Host: "b", Tags: []string{"y", "x"}, Disks: []Disk{{Path: "/dev/sda"}}},
		{Host: "a", Disks: []Disk{{Path: "/dev/sda"}, {Path: "/dev/sdb"}}},
	}
	for by, want := range map[string]string{
		"":           "//:4",
		"host":       "a//:3 b//:1",
		"host,disks": "a//dev/sda/:1 a//dev/sda,/dev/sdb/:2 b//dev/sda/:1",
		"tags":       "//:2 //x:1 //x,y:1",
	} {
		groups, err := GroupBy(list, strings.Split(by, ","))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, g := range groups {
			got = append(got, fmt.Sprintf("%s/%s/%s:%d", g.Host, strings.Join(g.Disks, ","), strings.Join(g.Tags, ","), len(g.Snapshots)))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("by %q: %s, want %s", by, strings.Join(got, " "), want)
		}
	}
	// Names that look alike when they are joined are not the same.
	alike := []*Snapshot{{Disks: []Disk{{Path: "a,b"}}}, {Disks: []Disk{{Path: "a"}, {Path: "b"}}}}
	if groups, err := GroupBy(alike, []string{"disks"}); err != nil || len(groups) != 2 {
		t.Errorf("%+v, %v", groups, err)
	}
	if _, err := GroupBy(list, []string{"colour"}); err == nil {
		t.Error("grouping by colour is accepted")
	}
}

// TestRecordsOfOneSnapshot: a crash while tags were changed has left a snapshot twice. It counts once, and no other goes for it.
func TestRecordsOfOneSnapshot(t *testing.T) {
	now := time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC)
	var list []*Snapshot
	for i := range 5 {
		list = append(list, &Snapshot{ID: ID{byte(i + 1)}, Time: now.Add(time.Duration(i-5) * time.Hour)})
	}
	first := hex.EncodeToString(list[4].ID[:])
	list = append(list, &Snapshot{ID: ID{200}, Time: list[4].Time, Original: first}, &Snapshot{ID: ID{201}, Time: list[4].Time, Original: first, Held: true})
	for last, want := range map[int]int{1: 3, 3: 5, 5: 7} {
		keep, remove := Policy{Last: last}.Apply(list, now)
		if len(keep) != want || len(keep)+len(remove) != len(list) {
			t.Errorf("the last %d: %d are kept and %d removed", last, len(keep), len(remove))
		}
	}
	// One of them is held: all stay.
	for _, s := range list[:5] {
		s.Tags = []string{"a"}
	}
	list = append(list, &Snapshot{ID: ID{250}, Time: now})
	keep, _ := Policy{Last: 1}.Apply(list, now)
	if len(keep) != 4 {
		t.Errorf("%d are kept", len(keep))
	}
	keep, remove := Policy{Last: 1}.Apply([]*Snapshot{list[4], list[5], list[7]}, now)
	if len(keep) != 1 || len(remove) != 2 {
		t.Errorf("%d are kept, %d removed", len(keep), len(remove))
	}
}
