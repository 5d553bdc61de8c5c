package snapshot

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Span is a length of time in calendar units, as "1y5m7d2h".
type Span struct{ Years, Months, Days, Hours int }

// maxSpan bounds the numbers of a span, so that no sum of them overflows.
const maxSpan = 1_000_000

// ParseSpan reads a span: numbers, each with y, m, d or h behind it.
func ParseSpan(text string) (Span, error) {
	var s Span
	for rest := text; rest != ""; {
		n := strings.IndexAny(rest, "ymdh")
		if n < 1 {
			return Span{}, fmt.Errorf("%q is not a length of time such as 1y5m7d2h", text)
		}
		v, err := strconv.Atoi(rest[:n])
		if err != nil || v < 0 || v > maxSpan {
			return Span{}, fmt.Errorf("%q is not a length of time such as 1y5m7d2h", text)
		}
		switch rest[n] {
		case 'y':
			s.Years += v
		case 'm':
			s.Months += v
		case 'd':
			s.Days += v
		case 'h':
			s.Hours += v
		}
		rest = rest[n+1:]
	}
	if text == "" {
		return Span{}, errors.New("a length of time is missing, such as 1y5m7d2h")
	}
	if max(s.Years, s.Months, s.Days, s.Hours) > maxSpan {
		return Span{}, fmt.Errorf("%q is longer than anybody keeps a snapshot", text)
	}
	return s, nil
}

// Before returns the time that lies s before t.
func (s Span) Before(t time.Time) time.Time {
	if s.Years != 0 || s.Months != 0 || s.Days != 0 { // else even no days back is another moment where an hour comes twice
		t = t.AddDate(-s.Years, -s.Months, -s.Days)
	}
	return t.Add(-time.Duration(s.Hours) * time.Hour)
}

func (s Span) zero() bool { return s == Span{} }

// Forever keeps all of a kind, where a number is expected.
const Forever = -1

// Policy says which snapshots to keep. A snapshot that any rule keeps is kept.
type Policy struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly                                 int // Forever: all
	Within, WithinHourly, WithinDaily, WithinWeekly, WithinMonthly, WithinYearly Span
	Tags                                                                         [][]string // any snapshot that has all tags of one list
}

// Empty reports whether p has no rule, and so would keep nothing.
func (p Policy) Empty() bool {
	return p.Last == 0 && p.Hourly == 0 && p.Daily == 0 && p.Weekly == 0 && p.Monthly == 0 && p.Yearly == 0 && len(p.Tags) == 0 &&
		p.Within.zero() && p.WithinHourly.zero() && p.WithinDaily.zero() && p.WithinWeekly.zero() && p.WithinMonthly.zero() && p.WithinYearly.zero()
}

// Kept is a snapshot that a policy keeps, and why.
type Kept struct {
	*Snapshot
	Reasons []string
}

// A rule keeps the newest snapshot of each period, of so many periods or of those that are not too old.
type rule struct {
	left   int                    // how many more periods, Forever: any number
	within Span                   // how far back from the latest snapshot; no limit when zero
	period func(time.Time) string // nil: every snapshot has a period of its own
	reason string
	seen   map[string]bool // periods so far
}

// An hour has its offset in its name: where clocks are put back, it comes twice. A week is named by the year in which
// most of it lies.
func byHour(t time.Time) string  { return t.Format("2006-01-02 15 -0700") }
func byDay(t time.Time) string   { return t.Format("2006-01-02") }
func byMonth(t time.Time) string { return t.Format("2006-01") }
func byYear(t time.Time) string  { return t.Format("2006") }
func byWeek(t time.Time) string  { y, w := t.ISOWeek(); return fmt.Sprintf("%d %d", y, w) }

// newer orders snapshots, the newest first. Of those of the same time, the one that "latest" means comes first.
func newer(a, b *Snapshot) int {
	if c := b.Time.Compare(a.Time); c != 0 {
		return c
	}
	return bytes.Compare(b.ID[:], a.ID[:])
}

