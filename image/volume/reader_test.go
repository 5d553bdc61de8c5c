package volume

import (
	"context"
	"errors"
	"io"
	"reflect"
	"testing"

	"varve/image/filesystem"
)

// broken is a filesystem whose reader has a mistake everywhere; except that it can open one file, as long as whole is true.
type broken struct{ whole bool }

func mistake() int { return []int{}[len(errMedium.Error())] }

func (broken) Info() filesystem.Info { mistake(); return filesystem.Info{} }
func (broken) Free(context.Context, func(filesystem.Range) error) error {
	mistake()
	return nil
}
func (broken) Root() filesystem.Number { return filesystem.Number(mistake()) }
func (broken) Stat(filesystem.Number) (filesystem.File, error) {
	return filesystem.File{Links: mistake()}, nil
}
func (broken) ReadDir(_ context.Context, _ filesystem.Number, f func(filesystem.Entry) error) error {
	return f(filesystem.Entry{Number: filesystem.Number(mistake())})
}
func (broken) Readlink(filesystem.Number) (string, error) { return string(rune(mistake())), nil }
func (broken) Attributes(filesystem.Number) ([]filesystem.Attribute, error) {
	return make([]filesystem.Attribute, mistake()), nil
}
func (broken) Streams(filesystem.Number) ([]filesystem.Stream, error) {
	return make([]filesystem.Stream, mistake()), nil
}
func (b broken) Open(filesystem.Number, string) (filesystem.Content, error) {
	if !b.whole {
		mistake()
	}
	return brokenContent{}, nil
}

type brokenContent struct{}

func (brokenContent) ReadAt([]byte, int64) (int, error) { return mistake(), nil }
func (brokenContent) Size() int64                       { return int64(mistake()) }
func (brokenContent) Extents() ([]filesystem.Extent, error) {
	return make([]filesystem.Extent, mistake()), nil
}

// TestGuard: whatever method of a reader panics, it is an error.
func TestGuard(t *testing.T) {
	tree, is := guard(broken{}).(filesystem.Tree)
	if !is {
		t.Fatal("a filesystem with files has none when it is guarded")
	}
	if _, is := guard(toy{}).(filesystem.Tree); is {
		t.Fatal("a filesystem without files has some when it is guarded")
	}
	content, err := guard(broken{whole: true}).(filesystem.Tree).Open(1, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	second := func(_ any, err error) error { return err }
	for name, err := range map[string]error{
		"Free":       tree.Free(ctx, nil),
		"Stat":       second(tree.Stat(1)),
		"ReadDir":    tree.ReadDir(ctx, 1, nil),
		"Readlink":   second(tree.Readlink(1)),
		"Attributes": second(tree.Attributes(1)),
		"Streams":    second(tree.Streams(1)),
		"Open":       second(tree.Open(1, "")),
		"ReadAt":     second(content.ReadAt(nil, 0)),
		"Extents":    second(content.Extents()),
	} {
		var p *PanicError
		if !errors.As(err, &p) || len(p.Stack) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if info := tree.Info(); info != (filesystem.Info{}) || tree.Root() != 0 || content.Size() != 0 {
		t.Errorf("%+v, %d, %d", info, tree.Root(), content.Size())
	}
	if c, _ := tree.Open(1, ""); c != nil {
		t.Error("what cannot be opened is not nil")
	}
}

// TestGuardWhole: what does not panic comes through as it is.
func TestGuardWhole(t *testing.T) {
	tree := guard(steady{}).(filesystem.Tree)
	var runs []filesystem.Range
	err := tree.Free(context.Background(), func(r filesystem.Range) error { runs = append(runs, r); return io.ErrClosedPipe })
	if err != io.ErrClosedPipe || len(runs) != 1 {
		t.Errorf("%v, %v", runs, err)
	}
	file, err := tree.Stat(7)
	if file.Size != 7 || err != errMedium {
		t.Errorf("%+v, %v", file, err)
	}
	var entries []filesystem.Entry
	err = tree.ReadDir(context.Background(), 3, func(e filesystem.Entry) error { entries = append(entries, e); return nil })
	if len(entries) != 1 || entries[0].Number != 3 || err != nil {
		t.Errorf("%v, %v", entries, err)
	}
	target, err := tree.Readlink(1)
	attributes, err2 := tree.Attributes(1)
	streams, err3 := tree.Streams(1)
	if target != "target" || len(attributes) != 1 || len(streams) != 2 || errors.Join(err, err2, err3) != nil {
		t.Errorf("%q, %v, %v: %v", target, attributes, streams, errors.Join(err, err2, err3))
	}
	content, err := tree.Open(5, "stream")
	if err != nil {
		t.Fatal(err)
	}
	extents, err := content.Extents()
	n, end := content.ReadAt(make([]byte, 9), 1)
	if !reflect.DeepEqual(extents, []filesystem.Extent{{Length: 11}}) || err != nil || n != 4 || end != io.EOF || content.Size() != 11 {
		t.Errorf("%v, %v, %d, %v", extents, err, n, end)
	}
	if tree.Root() != 2 || tree.Info().Type != "steady" {
		t.Errorf("%d, %+v", tree.Root(), tree.Info())
	}
}

type steady struct{}

func (steady) Info() filesystem.Info { return filesystem.Info{Type: "steady"} }
func (steady) Free(_ context.Context, free func(filesystem.Range) error) error {
	return free(filesystem.Range{Offset: 1, Length: 1})
}
func (steady) Root() filesystem.Number { return 2 }
func (steady) Stat(n filesystem.Number) (filesystem.File, error) {
	return filesystem.File{Size: int64(n)}, errMedium
}
func (steady) ReadDir(_ context.Context, n filesystem.Number, f func(filesystem.Entry) error) error {
	return f(filesystem.Entry{Number: n})
}
func (steady) Readlink(filesystem.Number) (string, error) { return "target", nil }
func (steady) Attributes(filesystem.Number) ([]filesystem.Attribute, error) {
	return make([]filesystem.Attribute, 1), nil
}
func (steady) Streams(filesystem.Number) ([]filesystem.Stream, error) {
	return make([]filesystem.Stream, 2), nil
}
func (steady) Open(n filesystem.Number, stream string) (filesystem.Content, error) {
	return steadyContent(int(n) + len(stream)), nil
}

type steadyContent int

func (s steadyContent) ReadAt([]byte, int64) (int, error) { return 4, io.EOF }
func (s steadyContent) Size() int64                       { return int64(s) }
func (s steadyContent) Extents() ([]filesystem.Extent, error) {
	return []filesystem.Extent{{Length: int64(s)}}, nil
}
