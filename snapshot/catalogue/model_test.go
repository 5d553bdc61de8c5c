package catalogue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"
	"varve/image/filesystem"
)

// memory is a store of pages.
type memory struct {
	pages map[ID][]byte
	saved []ID // those that were new, in order
	loads int
}

func newMemory() *memory { return &memory{pages: map[ID][]byte{}} }

func (s *memory) ID(data []byte) ID { return blake3.Sum256(data) }

func (s *memory) Save(_ context.Context, id ID, data []byte) (bool, error) {
	if _, found := s.pages[id]; found {
		return false, nil
	}
	s.pages[id] = slices.Clone(data)
	s.saved = append(s.saved, id)
	return true, nil
}

func (s *memory) Load(_ context.Context, id ID, buf []byte) ([]byte, error) {
	s.loads++
	data, found := s.pages[id]
	if !found {
		return nil, fmt.Errorf("no page %x", id[:6])
	}
	return append(buf[:0], data...), nil
}

// put saves a page that somebody made up.
func (s *memory) put(data []byte) ID {
	id := s.ID(data)
	s.pages[id] = data
	return id
}

// node is a file of a tree in memory.
type node struct {
	filesystem.File
	target  string
	data    []byte // content; it lies at disk, or in a structure when inline
	disk    int64
	inline  bool
	entries []filesystem.Entry // of a folder

	statErr, openErr, readErr, listErr error
}

// tree is a filesystem in memory.
type tree struct {
	filesystem.Filesystem
	nodes map[filesystem.Number]*node
	last  filesystem.Number
	opens int
}

func newTree() *tree {
	t := &tree{nodes: map[filesystem.Number]*node{}}
	t.node(fs.ModeDir | 0o755)
	return t
}

func (t *tree) node(mode fs.FileMode) *node {
	t.last++
	n := &node{File: filesystem.File{Number: t.last, Mode: mode, Links: 1, Modified: time.Unix(int64(t.last)*1000, 5).UTC()}}
	t.nodes[t.last] = n
	return n
}

func (t *tree) root() *node { return t.nodes[1] }

// add puts a name for n into a folder.
func (t *tree) add(folder *node, name string, n *node) *node {
	folder.entries = append(folder.entries, filesystem.Entry{Name: name, Number: n.Number, Mode: n.Mode.Type()})
	return n
}

// file adds a regular file with a content.
func (t *tree) file(folder *node, name, content string) *node {
	n := t.add(folder, name, t.node(0o644))
	n.data, n.Size, n.disk = []byte(content), int64(len(content)), int64(n.Number)<<20
	return n
}

func (t *tree) folder(folder *node, name string) *node {
	return t.add(folder, name, t.node(fs.ModeDir|0o755))
}

func (t *tree) clone() *tree {
	c := &tree{nodes: map[filesystem.Number]*node{}, last: t.last}
	for n, was := range t.nodes {
		is := *was
		is.entries = slices.Clone(is.entries)
		c.nodes[n] = &is
	}
	return c
}

var errGone = errors.New("no such file")

func (t *tree) Root() filesystem.Number { return 1 }

func (t *tree) Stat(n filesystem.Number) (filesystem.File, error) {
	if f := t.nodes[n]; f != nil {
		return f.File, f.statErr
	}
	return filesystem.File{}, errGone
}

func (t *tree) ReadDir(_ context.Context, n filesystem.Number, f func(filesystem.Entry) error) error {
	folder := t.nodes[n]
	if folder == nil {
		return errGone
	}
	for _, e := range folder.entries {
		if err := f(e); err != nil {
			return err
		}
	}
	return folder.listErr
}

func (t *tree) Readlink(n filesystem.Number) (string, error) {
	return t.nodes[n].target, t.nodes[n].openErr
}

func (t *tree) Attributes(filesystem.Number) ([]filesystem.Attribute, error) { return nil, nil }

func (t *tree) Streams(filesystem.Number) ([]filesystem.Stream, error) { return nil, nil }

func (t *tree) Open(n filesystem.Number, _ string) (filesystem.Content, error) {
	t.opens++
	return content{t.nodes[n]}, t.nodes[n].openErr
}

type content struct{ *node }

func (n content) Size() int64 { return int64(len(n.data)) }

func (n content) ReadAt(b []byte, at int64) (int, error) {
	if n.readErr != nil {
		return 0, n.readErr
	}
	if c := copy(b, n.data[at:]); c < len(b) {
		return c, io.EOF
	}
	return len(b), nil
}

func (n content) Extents() ([]filesystem.Extent, error) {
	e := filesystem.Extent{Length: int64(len(n.data)), Disk: n.disk, Stored: int64(len(n.data))}
	if n.inline {
		e.Kind = filesystem.Encoded
	}
	return []filesystem.Extent{e}, n.readErr
}

