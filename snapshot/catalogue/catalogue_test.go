package catalogue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestModel: what a catalogue of any tree says is what the tree has.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree := drawTree(t)
		s := newMemory()
		root := build(t, tree, s)
		state := tree.state()
		checkState(t, Open(s, root), state)

		want := Root{ID: root.ID, Files: state["/"].Files, Bytes: state["/"].Bytes, Folders: -1}
		for _, e := range state {
			if e.Mode.IsDir() {
				want.Folders++
			}
		}
		if root != want {
			t.Fatalf("the root is %+v, want %+v", root, want)
		}

		// The order in which the disk has the names of a folder does not matter.
		for _, n := range tree.nodes {
			slices.Reverse(n.entries)
		}
		if again := build(t, tree, newMemory()); again != root {
			t.Fatalf("built again in another order: %+v, was %+v", again, root)
		}
	})
}

// TestChildren: who goes from page to page by Children comes to all pages that Build saved, and no others.
func TestChildren(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newMemory()
		root := build(t, drawTree(t), s)
		met := map[ID]bool{}
		left := []ID{ID(root.ID)}
		for len(left) > 0 {
			id := left[0]
			left = left[1:]
			if met[id] {
				continue
			}
			met[id] = true
			if !IsPage(s.pages[id]) {
				t.Fatalf("%x is no page", s.pages[id])
			}
			ids, err := Children(s.pages[id])
			if err != nil {
				t.Fatal(err)
			}
			left = append(left, ids...)
		}
		if len(met) != len(s.pages) {
			t.Fatalf("%d pages are referred to, %d were saved", len(met), len(s.pages))
		}
	})
}

func TestIsPage(t *testing.T) {
	for _, data := range []string{"", "\x00", "\x01\x01", "\x02\x01", "\x05", "VARV"} {
		if IsPage([]byte(data)) {
			t.Errorf("%q is taken for a page", data)
		}
		if _, err := Children([]byte(data)); err == nil {
			t.Errorf("%q has children", data)
		}
	}
}

func TestLookup(t *testing.T) {
	tree := newTree()
	etc := tree.folder(tree.root(), "etc")
	tree.file(etc, "passwd", "root")
	tree.file(etc, "PASSWD", "upper")
	tree.file(tree.folder(tree.root(), "Etc"), "Ärger", "x")
	hurt := tree.folder(tree.root(), "hurt")
	hurt.listErr = errGone
	s := newMemory()
	root, err := Build(context.Background(), tree, s, BuildOptions{Digest: placeDigest})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path   string
		ignore bool
		want   string // the name that is found; "-": none is
	}{
		{"", false, ""}, {"/", false, ""}, {"etc", false, "etc"}, {"/etc/", false, "etc"}, {"//etc//passwd", false, "passwd"},
		{"/etc/PASSWD", false, "PASSWD"}, {"/etc/Passwd", false, "-"}, {"/etc/passwd/x", false, "-"}, {"/etc/..", false, "-"}, {"/nothing", false, "-"},
		{"/zz", false, "-"}, {"/hurt/x", false, "-"},
		{"/etc/Passwd", true, "PASSWD"}, {"/etc/passwd", true, "passwd"}, {"/eTC/pASSWD", true, "-"}, {"/Etc/ärger", true, "Ärger"},
	} {
		cat := Open(s, root)
		cat.IgnoreCase = c.ignore
		e, err := cat.Lookup(context.Background(), c.path)
		switch {
		case c.want == "-":
			if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("%q, ignoring case %v: found %q, %v", c.path, c.ignore, e.Name, err)
			}
			if strings.HasPrefix(c.path, "/hurt") != strings.Contains(err.Error(), "could be read") {
				t.Errorf("%q: %v", c.path, err)
			}
		case err != nil || e.Name != c.want:
			t.Errorf("%q, ignoring case %v: found %q, %v, want %q", c.path, c.ignore, e.Name, err, c.want)
		}
	}
}

