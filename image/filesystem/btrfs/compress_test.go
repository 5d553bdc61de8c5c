package btrfs

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestDecode: what is behind a stream does not matter, what is missing in it does; its output is cut or filled with zeros.
func TestDecode(t *testing.T) {
	v := &volume{super: &superblock{sectorSize: 4096}}
	var err error
	if v.zstd, err = zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxDecoded)); err != nil {
		t.Fatal(err)
	}
	plain := bytes.Repeat([]byte("some text to compress "), 500)
	var z bytes.Buffer
	zw := zlib.NewWriter(&z)
	if _, err := zw.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithWindowSize(128<<10))
	if err != nil {
		t.Fatal(err)
	}
	for compression, stream := range map[byte][]byte{1: z.Bytes(), 2: lzoPieces(plain, 4096), 3: encoder.EncodeAll(plain, nil)} {
		name := compressions[compression]
		for _, padding := range []int{0, 1, 1000} {
			for _, size := range []int{len(plain), len(plain) + 700, len(plain) / 2, 1} {
				got, err := v.decode(compression, append(bytes.Clone(stream), make([]byte, padding)...), size)
				want := append(bytes.Clone(plain), make([]byte, 700)...)[:size]
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s of %d bytes with %d behind, to %d: %v", name, len(stream), padding, size, err)
				}
			}
		}
		for _, n := range []int{0, 1, 5, len(stream) / 2, len(stream) - 1} {
			if _, err := v.decode(compression, stream[:n], len(plain)); err == nil {
				t.Errorf("%s: %d of %d bytes were taken", name, n, len(stream))
			}
		}
	}
	large := encoder.EncodeAll(make([]byte, 8<<20), nil)
	if b, err := v.decode(3, large, maxDecoded); err == nil {
		t.Errorf("a bomb of %d bytes gave %d", len(large), len(b))
	}
}

// lzoPieces writes plain as btrfs does, in literals: where the length of a piece would not fit in a sector there are zeros, also
// behind the last piece.
func lzoPieces(plain []byte, sector int) []byte {
	out := make([]byte, 4)
	for len(plain) > 0 {
		piece := plain[:min(len(plain), sector-31)] // so that the second length does not fit
		plain = plain[len(piece):]
		w := lzoWriter{random: rand.New(rand.NewPCG(0, 0))}
		w.long(len(piece))
		stream := append(append(w.stream[:len(w.stream)-len(piece)], piece...), 17, 0, 0)
		out = append(binary.LittleEndian.AppendUint32(out, uint32(len(stream))), stream...)
		if left := sector - len(out)%sector; left < 4 {
			out = append(out, make([]byte, left)...)
		}
	}
	binary.LittleEndian.PutUint32(out, uint32(len(out)))
	return out
}

func TestLZOPieces(t *testing.T) {
	plain := make([]byte, 64<<10)
	random := rand.NewChaCha8([32]byte{3})
	_, _ = random.Read(plain) // never fails
	if first := len(lzoPieces(plain[:4096-31], 4096)); first != 4096 {
		t.Fatalf("the first piece ends at %d", first)
	}
	for n := 4; n < len(plain); n += 1 + n/8 {
		got := make([]byte, n)
		if err := unlzo(got, lzoPieces(plain[:n], 4096), 4096); err != nil || !bytes.Equal(got, plain[:n]) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
	for n := 4096 - 31; n < len(plain); n += 4096 - 31 { // padding is last
		got := make([]byte, n)
		if err := unlzo(got, lzoPieces(plain[:n], 4096), 4096); err != nil || !bytes.Equal(got, plain[:n]) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}
