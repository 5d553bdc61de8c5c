package snapshot

import (
	"fmt"
	"slices"
	"testing"
	"time"
	_ "time/tzdata" // the zones are the same on every machine

	"pgregory.net/rapid"
)

// This file says once more which snapshots a policy keeps: as a predicate on one snapshot among all others, without an
// order in which they are looked at, counters or names of periods.

// samePeriod reports whether two times of one zone lie in the same period.
var samePeriod = map[string]func(a, b time.Time) bool{
	"hour": func(a, b time.Time) bool {
		_, za := a.Zone()
		_, zb := b.Zone()
		return sameDay(a, b) && a.Hour() == b.Hour() && za == zb
	},
	"day":   sameDay,
	"week":  func(a, b time.Time) bool { return monday(a) == monday(b) },
	"month": func(a, b time.Time) bool { return a.Year() == b.Year() && a.Month() == b.Month() },
	"year":  func(a, b time.Time) bool { return a.Year() == b.Year() },
	"none":  func(a, b time.Time) bool { return false },
}

func sameDay(a, b time.Time) bool { return a.Year() == b.Year() && a.YearDay() == b.YearDay() }

// monday is the number of the week since one long ago, by the civil date alone.
func monday(t time.Time) int64 {
	days := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC).Unix() / 86400
	return (days + 3) / 7 // day 0 was a Thursday
}

// before reports whether a comes before b in a list, newest first.
func before(a, b *Snapshot) bool {
	return a.Time.After(b.Time) || a.Time.Equal(b.Time) && string(a.ID[:]) > string(b.ID[:])
}

// keeps says whether p keeps s of list.
func keeps(p Policy, list []*Snapshot, s *Snapshot, now time.Time) bool {
	zone := now.Location()
	if s.Held || slices.ContainsFunc(p.Tags, func(tags []string) bool {
		return !slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(s.Tags, tag) && (tag != "" || len(s.Tags) > 0) })
	}) {
		return true
	}
	oldest := !slices.ContainsFunc(list, func(o *Snapshot) bool { return before(s, o) })
	newestOf := func(s *Snapshot, period string) bool {
		return !slices.ContainsFunc(list, func(o *Snapshot) bool { return before(o, s) && samePeriod[period](o.Time.In(zone), s.Time.In(zone)) })
	}
	for _, c := range []struct {
		n      int
		period string
	}{{p.Last, "none"}, {p.Hourly, "hour"}, {p.Daily, "day"}, {p.Weekly, "week"}, {p.Monthly, "month"}, {p.Yearly, "year"}} {
		if c.n == 0 || !newestOf(s, c.period) && !oldest {
			continue
		}
		others := 0 // other periods with a newer snapshot
		for _, o := range list {
			if before(o, s) && newestOf(o, c.period) {
				others++
			}
		}
		if c.n == Forever || others < c.n {
			return true
		}
	}
	for _, c := range []struct {
		span   Span
		period string
	}{{p.Within, "none"}, {p.WithinHourly, "hour"}, {p.WithinDaily, "day"}, {p.WithinWeekly, "week"}, {p.WithinMonthly, "month"}, {p.WithinYearly, "year"}} {
		if c.span == (Span{}) || !newestOf(s, c.period) && !oldest {
			continue
		}
		// Nothing that is the last before the future lies so far after s that s is too old.
		young := true
		for _, o := range list {
			last := !o.Time.After(now) && !slices.ContainsFunc(list, func(p *Snapshot) bool { return p.Time.After(o.Time) && !p.Time.After(now) })
			from := o.Time.In(zone)
			if c.span != (Span{Hours: c.span.Hours}) {
				from = from.AddDate(-c.span.Years, -c.span.Months, -c.span.Days)
			}
			if last && s.Time.Before(o.Time) && !s.Time.After(from.Add(-time.Duration(c.span.Hours)*time.Hour)) {
				young = false
			}
		}
		if young {
			return true
		}
	}
	return false
}

