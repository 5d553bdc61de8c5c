package main

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"varve/repo"
	"varve/repo/pack"
	"varve/snapshot"
)

func TestParseSize(t *testing.T) {
	for _, c := range []struct {
		text  string
		plain int64
		want  int64
	}{
		{"0", 1, 0}, {"4096", 1, 4096}, {"4096B", 1 << 20, 4096}, {"16", 1 << 20, 16 << 20}, {"16M", 1, 16 << 20}, {"16MiB", 1, 16 << 20},
		{"16 mb", 1, 16 << 20}, {"1.5G", 1, 3 << 29}, {"2k", 1, 2048}, {"3T", 1, 3 << 40},
	} {
		if got, err := parseSize(c.text, c.plain); err != nil || got != c.want {
			t.Errorf("parseSize(%q, %d) = %d, %v, not %d", c.text, c.plain, got, err, c.want)
		}
	}
	for _, text := range []string{"", "M", "-1", "1X", "nan", "1e30", "9999999T", "1 2", "inf"} {
		if got, err := parseSize(text, 1); err == nil {
			t.Errorf("parseSize(%q) = %d", text, got)
		}
	}
}

func TestParseMaxUnused(t *testing.T) {
	for _, c := range []struct {
		text       string
		used, want int64
	}{
		{"unlimited", 100, math.MaxInt64}, {"100%", 100, math.MaxInt64}, {"0%", 100, 0}, {"50%", 100, 100}, {"20%", 400, 100}, {"10k", 5, 10240}, {"0", 5, 0},
	} {
		f, err := parseMaxUnused(c.text)
		if err != nil {
			t.Errorf("parseMaxUnused(%q): %v", c.text, err)
		} else if got := f(c.used); got != c.want {
			t.Errorf("%q of %d used is %d, not %d", c.text, c.used, got, c.want)
		}
	}
	for _, text := range []string{"", "-5%", "101%", "%", "five"} {
		if _, err := parseMaxUnused(text); err == nil {
			t.Errorf("parseMaxUnused(%q) did not fail", text)
		}
	}
}

