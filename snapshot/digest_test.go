package snapshot

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
)

// TestDigest: equal digests are of equal bytes, over histories of edits; ranges that nothing has touched keep theirs, unless they were
// cut anew, which happens rarely.
func TestDigest(t *testing.T) {
	kept, all := 0, 0
	for seed := range uint64(3) {
		s := newStore()
		random := rand.New(rand.NewPCG(seed, 1))
		size := Segment + (1+random.IntN(300))*Block - 7*random.IntN(2)
		data := make([]byte, size)
		for at := 0; at < size; at += 64 * Block {
			fill(random, data[at:min(size, at+(1+random.IntN(64))*Block)])
		}
		// Files lie in ranges that may be no whole blocks.
		var files [][]Range
		for range 20 {
			var ranges []Range
			for range 1 + random.IntN(3) {
				at := random.Int64N(int64(size))
				ranges = append(ranges, Range{at, 1 + random.Int64N(min(300_000, int64(size)-at))})
			}
			files = append(files, ranges)
		}
		type version struct {
			digest  [16]byte
			content string
		}
		seen := map[[16]byte]string{}
		earlier := make([]version, len(files))
		var parent *Disk
		for day := range 3 {
			if day > 0 {
				for range 1 + random.IntN(5) {
					at := random.IntN(size)
					fill(random, data[at:min(size, at+random.IntN(20_000))])
				}
			}
			d, err := createParts(s, &disk{data: data}, parent, 2)
			if err != nil {
				t.Fatal(err)
			}
			parent = d
			digester := NewDigester(context.Background(), s, d)
			for i, ranges := range files {
				var content bytes.Buffer
				for _, r := range ranges {
					content.Write(data[r.Offset:min(r.End(), int64(size))])
				}
				digest, err := digester.Digest(ranges)
				if err != nil {
					t.Fatal(err)
				}
				if other, known := seen[digest]; known && other != content.String() {
					t.Fatalf("seed %d: file %d on day %d has the digest of other bytes", seed, i, day)
				}
				seen[digest] = content.String()
				if day > 0 && earlier[i].content == content.String() {
					all++
					if earlier[i].digest == digest {
						kept++
					}
				}
				earlier[i] = version{digest, content.String()}
			}
		}
	}
	if all == 0 || float64(kept) < 0.9*float64(all) {
		t.Fatalf("only %d of %d unchanged files kept their digest", kept, all)
	}
}

func fill(random *rand.Rand, p []byte) { copy(p, noise(random.Uint64(), len(p))) }
