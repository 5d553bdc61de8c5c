package catalogue

import (
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		pattern string
		matches string // paths, separated by spaces
		not     string
	}{
		{"*.log", "/x.log /var/log/x.log /.log x.log", "/x.logs /x.log/y /x/log"},
		{"log", "/log /var/log /log/", "/var/logs /log/x"},
		{"/etc/*.conf", "/etc/a.conf etc/a.conf", "/x/etc/a.conf /etc/a/b.conf /etc"},
		{"cache/*.tmp", "/cache/a.tmp /home/u/cache/a.tmp", "/cache/x/a.tmp /a.tmp /xcache/a.tmp"},
		{"cache/", "/cache /home/cache", "/cache/x"},
		{"//a//b/", "/a/b", "/x/a/b"},
		{"/home/**/tmp", "/home/tmp /home/a/tmp /home/a/b/tmp", "/home /home/a/tmpx /x/home/tmp"},
		{"/home/**", "/home /home/a /home/a/b", "/homes /x"},
		{"**", "/ /a /a/b", ""},
		{"**/x/**/**/y", "/x/y /a/x/b/y", "/y /x"},
		{"/**", "/ /a", ""},
		{"a**b", "/ab /axxb", "/a/b"},
		{"?", "/a /ä /\xff", "/ab /"},
		{"??", "/ab /äö", "/a"},
		{"[a-c]x", "/ax /cx", "/dx /x /-x"},
		{"[^a-c]x", "/dx /äx /^x", "/ax /x"},
		{"[!a-cz]x", "/dx", "/ax /zx /!"},
		{"[a^]", "/a /^", "/b"},
		{"[ä-ü]", "/ö", "/a"},
		{`[\]\-]`, "/] /-", `/\`},
		{`\*`, "/*", "/a"},
		{`\a`, "/a", `/\a`},
		{`\[x`, "/[x", "/x"},
		{"x]", "/x]", "/x"},
		{"\xff*", "/\xff /\xffa", "/\xfe /ÿ"},
		{"*a*b*c", "/abc /xxaxbbxc", "/acb /abcd"},
		{"README", "/README", "/readme"},
		{"/a/b/**/c/*", "/a/b/c/d /a/b/x/c/d", "/a/b/c /a/b/x/c"},
	} {
		p, err := ParsePattern(c.pattern)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, path := range strings.Fields(c.matches) {
			if !p.Match(path) {
				t.Errorf("%s does not match %q", c.pattern, path)
			}
		}
		for _, path := range strings.Fields(c.not) {
			if p.Match(path) {
				t.Errorf("%s matches %q", c.pattern, path)
			}
		}
	}
	if (Pattern{}).Match("/") || (Pattern{}).Match("") || (Pattern{}).Below("/") {
		t.Error("no pattern matches something")
	}
}

func TestPatternIgnoreCase(t *testing.T) {
	for _, c := range [][3]string{
		{"ReadMe", "/README /readme", "/readm"},
		{"[a-c]X", "/Ax /cX", "/dx"},
		{"[^a-c]", "/d /Z", "/A /b"},
		{"ä[Ö]", "/Äö", "/ao"},
		{"K", "/k /K /\u212a", "/s"}, // the sign for kelvin
		{"[s]", "/S /ſ", "/k"},
	} {
		p, err := ParsePattern(c[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range strings.Fields(c[1]) {
			if !p.IgnoreCase().Match(path) {
				t.Errorf("%s does not match %q", c[0], path)
			}
		}
		for _, path := range strings.Fields(c[2]) {
			if p.IgnoreCase().Match(path) {
				t.Errorf("%s matches %q", c[0], path)
			}
		}
	}
}

func TestPatternBelow(t *testing.T) {
	for _, c := range [][3]string{
		{"/home/*/x", "/ /home /home/a", "/home/a/x /home/a/b /etc"},
		{"*.log", "/ /a /a/b", ""},
		{"/a/**/b", "/ /a /a/b /a/x/y", "/b"},
		{"/a/**", "/ /a /a/x", "/b"},
	} {
		p, err := ParsePattern(c[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range strings.Fields(c[1]) {
			if !p.Below(path) {
				t.Errorf("%s matches nothing below %q", c[0], path)
			}
		}
		for _, path := range strings.Fields(c[2]) {
			if p.Below(path) {
				t.Errorf("%s may match something below %q", c[0], path)
			}
		}
	}
}

func TestBadPatterns(t *testing.T) {
	for text, want := range map[string]string{
		"":                             "empty",
		"/":                            "no name",
		"[":                            "has no ]",
		"[a":                           "has no ]",
		"[^":                           "has no ]",
		"[]":                           "needs a",
		"[]a]":                         "needs a",
		"[a-]":                         "no end",
		"[a-":                          "no end",
		"[-a]":                         "needs a",
		"[z-a]":                        "backwards",
		"[a/b]":                        "needs a",
		"[a-/]":                        "no end",
		`a\`:                           "nothing behind",
		`a\/b`:                         "nothing behind",
		`[\`:                           "nothing behind",
		`[a-\`:                         "nothing behind",
		strings.Repeat("x", 5000):      "longer than",
		strings.Repeat("x/", 64):       "names",
		"/" + strings.Repeat("x/", 64): "names",
	} {
		if p, err := ParsePattern(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q is taken for a pattern: %v, %v", text, p, err)
		}
	}
	p, err := ParsePattern("/" + strings.Repeat("x/", maxPatternNames))
	if err != nil || !p.Match(strings.Repeat("/x", maxPatternNames)) || p.Match(strings.Repeat("/x", maxPatternNames-1)) {
		t.Error("the longest pattern does not match")
	}
}

// expression translates a pattern of a few simple parts into what the standard library knows.
func expression(pattern string) string {
	e := "^(/[^/]+)*"
	if pattern[0] == '/' {
		e = "^"
	}
	for name := range strings.SplitSeq(strings.Trim(pattern, "/"), "/") {
		if name == "**" {
			e += "(/[^/]+)*"
			continue
		}
		e += "/" + strings.NewReplacer(".", `\.`, "*", "[^/]*", "?", "[^/]", "[!a]", "[^a/]").Replace(name)
		e = strings.ReplaceAll(e, "/[^/]*[^/]*", "/[^/]*")
	}
	return e + "$"
}

// TestPatternModel: a pattern matches what the same as a regular expression does.
func TestPatternModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`([ab.*?]|\[a-b\]|\[!a\]){1,5}`)
		parts := rapid.SliceOfN(rapid.OneOf(name, rapid.Just("**")), 1, 5).Draw(t, "parts")
		pattern := rapid.SampledFrom([]string{"", "/"}).Draw(t, "start") + strings.Join(parts, "/")
		p, err := ParsePattern(pattern)
		if err != nil {
			t.Fatal(err)
		}
		e := regexp.MustCompile(expression(pattern))
		names := rapid.SliceOfN(rapid.StringMatching(`[ab.c]{1,5}`), 1, 6).Draw(t, "names")
		path := "/" + strings.Join(names, "/")
		if got := p.Match(path); got != e.MatchString(path) {
			t.Fatalf("%s matching %s is %v; %s says otherwise", pattern, path, got, e)
		}
		if p.Match(path) {
			for i := range names {
				if folder := "/" + strings.Join(names[:i], "/"); !p.Below(folder) {
					t.Fatalf("%s matches %s, but nothing below %s", pattern, path, folder)
				}
			}
		}
	})
}

// TestPatternTime: no pattern takes time that grows as a power.
func TestPatternTime(t *testing.T) {
	start := time.Now()
	for _, c := range [][2]string{
		{strings.Repeat("*a", 500) + "b", strings.Repeat("a", 1000)},
		{strings.Repeat("**/a/", 30) + "b", strings.Repeat("/a", 1000)},
		{strings.Repeat("**/*a*/", 30) + "b", strings.Repeat("/aaaaaaaaaa", 1000)},
	} {
		p, err := ParsePattern(c[0])
		if err != nil {
			t.Fatal(err)
		}
		if p.Match(c[1]) || p.IgnoreCase().Match(c[1]) {
			t.Errorf("%.20s matches", c[0])
		}
	}
	if d := time.Since(start); d > 30*time.Second {
		t.Errorf("it took %v", d)
	}
}

// FuzzPattern: whatever is accepted can be matched, and a path that matches is not left out on the way to it.
func FuzzPattern(f *testing.F) {
	f.Add("/home/**/[a-z]*.t?t", "/home/a/b.txt")
	f.Add(`\[x]**/ä`, "/[x]/ä")
	f.Add("**/a/**/b/**", "/a/x/b/y")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		p, err := ParsePattern(pattern)
		if err != nil || len(path) > 4096 {
			return
		}
		if folded := strings.Map(unicode.SimpleFold, path); utf8.ValidString(path) && p.IgnoreCase().Match(path) != p.IgnoreCase().Match(folded) {
			t.Errorf("%q without regard to case matches one of %q and %q", pattern, path, folded)
		}
		if parent := path[:max(0, strings.LastIndexByte(path, '/'))]; p.Match(path) && strings.HasPrefix(path, "/") && !strings.HasSuffix(path, "/") && !p.Below(parent) {
			t.Errorf("%q matches %q, but nothing below %q", pattern, path, parent)
		}
	})
}