// TestReads: a listing is read without those below it and beside it, and a file is found by one page of each kind a folder.
func TestReads(t *testing.T) {
	tree := newTree()
	folder := tree.root()
	for i := range 5 {
		folder = tree.folder(folder, fmt.Sprint("folder", i))
		for k := range 3000 {
			tree.file(folder, fmt.Sprint("f", k), "")
		}
	}
	s := newMemory()
	c := Open(s, build(t, tree, s))
	s.loads = 0
	e, err := c.Lookup(context.Background(), "/folder0/folder1/folder2/folder3/folder4/f2999")
	if err != nil || s.loads > 1+1+5*2 {
		t.Errorf("found %q by %d loads: %v", e.Name, s.loads, err)
	}
	e, err = c.Lookup(context.Background(), "/folder0/folder1")
	if err != nil {
		t.Fatal(err)
	}
	s.loads = 0
	names := 0
	if err := c.List(context.Background(), e, func(Entry) error { names++; return nil }); err != nil || names != 3001 || s.loads > 40 {
		t.Errorf("listed %d names by %d loads: %v", names, s.loads, err)
	}
	s.loads, names = 0, 0
	if err := c.List(context.Background(), e, func(Entry) error { names++; return fs.SkipAll }); err != nil || names != 1 || s.loads > 2 {
		t.Errorf("listed %d names by %d loads: %v", names, s.loads, err)
	}
}

func TestWalkSkips(t *testing.T) {
	tree := newTree()
	a := tree.folder(tree.root(), "a")
	tree.file(tree.folder(a, "deep"), "x", "")
	tree.file(a, "y", "")
	tree.file(tree.root(), "b", "")
	s := newMemory()
	c := Open(s, build(t, tree, s))
	root, err := c.Root(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	sentinel := errors.New("enough")
	for _, w := range []struct {
		at   string
		err  error
		want string
		ends error
	}{
		{"", nil, "/a /a/deep /a/deep/x /a/y /b", nil},
		{"/a", fs.SkipDir, "/a /b", nil},
		{"/a/deep", fs.SkipDir, "/a /a/deep /a/y /b", nil},
		{"/a/deep", fs.SkipAll, "/a /a/deep", nil},
		{"/a/y", sentinel, "/a /a/deep /a/deep/x /a/y", sentinel},
	} {
		var met []string
		err := c.Walk(context.Background(), root, func(path string, _ Entry) error {
			met = append(met, path)
			if path == w.at {
				return w.err
			}
			return nil
		})
		if err != w.ends || strings.Join(met, " ") != w.want {
			t.Errorf("%v at %s: met %q, %v", w.err, w.at, met, err)
		}
	}
	b, err := c.Lookup(context.Background(), "b")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Walk(context.Background(), b, nil); err == nil {
		t.Error("a file was walked")
	}
	if err := c.List(context.Background(), b, nil); err == nil {
		t.Error("a file was listed")
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := c.Walk(ctx, root, func(string, Entry) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled walk: %v", err)
	}
}

func TestRootJSON(t *testing.T) {
	root := Root{ID: PageID{0xab, 1}, Files: 3, Folders: 1, Bytes: 1 << 40}
	text, err := json.Marshal(root)
	if want := `{"id":"ab01` + strings.Repeat("0", 60) + `","files":3,"folders":1,"bytes":1099511627776}`; err != nil || string(text) != want {
		t.Errorf("%s, %v, want %s", text, err, want)
	}
	var back Root
	if err := json.Unmarshal(text, &back); err != nil || back != root || !back.Complete() {
		t.Errorf("%+v, %v", back, err)
	}
	for _, id := range []string{"", "ab", strings.Repeat("x", 64), strings.Repeat("0", 66)} {
		if err := json.Unmarshal(fmt.Appendf(nil, `{"id":%q}`, id), &back); err == nil {
			t.Errorf("%q is taken for an id", id)
		}
	}
}
