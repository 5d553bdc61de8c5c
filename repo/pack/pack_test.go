package pack

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

func testKey() (key Key) {
	for i := range key {
		key[i] = byte(i)
	}
	return key
}

// content is one frame to be packed.
type content struct {
	codec   Codec
	payload []byte
	lengths []int
}

// build makes a pack with a fixed salt.
func build(frames []content, kind Kind) (data []byte, id ID, dir Directory) {
	return buildWith(0, frames, kind)
}

// buildWith makes one with parity.
func buildWith(parity int, frames []content, kind Kind) (data []byte, id ID, dir Directory) {
	b := newBuilder(testKey(), kind, parity, [32]byte{7}, nil)
	n := byte(0)
	for _, f := range frames {
		plain := 0
		var chunks []Chunk
		for _, l := range f.lengths {
			n++
			chunks = append(chunks, Chunk{ID: ID{n, 1, 2}, Length: uint32(l)})
			plain += l
		}
		b.Append(f.codec, f.payload, plain, chunks)
	}
	return b.Finish()
}

func sample() []content {
	return []content{
		{Raw, []byte("two chunks, as they are"), []int{10, 13}},
		{Zstd, []byte("this would be zstd"), []int{200, 4096, 70000}},
		{Raw, []byte("x"), []int{1}},
	}
}

// dump is hex.Dump with runs of equal lines left out, as hexdump -C does it.
func dump(data []byte) string {
	var text strings.Builder
	last, starred := "", false
	for line := range strings.Lines(hex.Dump(data)) {
		same := line[8:] == last
		if !same {
			text.WriteString(line)
		} else if !starred {
			text.WriteString("*\n")
		}
		last, starred = line[8:], same
	}
	return text.String()
}

func TestGolden(t *testing.T) {
	for path, parity := range map[string]int{"testdata/pack.golden": 0, "testdata/parity.golden": 5} {
		data, id, _ := buildWith(parity, sample(), Data)
		text := dump(data) + "name " + hex.EncodeToString(id[:]) + "\n"
		if *update {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if text != string(want) {
			t.Errorf("the format of packs changed: repositories could not be read any more; got\n%s", text)
		}
		if id != blake3.Sum256(data) {
			t.Error("the name is not the plain BLAKE3 of the bytes")
		}
	}
}

// check reads a pack whole, as a reader would, and returns the payloads.
func check(data []byte) (Directory, [][]byte, error) {
	dir, err := ReadDirectory(testKey(), bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return dir, nil, err
	}
	o := dir.Opener(testKey())
	var payloads [][]byte
	for _, f := range dir.Frames {
		codec, payload, err := o.Open(nil, f.Offset, data[f.Offset:f.Offset+f.Stored])
		if err != nil {
			return dir, nil, err
		}
		payloads = append(payloads, append([]byte{byte(codec)}, payload...))
	}
	return dir, payloads, nil
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		frames := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) content {
			return content{
				codec:   rapid.SampledFrom([]Codec{Raw, Zstd}).Draw(t, "codec"),
				payload: rapid.SliceOfN(rapid.Byte(), 1, 3000).Draw(t, "payload"),
				lengths: rapid.SliceOfN(rapid.IntRange(1, 40000), 1, 20).Draw(t, "lengths"),
			}
		}), 0, 10).Draw(t, "frames")
		kind := rapid.SampledFrom([]Kind{Data, Tree}).Draw(t, "kind")
		data, _, want := buildWith(rapid.SampledFrom([]int{0, 1, 5, 100}).Draw(t, "parity"), frames, kind)
		dir, payloads, err := check(data)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(dir, want) {
			t.Fatalf("the directory is\n%v, want\n%v", dir, want)
		}
		for i, f := range frames {
			if want := append([]byte{byte(f.codec)}, f.payload...); !bytes.Equal(payloads[i], want) {
				t.Fatalf("frame %d is %q, want %q", i, payloads[i], want)
			}
		}
	})
}

func TestSizeIsAnUpperBound(t *testing.T) {
	for _, parity := range []int{0, 1, 5, 100} {
		b := NewBuilder(testKey(), Data, parity, [16]byte{}, nil)
		for i := range 50 {
			b.Append(Raw, make([]byte, 1+i*100), MaxFrame, []Chunk{{Length: MaxFrame / 2}, {Length: MaxFrame / 2}})
		}
		size := b.Size()
		data, _, _ := b.Finish()
		if len(data) > size || len(data) < size-50*20-3*sectorSize {
			t.Errorf("parity %d: %d bytes, Size said %d", parity, len(data), size)
		}
	}
}

