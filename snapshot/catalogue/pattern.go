package catalogue

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Pattern is a text by which people say which paths they mean. Names in it are separated by slashes:
//
//	*.log         a pattern without a slash is compared with the last name of a path
//	/etc/*.conf   with one in front, with the whole path from the root
//	cache/*.tmp   with others only, with as many names from the end of the path
//	/home/**/tmp  a name ** stands for any number of names, also none
//
// In a name, * stands for any characters, also none, ? for one, [a-z0] for one of these, [^a-z] and [!a-z] for one that is
// none of these, and \ takes the meaning from what is behind it. A slash at the end means nothing. Names that are not UTF-8 are
// compared byte by byte where they are not.
//
// The zero Pattern matches nothing.
type Pattern struct {
	names []globs
	fold  bool
}

// globs is the pattern of one name; nil for **.
type globs []glob

// glob is what a part of a name has to be.
type glob struct {
	kind   globKind
	char   rune      // for oneChar
	ranges [][2]rune // for anyOf and noneOf, ends included
}

type globKind byte

const (
	oneChar globKind = iota
	anyChar          // ?
	anyOf            // [a-z]
	noneOf           // [^a-z]
	anyText          // *
)

const (
	maxPattern      = 4096 // bytes
	maxPatternNames = 63   // as many places in a pattern, and its end, are the bits of a number
)

// ParsePattern reads a pattern. It has at most 4096 bytes and 63 names.
func ParsePattern(text string) (Pattern, error) {
	fail := func(err error) (Pattern, error) { return Pattern{}, fmt.Errorf("the pattern %.100q: %w", text, err) }
	if text == "" {
		return fail(errors.New("it is empty"))
	}
	if len(text) > maxPattern {
		return fail(fmt.Errorf("it is longer than %d bytes", maxPattern))
	}
	var p Pattern
	if text[0] != '/' {
		p.names = append(p.names, nil)
	}
	for rest := text; rest != ""; {
		if rest[0] == '/' {
			rest = rest[1:]
			continue
		}
		var name globs
		var err error
		if name, rest, err = parseName(rest); err != nil {
			return fail(err)
		}
		if n := len(p.names); name == nil && n > 0 && p.names[n-1] == nil {
			continue // ** twice is ** once
		}
		p.names = append(p.names, name)
	}
	if len(p.names) == 0 {
		return fail(errors.New("there is no name in it"))
	}
	if len(p.names) > maxPatternNames {
		return fail(fmt.Errorf("it has more than %d names", maxPatternNames))
	}
	return p, nil
}

// parseName reads the pattern of one name, and returns what is behind it.
func parseName(text string) (name globs, rest string, err error) {
	if text == "**" || strings.HasPrefix(text, "**/") {
		return nil, text[2:], nil
	}
	for text != "" && text[0] != '/' {
		g := glob{}
		switch text[0] {
		case '*':
			g.kind, text = anyText, text[1:]
			if n := len(name); n > 0 && name[n-1].kind == anyText {
				continue
			}
		case '?':
			g.kind, text = anyChar, text[1:]
		case '[':
			if g, text, err = parseClass(text[1:]); err != nil {
				return nil, "", err
			}
		default:
			if g.char, text, err = parseChar(text); err != nil {
				return nil, "", err
			}
		}
		name = append(name, g)
	}
	return name, text, nil
}

// parseClass reads what comes after a [.
func parseClass(text string) (glob, string, error) {
	g := glob{kind: anyOf}
	if text != "" && (text[0] == '^' || text[0] == '!') {
		g.kind, text = noneOf, text[1:]
	}
	for text != "" && (text[0] != ']' || len(g.ranges) == 0) {
		if text[0] == ']' || text[0] == '-' || text[0] == '/' {
			return g, "", fmt.Errorf("in […] a %c needs a \\ before it", text[0])
		}
		var r [2]rune
		var err error
		if r[0], text, err = parseChar(text); err != nil {
			return g, "", err
		}
		r[1] = r[0]
		if strings.HasPrefix(text, "-") {
			if text = text[1:]; text == "" || text[0] == ']' || text[0] == '/' {
				return g, "", errors.New("a range in […] has no end")
			}
			if r[1], text, err = parseChar(text); err != nil {
				return g, "", err
			}
			if r[1] < r[0] {
				return g, "", errors.New("a range in […] goes backwards")
			}
		}
		g.ranges = append(g.ranges, r)
	}
	if text == "" {
		return g, "", errors.New("a [ has no ]; write \\[ for the character itself")
	}
	return g, text[1:], nil
}

