package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Span is a length of time in calendar units, as "1y5m7d2h".
type Span struct{ Years, Months, Days, Hours int }

// ParseSpan reads a span: numbers, each with y, m, d or h behind it.
func ParseSpan(text string) (Span, error) {
	var s Span
	for rest := text; rest != ""; {
		n := strings.IndexAny(rest, "ymdh")
		if n < 1 {
			return Span{}, fmt.Errorf("%q is not a length of time such as 1y5m7d2h", text)
		}
		v, err := strconv.Atoi(rest[:n])
		if err != nil || v < 0 || v > 1_000_000 {
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
	return s, nil
}

// before returns the time that lies s before t.
func (s Span) before(t time.Time) time.Time {
	return t.AddDate(-s.Years, -s.Months, -s.Days).Add(-time.Duration(s.Hours) * time.Hour)
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

// bucket is one rule: of the snapshots that share a name, the newest is kept.
type bucket struct {
	left   int                    // how many more names, Forever: any number
	within Span                   // no limit when zero
	name   func(time.Time) string // nil: every snapshot has a name of its own
	reason string
	last   string
}

func byHour(t time.Time) string  { return t.Format("2006-01-02 15") }
func byDay(t time.Time) string   { return t.Format("2006-01-02") }
func byMonth(t time.Time) string { return t.Format("2006-01") }
func byYear(t time.Time) string  { return t.Format("2006") }
func byWeek(t time.Time) string  { y, w := t.ISOWeek(); return fmt.Sprintf("%d %d", y, w) }

// Apply splits the snapshots of one group into those that p keeps and those to remove, both newest first. Hours and
// days are those of the local time zone; the spans count back from the newest snapshot. In a group that is not empty,
// the oldest snapshot is kept by a counting rule that is not used up, as the nearest to what is asked for. A held
// snapshot is kept.
func (p Policy) Apply(snapshots []*Snapshot) (keep []Kept, remove []*Snapshot) {
	list := slices.Clone(snapshots)
	sort.SliceStable(list, func(i, j int) bool { return list[i].Time.After(list[j].Time) })
	if len(list) == 0 {
		return nil, nil
	}
	latest := list[0].Time
	counting := []*bucket{
		{left: p.Last, reason: "last snapshot"},
		{left: p.Hourly, name: byHour, reason: "hourly snapshot"},
		{left: p.Daily, name: byDay, reason: "daily snapshot"},
		{left: p.Weekly, name: byWeek, reason: "weekly snapshot"},
		{left: p.Monthly, name: byMonth, reason: "monthly snapshot"},
		{left: p.Yearly, name: byYear, reason: "yearly snapshot"},
	}
	within := []*bucket{
		{within: p.Within, reason: "within"},
		{within: p.WithinHourly, name: byHour, reason: "hourly within"},
		{within: p.WithinDaily, name: byDay, reason: "daily within"},
		{within: p.WithinWeekly, name: byWeek, reason: "weekly within"},
		{within: p.WithinMonthly, name: byMonth, reason: "monthly within"},
		{within: p.WithinYearly, name: byYear, reason: "yearly within"},
	}
	for i, s := range list {
		var reasons []string
		if s.Held {
			reasons = append(reasons, "held")
		}
		for _, tags := range p.Tags {
			if s.HasTags(tags) {
				reasons = append(reasons, "has tags "+strings.Join(tags, ","))
			}
		}
		local := s.Time.Local()
		for _, b := range counting {
			if b.left == 0 {
				continue
			}
			name := strconv.Itoa(i)
			if b.name != nil {
				name = b.name(local)
			}
			oldest := i == len(list)-1 && b.name != nil
			if name == b.last && !oldest {
				continue
			}
			reason := b.reason
			if name == b.last {
				reason = "oldest " + b.reason
			}
			reasons = append(reasons, reason)
			b.last = name
			if b.left > 0 {
				b.left--
			}
		}
		for _, b := range within {
			if b.within.zero() || !s.Time.After(b.within.before(latest)) {
				continue
			}
			name := strconv.Itoa(i)
			if b.name != nil {
				name = b.name(local)
			}
			if name != b.last {
				reasons = append(reasons, b.reason+" "+b.within.String())
				b.last = name
			}
		}
		if len(reasons) > 0 {
			keep = append(keep, Kept{s, reasons})
		} else {
			remove = append(remove, s)
		}
	}
	return keep, remove
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

// HasTags reports whether s has every one of tags.
func (s *Snapshot) HasTags(tags []string) bool {
	for _, t := range tags {
		if !slices.Contains(s.Tags, t) {
			return false
		}
	}
	return true
}

// Group is a set of snapshots that a policy is applied to by itself.
type Group struct {
	Host      string
	Disks     string // names, joined by commas
	Tags      string // joined by commas
	Snapshots []*Snapshot
}

// GroupBy sorts snapshots into groups that share what by names: any of "host", "disks" ("paths" is taken as the same)
// and "tags". Groups come in the order of their names.
func GroupBy(snapshots []*Snapshot, by []string) ([]Group, error) {
	groups := map[[3]string]*Group{}
	for _, s := range snapshots {
		var key [3]string
		for _, b := range by {
			switch b {
			case "host", "hosts":
				key[0] = s.Host
			case "disks", "disk", "paths":
				var paths []string
				for _, d := range s.Disks {
					paths = append(paths, d.Path)
				}
				slices.Sort(paths)
				key[1] = strings.Join(paths, ",")
			case "tags", "tag":
				tags := slices.Clone(s.Tags)
				slices.Sort(tags)
				key[2] = strings.Join(tags, ",")
			case "":
			default:
				return nil, fmt.Errorf("snapshots cannot be grouped by %q: it is host, disks or tags", b)
			}
		}
		if groups[key] == nil {
			groups[key] = &Group{Host: key[0], Disks: key[1], Tags: key[2]}
		}
		groups[key].Snapshots = append(groups[key].Snapshots, s)
	}
	var list []Group
	for _, g := range groups {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b Group) int {
		return strings.Compare(a.Host+"\x00"+a.Disks+"\x00"+a.Tags, b.Host+"\x00"+b.Disks+"\x00"+b.Tags)
	})
	return list, nil
}
