package catalogue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// top is the listing of a folder in one or more catalogues, which are numbers in ascending order.
type top struct {
	id ID
	in []int
}

// version is an entry that is the same in one or more catalogues.
type version struct {
	Entry
	in []int
}

// one is the only catalogue.
var one = []int{0}

// below returns the listings of the folders among versions: each once, and none that is empty.
func below(versions []version) []top {
	var tops []top
	for i := range versions {
		v := &versions[i]
		if v.ID == (ID{}) {
			continue
		}
		k := slices.IndexFunc(tops, func(t top) bool { return t.id == v.ID })
		if k < 0 {
			tops = append(tops, top{v.ID, v.in})
		} else {
			tops[k].in = union(tops[k].in, v.in)
		}
	}
	return tops
}

// union returns the numbers that are in a or b, which it leaves as they are.
func union(a, b []int) []int {
	u := append(slices.Clone(a), b...)
	slices.Sort(u)
	return slices.Compact(u)
}

// merge goes through one folder in several catalogues at once, name by name. A page that several of them share is read
// once; one that all of them share, if that is wanted, not at all.
type merge struct {
	load   Loader
	all    int    // leave out what is the same in as many catalogues; 0: nothing
	prefix string // before names

	waiting []page  // of entries, by after
	active  []*page // that have been loaded
	now     []version
	same    map[Entry]int // where an entry is in now; used when there are many
}

// page is one whose place in a listing is known.
type page struct {
	id    ID
	in    []int
	after string // all names in it are greater
	last  string // the last name in it; "" when that is not known
	raw   []byte // nil when it is not loaded
	cursor
}

func (p *page) damaged(err error) error { return damaged(p.id, err) }

var errPlace = errors.New("its names are not those for which it stands")

// open finds the pages of entries of listings.
func (m *merge) open(ctx context.Context, tops []top) error {
	var levels [maxLevel + 1][]page
	for _, t := range tops {
		if len(t.in) == m.all {
			continue
		}
		data, err := loadPage(ctx, m.load, t.id, nil)
		if err != nil {
			return err
		}
		if err := checkLevel(data, anyLevel); err != nil {
			return damaged(t.id, err)
		}
		level := pageLevel(data)
		levels[level] = append(levels[level], page{id: t.id, in: t.in, raw: data})
	}
	for level := maxLevel; level > 0; level-- {
		pages, err := m.distinct(levels[level])
		if err != nil {
			return err
		}
		for i := range pages {
			children, err := m.children(ctx, &pages[i], level)
			if err != nil {
				return err
			}
			levels[level-1] = append(levels[level-1], children...)
		}
	}
	var err error
	m.waiting, err = m.distinct(levels[0])
	slices.SortStableFunc(m.waiting, func(a, b page) int { return strings.Compare(a.after, b.after) })
	return err
}

// distinct returns pages without those that are to be left out, and each once.
func (m *merge) distinct(pages []page) ([]page, error) {
	if len(pages) < 2 {
		return pages, nil // what is in all catalogues without being found twice has been left out above
	}
	found := make(map[ID]int, len(pages))
	kept := pages[:0]
	for _, p := range pages {
		i, known := found[p.id]
		if !known {
			found[p.id] = len(kept)
			kept = append(kept, p)
			continue
		}
		k := &kept[i]
		if k.last != "" && p.last != "" && k.last != p.last {
			return nil, k.damaged(errPlace)
		}
		k.in, k.after, k.last = union(k.in, p.in), max(k.after, p.after), max(k.last, p.last)
		if k.raw == nil {
			k.raw = p.raw
		}
	}
	return slices.DeleteFunc(kept, func(p page) bool { return len(p.in) == m.all }), nil
}

// children returns the pages below an index page.
func (m *merge) children(ctx context.Context, p *page, level int) ([]page, error) {
	if err := m.fetch(ctx, p, level); err != nil {
		return nil, err
	}
	children, err := decodeIndex(p.raw)
	if err != nil {
		return nil, p.damaged(err)
	}
	if children[0].last <= p.after || p.last != "" && children[len(children)-1].last != p.last {
		return nil, p.damaged(errPlace)
	}
	pages := make([]page, len(children))
	after := p.after
	for i, c := range children {
		pages[i] = page{id: c.id, in: p.in, after: after, last: c.last}
		after = c.last
	}
	return pages, nil
}

