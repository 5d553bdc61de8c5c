package catalogue

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestFind: what is found in many catalogues at once is what each of them has, every version once.
func TestFind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newMemory()
		tree := drawTree(t)
		var roots []Root
		var states []map[string]Entry
		for range rapid.IntRange(0, 12).Draw(t, "snapshots") {
			for range rapid.IntRange(0, 3).Draw(t, "edits") {
				tree.edit(t)
			}
			roots = append(roots, build(t, tree, s))
			states = append(states, tree.state())
			tree = tree.clone()
		}
		pattern, err := ParsePattern(rapid.SampledFrom([]string{"*", "**", "f*", "/*", "/*/*[0-9]", "*,1*", "*e*/*"}).Draw(t, "pattern"))
		if err != nil {
			t.Fatal(err)
		}

		type key struct {
			path  string
			entry Entry
		}
		want := map[key][]int{}
		for i, files := range states {
			for path, e := range files {
				if pattern.Match(path) {
					k := key{path, e}
					want[k] = append(want[k], i)
				}
			}
		}
		var order []string
		got := map[key][]int{}
		if err := Find(context.Background(), s, roots, Query{
			Match: func(path string, _ Entry) bool { return pattern.Match(path) },
			Below: pattern.Below,
		}, func(h Hit) error {
			k := key{h.Path, h.Entry}
			k.entry.ID = ID{}
			// Folders that differ only in what is below them are different versions; the model does not see all of that.
			got[k] = append(got[k], h.In...)
			slices.Sort(got[k])
			order = append(order, h.Path)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(order, func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) }) {
			t.Fatalf("not in order: %q", order)
		}
		if len(got) != len(want) {
			t.Fatalf("%d versions found, want %d", len(got), len(want))
		}
		for k, in := range want {
			if !slices.Equal(got[k], in) {
				t.Fatalf("%s %+v is found in %v, want %v", k.path, k.entry, got[k], in)
			}
		}
	})
}

// TestFindReads: forty catalogues that have most pages in common cost little more than one. A file of which each has another version
// is told once for each, in order.
func TestFindReads(t *testing.T) {
	tree := newTree()
	for i := range 100 {
		folder := tree.folder(tree.root(), fmt.Sprint("folder", i))
		for k := range 20 {
			tree.file(folder, fmt.Sprint("f", k), "x")
		}
	}
	long := tree.folder(tree.root(), "long")
	for k := range 4000 {
		tree.file(long, fmt.Sprint("f", k), "x")
	}
	s := newMemory()
	var roots []Root
	for range 40 {
		roots = append(roots, build(t, tree, s))
		tree.at("/long/f1234").disk++
		tree.at("/folder7/f3").UID++
	}
	all := len(s.pages)
	s.loads = 0
	var got []string
	if err := Find(context.Background(), s, roots, Query{Match: func(path string, _ Entry) bool {
		return strings.HasSuffix(path, "/f3") || strings.HasSuffix(path, "f1234")
	}}, func(h Hit) error {
		if strings.HasPrefix(h.Path, "/folder7/") || strings.HasPrefix(h.Path, "/long/f1234") {
			got = append(got, fmt.Sprintf("%s %d", h.Path, h.In))
		} else if len(h.In) != 40 {
			t.Errorf("%s is found in %d", h.Path, h.In)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if s.loads > all {
		t.Errorf("%d loads of %d pages", s.loads, all)
	}
	var want []string
	for _, name := range []string{"/folder7/f3", "/long/f1234"} {
		for i := range 40 {
			want = append(want, fmt.Sprintf("%s [%d]", name, i))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %d versions: %.1000q", len(got), got)
	}

	s.loads = 0
	if err := Find(context.Background(), s, roots, Query{
		Match: func(string, Entry) bool { return true },
		Below: func(folder string) bool { return folder == "/" },
	}, func(Hit) error { return nil }); err != nil || s.loads != 80 {
		t.Errorf("%d loads for what is in the root folder: %v", s.loads, err)
	}
}

func TestFindSkips(t *testing.T) {
	tree := newTree()
	a := tree.folder(tree.root(), "a")
	tree.file(a, "x", "")
	s := newMemory()
	roots := []Root{build(t, tree, s)}
	tree.file(a, "y", "")
	roots = append(roots, build(t, tree, s))
	for _, w := range []struct {
		at, want string
		err      error
	}{
		{"", "/[0] /[1] /a[0] /a[1] /a/x[0 1] /a/y[1]", nil},
		{"/a[1]", "/[0] /[1] /a[0] /a[1] /a/x[0]", fs.SkipDir},
		{"/[0]", "/[0] /[1] /a[1] /a/x[1] /a/y[1]", fs.SkipDir},
		{"/a/x[0 1]", "/[0] /[1] /a[0] /a[1] /a/x[0 1]", fs.SkipAll},
	} {
		var met []string
		err := Find(context.Background(), s, roots, Query{Match: func(string, Entry) bool { return true }}, func(h Hit) error {
			at := fmt.Sprint(h.Path, h.In)
			met = append(met, at)
			if at == w.at {
				return w.err
			}
			return nil
		})
		if err != nil || strings.Join(met, " ") != w.want {
			t.Errorf("%v at %s: met %q, %v", w.err, w.at, met, err)
		}
	}
	if err := Find(context.Background(), s, nil, Query{}, nil); err != nil {
		t.Error(err)
	}
	if err := Find(context.Background(), s, []Root{{}}, Query{}, nil); err == nil {
		t.Error("a catalogue that is not there was searched")
	}
}
