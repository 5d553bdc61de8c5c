package btrfs

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// lzoWriter writes LZO1X instructions, and what they mean, as the description of the format has them.
type lzoWriter struct {
	random *rand.Rand
	stream []byte
	plain  []byte
	behind int // literals of the last instruction
}

func (w *lzoWriter) literals(n int) {
	for range n {
		b := byte(w.random.Uint32())
		w.stream, w.plain = append(w.stream, b), append(w.plain, b)
	}
}

// length appends the bytes of a length that does not fit in its bits.
func (w *lzoWriter) length(rest int) {
	for ; rest > 255; rest -= 255 {
		w.stream = append(w.stream, 0)
	}
	w.stream = append(w.stream, byte(rest))
}

// long writes an instruction of literals, 4 or more. It may not follow another.
func (w *lzoWriter) long(n int) {
	if n <= 18 {
		w.stream = append(w.stream, byte(n-3))
	} else {
		w.stream = append(w.stream, 0)
		w.length(n - 18)
	}
	w.literals(n)
	w.behind = 4
}

// match writes an instruction that copies, in the first form that can.
func (w *lzoWriter) match(distance, length, literals int) (ok bool) {
	d := distance - 1
	far := distance - 16384
	switch {
	case length == 2 && w.behind > 0 && w.behind < 4 && distance <= 1024:
		w.stream = append(w.stream, byte(d&3<<2|literals), byte(d>>2))
	case length == 3 && w.behind == 4 && distance > 2048 && distance <= 3072:
		d -= 2048
		w.stream = append(w.stream, byte(d&3<<2|literals), byte(d>>2))
	case length >= 3 && length <= 4 && distance <= 2048:
		w.stream = append(w.stream, byte(64|(length-3)<<5|d&7<<2|literals), byte(d>>3))
	case length >= 5 && length <= 8 && distance <= 2048:
		w.stream = append(w.stream, byte(128|(length-5)<<5|d&7<<2|literals), byte(d>>3))
	case length >= 3 && distance <= 16384:
		w.head(32, length-2, 31)
		w.stream = binary.LittleEndian.AppendUint16(w.stream, uint16(d<<2|literals))
	case length >= 3 && far > 0 && far < 32768:
		w.head(16|byte(far>>14<<3), length-2, 7)
		w.stream = binary.LittleEndian.AppendUint16(w.stream, uint16(far<<2|literals))
	default:
		return false
	}
	for range length {
		w.plain = append(w.plain, w.plain[len(w.plain)-distance])
	}
	w.literals(literals)
	w.behind = literals
	return true
}

// head writes the first byte of a match, with a length of up to most in it.
func (w *lzoWriter) head(kind byte, length, most int) {
	if length <= most {
		w.stream = append(w.stream, kind|byte(length))
		return
	}
	w.stream = append(w.stream, kind)
	w.length(length - most)
}

// TestLZO decompresses random instructions of all forms, and refuses what is cut, longer, or too long for the room.
func TestLZO(t *testing.T) {
	for seed := range uint64(300) {
		w := &lzoWriter{random: rand.New(rand.NewPCG(seed, 1))}
		if n := 1 + w.random.IntN(238); seed%3 > 0 {
			w.stream = append(w.stream, byte(17+n)) // the first instruction has a form of its own
			w.literals(n)
			w.behind = min(n, 4)
		} else {
			w.long(4 + w.random.IntN(1000))
		}
		for range w.random.IntN(60) {
			if w.behind == 0 && w.random.IntN(2) == 0 {
				w.long(4 + w.random.IntN(1<<w.random.IntN(13)))
				continue
			}
			distance := 1 + w.random.IntN(min(len(w.plain), 1<<w.random.IntN(16)))
			if w.random.IntN(8) == 0 && len(w.plain) > 3072 {
				distance = 2049 + w.random.IntN(1024)
			}
			w.match(distance, 2+w.random.IntN(1<<w.random.IntN(12)), w.random.IntN(4))
		}
		stream := append(w.stream, 17, 0, 0)
		got := make([]byte, len(w.plain))
		if n, err := lzo1x(got, stream); err != nil || n != len(got) || !bytes.Equal(got, w.plain) {
			t.Fatalf("seed %d: %d of %d bytes, %v", seed, n, len(got), err)
		}
		if n, err := lzo1x(got[:len(got)-1], stream); err == nil || n >= len(got) {
			t.Fatalf("seed %d: %d bytes in too little room", seed, n)
		}
		if _, err := lzo1x(got, stream[:w.random.IntN(len(stream))]); err == nil {
			t.Fatalf("seed %d: a part of it was taken", seed)
		}
		if _, err := lzo1x(got, append(stream, 0)); err == nil {
			t.Fatalf("seed %d: more was taken", seed)
		}
	}
	if _, err := lzo1x(make([]byte, 100), []byte{18, 'a', 64 | 1<<2, 1, 17, 0, 0}); err == nil {
		t.Fatal("bytes from before the start were copied")
	}
}
