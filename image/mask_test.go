package image

import (
	"testing"

	"pgregory.net/rapid"
)

// mapped is a disk of which each block has a kind.
type mapped struct {
	Source
	kinds []Kind
}

func (m mapped) Map(off, length int64) (list []Extent, err error) {
	for at := off; at < off+length; at += Block {
		list = cover(list, at, min(at+Block, off+length), m.kinds[at/Block])
	}
	return list, nil
}

// TestMask: of any range, the blocks of data in the runs are of their kind, and all others what they were.
func TestMask(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "blocks")
		size := int64(n)*Block - int64(rapid.SampledFrom([]int{0, 1000}).Draw(t, "short"))
		kinds := rapid.SliceOfN(rapid.SampledFrom([]Kind{Data, Data, Sparse}), n, n).Draw(t, "kinds")
		want := append([]Kind(nil), kinds...)
		var runs []Extent
		for at := int64(0); at < size; {
			length := min(size-at, Block*int64(rapid.IntRange(1, 5).Draw(t, "length")))
			if kind := rapid.SampledFrom([]Kind{Data, Free, Excluded}).Draw(t, "kind"); kind != Data {
				runs = append(runs, Extent{at, length, kind})
				for b := at / Block; b*Block < at+length; b++ {
					if want[b] == Data {
						want[b] = kind
					}
				}
			}
			at += length
		}
		off := int64(rapid.IntRange(0, n-1).Draw(t, "off")) * Block
		length := min(size-off, Block*int64(rapid.IntRange(1, n).Draw(t, "range")))
		list, err := Mask(mapped{kinds: kinds}, runs).Map(off, length)
		if err != nil {
			t.Fatal(err)
		}
		at := off
		for i, e := range list {
			if e.Offset != at || e.Length <= 0 || i > 0 && list[i-1].Kind == e.Kind {
				t.Fatalf("extent %d of %+v", i, list)
			}
			for ; at < e.Offset+e.Length; at += Block {
				if want[at/Block] != e.Kind {
					t.Fatalf("block %d is %d, not %d", at/Block, e.Kind, want[at/Block])
				}
			}
			at = e.Offset + e.Length
		}
		if at != off+length {
			t.Fatalf("%+v ends at %d, not %d", list, at, off+length)
		}
	})
}