// fetch loads a page of that level, unless it is there.
func (m *merge) fetch(ctx context.Context, p *page, level int) error {
	if p.raw != nil {
		return nil
	}
	var err error
	if p.raw, err = loadPage(ctx, m.load, p.id, nil); err != nil {
		return err
	}
	if err := checkLevel(p.raw, level); err != nil {
		return p.damaged(err)
	}
	return nil
}

// next returns what the catalogues have of the next name, one version or more in the order of the first catalogue of each,
// valid until the next call. nil: there is none.
func (m *merge) next(ctx context.Context) ([]version, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var least *page
	for _, p := range m.active {
		if least == nil || string(p.name) < string(least.name) {
			least = p
		}
	}
	for len(m.waiting) > 0 && (least == nil || m.waiting[0].after < string(least.name)) {
		p := m.waiting[0]
		m.waiting = m.waiting[1:]
		if err := m.fetch(ctx, &p, 0); err != nil {
			return nil, err
		}
		p.cursor = newCursor(p.raw)
		if !p.next() {
			return nil, p.damaged(p.err)
		}
		if string(p.name) <= p.after {
			return nil, p.damaged(errPlace)
		}
		m.active = append(m.active, &p)
		if least == nil || string(p.name) < string(least.name) {
			least = &p
		}
	}
	if least == nil {
		return nil, nil
	}
	name := (m.prefix + string(least.name))[len(m.prefix):]
	m.now = m.now[:0]
	left := m.active[:0]
	for _, p := range m.active {
		if string(p.name) != name {
			left = append(left, p)
			continue
		}
		m.add(p.entry(name), p.in)
		if p.next() {
			left = append(left, p)
		} else if p.err != nil {
			return nil, p.damaged(p.err)
		} else if p.last != "" && string(p.name) != p.last {
			return nil, p.damaged(errPlace)
		}
	}
	m.active = left
	if len(m.now) > 1 {
		slices.SortFunc(m.now, func(a, b version) int { return a.in[0] - b.in[0] })
	}
	return m.now, nil
}

// many is the number of versions from which on they are found by a map.
const many = 8

// add puts an entry among the versions of its name.
func (m *merge) add(e Entry, in []int) {
	i := len(m.now)
	if i < many {
		i = slices.IndexFunc(m.now, func(v version) bool { return v.Entry == e })
	} else {
		if i == many {
			m.same = map[Entry]int{}
			for k := range m.now {
				m.same[m.now[k].Entry] = k
			}
		}
		k, found := m.same[e]
		if i = k; !found {
			i = -1
			m.same[e] = len(m.now)
		}
	}
	if i < 0 {
		m.now = append(m.now, version{e, in})
	} else {
		m.now[i].in = union(m.now[i].in, in)
	}
}

// walk goes through folders, and those below, in several catalogues at once. visit is told each path, and says which
// listings below it are to be gone through. Its error ends walk.
func walk(ctx context.Context, load Loader, all int, path string, tops []top, visit func(path string, versions []version) ([]top, error)) error {
	var stack []*merge
	enter := func(path string, tops []top) error {
		if len(stack) > MaxDepth {
			return fmt.Errorf("a catalogue is damaged: %.40s… lies in more than %d folders", path, MaxDepth)
		}
		m := &merge{load: load, all: all, prefix: path + "/"}
		if err := m.open(ctx, tops); err != nil {
			return fmt.Errorf("%s/: %w", path, err)
		}
		stack = append(stack, m)
		return nil
	}
	if err := enter(path, tops); err != nil {
		return err
	}
	for len(stack) > 0 {
		m := stack[len(stack)-1]
		versions, err := m.next(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", m.prefix, err)
		}
		if versions == nil {
			stack = stack[:len(stack)-1]
			continue
		}
		path := m.prefix + versions[0].Name
		tops, err := visit(path, versions)
		if err != nil {
			return err
		}
		if len(tops) > 0 {
			if err := enter(path, tops); err != nil {
				return err
			}
		}
	}
	return nil
}
