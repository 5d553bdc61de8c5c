// Package blocks keeps digests of the 4 KiB blocks of chunks in a folder of the cache, one file a pack. With them a scan
// knows which blocks of a chunk the disk still holds without reading the chunk from the repository.
//
//	file        "VARVBLKS" 8 | version 1 | zero 3 | number of chunks 4 | chunk… | digest… | checksum 16
//	chunk       first 16 bytes of its id | its length in bytes 4
//	digest      16, of each block of each chunk, in the order of the chunks; a chunk's last block may be shorter
//
// Numbers are big-endian. A digest is the block's GMAC (AES-256, twelve zero bytes as nonce), encrypted by AES-256 under another key. The
// checksum is the first half of the keyed BLAKE3 of the pack's id and the file before it. The three keys are derived from a
// secret of the repository, each for this alone.
//
// # What a file is trusted with
//
// A block that is wrongly taken for unchanged is a lost block. So a file counts only when its checksum does: one that is
// torn, rotten, of another pack or of another repository is not used. In a file that is used a chunk is found by its id, not by
// its place. And two blocks that differ have the same digest with a probability of 257/2^128, over the keys: GMAC is a polynomial of
// degree 257 at a secret point. It could be solved for that point if tags of one nonce were seen; so they are encrypted.
// docs/decisions/block-digests.md says why it is not BLAKE3.
//
// # Size
//
// A chunk without a digest is one that is not known. Of a pack those with the fewest blocks are left out, until the file has
// no more than 0.5 % of the bytes of the pack's chunks: 4 blocks pay for their place. A chunk of one block is left out always,
// as it has changed when it is not recognised.
package blocks

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
)

// ID names a chunk or a pack.
type ID = [32]byte

// Size is the length of a block, in bytes.
const Size = 4096

const (
	magic        = "VARVBLKS"
	version      = 1
	headSize     = 16
	chunkSize    = 20
	digestSize   = 16
	checksumSize = 16

	share   = 200     // a file has at most one byte for so many of the pack's chunks
	maxFile = 2 << 20 // bytes: a bound for the memory of those that are built and read. It is for half a GiB of chunks
)

// shortID is what a file has of a chunk's id.
type shortID = [16]byte

// Hasher computes digests. It is for one goroutine at a time.
type Hasher struct {
	gmac  cipher.AEAD
	seal  cipher.Block
	nonce []byte
	tag   []byte
}

// NewHasher returns what computes the digests of blocks of a repository with that secret.
func NewHasher(secret [32]byte) *Hasher {
	gmac, err := cipher.NewGCM(newAES(secret, "varve v1 block digest gmac"))
	if err != nil {
		panic(err) // only for a cipher of another block size
	}
	return &Hasher{gmac: gmac, seal: newAES(secret, "varve v1 block digest seal"), nonce: make([]byte, gmac.NonceSize())}
}

func newAES(secret [32]byte, purpose string) cipher.Block {
	key := derive(secret, purpose)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // only for a key of another length
	}
	return block
}

func derive(secret [32]byte, purpose string) (key [32]byte) {
	blake3.DeriveKey(purpose, secret[:], key[:])
	return key
}

// digest returns the digest of a block; it is valid until the next call.
func (h *Hasher) digest(block []byte) []byte {
	h.tag = h.gmac.Seal(h.tag[:0], h.nonce, nil, block) // nothing is encrypted here: the nonce may stay
	h.seal.Encrypt(h.tag, h.tag)
	return h.tag
}

// checksum returns that of the file of a pack.
func checksum(secret [32]byte, pack ID, file []byte) []byte {
	key := derive(secret, "varve v1 block digests of a pack")
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // only for a key of another length
	}
	_, _ = h.Write(pack[:]) // never fails
	_, _ = h.Write(file)
	return h.Sum(nil)[:checksumSize]
}

// Builder makes the file of a pack in memory. It is for one goroutine.
type Builder struct {
	secret  [32]byte
	hasher  *Hasher
	plain   int // bytes of the chunks
	chunks  []entry
	digests []byte
}

// entry is a chunk whose digests are known.
type entry struct {
	id     shortID
	length int // bytes
	at     int // of its digests among all
}

func (e entry) blocks() int { return (e.length + Size - 1) / Size }

// size returns how many bytes of a file e takes.
func (e entry) size() int { return chunkSize + e.blocks()*digestSize }

// NewBuilder begins the file of a pack of the repository with that secret.
func NewBuilder(secret [32]byte) *Builder {
	return &Builder{secret: secret, hasher: NewHasher(secret)}
}

// Add takes the next chunk of the pack.
func (b *Builder) Add(id ID, data []byte) {
	b.plain += len(data)
	e := entry{id: shortID(id[:]), length: len(data), at: len(b.digests)}
	if e.blocks() < 2 || headSize+checksumSize+len(b.chunks)*chunkSize+len(b.digests)+e.size() > maxFile {
		return
	}
	b.chunks = append(b.chunks, e)
	for at := 0; at < len(data); at += Size {
		b.digests = append(b.digests, b.hasher.digest(data[at:min(at+Size, len(data))])...)
	}
}