// around are moments at which something happens to the clocks of a zone.
var around = []struct {
	zone string
	time time.Time
}{
	{"America/St_Johns", time.Date(2010, 11, 7, 2, 30, 30, 0, time.UTC)},  // half a minute later 0:01 becomes 23:01 of the day before
	{"Pacific/Apia", time.Date(2011, 12, 30, 10, 0, 0, 0, time.UTC)},      // there is no 30 December
	{"Europe/Berlin", time.Date(2024, 3, 31, 1, 0, 0, 0, time.UTC)},       // 2:00 becomes 3:00
	{"Europe/Berlin", time.Date(2024, 10, 27, 1, 0, 0, 0, time.UTC)},      // 3:00 becomes 2:00
	{"Australia/Lord_Howe", time.Date(2024, 4, 6, 15, 0, 0, 0, time.UTC)}, // half an hour back
	{"Asia/Kathmandu", time.Date(2024, 12, 31, 18, 15, 0, 0, time.UTC)},   // New Year's Eve, in a week that lies in two years
	{"UTC", time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)},
}

// diary draws snapshots: some close together, some far apart, some at the same time, some in the future.
func diary(t *rapid.T) (list []*Snapshot, now time.Time) {
	middle := rapid.SampledFrom(around).Draw(t, "around")
	zone, err := time.LoadLocation(middle.zone)
	if err != nil {
		t.Fatal(err)
	}
	unit := rapid.SampledFrom([]time.Duration{10 * time.Minute, 25 * time.Minute, 5 * time.Hour, 3 * 24 * time.Hour, 40 * 24 * time.Hour}).Draw(t, "unit")
	for i, seed := range rapid.SliceOfN(rapid.Uint32(), 0, 40).Draw(t, "snapshots") {
		s := &Snapshot{ID: ID{byte(i + 1)}, Held: seed%17 == 0, Time: middle.time}
		if i > 0 {
			s.Time = s.Time.Add(unit * time.Duration(int(seed>>8)%41-20))
		}
		s.Tags = [][]string{nil, nil, {"x"}, {"y", "x"}}[seed>>4&3]
		list = append(list, s)
	}
	return list, middle.time.Add(unit * time.Duration(rapid.IntRange(-25, 25).Draw(t, "now"))).In(zone)
}

// drawPolicy draws one of a few rules: many would hide one another.
func drawPolicy(t *rapid.T) (p Policy) {
	counts := []*int{&p.Last, &p.Hourly, &p.Daily, &p.Weekly, &p.Monthly, &p.Yearly}
	spans := []*Span{&p.Within, &p.WithinHourly, &p.WithinDaily, &p.WithinWeekly, &p.WithinMonthly, &p.WithinYearly}
	for range rapid.IntRange(0, 3).Draw(t, "rules") {
		which := rapid.IntRange(0, len(counts)+len(spans)).Draw(t, "rule")
		switch {
		case which < len(counts):
			*counts[which] = rapid.SampledFrom([]int{1, 2, 5, 30, Forever}).Draw(t, "number")
		case which < len(counts)+len(spans):
			*spans[which-len(counts)] = rapid.SampledFrom([]Span{{Hours: 3}, {Days: 1}, {Days: 40, Hours: 1}, {Months: 1}, {Years: 1, Months: 1}}).Draw(t, "span")
		default:
			p.Tags = rapid.SampledFrom([][][]string{{{"x"}}, {{"x", "y"}, {"z"}}, {{""}}}).Draw(t, "tags")
		}
	}
	return p
}

// often checks a property for many more cases than rapid draws by itself: each takes next to no time.
func often(t *testing.T, property func(*rapid.T)) {
	for range 50 {
		if rapid.Check(t, property); t.Failed() {
			return
		}
	}
}

// kept applies p and returns the ids that it keeps, with what everybody may expect of Apply checked.
func kept(t *rapid.T, p Policy, list []*Snapshot, now time.Time) (ids []string, keep []*Snapshot) {
	k, remove := p.Apply(list, now)
	if len(k)+len(remove) != len(list) {
		t.Fatalf("%+v keeps %d and removes %d of %d", p, len(k), len(remove), len(list))
	}
	for _, s := range k {
		if len(s.Reasons) == 0 {
			t.Fatalf("%+v keeps %v for no reason", p, s.Time)
		}
		keep = append(keep, s.Snapshot)
		ids = append(ids, fmt.Sprintf("%d at %v", s.ID[0], s.Time.In(now.Location())))
	}
	for _, s := range remove {
		if slices.Contains(keep, s) {
			t.Fatalf("%+v keeps and removes %v", p, s.Time)
		}
	}
	slices.Sort(ids)
	return ids, keep
}

