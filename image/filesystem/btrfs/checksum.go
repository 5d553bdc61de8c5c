package btrfs

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/crypto/blake2b"
)

// A checksum is one of the functions that a filesystem may use for all of its checksums.
type checksum struct {
	size int // bytes that it gives
	sum  func([]byte) []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksums are the functions by the number that the superblock has for them.
var checksums = []checksum{
	{4, func(b []byte) []byte { return binary.LittleEndian.AppendUint32(nil, crc32.Checksum(b, castagnoli)) }},
	{8, func(b []byte) []byte { return binary.LittleEndian.AppendUint64(nil, xxhash.Sum64(b)) }},
	{32, func(b []byte) []byte { sum := sha256.Sum256(b); return sum[:] }},
	{32, func(b []byte) []byte { sum := blake2b.Sum256(b); return sum[:] }},
}

// maxChecksum is the room for a checksum at the start of superblocks and tree blocks, which it does not cover.
const maxChecksum = 32

// covers tells whether the checksum at the start of a superblock or tree block is that of the rest.
func (c checksum) covers(b []byte) bool {
	return bytes.Equal(b[:c.size], c.sum(b[maxChecksum:]))
}
