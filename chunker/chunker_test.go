package chunker

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testParams() Params {
	return Params{Polynomial: 0x3DA3358B4DC173, Min: 32 << 10, Max: 256 << 10, Bits: 15, ZeroRun: 4}
}

// pattern is n pseudo-random bytes that are the same on every run.
func pattern(seed uint64, n int) []byte {
	var key [32]byte
	key[0] = byte(seed)
	data := make([]byte, n)
	rand.NewChaCha8(key).Read(data)
	return data
}

// cut returns the lengths of the runs that a scan would find in a segment: zeros negative, chunks positive.
func cut(c *Chunker, segment []byte) []int {
	var runs []int
	for at := 0; at < len(segment); {
		n := Zeros(segment[at:])
		if n > 0 {
			runs = append(runs, -n)
		} else {
			n = c.Next(segment[at:])
			runs = append(runs, n)
		}
		at += n
	}
	return runs
}

// Boundaries are a stored format: a change here would end deduplication against every repository there is.
func TestBoundariesGolden(t *testing.T) {
	segment := pattern(1, 4<<20)
	clear(segment[1<<20 : 1<<20+64<<10])   // a long run of zeros
	clear(segment[2<<20 : 2<<20+3*Block])  // one that is too short to end a chunk
	clear(segment[3<<20 : 3<<20+Block])    // a single zero block
	copy(segment[5<<19:], segment[:1<<19]) // the same content at another place
	segment = segment[:len(segment)-1000]  // a short last block
	var text strings.Builder
	at := 0
	for _, n := range cut(New(testParams()), segment) {
		if n < 0 {
			fmt.Fprintf(&text, "%d zeros %d\n", at, -n)
			at -= n
		} else {
			fmt.Fprintf(&text, "%d chunk %d\n", at, n)
			at += n
		}
	}
	const golden = "testdata/boundaries.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("chunk boundaries changed; got\n%s\nwant\n%s", text.String(), want)
	}
}

// drawSegment makes segments of zero runs, noise and repeated noise.
func drawSegment(t *rapid.T) []byte {
	var segment []byte
	for range rapid.IntRange(1, 12).Draw(t, "runs") {
		n := rapid.IntRange(1, 120).Draw(t, "blocks") * Block
		switch rapid.IntRange(0, 3).Draw(t, "what") {
		case 0:
			segment = append(segment, make([]byte, min(n, 9*Block))...)
		default:
			segment = append(segment, pattern(uint64(rapid.IntRange(0, 5).Draw(t, "seed")), n)...)
		}
	}
	return segment[:len(segment)-rapid.IntRange(0, Block-1).Draw(t, "short")]
}

func TestChunksAreBlocksWithinBounds(t *testing.T) {
	p := testParams()
	c := New(p)
	rapid.Check(t, func(t *rapid.T) {
		segment := drawSegment(t)
		at := 0
		for _, n := range cut(c, segment) {
			last := at+max(n, -n) == len(segment)
			if n > p.Max || (n%Block != 0 && !last) {
				t.Fatalf("a chunk of %d bytes at %d of %d", n, at, len(segment))
			}
			if n > 0 && n < p.Min && !last && !IsZero(segment[at+n-p.ZeroRun*Block:at+n]) {
				t.Fatalf("a chunk of %d bytes at %d ends early without a run of zeros", n, at)
			}
			at += max(n, -n)
		}
		if at != len(segment) {
			t.Fatalf("runs cover %d of %d bytes", at, len(segment))
		}
	})
}

// The guided scan rests on this: what follows a chunk has no say in where it ends.
func TestCutDependsOnlyOnTheChunk(t *testing.T) {
	c := New(testParams())
	rapid.Check(t, func(t *rapid.T) {
		segment := drawSegment(t)
		start := Zeros(segment)
		if start == len(segment) {
			return
		}
		data := segment[start:]
		n := c.Next(data)
		if n == len(data) {
			return // the end of the segment is the one thing that is not in the bytes
		}
		other := bytes.Clone(data[:n])
		switch rapid.IntRange(0, 2).Draw(t, "after") {
		case 0:
			other = append(other, make([]byte, 20*Block)...)
		case 1:
			other = append(other, pattern(77, 100*Block)...)
		case 2:
			other = append(other, pattern(78, 1)...)
		}
		if got := c.Next(other); got != n {
			t.Fatalf("the same %d bytes end at %d when other bytes follow", n, got)
		}
	})
}

func TestZeros(t *testing.T) {
	for _, tt := range []struct {
		name string
		data []byte
		want int
	}{
		{"empty", nil, 0},
		{"one zero byte", []byte{0}, 1},
		{"one byte", []byte{1}, 0},
		{"short zero block", make([]byte, Block+7), Block + 7},
		{"last byte set", append(make([]byte, Block+6), 1), Block},
		{"second block set", append(make([]byte, Block), pattern(1, Block)...), Block},
	} {
		if got := Zeros(tt.data); got != tt.want {
			t.Errorf("%s: %d zero bytes, want %d", tt.name, got, tt.want)
		}
	}
}

func TestValidate(t *testing.T) {
	p, err := Default()
	if err != nil || p.Validate() != nil {
		t.Fatalf("the default is not valid: %v, %v", err, p.Validate())
	}
	for _, change := range []func(*Params){
		func(p *Params) { p.Polynomial = 0 },
		func(p *Params) { p.Polynomial ^= 1 },
		func(p *Params) { p.Min = 100 },
		func(p *Params) { p.Max = p.Min - Block },
		func(p *Params) { p.Max = 2 << 20 },
		func(p *Params) { p.Bits = 60 },
		func(p *Params) { p.ZeroRun = 0 },
	} {
		bad := p
		change(&bad)
		if bad.Validate() == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	segment := pattern(1, 16<<20)
	c := New(testParams())
	b.SetBytes(int64(len(segment)))
	for b.Loop() {
		cut(c, segment)
	}
}

func BenchmarkZeros(b *testing.B) {
	segment := make([]byte, 16<<20)
	b.SetBytes(int64(len(segment)))
	for b.Loop() {
		Zeros(segment)
	}
}
