// Package pack is the codec of one pack: an immutable file of sealed frames that ends in its own directory.
//
//	header      80 bytes, in clear
//	frame …     sealed, back to back
//	directory   sealed
//	footer      16 bytes, in clear
//
//	header      "VARVPACK" 8 | version 1 | algorithm 1 | kind 1 | zero 5 | salt 32 | commitment 32
//	frame       AES-256-GCM of: codec 1 | payload            (the ciphertext is 17 bytes longer than the payload)
//	directory   AES-256-GCM of the listing                   (16 bytes longer; ids do not compress, so neither is it)
//	footer      length of the sealed directory 4 | version 1 | zero 3 | "VARVTAIL" 8
//
//	listing     frame…
//	frame       stored length | plain length | number of chunks | chunk…
//	chunk       id 32 | length
//
// Numbers in header and footer are big-endian, those of the listing unsigned varints (encoding/binary). The version is 1,
// or 2 with parity (see below), the algorithm 1. The kind is 1 for chunks of disks, 2 for tree nodes. The codec is 0 for bytes as they are, 1 for zstd
// (RFC 8878). The first frame begins after the header, each other where the one before ends. The chunks of a frame lie
// back to back in its decoded bytes, of which there are 1 MiB at most.
//
// # Keys
//
// Each pack has a key of its own, so that nonces can be counted: K is the BLAKE3, keyed with the repository's pack key, of
// "pack" followed by the salt. The commitment is the BLAKE3, keyed with K, of "commitment": AES-GCM alone would let a
// forger make a ciphertext that opens under two keys. The nonce of a frame is 4 zero bytes and its offset as 8 bytes
// big-endian, that of the directory is 00000001 and its offset. Header bytes 0 to 47 are the additional data of both.
//
// A pack is named by the BLAKE3-256 of all its bytes, without a key: b3sum can check it. Storage sees no length of a chunk,
// which would tell known files apart, only those of frames, and only by trying.
//
// # Parity
//
// A pack of version 2 can lose some of its sectors, of 4096 bytes, wherever they are:
//
//	front    header and frames, as in version 1, then zeros to a whole sector       data sectors
//	table    the first half of it, rounded up
//	parity
//	table    the other half
//	back     zeros, and then directory and footer, with which the pack ends          data sectors
//
//	table sector   "VARVHEAL" 8 | its number 4 | front 4 | back 4 | G 2 | M 2 | checks 4064 | check 8
//
// front and back are numbers of data sectors, which are numbered through, front before back: D. Sector i is in group i mod
// G. In each group, its K = D/G sectors, rounded up, and M parity sectors are the code of that group; the last data sector
// of some is one of zeros that is not stored. Parity sector p, in the order in which they lie, is of group p mod G. So any M
// sectors of a group may be lost, and neighbours are of different groups.
//
// The check of a sector is the first 8 bytes of its BLAKE3, and that of a table sector the first 8 bytes of the BLAKE3 of the
// bytes before it. The table has the checks of data sectors, then of parity sectors, then zeros: T sectors of 508 checks.
// Then come R = max(T, M) sectors, and no more than 256 − T, whose 4064 bytes are the parity of those. So the table is found
// by any of its sectors, and is there when any T of them are. Whether a pack was healed is decided by its name.
//
// The code is systematic over GF(2^8), by x^8+x^4+x^3+x^2+1: byte b of parity sector r of K data sectors is the sum over
// all k of byte b of data sector k, divided by (K + r) XOR k.
package pack

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/zeebo/blake3"
)

// ID names a chunk by its content, or a pack.
type ID = [32]byte

// Key is the repository's pack key, from which the key of each pack is derived.
type Key = [32]byte

// Kind says what the chunks of a pack are.
type Kind byte

const (
	Data Kind = 1 // chunks of disks
	Tree Kind = 2 // tree nodes
)

// Codec says how a payload is encoded.
type Codec byte

const (
	Raw  Codec = 0
	Zstd Codec = 1
)

// MaxFrame bounds the plain bytes of a frame, and so of a chunk.
const MaxFrame = 1 << 20

// What the version of a pack can be.
const (
	plainVersion  = 1
	parityVersion = 2 // with sectors that make up for bad ones
)

const (
	algorithm = 1 // AES-256-GCM

	headerSize = 80
	saltAt     = 16
	commitAt   = 48 // the bytes before it are authenticated with every frame
	footerSize = 16
	tagSize    = 16

	headMagic = "VARVPACK"
	tailMagic = "VARVTAIL"
)

// Chunk is one chunk of a frame.
type Chunk struct {
	ID     ID
	Length uint32 // plain bytes, 1 to MaxFrame
}

// Frame is one frame of a pack.
type Frame struct {
	Offset uint32 // of the sealed frame in the pack
	Stored uint32 // bytes of the sealed frame
	Plain  uint32 // bytes once opened and decoded: the sum of the chunks
	Chunks []Chunk
}

