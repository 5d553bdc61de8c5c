package snapshot

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
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
		keep, remove := tt.policy.Apply(list)
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

// rule is a second formulation of the counting rules: the newest snapshot of each of the n newest periods, and the
// oldest snapshot of all when there are fewer periods.
func rule(list []*Snapshot, n int, period func(time.Time) string) map[*Snapshot]bool {
	keep := map[*Snapshot]bool{}
	if n == 0 || len(list) == 0 {
		return keep
	}
	newest := map[string]*Snapshot{}
	for _, s := range list {
		p := period(s.Time.Local())
		if newest[p] == nil || s.Time.After(newest[p].Time) {
			newest[p] = s
		}
	}
	var firsts []*Snapshot
	for _, s := range newest {
		firsts = append(firsts, s)
	}
	sort.Slice(firsts, func(i, j int) bool { return firsts[i].Time.After(firsts[j].Time) })
	for i, s := range firsts {
		if n == Forever || i < n {
			keep[s] = true
		}
	}
	if n == Forever || len(firsts) < n {
		oldest := slices.MinFunc(list, func(a, b *Snapshot) int { return a.Time.Compare(b.Time) })
		keep[oldest] = true
	}
	return keep
}

func TestPolicyAgainstASecondFormulation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seen := map[int]bool{}
		var list []*Snapshot
		for range rapid.IntRange(0, 40).Draw(t, "snapshots") {
			minutes := rapid.IntRange(0, 3*365*24*60).Draw(t, "minutes")
			if seen[minutes] {
				continue
			}
			seen[minutes] = true
			list = append(list, &Snapshot{Time: at("2024-01-01 00:00").Add(time.Duration(minutes) * time.Minute), Held: rapid.IntRange(0, 9).Draw(t, "held") == 0})
		}
		n := rapid.SampledFrom([]int{0, 0, 1, 2, 5, 30, Forever})
		p := Policy{Last: n.Draw(t, "last"), Hourly: n.Draw(t, "hourly"), Daily: n.Draw(t, "daily"), Weekly: n.Draw(t, "weekly"), Monthly: n.Draw(t, "monthly"), Yearly: n.Draw(t, "yearly")}
		want := map[*Snapshot]bool{}
		for _, r := range []struct {
			n      int
			period func(time.Time) string
		}{{p.Last, func(t time.Time) string { return t.Format(time.RFC3339Nano) }}, {p.Hourly, byHour}, {p.Daily, byDay}, {p.Weekly, byWeek}, {p.Monthly, byMonth}, {p.Yearly, byYear}} {
			for s := range rule(list, r.n, r.period) {
				want[s] = true
			}
		}
		for _, s := range list {
			if s.Held {
				want[s] = true
			}
		}
		keep, remove := p.Apply(list)
		if len(keep) != len(want) || len(keep)+len(remove) != len(list) {
			t.Fatalf("%+v keeps %d and removes %d of %d, want %d kept", p, len(keep), len(remove), len(list), len(want))
		}
		var kept []*Snapshot
		for _, k := range keep {
			if !want[k.Snapshot] || len(k.Reasons) == 0 {
				t.Fatalf("%+v keeps %v for %v", p, k.Time, k.Reasons)
			}
			kept = append(kept, k.Snapshot)
		}
		// Once applied, the policy has nothing more to remove.
		if _, again := p.Apply(kept); len(again) != 0 {
			t.Fatalf("%+v removes %d more the second time", p, len(again))
		}
	})
}

func TestSpans(t *testing.T) {
	for text, want := range map[string]Span{"1y5m7d2h": {1, 5, 7, 2}, "30d": {Days: 30}, "2h1h": {Hours: 3}} {
		if got, err := ParseSpan(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "7", "d", "1w", "-1d", "1d3", "99999999999999999999d"} {
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
			got = append(got, fmt.Sprintf("%s/%s/%s:%d", g.Host, g.Disks, g.Tags, len(g.Snapshots)))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("by %q: %s, want %s", by, strings.Join(got, " "), want)
		}
	}
	if _, err := GroupBy(list, []string{"colour"}); err == nil {
		t.Error("grouping by colour is accepted")
	}
}
