package catalogue

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// levelsOf counts the new pages of each level; [0] are pages of entries.
func (s *memory) levelsOf(saved []ID) (levels [maxLevel + 1]int) {
	for _, id := range saved {
		levels[pageLevel(s.pages[id])]++
	}
	return levels
}

// TestOneEdit: one changed file makes new pages for the folders on the way to it, and few in its own.
func TestOneEdit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree := drawTree(t)
		s := newMemory()
		build(t, tree, s)
		before := len(s.saved)
		all, folders := tree.paths()
		at := rapid.SampledFrom(folders).Draw(t, "folder")
		switch rapid.IntRange(0, 2).Draw(t, "edit") {
		case 0:
			tree.file(tree.at(at), drawName(t, tree.at(at)), "new")
		case 1:
			tree.at(at).Modified = drawTime(t)
			at = path.Dir(at)
		case 2:
			some := rapid.SampledFrom(all).Draw(t, "removed")
			if some == "" {
				return
			}
			tree.remove(some)
			at = path.Dir(some)
		}
		build(t, tree, s)
		// Of each folder above: a page and two index pages. Of the folder itself: at worst it has just become long, or is so no more.
		depth := strings.Count(at, "/")
		if n := len(s.saved) - before; n > 1+3*depth+12 {
			t.Fatalf("%d new pages, %d folders deep", n, depth)
		}
	})
}

// TestLongListing: in a long listing one edit changes the page where it is, and whether that one ends there; and of the
// index pages above it likewise one or two.
func TestLongListing(t *testing.T) {
	tree := newTree()
	root := tree.root()
	for i := range 60_000 {
		tree.file(root, fmt.Sprintf("%xc", i*7919%(1<<20)), "x")
	}
	s := newMemory()
	build(t, tree, s)
	levels := s.levelsOf(s.saved)
	if levels[1] < 2 || levels[2] != 1 || levels[3] != 0 {
		t.Fatalf("the pages by level are %d: this is not what is to be tested", levels)
	}
	var sizes []int
	total := 0
	for _, data := range s.pages {
		if pageLevel(data) == 0 {
			sizes = append(sizes, len(data))
			total += len(data)
		}
	}
	slices.Sort(sizes)
	if mean := total / len(sizes); mean < 8<<10 || mean > 32<<10 || sizes[len(sizes)-1] > fullPage {
		t.Errorf("pages of entries have %d bytes on average, %d at most", mean, sizes[len(sizes)-1])
	}

	for i := range 12 {
		name := fmt.Sprintf("/%xc", i*5003%60_000*7919%(1<<20))
		before := len(s.saved)
		bound := [3]int{1 + 1, 1, 1} // and the page of the root's entry
		switch i % 3 {
		case 0:
			tree.at(name).disk++
		case 1:
			tree.remove(name)
			bound = [3]int{2 + 1, 2, 1}
		case 2:
			tree.file(root, name[1:]+"-", "y")
			bound = [3]int{2 + 1, 2, 1}
		}
		build(t, tree, s)
		levels := s.levelsOf(s.saved[before:])
		for level, n := range levels {
			if level < len(bound) && n > bound[level] || level >= len(bound) && n > 0 {
				t.Errorf("edit %d: the new pages by level are %d, want at most %d", i, levels, bound)
			}
		}
	}
}

// TestFullPages: names that end no page by their hashes, and targets of any length, do not make a page longer than what is read.
func TestFullPages(t *testing.T) {
	tree := newTree()
	names := 0
	for i := 0; names < 1500; i++ {
		name := fmt.Sprintf("%0200d", i)
		if endsPage(nameHash(name), name) {
			continue
		}
		names++
		tree.file(tree.root(), name, strings.Repeat("x", i%7))
	}
	links := tree.folder(tree.root(), "links")
	for i := range 20 {
		tree.add(links, fmt.Sprint(i, strings.Repeat("l", 1000)), tree.node(0o777|1<<27)).target = strings.Repeat("/", maxTarget)
	}
	s := newMemory()
	root := build(t, tree, s)
	longest := 0
	for _, data := range s.pages {
		longest = max(longest, len(data))
	}
	if longest < fullPage || longest > maxPage {
		t.Errorf("the longest page has %d bytes", longest)
	}
	checkState(t, Open(s, root), tree.state())
}

// TestIndexLevels: index pages that end for being full, and those with one child, are read as any.
func TestIndexLevels(t *testing.T) {
	for _, hash := range []uint64{0, 1 << 63} { // all pages end by it, or none
		s := newMemory()
		l := listing{save: func(page []byte) (ID, error) {
			id := s.ID(page)
			_, err := s.Save(context.Background(), id, page)
			return id, err
		}}
		l.reset(0)
		want := 3000
		name := func(i int) string { return fmt.Sprintf("%06d%0250d", i, 0) }
		for i := range want {
			l.page = append(l.page, entryPage)
			l.before = before{}
			l.page = appendEntry(l.page, &l.before, &Entry{Name: name(i)})
			if err := l.endPage(hash); err != nil {
				t.Fatal(err)
			}
		}
		id, err := l.finish()
		if err != nil {
			t.Fatal(err)
		}
		c := Open(s, Root{})
		folder := Entry{Mode: 1 << 31, ID: id}
		n := 0
		if err := c.List(context.Background(), folder, func(e Entry) error {
			if e.Name != name(n) {
				t.Fatalf("name %d is %s", n, e.Name)
			}
			n++
			return nil
		}); err != nil || n != want {
			t.Fatalf("%d names, %v", n, err)
		}
		for i := 0; i < want; i += 97 {
			if e, found, err := c.entry(context.Background(), id, name(i)); err != nil || !found || e.Name != name(i) {
				t.Fatalf("%d: %v %v", i, found, err)
			}
			if _, found, err := c.entry(context.Background(), id, name(i)+"x"); err != nil || found {
				t.Fatalf("%d and more: %v %v", i, found, err)
			}
		}
	}
}