// Directory lists what is in a pack.
type Directory struct {
	Version byte
	Kind    Kind
	Salt    [32]byte
	Frames  []Frame
	Parity  int // bytes of the pack that are there to heal it
}

// CorruptError says that a pack is not what a Builder made.
type CorruptError struct{ Reason string }

func (e *CorruptError) Error() string { return "the pack is damaged: " + e.Reason }

func corrupt(format string, a ...any) error { return &CorruptError{fmt.Sprintf(format, a...)} }

// derive returns the cipher of the pack with that salt, and its commitment.
func derive(key Key, salt [32]byte) (cipher.AEAD, [32]byte) {
	k := keyed(key, "pack", salt[:])
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err) // only for a key of another length
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead, keyed(k, "commitment", nil)
}

// keyed returns the keyed BLAKE3 of purpose followed by data.
func keyed(key [32]byte, purpose string, data []byte) (sum [32]byte) {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // only for a key of another length
	}
	_, _ = h.WriteString(purpose)
	_, _ = h.Write(data)
	h.Sum(sum[:0])
	return sum
}

// header returns the start of a pack.
func header(version byte, kind Kind, salt, commitment [32]byte) []byte {
	h := make([]byte, headerSize)
	copy(h, headMagic)
	h[8], h[9], h[10] = version, algorithm, byte(kind)
	copy(h[saltAt:], salt[:])
	copy(h[commitAt:], commitment[:])
	return h
}

// What a nonce is for, so that no two messages under one key share it.
const (
	frameNonce     = 0
	directoryNonce = 1
)

func nonce(purpose uint32, offset uint64) []byte {
	n := make([]byte, 12)
	binary.BigEndian.PutUint32(n, purpose)
	binary.BigEndian.PutUint64(n[4:], offset)
	return n
}

// Builder makes a pack in memory. It is for one goroutine at a time.
type Builder struct {
	aead   cipher.AEAD
	buf    []byte
	dir    Directory
	chunks int
	parity int
}

// NewBuilder begins a pack in buf[:0], which grows as needed. Its salt is maker and 16 fresh random bytes. parity is how much
// of it there is to be, in percent of the data, from 1 to MaxParity; 0 is none.
func NewBuilder(key Key, kind Kind, parity int, maker [16]byte, buf []byte) *Builder {
	var salt [32]byte
	rand.Read(salt[copy(salt[:], maker[:]):]) // never fails (crypto/rand, Go 1.24)
	return newBuilder(key, kind, parity, salt, buf)
}

func newBuilder(key Key, kind Kind, parity int, salt [32]byte, buf []byte) *Builder {
	aead, commitment := derive(key, salt)
	version := byte(plainVersion)
	if parity > 0 {
		version = parityVersion
	}
	return &Builder{aead: aead, buf: append(buf[:0], header(version, kind, salt, commitment)...),
		dir: Directory{Version: version, Kind: kind, Salt: salt}, parity: parity}
}

// Append seals payload, which decodes to plain bytes that are chunks back to back, as the next frame. It keeps chunks.
func (b *Builder) Append(codec Codec, payload []byte, plain int, chunks []Chunk) {
	offset := len(b.buf)
	b.buf = append(append(b.buf, byte(codec)), payload...)
	b.buf = b.aead.Seal(b.buf[:offset], nonce(frameNonce, uint64(offset)), b.buf[offset:], b.buf[:commitAt])
	b.dir.Frames = append(b.dir.Frames, Frame{uint32(offset), uint32(len(b.buf) - offset), uint32(plain), chunks})
	b.chunks += len(chunks)
}

// Size returns how many bytes the pack would have if it were finished now, a little more at most.
func (b *Builder) Size() int {
	tail := 35*b.chunks + 12*len(b.dir.Frames) + tagSize + footerSize
	if b.parity > 0 {
		return planLayout(sectorsFor(len(b.buf)), sectorsFor(tail), b.parity).sectors() * sectorSize
	}
	return len(b.buf) + tail
}

// Finish ends the pack with its directory and returns its bytes, which are in the Builder's buffer, and its name. The
// Builder is done with after this.
func (b *Builder) Finish() (data []byte, id ID, dir Directory) {
	listing := appendListing(nil, b.dir.Frames)
	var l layout
	if b.parity > 0 {
		tail := len(listing) + tagSize + footerSize
		l = planLayout(sectorsFor(len(b.buf)), sectorsFor(tail), b.parity)
		b.dir.Parity = l.sectors()*sectorSize - tail - len(b.buf)
		b.buf = append(b.buf, make([]byte, b.dir.Parity)...)
	}
	b.buf = b.aead.Seal(b.buf, nonce(directoryNonce, uint64(len(b.buf))), listing, b.buf[:commitAt])
	b.buf = binary.BigEndian.AppendUint32(b.buf, uint32(len(listing)+tagSize))
	b.buf = append(b.buf, b.dir.Version, 0, 0, 0)
	b.buf = append(b.buf, tailMagic...)
	if b.parity > 0 {
		l.protect(b.buf)
	}
	return b.buf, blake3.Sum256(b.buf), b.dir
}
