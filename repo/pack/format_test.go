package pack

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/zeebo/blake3"
)

// golden reads the dump of a pack, whose name is in its last line.
func golden(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var data []byte
	for line := range strings.Lines(string(text)) {
		offset, err := strconv.ParseUint(line[:min(8, len(line))], 16, 32)
		if err != nil {
			continue // the name, or a star
		}
		for len(data) < int(offset) { // a star was before this line
			data = append(data, data[len(data)-16:]...)
		}
		columns, _, _ := strings.Cut(line[8:], "|")
		row, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(columns), " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, row...)
	}
	name := blake3.Sum256(data)
	if !strings.HasSuffix(string(text), "name "+hex.EncodeToString(name[:])+"\n") {
		t.Fatalf("the golden pack of %d bytes is named %x", len(data), name)
	}
	return data
}

// TestFormatByHand reads the golden pack by the package comment alone, with nothing of this package but the key: what is
// written down is enough for a second implementation.
func TestFormatByHand(t *testing.T) {
	data := golden(t, "testdata/pack.golden")

	keyedBLAKE3 := func(key []byte, message ...[]byte) []byte {
		h, err := blake3.NewKeyed(key)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range message {
			h.Write(m)
		}
		return h.Sum(nil)
	}
	header, footer := data[:80], data[len(data)-16:]
	if string(header[:16]) != "VARVPACK\x01\x01\x01\x00\x00\x00\x00\x00" || string(footer[4:]) != "\x01\x00\x00\x00VARVTAIL" {
		t.Fatalf("header %q, footer %q", header[:16], footer)
	}
	key := testKey()
	k := keyedBLAKE3(key[:], []byte("pack"), header[16:48])
	if !bytes.Equal(keyedBLAKE3(k, []byte("commitment")), header[48:80]) {
		t.Fatal("the commitment is another")
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	open := func(domain uint32, offset, length int) []byte {
		t.Helper()
		var nonce [12]byte
		binary.BigEndian.PutUint32(nonce[:4], domain)
		binary.BigEndian.PutUint64(nonce[4:], uint64(offset))
		plain, err := gcm.Open(nil, nonce[:], data[offset:offset+length], header[:48])
		if err != nil {
			t.Fatalf("%d bytes at %d: %v", length, offset, err)
		}
		return plain
	}

	length := int(binary.BigEndian.Uint32(footer))
	listing := open(1, len(data)-16-length, length)
	number := func() int {
		v, n := binary.Uvarint(listing)
		listing = listing[n:]
		return int(v)
	}
	offset, id := 80, byte(0)
	for i, want := range sample() {
		stored, plain, chunks := number(), number(), number()
		if chunks != len(want.lengths) {
			t.Fatalf("frame %d has %d chunks", i, chunks)
		}
		for _, l := range want.lengths {
			id++
			if !bytes.Equal(listing[:32], append([]byte{id, 1, 2}, make([]byte, 29)...)) {
				t.Errorf("frame %d: a chunk has id %x", i, listing[:32])
			}
			listing = listing[32:]
			if got := number(); got != l {
				t.Errorf("frame %d: a chunk has %d bytes, not %d", i, got, l)
			}
			plain -= l
		}
		if plain != 0 {
			t.Errorf("frame %d has %d bytes more than its chunks", i, plain)
		}
		if got := open(0, offset, stored); got[0] != byte(want.codec) || !bytes.Equal(got[1:], want.payload) {
			t.Errorf("frame %d is %q", i, got)
		}
		offset += stored
	}
	if len(listing) != 0 || offset != len(data)-16-length {
		t.Errorf("%d bytes of the listing are left, the frames end at %d", len(listing), offset)
	}
}

// TestParityByHand does the same with the parity of the golden pack that has it, whose sectors are: front, two of the table,
// two of parity, one of the table, back.
func TestParityByHand(t *testing.T) {
	data := golden(t, "testdata/parity.golden")
	if len(data) != 7*4096 || string(data[:12]) != "VARVPACK\x02\x01\x01\x00" || string(data[len(data)-12:]) != "\x02\x00\x00\x00VARVTAIL" {
		t.Fatalf("%d bytes from %q to %q", len(data), data[:12], data[len(data)-12:])
	}
	at := func(n int) []byte { return data[n*4096 : (n+1)*4096] }
	check := func(data []byte) string { sum := blake3.Sum256(data); return string(sum[:8]) }
	multiply := func(a, b byte) (product byte) {
		for ; b > 0; b >>= 1 {
			if b&1 == 1 {
				product ^= a
			}
			if carry := a >> 7; carry == 1 {
				a = a<<1 ^ 0x1d
			} else {
				a <<= 1
			}
		}
		return product
	}
	divide := func(a, b byte) byte {
		for q := range 256 {
			if multiply(byte(q), b) == a {
				return byte(q)
			}
		}
		panic("there is a quotient for every b but 0")
	}
	parity := func(shards [][]byte, r int) []byte {
		sum := make([]byte, len(shards[0]))
		for k, s := range shards {
			factor := divide(1, byte(len(shards)+r)^byte(k))
			for i := range s {
				sum[i] ^= multiply(s[i], factor)
			}
		}
		return sum
	}
	for r := range 2 {
		if !bytes.Equal(parity([][]byte{at(0), at(6)}, r), at(3+r)) {
			t.Errorf("parity sector %d is another", r)
		}
	}
	checks := make([]byte, 4064)
	for i, n := range []int{0, 6, 3, 4} {
		copy(checks[8*i:], check(at(n)))
	}
	for i, n := range []int{1, 2, 5} {
		s := at(n)
		if head := "VARVHEAL\x00\x00\x00" + string(rune(i)) + "\x00\x00\x00\x01\x00\x00\x00\x01\x00\x01\x00\x02"; string(s[:24]) != head {
			t.Errorf("table sector %d begins with %q", i, s[:24])
		}
		want := checks
		if i > 0 {
			want = parity([][]byte{checks}, i-1)
		}
		if !bytes.Equal(s[24:4088], want) || string(s[4088:]) != check(s[:4088]) {
			t.Errorf("the checks of table sector %d are others", i)
		}
	}
}

// What an authentic but wrong listing says is not believed either, and nothing is allocated for it.
func TestListingOutOfBounds(t *testing.T) {
	chunk := func(length uint64) []byte { return binary.AppendUvarint(make([]byte, 32), length) }
	frame := func(stored, plain, count uint64, chunks ...[]byte) (data []byte) {
		for _, v := range []uint64{stored, plain, count} {
			data = binary.AppendUvarint(data, v)
		}
		return append(data, bytes.Join(chunks, nil)...)
	}
	const end = headerSize + 1000
	if _, _, err := decodeListing(frame(1000, 50, 2, chunk(20), chunk(30)), end); err != nil {
		t.Fatalf("what is right: %v", err)
	}
	for what, data := range map[string][]byte{
		"a frame too long":             frame(1001, 50, 1, chunk(50)),
		"a frame of 2^63":              frame(1<<63, 50, 1, chunk(50)),
		"a frame that is only a tag":   append(frame(tagSize+1, 50, 1, chunk(50)), frame(1000-tagSize-1, 50, 1, chunk(50))...),
		"too much plain":               frame(1000, MaxFrame+1, 1, chunk(MaxFrame+1)),
		"no chunks":                    frame(1000, 0, 0),
		"more chunks than bytes":       frame(1000, 50, 1<<40, chunk(50)),
		"one chunk too many":           frame(1000, 50, 2, chunk(50)),
		"chunks shorter than plain":    frame(1000, 50, 1, chunk(49)),
		"chunks longer than plain":     frame(1000, 50, 2, chunk(49), chunk(2)),
		"chunks that overflow":         frame(1000, 50, 2, chunk(1<<64-1), chunk(51)),
		"an empty chunk":               frame(1000, 50, 2, chunk(50), chunk(0)),
		"a longer form of a number":    append([]byte{0xe8, 0x87, 0x00}, frame(1000, 50, 1, chunk(50))[2:]...),
		"a number that never ends":     bytes.Repeat([]byte{0x80}, 100),
		"something behind the last":    append(frame(1000, 50, 1, chunk(50)), 0),
		"another frame behind the end": append(frame(1000, 50, 1, chunk(50)), frame(20, 50, 1, chunk(50))...),
	} {
		var frames []Frame
		var err error
		allocated := testing.AllocsPerRun(1, func() { frames, _, err = decodeListing(data, end) })
		if err == nil {
			t.Errorf("%s: accepted as %v", what, frames)
		}
		if allocated > 20 {
			t.Errorf("%s: %v allocations", what, allocated)
		}
	}
}

// Equal content makes packs that have nothing in common: a pack's key is never used twice.
func TestSaltIsFresh(t *testing.T) {
	pack := func() ([]byte, ID, Directory) {
		b := NewBuilder(testKey(), Data, 0, [16]byte{}, nil)
		b.Append(Raw, []byte("the same"), 8, []Chunk{{Length: 8}})
		return b.Finish()
	}
	data, id, dir := pack()
	otherData, otherID, otherDir := pack()
	f := dir.Frames[0]
	if id == otherID || dir.Salt == otherDir.Salt || bytes.Equal(data[f.Offset:][:f.Stored], otherData[f.Offset:][:f.Stored]) {
		t.Error("two packs have one salt")
	}
}

// FuzzOpen: sealed bytes from storage never do harm, and none but those that were sealed there open.
func FuzzOpen(f *testing.F) {
	data, _, dir := build(sample(), Data)
	for _, frame := range dir.Frames {
		f.Add(frame.Offset, data[frame.Offset:frame.Offset+frame.Stored])
	}
	f.Add(uint32(headerSize), []byte{})
	o := dir.Opener(testKey())
	f.Fuzz(func(t *testing.T, offset uint32, sealed []byte) {
		if _, _, err := o.Open(nil, offset, sealed); err != nil {
			return
		}
		for _, frame := range dir.Frames {
			if frame.Offset == offset && bytes.Equal(data[offset:offset+frame.Stored], sealed) {
				return
			}
		}
		t.Errorf("%x opens at %d", sealed, offset)
	})
}