// parseChar reads one character, with or without a \ before it.
func parseChar(text string) (rune, string, error) {
	if text[0] == '\\' {
		if text = text[1:]; text == "" || text[0] == '/' {
			return 0, "", errors.New("there is nothing behind the \\ of a name; write \\\\ for the character itself")
		}
	}
	c, n := nextChar(text)
	return c, text[n:], nil
}

// nextChar returns the first character of a text that is not empty, and its length. A byte that is not UTF-8 is a character
// less than 0.
func nextChar(text string) (rune, int) {
	c, n := utf8.DecodeRuneInString(text)
	if c == utf8.RuneError && n == 1 {
		return -rune(text[0]), 1
	}
	return c, n
}

// IgnoreCase returns p as it does without regard to case.
func (p Pattern) IgnoreCase() Pattern {
	p.fold = true
	return p
}

// Match reports whether p matches a path, whose names are separated by slashes; slashes before, behind and beside others
// mean nothing.
func (p Pattern) Match(path string) bool {
	if len(p.names) == 2 && p.names[0] == nil && p.names[1] != nil { // the most usual one
		path = strings.TrimRight(path, "/")
		name := path[strings.LastIndexByte(path, '/')+1:]
		return name != "" && p.matchName(p.names[1], name)
	}
	return p.names != nil && p.places(path)>>len(p.names)&1 != 0
}

// Below reports whether p may match anything below the folder at path.
func (p Pattern) Below(path string) bool {
	return p.places(path)&(1<<len(p.names)-1) != 0
}

// places returns at which names of p, as bits, one can stand after path: all before them match it. The bit behind that of the last
// name says that p matches path.
func (p Pattern) places(path string) uint64 {
	at := p.pass(1)
	for name := range strings.SplitSeq(path, "/") {
		if name == "" {
			continue
		}
		next := uint64(0)
		for i, pattern := range p.names {
			switch {
			case at>>i&1 == 0:
			case pattern == nil:
				next |= 1 << i
			case p.matchName(pattern, name):
				next |= 2 << i
			}
		}
		if at = p.pass(next); at == 0 {
			break
		}
	}
	return at
}

// pass adds the places behind a **, which stands for no name as well.
func (p Pattern) pass(at uint64) uint64 {
	for i, pattern := range p.names {
		if pattern == nil && at>>i&1 != 0 {
			at |= 2 << i
		}
	}
	return at
}

// matchName reports whether a name is what g says. Only the last * is tried again, with one more character each time: had
// an earlier one taken more, the later one could do so too.
func (p Pattern) matchName(g globs, name string) bool {
	i, at := 0, 0
	star, from := -1, 0 // the last *, and where what is behind it was tried
	for at < len(name) {
		if i < len(g) && g[i].kind == anyText {
			star, from = i, at
			i++
			continue
		}
		c, n := nextChar(name[at:])
		if i < len(g) && p.matchChar(&g[i], c) {
			i++
			at += n
			continue
		}
		if star < 0 {
			return false
		}
		_, n = nextChar(name[from:])
		from += n
		i, at = star+1, from
	}
	for i < len(g) && g[i].kind == anyText {
		i++
	}
	return i == len(g)
}

func (p Pattern) matchChar(g *glob, c rune) bool {
	switch g.kind {
	case anyChar:
		return true
	case oneChar:
		return g.char == c || p.fold && foldChar(g.char) == foldChar(c)
	}
	for _, r := range g.ranges {
		for k := c; ; {
			if r[0] <= k && k <= r[1] {
				return g.kind == anyOf
			}
			if !p.fold || c < 0 {
				break
			}
			if k = unicode.SimpleFold(k); k == c {
				break
			}
		}
	}
	return g.kind == noneOf
}

// foldChar returns one character for all that differ in case only.
func foldChar(c rune) rune {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	if c < utf8.RuneSelf && c != 'k' && c != 's' { // these two have a third form
		return c
	}
	least := c
	for k := unicode.SimpleFold(c); k != c; k = unicode.SimpleFold(k) {
		least = min(least, k)
	}
	return least
}