func TestParseParity(t *testing.T) {
	for text, want := range map[string]int{"0%": 0, "5%": 5, " 12 %": 12, "100%": 100} {
		if got, err := parseParity(text); err != nil || got != want {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5", "-1%", "101%", "2.5%", "NaN%", "five%"} {
		if got, err := parseParity(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestKeepCount(t *testing.T) {
	for text, want := range map[string]keepCount{"0": 0, "7": 7, "-1": snapshot.Forever, "unlimited": snapshot.Forever} {
		var k keepCount
		if err := k.Set(text); err != nil || k != want {
			t.Errorf("%q is %d, %v, not %d", text, k, err, want)
		}
	}
	for _, text := range []string{"", "-2", "many", "1.5"} {
		var k keepCount
		if err := k.Set(text); err == nil {
			t.Errorf("%q is %d", text, k)
		}
	}
}

func TestParseTags(t *testing.T) {
	got, err := parseTags([]string{"a,b", "c d"})
	if want := []string{"a", "b", "c d"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	for _, use := range []string{"", "a,", ",", "a\nb"} {
		if got, err := parseTags([]string{use}); err == nil {
			t.Errorf("parseTags(%q) = %q", use, got)
		}
	}
}

func TestTagging(t *testing.T) {
	s := func(tags ...string) *snapshot.Snapshot { return &snapshot.Snapshot{Tags: tags} }
	for _, c := range []struct {
		set, add, remove []string
		before, want     []string
		changed          bool
	}{
		{set: []string{"x,y"}, before: []string{"a"}, want: []string{"x", "y"}, changed: true},
		{set: []string{""}, before: []string{"a"}, want: nil, changed: true},
		{set: []string{"a"}, before: []string{"a"}, want: []string{"a"}},
		{add: []string{"b", "b"}, before: []string{"a"}, want: []string{"a", "b"}, changed: true},
		{add: []string{"a"}, before: []string{"a"}, want: []string{"a"}},
		{remove: []string{"a"}, before: []string{"a", "b"}, want: []string{"b"}, changed: true},
		{remove: []string{"z"}, before: []string{"a"}, want: []string{"a"}},
	} {
		how, err := tagging(c.set, c.add, c.remove)
		if err != nil {
			t.Fatal(err)
		}
		x := s(c.before...)
		if changed := how.Apply(x); changed != c.changed || !slices.Equal(x.Tags, c.want) {
			t.Errorf("%+v: tags are %q (changed: %v), not %q", c, x.Tags, changed, c.want)
		}
	}
	for _, c := range [][3][]string{{}, {{"a"}, {"b"}, nil}, {{"a"}, nil, {"b"}}, {nil, {""}, nil}} {
		if _, err := tagging(c[0], c[1], c[2]); err == nil {
			t.Errorf("tagging(%q) did not fail", c)
		}
	}
}

func TestParseTime(t *testing.T) {
	zone := time.FixedZone("test", 3600)
	now := time.Date(2026, 5, 6, 7, 8, 9, 10, zone)
	for text, want := range map[string]time.Time{
		"now":                       now,
		"2026-01-31 23:59:01":       time.Date(2026, 1, 31, 23, 59, 1, 0, zone),
		"2026-01-31 23:59":          time.Date(2026, 1, 31, 23, 59, 0, 0, zone),
		"2026-01-31":                time.Date(2026, 1, 31, 0, 0, 0, 0, zone),
		"2026-01-31T23:59:01Z":      time.Date(2026, 1, 31, 23, 59, 1, 0, time.UTC),
		"2026-01-31T23:59:01+02:00": time.Date(2026, 1, 31, 21, 59, 1, 0, time.UTC),
	} {
		if got, err := parseTime(text, now); err != nil || !got.Equal(want) {
			t.Errorf("parseTime(%q) = %v, %v, not %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "2026-13-01", "31.01.2026"} {
		if got, err := parseTime(text, now); err == nil {
			t.Errorf("parseTime(%q) = %v", text, got)
		}
	}
}

func TestShellWords(t *testing.T) {
	for line, want := range map[string][]string{
		``:                          nil,
		`  `:                        nil,
		`cat secret.txt`:            {"cat", "secret.txt"},
		`pass show 'a b'  "c'd"`:    {"pass", "show", "a b", "c'd"},
		`a\ b 'c\' "d\"e" ""`:       {"a b", `c\`, `d"e`, ""},
		`C:\bin\pw.exe --for "x y"`: {`C:\bin\pw.exe`, "--for", "x y"},
	} {
		if got, err := shellWords(line); err != nil || !slices.Equal(got, want) {
			t.Errorf("shellWords(%q) = %q, %v, not %q", line, got, err, want)
		}
	}
	for _, line := range []string{`a 'b`, `"`} {
		if got, err := shellWords(line); err == nil {
			t.Errorf("shellWords(%q) = %q", line, got)
		}
	}
}

func TestTrimPassword(t *testing.T) {
	for in, want := range map[string]string{"secret\n": "secret", "secret\r\n": "secret", "\xef\xbb\xbfsecret": "secret", " two words ": " two words ", "\n": ""} {
		if got := trimPassword([]byte(in)); string(got) != want {
			t.Errorf("trimPassword(%q) = %q, not %q", in, got, want)
		}
	}
}

func TestParsePackSize(t *testing.T) {
	for text, want := range map[string]int{"": 16 << 20, "4": 4 << 20, "1M": 1 << 20, "0.125G": 128 << 20} {
		if got, err := parsePackSize(text); err != nil || got != want {
			t.Errorf("parsePackSize(%q) = %d, %v, not %d", text, got, err, want)
		}
	}
	for _, text := range []string{"0", "1k", "129M", "x"} {
		if got, err := parsePackSize(text); err == nil {
			t.Errorf("parsePackSize(%q) = %d", text, got)
		}
	}
}

// TestSubset counts what each kind of subset picks of 100 packs of 1,000 bytes, and looks at their order.
func TestSubset(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var packs []repo.StoredPack
	for i := range 100 { // pack 60 was read longest ago, those from 80 on never
		p := repo.StoredPack{ID: repo.ID{byte(i)}, Size: 1000}
		if i < 80 {
			p.Verified = start.Add(time.Duration((i+20)%80) * time.Hour)
		}
		packs = append(packs, p)
	}
	for text, want := range map[string][]byte{"10%": {80, 89}, "0.1%": {80, 80}, "100%": {80, 59}, "25%": {80, 64}, "5000B": {80, 84}, "4001B": {80, 84}, "1B": {80, 80},
		"200000": {80, 59}, "4/4": {83, 59}} {
		s, err := parseSubset(text)
		if err != nil {
			t.Fatal(err)
		}
		got := selection{subset: s}.choose(packs)
		if first, last := got[0].ID[0], got[len(got)-1].ID[0]; first != want[0] || last != want[1] {
			t.Errorf("%s picks %d packs from %d to %d, not from %d to %d", text, len(got), first, last, want[0], want[1])
		}
	}
	// The parts of n/t are a partition, whatever was read when.
	hits := map[repo.ID]int{}
	for part := int64(1); part <= 3; part++ {
		for _, p := range (selection{subset: subset{part: part, parts: 3}}).choose(packs) {
			hits[p.ID]++
		}
	}
	if len(hits) != len(packs) {
		t.Errorf("%d of %d packs are in some part", len(hits), len(packs))
	}
	for id, n := range hits {
		if n != 1 {
			t.Errorf("pack %d is in %d of 3 parts", id[0], n)
		}
	}
	old := selection{before: start.Add(10 * time.Hour)}
	if n := len(old.choose(packs)); n != 20+10 {
		t.Errorf("%d packs were not read for so long", n)
	}
	old.subset = subset{percent: 25}
	if got := old.choose(packs); len(got) != 25 || got[24].ID[0] != 64 {
		t.Errorf("25 %% of the packs that were not read for so long are %d", len(got))
	}
	for _, text := range []string{"", "0/3", "4/3", "x/3", "0%", "0", "-1%"} {
		if s, err := parseSubset(text); err == nil {
			t.Errorf("parseSubset(%q) = %+v", text, s)
		}
	}
}

func TestUniqueNames(t *testing.T) {
	got := uniqueNames([]string{"disk.img", "sda", "disk.img", "disk.img-2", "disk.img"})
	want := []string{"disk.img", "sda", "disk.img-3", "disk.img-2", "disk.img-4"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMergedBadRanges(t *testing.T) {
	b := badRanges{ranges: []snapshot.Range{{Offset: 100, Length: 10}, {Offset: 0, Length: 50}, {Offset: 50, Length: 20}, {Offset: 105, Length: 20}}}
	want := []snapshot.Range{{Offset: 0, Length: 70}, {Offset: 100, Length: 25}}
	if got := b.merged(); !slices.Equal(got, want) {
		t.Errorf("got %v, not %v", got, want)
	}
}

func TestClock(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0:00", 59 * time.Second: "0:59", 187 * time.Second: "3:07", 3765 * time.Second: "1:02:45"} {
		if got := clock(d); got != want {
			t.Errorf("clock(%v) = %s, not %s", d, got, want)
		}
	}
}

// FuzzParse: whatever is written behind a flag, it is refused or means something in bounds.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"", "16M", "1.5GiB", "-1", "1e400", "5%", "100%", "2/10", "unlimited", "2026-01-31", "now", `a "b c" 'd`, "1y5m7d2h", "NaN", "0x1p3", "+inf%"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := parseSize(text, 1<<20); err == nil && n < 0 {
			t.Errorf("size %d", n)
		}
		if p, err := parsePercent(text); err == nil && !(p >= 0 && p <= 100) {
			t.Errorf("%v percent", p)
		}
		if p, err := parseParity(text); err == nil && (p < 0 || p > pack.MaxParity) {
			t.Errorf("parity %d", p)
		}
		if most, err := parseMaxUnused(text); err == nil && most(1<<40) < 0 {
			t.Errorf("%d bytes unused", most(1<<40))
		}
		if s, err := parseSubset(text); err == nil && (s.parts < 0 || s.part > s.parts || s.bytes < 0 || s.parts == 0 && s.percent == 0 && s.bytes == 0) {
			t.Errorf("subset %+v", s)
		}
		var k keepCount
		if err := k.Set(text); err == nil && k < snapshot.Forever {
			t.Errorf("keep %d", k)
		}
		var s span
		if err := s.Set(text); err == nil && s.String() == "" && s.Span != (snapshot.Span{}) {
			t.Errorf("span %+v", s)
		}
		if words, err := shellWords(text); err == nil && len(strings.Join(words, "")) > len(text)*3 { // a byte that is no UTF-8 becomes three
			t.Errorf("%q", words)
		}
		if tags, err := parseTags([]string{text}); err == nil && len(tags) == 0 {
			t.Error("no tags")
		}
		_, _ = parseTime(text, time.Unix(0, 0))
		if disk, number, err := parsePartition(text); err == nil && number < 1 {
			t.Errorf("partition %d of %q", number, disk)
		}
	})
}