func TestAPolicyKeepsWhatItSays(t *testing.T) {
	often(t, func(t *rapid.T) {
		list, now := diary(t)
		p := drawPolicy(t)
		got, keep := kept(t, p, list, now)
		var want []string
		for _, s := range list {
			if keeps(p, list, s, now) {
				want = append(want, fmt.Sprintf("%d at %v", s.ID[0], s.Time.In(now.Location())))
			}
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("%+v at %v keeps\n%q, not\n%q", p, now, got, want)
		}

		// The order in which the snapshots come does not matter.
		if mixed, _ := kept(t, p, rapid.Permutation(list).Draw(t, "mixed"), now); !slices.Equal(mixed, got) {
			t.Fatalf("%+v in another order keeps\n%q, not\n%q", p, mixed, got)
		}
		// Once applied, the policy has nothing more to remove.
		if again, _ := kept(t, p, keep, now); !slices.Equal(again, got) {
			t.Fatalf("%+v the second time keeps\n%q, not\n%q", p, again, got)
		}
	})
}

// TestALargerNumberNeverKeepsLess: whoever asks for more has all that he had.
func TestALargerNumberNeverKeepsLess(t *testing.T) {
	often(t, func(t *rapid.T) {
		list, now := diary(t)
		p := drawPolicy(t)
		less, _ := kept(t, p, list, now)
		larger := p
		more := func(n *int, what string) {
			if *n != Forever {
				*n += rapid.IntRange(0, 3).Draw(t, "more "+what)
			}
		}
		more(&larger.Last, "last")
		more(&larger.Hourly, "hourly")
		more(&larger.Daily, "daily")
		more(&larger.Weekly, "weekly")
		more(&larger.Monthly, "monthly")
		more(&larger.Yearly, "yearly")
		longer := func(s *Span, what string) { s.Days += rapid.IntRange(0, 50).Draw(t, "longer "+what) }
		longer(&larger.Within, "within")
		longer(&larger.WithinHourly, "hourly")
		longer(&larger.WithinDaily, "daily")
		longer(&larger.WithinWeekly, "weekly")
		longer(&larger.WithinMonthly, "monthly")
		longer(&larger.WithinYearly, "yearly")
		got, _ := kept(t, larger, list, now)
		for _, s := range less {
			if !slices.Contains(got, s) {
				t.Fatalf("%+v keeps %s, and %+v does not", p, s, larger)
			}
		}
	})
}

// TestASnapshotOfTheFutureDoesNotAgeTheOthers: a machine whose clock is ahead must not make --keep-within drop them.
func TestASnapshotOfTheFutureDoesNotAgeTheOthers(t *testing.T) {
	now := at("2026-05-01 12:00")
	var list []*Snapshot
	for day := range 5 {
		list = append(list, &Snapshot{ID: ID{byte(day)}, Time: now.AddDate(0, 0, -day)})
	}
	list = append(list, &Snapshot{ID: ID{9}, Time: now.AddDate(10, 0, 0)})
	if _, remove := (Policy{Within: Span{Days: 3}}).Apply(list, now); len(remove) != 2 {
		t.Errorf("%d go, not the 2 that are older than 3 days", len(remove))
	}
	if _, remove := (Policy{Within: Span{Days: 3}}).Apply(list[5:], now); len(remove) != 0 {
		t.Error("of snapshots that are all in the future, one goes")
	}
}

// TestHoursAreHours: also from a time that comes twice, because clocks are put back.
func TestHoursAreHours(t *testing.T) {
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	second := time.Date(2024, 10, 27, 1, 30, 0, 0, time.UTC).In(zone) // 2:30 for the second time
	if got := (Span{Hours: 3}).Before(second); !got.Equal(second.Add(-3 * time.Hour)) {
		t.Errorf("3 hours before %v is %v", second, got)
	}
}