// Every flipped bit is found, by the directory or by the frame that it is in, and so is every shortened pack.
func TestDamageIsFound(t *testing.T) {
	data, _, _ := build(sample(), Data)
	var bad *CorruptError
	for at := range data {
		for bit := range 8 {
			damaged := bytes.Clone(data)
			damaged[at] ^= 1 << bit
			if _, _, err := check(damaged); !errors.As(err, &bad) {
				t.Errorf("bit %d of byte %d flipped: %v", bit, at, err)
			}
		}
	}
	for n := range data {
		if _, _, err := check(data[:n]); !errors.As(err, &bad) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
		if _, err := ReadDirectory(testKey(), bytes.NewReader(data[:n]), int64(len(data))); !errors.As(err, &bad) {
			t.Errorf("cut to %d bytes after its size was asked for: %v", n, err)
		}
	}
	if _, _, err := check(append(bytes.Clone(data), 0)); !errors.As(err, &bad) {
		t.Errorf("a byte too many: %v", err)
	}
}

// A frame opens only at its own place in its own pack.
func TestFramesCannotBeSwapped(t *testing.T) {
	data, _, dir := build([]content{{Raw, []byte("one"), []int{3}}, {Raw, []byte("two"), []int{3}}}, Data)
	one, two := dir.Frames[0], dir.Frames[1]
	sealed := data[one.Offset : one.Offset+one.Stored]
	if _, _, err := dir.Opener(testKey()).Open(nil, two.Offset, sealed); err == nil {
		t.Error("a frame opens at the place of another")
	}
	if _, _, err := (Directory{Version: 1, Kind: Tree, Salt: dir.Salt}).Opener(testKey()).Open(nil, one.Offset, sealed); err == nil {
		t.Error("a frame opens in a pack of another kind")
	}
	if _, _, err := (Directory{Version: 1, Kind: Data, Salt: [32]byte{8}}).Opener(testKey()).Open(nil, one.Offset, sealed); err == nil {
		t.Error("a frame opens in another pack")
	}
	other := testKey()
	other[0]++
	if _, err := ReadDirectory(other, bytes.NewReader(data), int64(len(data))); err == nil {
		t.Error("a pack opens with another key")
	}
}

// failing is a reader that fails as a disk does.
type failing struct{}

var errDisk = errors.New("input/output error")

func (failing) ReadAt([]byte, int64) (int, error) { return 0, errDisk }

func TestReadErrorIsNotDamage(t *testing.T) {
	if _, err := ReadDirectory(testKey(), failing{}, 4096); !errors.Is(err, errDisk) {
		t.Errorf("got %v", err)
	}
}

// FuzzListing: what is accepted is what would be written, and lies within its bounds.
func FuzzListing(f *testing.F) {
	_, _, dir := build(sample(), Data)
	last := dir.Frames[len(dir.Frames)-1]
	f.Add(appendListing(nil, dir.Frames), int64(last.Offset+last.Stored))
	f.Add([]byte{}, int64(headerSize))
	f.Fuzz(func(t *testing.T, data []byte, end int64) {
		if end < headerSize || end > 1<<32-1 {
			return
		}
		frames, _, err := decodeListing(data, end)
		if err == nil && !bytes.Equal(appendListing(nil, frames), data) {
			t.Errorf("%x is accepted, and is not what would be written", data)
		}
	})
}

// FuzzReadDirectory: bytes from storage never do harm.
func FuzzReadDirectory(f *testing.F) {
	for _, parity := range []int{0, 5} {
		data, _, _ := buildWith(parity, sample(), Data)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, _ = check(data)
	})
}

func BenchmarkAppend(b *testing.B) {
	payload := make([]byte, 512<<10)
	buf := make([]byte, 0, 20<<20)
	b.SetBytes(int64(len(payload)))
	builder := NewBuilder(testKey(), Data, 0, [16]byte{}, buf)
	for b.Loop() {
		if builder.Size() > 16<<20 {
			builder = NewBuilder(testKey(), Data, 0, [16]byte{}, buf)
		}
		builder.Append(Zstd, payload, MaxFrame, nil)
	}
}
