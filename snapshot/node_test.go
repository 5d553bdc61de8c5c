package snapshot

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

func idOf(b byte) (id ID) {
	for i := range id {
		id[i] = b
	}
	return id
}

// golden compares data with the hexadecimal text of a file.
func golden(t *testing.T, name string, data []byte) {
	t.Helper()
	path := "testdata/" + name + ".golden"
	if *update {
		if err := os.WriteFile(path, []byte(hex.Dump(data)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.Dump(data); got != string(want) {
		t.Errorf("%s changed: repositories could not be read any more; got\n%s\nwant\n%s", name, got, want)
	}
}

func TestLeafGolden(t *testing.T) {
	golden(t, "leaf", appendLeaf(nil, []Extent{
		{Kind: Sparse, Blocks: 300},
		{Kind: Chunk, Blocks: 13, ID: idOf(1)},
		{Kind: Part, Blocks: 2, ID: idOf(2), First: 5, Digest: idOf(3)},
		{Kind: Zero, Blocks: 1}, {Kind: Free, Blocks: 2}, {Kind: Excluded, Blocks: 3}, {Kind: Unreadable, Blocks: 4},
	}))
}

func TestInnerGolden(t *testing.T) {
	golden(t, "inner", appendInner(nil, 2, []child{{id: idOf(1)}, {id: idOf(2)}, {id: idOf(2)}, {hole: Sparse}, {hole: Sparse}, {hole: Zero}}))
}

func drawExtents(t *rapid.T) (extents []Extent, blocks int) {
	for blocks < segmentBlocks && len(extents) < 20 {
		e := Extent{Kind: rapid.SampledFrom([]Kind{Sparse, Zero, Free, Excluded, Unreadable, Chunk, Part}).Draw(t, "kind")}
		limit := segmentBlocks - blocks
		if !e.Kind.hole() {
			limit = min(limit, maxChunkBlocks/2)
			e.ID = idOf(rapid.Byte().Draw(t, "id"))
		}
		if e.Kind == Part {
			e.First = rapid.IntRange(0, maxChunkBlocks/2).Draw(t, "first")
			e.Digest = idOf(rapid.Byte().Draw(t, "digest"))
		}
		e.Blocks = rapid.IntRange(1, limit).Draw(t, "blocks")
		blocks += e.Blocks
		extents = append(extents, e)
	}
	return extents, blocks
}

func TestLeafRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		extents, blocks := drawExtents(t)
		data := appendLeaf(nil, extents)
		got, err := decodeLeaf(data, blocks)
		if err != nil || !reflect.DeepEqual(got, extents) {
			t.Fatalf("%v: got %v, want %v", err, got, extents)
		}
		if _, err := decodeLeaf(data, blocks+1); err == nil {
			t.Fatal("a leaf that is too short is accepted")
		}
		if _, err := decodeLeaf(append(bytes.Clone(data), 0), blocks); err == nil {
			t.Fatal("a byte too many is accepted")
		}
	})
}

func TestInnerRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		children := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) child {
			if rapid.Bool().Draw(t, "hole") {
				return child{hole: rapid.SampledFrom([]Kind{Sparse, Zero}).Draw(t, "kind")}
			}
			return child{id: idOf(rapid.Byte().Draw(t, "id"))}
		}), 1, Fanout).Draw(t, "children")
		data := appendInner(nil, 3, children)
		got, err := decodeInner(data, 3, len(children))
		if err != nil || !reflect.DeepEqual(got, children) {
			t.Fatalf("%v: got %v, want %v", err, got, children)
		}
		if _, err := decodeInner(data, 2, len(children)); err == nil {
			t.Fatal("a node of another level is accepted")
		}
	})
}

// FuzzNode: whatever is decoded encodes to the same bytes, so that a node has one form.
func FuzzNode(f *testing.F) {
	f.Add(appendLeaf(nil, []Extent{{Kind: Sparse, Blocks: 300}, {Kind: Chunk, Blocks: 13, ID: idOf(1)}, {Kind: Part, Blocks: 2, ID: idOf(2), First: 5, Digest: idOf(3)}}), 315)
	f.Add(appendInner(nil, 2, []child{{id: idOf(1)}, {hole: Sparse}, {hole: Sparse}}), 3)
	f.Fuzz(func(t *testing.T, data []byte, count int) {
		if extents, err := decodeLeaf(data, count); err == nil && !bytes.Equal(appendLeaf(nil, extents), data) {
			t.Errorf("%x is accepted as a leaf, and is not what would be written", data)
		}
		if count < 1 || count > Fanout || len(data) < 2 {
			return
		}
		if children, err := decodeInner(data, int(data[1]), count); err == nil && len(children) != count {
			t.Errorf("%d children, want %d", len(children), count)
		}
	})
}