// Apply splits the snapshots of one group into those that p keeps and those to remove, both newest first. Hours and
// days are those of the time zone of now. The spans count back from the newest snapshot that is not later than now: one
// from a machine whose clock is ahead must not make all others old. In a group that is not empty, the oldest snapshot is
// kept by a rule that counts periods and is not used up, and by a rule with a span in which it lies, as the nearest to what
// is asked for. A held snapshot is kept. Records of one snapshot, which a crash while it was changed leaves, count as one and have one fate.
func (p Policy) Apply(snapshots []*Snapshot, now time.Time) (keep []Kept, remove []*Snapshot) {
	list := slices.Clone(snapshots)
	slices.SortStableFunc(list, newer)
	records := map[string][]*Snapshot{} // of a snapshot that was changed, by the id of its first record
	for _, s := range list {
		if s.Original != "" {
			records[s.Original] = nil
		}
	}
	first := func(s *Snapshot) string { return cmp.Or(s.Original, hex.EncodeToString(s.ID[:])) }
	list = slices.DeleteFunc(list, func(s *Snapshot) bool {
		same, changed := records[first(s)]
		if changed {
			records[first(s)] = append(same, s)
		}
		return len(same) > 0
	})
	var latest time.Time // stays zero when all are in the future; then none is too old
	for _, s := range list {
		if !s.Time.After(now) {
			latest = s.Time.In(now.Location())
			break
		}
	}
	counting := []*rule{
		{left: p.Last, reason: "last snapshot"},
		{left: p.Hourly, period: byHour, reason: "hourly snapshot"},
		{left: p.Daily, period: byDay, reason: "daily snapshot"},
		{left: p.Weekly, period: byWeek, reason: "weekly snapshot"},
		{left: p.Monthly, period: byMonth, reason: "monthly snapshot"},
		{left: p.Yearly, period: byYear, reason: "yearly snapshot"},
	}
	within := []*rule{
		{within: p.Within, reason: "within"},
		{within: p.WithinHourly, period: byHour, reason: "hourly within"},
		{within: p.WithinDaily, period: byDay, reason: "daily within"},
		{within: p.WithinWeekly, period: byWeek, reason: "weekly within"},
		{within: p.WithinMonthly, period: byMonth, reason: "monthly within"},
		{within: p.WithinYearly, period: byYear, reason: "yearly within"},
	}
	for _, r := range slices.Concat(counting, within) {
		r.seen = map[string]bool{}
	}
	for i, s := range list {
		var reasons []string
		same := records[first(s)]
		if same == nil {
			same = []*Snapshot{s}
		}
		if slices.ContainsFunc(same, func(s *Snapshot) bool { return s.Held }) {
			reasons = append(reasons, "held")
		}
		for _, tags := range p.Tags {
			if slices.ContainsFunc(same, func(s *Snapshot) bool { return s.HasTags(tags) }) {
				reasons = append(reasons, "has tags "+strings.Join(tags, ","))
			}
		}
		local := s.Time.In(now.Location())
		for _, r := range counting {
			if r.left == 0 {
				continue
			}
			reason := r.reason
			if !r.first(i, local) {
				if i != len(list)-1 {
					continue
				}
				reason = "oldest " + reason
			}
			reasons = append(reasons, reason)
			if r.left > 0 {
				r.left--
			}
		}
		for _, r := range within {
			// The latest itself is never too old, not even where the day before it was left out of the calendar.
			young := s.Time.After(r.within.Before(latest)) || !s.Time.Before(latest)
			if r.within.zero() || !young {
				continue
			}
			if reason := r.reason + " " + r.within.String(); r.first(i, local) {
				reasons = append(reasons, reason)
			} else if i == len(list)-1 {
				reasons = append(reasons, "oldest "+reason)
			}
		}
		if len(reasons) == 0 {
			remove = append(remove, same...)
			continue
		}
		for _, record := range same {
			keep = append(keep, Kept{record, reasons})
		}
	}
	return keep, remove
}

// first reports whether snapshot number i, of time t, is the first one in its period that r is asked about.
func (r *rule) first(i int, t time.Time) bool {
	period := strconv.Itoa(i)
	if r.period != nil {
		period = r.period(t)
	}
	if r.seen[period] {
		return false
	}
	r.seen[period] = true
	return true
}

// String is the inverse of ParseSpan.
func (s Span) String() string {
	text := ""
	for _, part := range []struct {
		n    int
		unit string
	}{{s.Years, "y"}, {s.Months, "m"}, {s.Days, "d"}, {s.Hours, "h"}} {
		if part.n != 0 {
			text += strconv.Itoa(part.n) + part.unit
		}
	}
	if text == "" {
		return "0h"
	}
	return text
}

// HasTags reports whether s has every one of tags. A list of one empty tag means that it has none.
func (s *Snapshot) HasTags(tags []string) bool {
	if len(tags) == 1 && tags[0] == "" {
		return len(s.Tags) == 0
	}
	for _, t := range tags {
		if !slices.Contains(s.Tags, t) {
			return false
		}
	}
	return true
}

// Group is a set of snapshots that a policy is applied to by itself. What it was not grouped by is empty.
type Group struct {
	Host      string
	Disks     []string // paths, in order
	Tags      []string // in order
	Snapshots []*Snapshot
}

// compare orders groups by what they share.
func (g Group) compare(other Group) int {
	return cmp.Or(strings.Compare(g.Host, other.Host), slices.Compare(g.Disks, other.Disks), slices.Compare(g.Tags, other.Tags))
}

// GroupBy sorts snapshots into groups that share what by names: any of "host", "disks" ("paths" is taken as the same)
// and "tags". Groups come in the order of their names.
func GroupBy(snapshots []*Snapshot, by []string) ([]Group, error) {
	var groups []Group
	for _, s := range snapshots {
		var own Group
		for _, b := range by {
			switch b {
			case "host", "hosts":
				own.Host = s.Host
			case "disks", "disk", "paths":
				own.Disks = nil
				for _, d := range s.Disks {
					own.Disks = append(own.Disks, d.Path)
				}
				slices.Sort(own.Disks)
			case "tags", "tag":
				own.Tags = slices.Clone(s.Tags)
				slices.Sort(own.Tags)
			case "":
			default:
				return nil, fmt.Errorf("snapshots cannot be grouped by %q: it is host, disks or tags", b)
			}
		}
		i, found := slices.BinarySearchFunc(groups, own, Group.compare)
		if !found {
			groups = slices.Insert(groups, i, own)
		}
		groups[i].Snapshots = append(groups[i].Snapshots, s)
	}
	return groups, nil
}
