package catalogue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// diffOf says what the differences between two states are.
func diffOf(a, b map[string]Entry) []string {
	union := maps.Clone(a)
	maps.Copy(union, b)
	var list []string
	for _, p := range sorted(union) {
		x, inA := a[p]
		y, inB := b[p]
		kind := ""
		fx, fy := x, y
		fx.Files, fx.Bytes, fy.Files, fy.Bytes = 0, 0, 0, 0
		switch {
		case !inA:
			kind = "added"
		case !inB:
			kind = "removed"
		case x.Mode.Type() != y.Mode.Type():
			kind = "type"
		case fx == fy:
			continue
		case x.Size != y.Size, x.Digest != y.Digest, x.Target != y.Target, x.Device != y.Device:
			kind = "content"
		default:
			kind = "metadata"
		}
		list = append(list, line(p, kind, x, y))
	}
	return list
}

func line(path, kind string, x, y Entry) string {
	x.ID, y.ID = ID{}, ID{}
	return fmt.Sprintf("%s %s %+v %+v", path, kind, x, y)
}

// TestDiff: the differences are those between the trees.
func TestDiff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree := drawTree(t)
		s := newMemory()
		a, before := build(t, tree, s), tree.state()
		after := tree.clone()
		for range rapid.IntRange(0, 8).Draw(t, "changes") {
			after.edit(t)
		}
		if rapid.Bool().Draw(t, "unrelated") {
			after = drawTree(t)
		}
		b, now := build(t, after, s), after.state()
		for _, d := range []struct {
			a, b Root
			want []string
		}{{a, b, diffOf(before, now)}, {b, a, diffOf(now, before)}, {a, a, nil}} {
			var got []string
			if err := Diff(context.Background(), s, d.a, d.b, func(c Change) error {
				got = append(got, line(c.Path, c.Kind.String(), c.Old, c.New))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, d.want) {
				t.Fatalf("the differences are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(d.want, "\n"))
			}
		}
	})
}

// TestDiffReads: where one file of many has changed, a few pages are read.
func TestDiffReads(t *testing.T) {
	tree := newTree()
	for i := range 100 {
		folder := tree.folder(tree.root(), fmt.Sprint("folder", i))
		for k := range 20 {
			tree.file(folder, fmt.Sprint("f", k), "x")
		}
	}
	long := tree.folder(tree.root(), "long")
	for k := range 20_000 {
		tree.file(long, fmt.Sprint("f", k), "x")
	}
	s := newMemory()
	a := build(t, tree, s)
	tree.at("/long/f12345").disk++
	tree.at("/folder7/f3").UID++
	tree.at("/folder8").Mode |= fs.ModeSticky
	tree.remove("/long/f77")
	b := build(t, tree, s)
	s.loads = 0
	var got []string
	if err := Diff(context.Background(), s, a, b, func(c Change) error {
		got = append(got, c.Kind.String()+c.Path)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := "metadata/folder7/f3 metadata/folder8 content/long/f12345 removed/long/f77"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// The roots, their listings, that of folder7, and of the long one the index and two pages or three, each as it was and as it is.
	if s.loads > 2*(1+1+1+1+3) {
		t.Errorf("%d loads of %d pages", s.loads, len(s.pages))
	}
}

// TestDiffIncomplete: that a folder could be read before, and cannot now, is told.
func TestDiffIncomplete(t *testing.T) {
	tree := newTree()
	folder := tree.folder(tree.root(), "a")
	tree.file(folder, "b", "x")
	s := newMemory()
	a := build(t, tree, s)
	folder.entries, folder.listErr = nil, errGone
	b, err := Build(context.Background(), tree, s, BuildOptions{})
	if err != nil || b.Complete() {
		t.Fatal(b, err)
	}
	var got []string
	if err := Diff(context.Background(), s, a, b, func(c Change) error {
		got = append(got, fmt.Sprint(c.Kind, c.Path, c.New.Incomplete))
		return nil
	}); err != nil || strings.Join(got, " ") != "metadata/atrue removed/a/bfalse" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestDiffSkips(t *testing.T) {
	tree := newTree()
	s := newMemory()
	a := build(t, tree, s)
	for _, name := range []string{"a", "b"} {
		folder := tree.folder(tree.root(), name)
		tree.file(folder, "x", "")
		tree.file(folder, "y", "")
	}
	b := build(t, tree, s)
	sentinel := errors.New("enough")
	for _, w := range []struct {
		at   string
		err  error
		want string
		ends error
	}{
		{"", nil, "/a /a/x /a/y /b /b/x /b/y", nil},
		{"/a", fs.SkipDir, "/a /b /b/x /b/y", nil},
		{"/a/y", fs.SkipAll, "/a /a/x /a/y", nil},
		{"/a/x", sentinel, "/a /a/x", sentinel},
	} {
		for _, r := range [][2]Root{{a, b}, {b, a}} {
			var met []string
			err := Diff(context.Background(), s, r[0], r[1], func(c Change) error {
				met = append(met, c.Path)
				if c.Path == w.at {
					return w.err
				}
				return nil
			})
			if err != w.ends || strings.Join(met, " ") != w.want {
				t.Errorf("%v at %s: met %q, %v", w.err, w.at, met, err)
			}
		}
	}
}
