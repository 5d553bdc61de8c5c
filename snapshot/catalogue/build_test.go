package catalogue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"varve/image/filesystem"
)

// noted is what Build said of a tree that has problems, and what its catalogue has.
func noted(t *testing.T, tree filesystem.Tree) (root Root, files map[string]Entry, notes []string) {
	t.Helper()
	s := newMemory()
	root, err := Build(context.Background(), tree, s, BuildOptions{Digest: placeDigest, Note: func(path string, err error) {
		notes = append(notes, fmt.Sprintf("%s: %v", path, err))
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := Open(s, root)
	e, err := c.Root(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	files = map[string]Entry{"/": e}
	if err := c.Walk(context.Background(), e, func(path string, e Entry) error {
		files[path] = e
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if int(root.Problems) != len(notes) || root.Complete() != (len(notes) == 0) {
		t.Errorf("%d problems, %d notes", root.Problems, len(notes))
	}
	return root, files, notes
}

// TestDamagedTrees: what cannot be read is said and marked where it is, and nothing else is.
func TestDamagedTrees(t *testing.T) {
	for _, c := range []struct {
		what   string
		damage func(tree *tree, folder, file *node)
		notes  []string // each is part of one
		marked string   // the paths that are incomplete
		paths  string   // all of them
	}{
		{"nothing", func(*tree, *node, *node) {}, nil, "", "/ /a /a/f /z"},
		{"a file without metadata", func(_ *tree, _, file *node) { file.statErr = errGone }, []string{"/a/f: no such file"}, "/a/f", "/ /a /a/f /z"},
		{"a file that cannot be opened", func(_ *tree, _, file *node) { file.openErr = errGone }, []string{"/a/f: no such file"}, "/a/f", "/ /a /a/f /z"},
		{"extents that cannot be read", func(_ *tree, _, file *node) { file.readErr = errGone }, []string{"/a/f: no such file"}, "/a/f", "/ /a /a/f /z"},
		{"a negative size", func(_ *tree, _, file *node) { file.Size = -1 }, []string{"/a/f: the filesystem is damaged"}, "/a/f", "/ /a /a/f /z"},
		{"a link that cannot be read", func(tree *tree, folder, _ *node) { tree.add(folder, "l", tree.node(fs.ModeSymlink)).openErr = errGone },
			[]string{"/a/l: no such file"}, "/a/l", "/ /a /a/f /a/l /z"},
		{"a long target", func(tree *tree, folder, _ *node) {
			tree.add(folder, "l", tree.node(fs.ModeSymlink)).target = strings.Repeat("x", maxTarget+1)
		}, []string{"/a/l: the filesystem is damaged"}, "/a/l", "/ /a /a/f /a/l /z"},
		{"a folder of which a part is lost", func(_ *tree, folder, _ *node) { folder.listErr = errGone }, []string{"/a: no such file"}, "/a", "/ /a /a/f /z"},
		{"a folder without metadata", func(_ *tree, folder, _ *node) { folder.statErr = errGone }, []string{"/a: no such file"}, "/a", "/ /a /z"},
		{"a root of which a part is lost", func(tree *tree, _, _ *node) { tree.root().listErr = errGone }, []string{"/: no such file"}, "/", "/ /a /a/f /z"},
		{"a root without metadata", func(tree *tree, _, _ *node) { tree.root().statErr = errGone }, []string{"/: no such file"}, "/", "/ /a /a/f /z"},
		{"a root that is none", func(tree *tree, _, _ *node) { tree.root().Mode = 0o644; tree.root().entries = nil },
			[]string{"/: the root is no folder"}, "/", "/"},
		{"a cycle", func(tree *tree, folder, _ *node) {
			tree.add(folder, "up", tree.root())
			tree.add(folder, "self", folder)
		},
			[]string{"/a/self: the folder is in another place", "/a/up: the folder is in another place"}, "/a/self /a/up", "/ /a /a/f /a/self /a/up /z"},
		{"a folder with two names", func(tree *tree, folder, _ *node) { tree.add(tree.root(), "b", folder) },
			[]string{"/b: the folder is in another place"}, "/b", "/ /a /a/f /b /z"},
		{"names that are none", func(tree *tree, folder, file *node) {
			for _, name := range []string{"", ".", "..", "x/y", "x\x00", strings.Repeat("n", maxName+1)} {
				tree.add(folder, name, file)
			}
		}, []string{"/a: the name", "/a: the name", "/a: the name", "/a: the name", "/a: the name", "/a: the name"}, "/a", "/ /a /a/f /z"},
		{"a name twice", func(tree *tree, folder, _ *node) { tree.folder(folder, "f") }, []string{`/a: the name "f" is there twice`}, "/a", "/ /a /a/f /z"},
		{"an entry of nothing", func(_ *tree, folder, _ *node) {
			folder.entries = append(folder.entries, filesystem.Entry{Name: "g", Number: 999, Mode: fs.ModeDir})
		}, []string{"/a/g: no such file"}, "/a/g", "/ /a /a/f /a/g /z"},
	} {
		tree := newTree()
		folder := tree.folder(tree.root(), "a")
		file := tree.file(folder, "f", "content")
		tree.file(tree.root(), "z", "after it")
		c.damage(tree, folder, file)
		_, files, notes := noted(t, tree)
		var marked []string
		for _, p := range sorted(files) {
			if files[p].Incomplete {
				marked = append(marked, p)
			}
			if p != "/a/f" && p != "/a" && p != "/" && !files[p].Mode.IsDir() && files[p].Number == file.Number {
				t.Errorf("%s: the file is at %s", c.what, p)
			}
		}
		if got := strings.Join(marked, " "); got != c.marked {
			t.Errorf("%s: incomplete are %q, want %q", c.what, got, c.marked)
		}
		if got := strings.Join(sorted(files), " "); got != c.paths {
			t.Errorf("%s: there are %q, want %q", c.what, got, c.paths)
		}
		if !slices.EqualFunc(notes, c.notes, strings.Contains) {
			t.Errorf("%s: noted %q, want %q", c.what, notes, c.notes)
		}
	}
}

func TestDeepTree(t *testing.T) {
	tree := newTree()
	folder := tree.root()
	for range MaxDepth + 10 {
		folder = tree.folder(folder, "d")
	}
	root, files, notes := noted(t, tree)
	deepest := strings.Repeat("/d", MaxDepth+1)
	if root.Folders != MaxDepth+1 || !files[deepest].Incomplete || files[strings.Repeat("/d", MaxDepth)].Incomplete ||
		len(notes) != 1 || !strings.HasPrefix(notes[0], deepest+": the folder lies in more than 1024") {
		t.Errorf("%d folders, notes %.60q", root.Folders, notes)
	}
}

// TestWalkDepth: a catalogue that nobody built may be deeper than any; Walk stops.
func TestWalkDepth(t *testing.T) {
	s := newMemory()
	id := ID{}
	for range MaxDepth + 3 {
		id = s.put(encode(Entry{Name: "d", Mode: fs.ModeDir, ID: id, Files: 1}))
	}
	deepest := 0
	err := Open(s, Root{}).Walk(context.Background(), Entry{Mode: fs.ModeDir, ID: id}, func(path string, e Entry) error {
		deepest = len(path) / 2
		return nil
	})
	if err == nil || deepest != MaxDepth+1 {
		t.Errorf("walked %d folders deep: %v", deepest, err)
	}
}

// TestDigests: who has no content has no digest, content inside of structures is hashed, and that of a file with
// several names is looked at once.
func TestDigests(t *testing.T) {
	tree := newTree()
	root := tree.root()
	tree.file(root, "empty", "")
	tree.file(root, "plain", "content")
	tree.file(root, "inline", "content").inline = true
	tree.file(root, "moved", "content").inline = true
	tree.file(root, "other", "Content").inline = true
	tree.file(root, "big", strings.Repeat("x", readLimit+1)).inline = true
	tree.file(root, "limit", strings.Repeat("x", readLimit)).inline = true
	linked := tree.file(root, "linked", "content")
	for i := range 5 {
		tree.add(root, fmt.Sprint("name", i), linked)
		linked.Links++
	}
	_, files, _ := noted(t, tree)
	if files["/empty"].Digest != (Digest{}) {
		t.Error("an empty file has a digest")
	}
	if d := files["/inline"].Digest; d == (Digest{}) || d != files["/moved"].Digest || d == files["/other"].Digest || d == files["/plain"].Digest {
		t.Error("content inside of structures is not hashed")
	}
	place, err := placeDigest([]filesystem.Extent{{Disk: tree.at("/big").disk}})
	if err != nil || files["/big"].Digest != place || files["/limit"].Digest == place {
		t.Error("the limit is elsewhere")
	}
	if files["/name3"].Digest != files["/linked"].Digest || files["/linked"].Digest == (Digest{}) {
		t.Error("names of one file have different digests")
	}
	if tree.opens != 7 { // each but the empty one, once
		t.Errorf("%d files were opened", tree.opens)
	}

	tree.at("/inline").data = nil
	tree.at("/other").readErr = errGone
	if _, files, notes := noted(t, tree); files["/inline"].Incomplete || !files["/other"].Incomplete || len(notes) != 1 {
		t.Errorf("noted %q", notes)
	}
}

// short is content that ends before it should.
type shortTree struct{ *tree }

type shortContent struct{ content }

func (s shortTree) Open(n filesystem.Number, _ string) (filesystem.Content, error) {
	return shortContent{content{s.nodes[n]}}, nil
}

func (shortContent) Size() int64 { return 5000 }

// TestShortContent: content that ends early is no content.
func TestShortContent(t *testing.T) {
	tree := newTree()
	tree.file(tree.root(), "f", "content").inline = true
	_, files, notes := noted(t, shortTree{tree})
	if !files["/f"].Incomplete || files["/f"].Digest != (Digest{}) || len(notes) != 1 || !strings.Contains(notes[0], "ends after 7") {
		t.Errorf("noted %q", notes)
	}
}

// TestOddMetadata: what a filesystem says of a file may be nonsense.
func TestOddMetadata(t *testing.T) {
	tree := newTree()
	for i, n := range []struct {
		mode     fs.FileMode
		links    int
		modified time.Time
	}{
		{fs.ModeDir | fs.ModeSymlink, -5, time.Unix(math.MaxInt64, 0)},
		{fs.ModeAppend | fs.ModeTemporary | 0o644, math.MaxInt, time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)},
		{fs.ModeIrregular | fs.ModeDir, 0, time.Date(2000, 1, 1, 0, 0, 0, 0, time.FixedZone("x", 3600))},
	} {
		odd := tree.add(tree.root(), fmt.Sprint(i), tree.node(n.mode))
		odd.Links, odd.Modified, odd.Size = n.links, n.modified, math.MaxInt64
	}
	tree.file(tree.root(), "huge", "x").Size = math.MaxInt64
	root, files, _ := noted(t, tree)
	for name, want := range map[string]Entry{
		"0": {Mode: fs.ModeIrregular, Size: math.MaxInt64},
		"1": {Mode: 0o644, Links: math.MaxInt32, Size: math.MaxInt64},
		"2": {Mode: fs.ModeIrregular, Size: math.MaxInt64, Modified: time.Date(1999, 12, 31, 23, 0, 0, 0, time.UTC)},
	} {
		want.Name, want.Number = name, tree.at(name).Number
		if got := files["/"+name]; got != want {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	if root.Bytes != math.MaxInt64 {
		t.Errorf("the files have %d bytes", root.Bytes)
	}
}

// TestBuildEnds: Build ends when pages cannot be saved, and when it is told to.
func TestBuildEnds(t *testing.T) {
	tree := newTree()
	for i := range 2000 {
		tree.file(tree.root(), fmt.Sprint(i), "x")
	}
	tree.file(tree.folder(tree.root(), "a"), "x", "x")
	s := newMemory()
	build(t, tree, s)
	full := errors.New("the disk is full")
	for n := range len(s.saved) {
		if _, err := Build(context.Background(), tree, &failing{newMemory(), n, full}, BuildOptions{Digest: placeDigest}); !errors.Is(err, full) {
			t.Errorf("where page %d cannot be saved: %v", n, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Build(ctx, tree, newMemory(), BuildOptions{Digest: placeDigest}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before: %v", err)
	}
	ctx, cancel = context.WithCancel(context.Background())
	digests := 0
	if _, err := Build(ctx, tree, newMemory(), BuildOptions{Digest: func([]filesystem.Extent) (Digest, error) {
		digests++
		cancel()
		return Digest{1}, nil
	}}); !errors.Is(err, context.Canceled) || digests > 1 {
		t.Errorf("cancelled after a file: %v, %d digests", err, digests)
	}
}

// failing is a store that has room for a number of pages.
type failing struct {
	*memory
	room int
	err  error
}

func (f *failing) Save(ctx context.Context, id ID, data []byte) (bool, error) {
	if f.room--; f.room < 0 {
		return false, f.err
	}
	return f.memory.Save(ctx, id, data)
}
