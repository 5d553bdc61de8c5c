package volume

import (
	"testing"

	"pgregory.net/rapid"
	"varve/image"
)

// TestOverlay: a block that is excluded is, also where it is free; short free runs are kept; nothing else is left out.
func TestOverlay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const blocks = 60
		draw := func(name string) (set [blocks]bool, runs []Run) {
			var c collector
			for range rapid.IntRange(0, 8).Draw(t, name) {
				from := rapid.IntRange(0, blocks-1).Draw(t, "from")
				to := min(blocks, from+rapid.IntRange(1, 20).Draw(t, "length"))
				if name == "free" { // a filesystem names each once
					for to > from && set[from] {
						from++
					}
					for b := from; b < to; b++ {
						if set[b] {
							to = b
						}
					}
				}
				for b := from; b < to; b++ {
					set[b] = true
				}
				c.add(int64(from)*Block, int64(to)*Block)
			}
			return set, c.runs()
		}
		free, freeRuns := draw("free")
		excluded, excludedRuns := draw("excluded")
		list := overlay(freeRuns, excludedRuns)
		var got [blocks]image.Kind
		last := int64(0)
		for _, e := range list {
			if e.Offset < last || e.Length <= 0 || e.Offset%Block != 0 || e.Length%Block != 0 {
				t.Fatalf("%+v comes after %d", e, last)
			}
			last = e.Offset + e.Length
			for at := e.Offset; at < last; at += Block {
				got[at/Block] = e.Kind
			}
		}
		for b := 0; b < blocks; {
			if excluded[b] || !free[b] {
				if want := map[bool]image.Kind{true: image.Excluded, false: image.Data}[excluded[b]]; got[b] != want {
					t.Fatalf("block %d is %d, not %d", b, got[b], want)
				}
				b++
				continue
			}
			end := b
			for end < blocks && free[end] && !excluded[end] {
				end++
			}
			want := image.Free
			if (end-b)*Block < shortest {
				want = image.Data
			}
			for ; b < end; b++ {
				if got[b] != want {
					t.Fatalf("block %d is %d, not %d", b, got[b], want)
				}
			}
		}
	})
}