// placeDigest is the digest of content that lies in extents.
func placeDigest(extents []filesystem.Extent) (d Digest, err error) {
	for _, e := range extents {
		if e.Kind != filesystem.Hole {
			binary.BigEndian.PutUint64(d[:], uint64(e.Disk))
			d[15] = 1
		}
	}
	return d, nil
}

// build makes the catalogue of t, which has no problems.
func build(t interface{ Fatalf(string, ...any) }, tree filesystem.Tree, s *memory) Root {
	root, err := Build(context.Background(), tree, s, BuildOptions{Digest: placeDigest, Note: func(path string, err error) {
		t.Fatalf("%s: %v", path, err)
	}})
	if err != nil || !root.Complete() {
		t.Fatalf("%v, %d problems", err, root.Problems)
	}
	return root
}

// state says what a catalogue of t has to hold: its files by their paths, without the ids of listings.
func (t *tree) state() map[string]Entry {
	files := map[string]Entry{}
	t.stateOf("", "", t.root(), files)
	return files
}

func (t *tree) stateOf(at, name string, n *node, files map[string]Entry) (count, bytes int64) {
	e := Entry{Name: name, Number: n.Number, Mode: n.Mode, UID: n.UID, GID: n.GID, Links: n.Links, Modified: n.Modified, Changed: n.Changed}
	switch n.Mode.Type() {
	case 0:
		e.Size = n.Size
		if n.inline {
			h := blake3.Sum256(append([]byte("varve content of a file\x00"), n.data...))
			copy(e.Digest[:], h[:])
		} else if len(n.data) > 0 {
			binary.BigEndian.PutUint64(e.Digest[:], uint64(n.disk))
			e.Digest[15] = 1
		}
		count, bytes = 1, e.Size
	case fs.ModeDir:
		for _, entry := range n.entries {
			c, b := t.stateOf(at+"/"+entry.Name, entry.Name, t.nodes[entry.Number], files)
			count, bytes = count+c, bytes+b
		}
		e.Files, e.Bytes = count, bytes
	case fs.ModeSymlink:
		e.Target, e.Size = n.target, int64(len(n.target))
		count = 1
	default:
		e.Device = n.Device
		count = 1
	}
	if at == "" {
		at = "/"
	}
	files[at] = e
	return count, bytes
}

// sorted returns paths in the order of Walk.
func sorted[V any](files map[string]V) []string {
	return slices.SortedFunc(maps.Keys(files), func(a, b string) int {
		return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/"))
	})
}

// paths returns all paths, and those of the folders; the root is "".
func (t *tree) paths() (all, folders []string) {
	var below func(at string, n *node)
	below = func(at string, n *node) {
		all = append(all, at)
		if n.Mode.IsDir() {
			folders = append(folders, at)
		}
		for _, e := range n.entries {
			below(at+"/"+e.Name, t.nodes[e.Number])
		}
	}
	below("", t.root())
	return all, folders
}

// at returns the file at a path.
func (t *tree) at(p string) *node {
	n := t.root()
	for name := range strings.SplitSeq(p, "/") {
		if name != "" {
			i := slices.IndexFunc(n.entries, func(e filesystem.Entry) bool { return e.Name == name })
			n = t.nodes[n.entries[i].Number]
		}
	}
	return n
}

func (t *tree) remove(p string) {
	folder := t.at(path.Dir(p))
	folder.entries = slices.DeleteFunc(folder.entries, func(e filesystem.Entry) bool { return e.Name == path.Base(p) })
}

func drawName(t *rapid.T, folder *node) string {
	name := rapid.OneOf(
		rapid.StringMatching(`[a-c.]{1,3}[d-f]`),
		rapid.StringMatching(`(file|Файл|a very long name that goes on)[0-9]{1,2}`),
		rapid.Just("\xff\xfe not UTF-8"),
	).Draw(t, "name")
	for slices.ContainsFunc(folder.entries, func(e filesystem.Entry) bool { return e.Name == name }) {
		name += "+"
	}
	return name
}

func drawTime(t *rapid.T) time.Time {
	return rapid.SampledFrom([]time.Time{
		{}, time.Unix(0, 0).UTC(), time.Unix(-1, 1).UTC(), time.Date(1601, 1, 1, 0, 0, 0, 100, time.UTC), time.Date(2026, 5, 1, 12, 0, 0, 123456789, time.UTC),
		time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC), time.Date(1, 1, 1, 0, 0, 0, 1, time.UTC),
	}).Draw(t, "time")
}