// Finish returns the file of the pack with that id, nil when there is nothing to keep.
func (b *Builder) Finish(pack ID) []byte {
	fewest, count, size := 2, 0, 0 // of the chunks with so many blocks or more
	for ; ; fewest++ {
		count, size = 0, headSize+checksumSize
		for _, e := range b.chunks {
			if e.blocks() >= fewest {
				count++
				size += e.size()
			}
		}
		if count == 0 {
			return nil
		}
		if size <= b.plain/share {
			break
		}
	}
	file := append(make([]byte, 0, size), magic...)
	file = append(file, version, 0, 0, 0)
	file = binary.BigEndian.AppendUint32(file, uint32(count))
	for _, e := range b.chunks {
		if e.blocks() >= fewest {
			file = append(file, e.id[:]...)
			file = binary.BigEndian.AppendUint32(file, uint32(e.length))
		}
	}
	for _, e := range b.chunks {
		if e.blocks() >= fewest {
			file = append(file, b.digests[e.at:e.at+e.blocks()*digestSize]...)
		}
	}
	return append(file, checksum(b.secret, pack, file)...)
}

// File is what is known of the chunks of a pack. It may be used concurrently.
type File struct {
	chunks  map[shortID]entry
	digests []byte
}

// Memory returns about how many bytes f takes, of a nil f a little.
func (f *File) Memory() int {
	const element = 64 // of the map, or the pointer to a file
	if f == nil {
		return element
	}
	return element + len(f.chunks)*(element+chunkSize) + len(f.digests)
}

// Parse reads what Builder.Finish made for this pack, and nothing else. It keeps data.
func Parse(secret [32]byte, pack ID, data []byte) (*File, error) {
	body := len(data) - checksumSize
	if body < headSize || body+checksumSize > maxFile {
		return nil, fmt.Errorf("it is %d bytes long", len(data))
	}
	if string(data[:12]) != magic+"\x01\x00\x00\x00" {
		return nil, errors.New("it does not start as a file of digests does")
	}
	if string(checksum(secret, pack, data[:body])) != string(data[body:]) {
		return nil, errors.New("its checksum is not that of its bytes")
	}
	chunks := binary.BigEndian.Uint32(data[12:])
	if chunks > uint32(body-headSize)/chunkSize {
		return nil, fmt.Errorf("it cannot hold %d chunks", chunks)
	}
	count := int(chunks)
	f := &File{chunks: make(map[shortID]entry, count), digests: data[headSize+count*chunkSize : body]}
	at := 0
	for i := range count {
		c := data[headSize+i*chunkSize:][:chunkSize]
		length := binary.BigEndian.Uint32(c[16:])
		if length <= Size || length > maxFile/digestSize*Size {
			return nil, fmt.Errorf("a chunk of %d bytes has no place in it", length)
		}
		e := entry{id: shortID(c), length: int(length), at: at}
		f.chunks[e.id] = e
		at += e.blocks() * digestSize
	}
	if at != len(f.digests) {
		return nil, fmt.Errorf("its chunks want %d bytes of digests, where there are %d", at, len(f.digests))
	}
	return f, nil
}

// CompareBytes is Compare with a chunk that is there.
func CompareBytes(chunk []byte, first int, data []byte, same []bool) {
	for i := range same {
		at := (first + i) * Size
		same[i] = at < len(chunk) && bytes.Equal(data[i*Size:min((i+1)*Size, len(data))], chunk[at:min(at+Size, len(chunk))])
	}
}

// Compare notes in same, for each block of data, whether it is the one that chunk id has there, from the chunk's block first on;
// blocks beyond its end are not. It returns the chunk's length in bytes, and false when the chunk is not in f.
func (f *File) Compare(h *Hasher, id ID, first int, data []byte, same []bool) (length int, known bool) {
	e, known := f.chunks[shortID(id[:])]
	for i := range same {
		same[i] = known && f.same(h, e, first+i, data, i)
	}
	return e.length, known
}

// Holds reports whether data is what chunk id has from its block first on, as Compare would say of each block. It looks no further than
// to the first that is not.
func (f *File) Holds(h *Hasher, id ID, first int, data []byte) (holds bool, length int, known bool) {
	e, known := f.chunks[shortID(id[:])]
	holds = known
	for i := 0; holds && i*Size < len(data); i++ {
		holds = f.same(h, e, first+i, data, i)
	}
	return holds, e.length, known
}

// same reports whether block i of data is block n of the chunk e.
func (f *File) same(h *Hasher, e entry, n int, data []byte, i int) bool {
	if n >= e.blocks() {
		return false
	}
	at := e.at + n*digestSize
	return string(h.digest(data[i*Size:min((i+1)*Size, len(data))])) == string(f.digests[at:at+digestSize])
}