// edit changes t at random.
func (t *tree) edit(r *rapid.T) {
	all, folders := t.paths()
	folder := t.at(rapid.SampledFrom(folders).Draw(r, "folder"))
	some := rapid.SampledFrom(all).Draw(r, "path")
	n := t.at(some)
	switch action := rapid.IntRange(0, 11).Draw(r, "action"); action {
	case 0, 1:
		f := t.file(folder, drawName(r, folder), rapid.StringN(0, 40, -1).Draw(r, "content"))
		f.inline = len(f.data) > 0 && rapid.Bool().Draw(r, "inline")
		f.Changed = drawTime(r)
	case 2, 3:
		t.folder(folder, drawName(r, folder))
	case 4:
		l := t.add(folder, drawName(r, folder), t.node(fs.ModeSymlink|0o777))
		l.target = rapid.SampledFrom([]string{"", "x", strings.Repeat("../", 1000)}).Draw(r, "target")
	case 5:
		d := t.add(folder, drawName(r, folder), t.node(rapid.SampledFrom([]fs.FileMode{
			fs.ModeDevice | 0o660, fs.ModeDevice | fs.ModeCharDevice | 0o600, fs.ModeNamedPipe, fs.ModeSocket | 0o777}).Draw(r, "type")))
		if d.Mode&fs.ModeDevice != 0 {
			d.Device = rapid.Uint64().Draw(r, "device")
		}
	case 6:
		if some != "" {
			t.remove(some)
		}
	case 7:
		n.Mode = n.Mode.Type() | rapid.SampledFrom([]fs.FileMode{0, 0o777, 0o4755&^0o4000 | fs.ModeSetuid, fs.ModeSticky | fs.ModeSetgid | 0o1}).Draw(r, "mode")
		n.UID, n.GID = rapid.Uint32().Draw(r, "uid"), rapid.SampledFrom([]uint32{0, 100, math.MaxUint32}).Draw(r, "gid")
	case 8:
		n.Modified, n.Changed = drawTime(r), drawTime(r)
	case 9:
		if n.Mode.IsRegular() {
			n.disk++
			n.data = append(slices.Clone(n.data), 'x')
			n.Size = rapid.SampledFrom([]int64{int64(len(n.data)), 1 << 40}).Draw(r, "size")
		}
	case 10:
		if !n.Mode.IsDir() {
			t.add(folder, drawName(r, folder), n)
			n.Links++
		}
	case 11:
		prefix := fmt.Sprint(t.last)
		for i := range rapid.SampledFrom([]int{5, 5, 10, 800}).Draw(r, "many") {
			t.file(folder, fmt.Sprintf("%s,%05d", prefix, i*7919%65536), "")
		}
	}
}

func drawTree(r *rapid.T) *tree {
	t := newTree()
	for range rapid.IntRange(0, 30).Draw(r, "edits") {
		t.edit(r)
	}
	return t
}

// checkState compares a catalogue with what it has to hold.
func checkState(t interface{ Fatalf(string, ...any) }, c *Catalogue, want map[string]Entry) {
	ctx := context.Background()
	root, err := c.Root(ctx)
	if err != nil {
		t.Fatalf("%v", err)
	}
	order := []string{"/"}
	got := map[string]Entry{"/": root}
	if err := c.Walk(ctx, root, func(path string, e Entry) error {
		got[path] = e
		order = append(order, path)
		return nil
	}); err != nil {
		t.Fatalf("%v", err)
	}
	if paths := sorted(want); !slices.Equal(order, paths) {
		t.Fatalf("the order is\n%q\nwant\n%q", order, paths)
	}
	children := map[string][]string{} // by the path of a folder with a slash behind it
	for _, path := range order[1:] {
		prefix := path[:strings.LastIndexByte(path, '/')+1]
		children[prefix] = append(children[prefix], path)
	}
	for path, e := range got {
		same(t, path, e, want[path])
		found, err := c.Lookup(ctx, path)
		if err != nil || found != e {
			t.Fatalf("%s: looked up %+v, %v, want %+v", path, found, err, e)
		}
		if !e.Mode.IsDir() {
			continue
		}
		var listed []string
		prefix := strings.TrimSuffix(path, "/") + "/"
		if err := c.List(ctx, e, func(e Entry) error {
			if e != got[prefix+e.Name] {
				t.Fatalf("%s: listed %+v, want %+v", path, e, got[prefix+e.Name])
			}
			listed = append(listed, prefix+e.Name)
			return nil
		}); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if !slices.Equal(listed, children[prefix]) {
			t.Fatalf("%s: listed %q, want %q", path, listed, children[prefix])
		}
	}
}

// same compares entries but for the id of the listing, which is zero where nothing is.
func same(t interface{ Fatalf(string, ...any) }, path string, got, want Entry) {
	if (got.Mode.IsDir() && got.ID == (ID{})) && got.Files > 0 {
		t.Fatalf("%s has files and no listing", path)
	}
	got.ID = ID{}
	if got != want {
		t.Fatalf("%s: got\n%+v, want\n%+v", path, got, want)
	}
}
