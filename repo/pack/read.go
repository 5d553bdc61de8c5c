package pack

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// appendListing appends the encoding of frames.
func appendListing(buf []byte, frames []Frame) []byte {
	for _, f := range frames {
		buf = binary.AppendUvarint(buf, uint64(f.Stored))
		buf = binary.AppendUvarint(buf, uint64(f.Plain))
		buf = binary.AppendUvarint(buf, uint64(len(f.Chunks)))
		for _, c := range f.Chunks {
			buf = append(buf, c.ID[:]...)
			buf = binary.AppendUvarint(buf, uint64(c.Length))
		}
	}
	return buf
}

// minChunkListing is the least that a chunk takes in a listing, in bytes: what bounds an allocation by a count.
const minChunkListing = 33

// decodeListing is the inverse of appendListing for frames that lie back to back from headerSize on, and returns where they
// end, at limit or before. It accepts nothing else.
func decodeListing(data []byte, limit int64) (frames []Frame, end int64, err error) {
	offset := int64(headerSize)
	for len(data) > 0 {
		var stored, plain, count uint64
		if stored, data, err = number(data, uint64(limit-offset)); err != nil {
			return nil, 0, fmt.Errorf("the length of the frame at %d: %w", offset, err)
		}
		if plain, data, err = number(data, MaxFrame); err != nil {
			return nil, 0, fmt.Errorf("the decoded length of the frame at %d: %w", offset, err)
		}
		if count, data, err = number(data, uint64(len(data)/minChunkListing)); err != nil {
			return nil, 0, fmt.Errorf("the number of chunks of the frame at %d: %w", offset, err)
		}
		if stored <= tagSize+1 || count == 0 {
			return nil, 0, fmt.Errorf("the frame at %d is empty", offset)
		}
		f := Frame{Offset: uint32(offset), Stored: uint32(stored), Plain: uint32(plain), Chunks: make([]Chunk, count)}
		sum := uint64(0)
		for i := range f.Chunks {
			if len(data) < minChunkListing {
				return nil, 0, errEnds
			}
			copy(f.Chunks[i].ID[:], data)
			var length uint64
			if length, data, err = number(data[32:], plain-sum); err != nil {
				return nil, 0, fmt.Errorf("the length of chunk %d of the frame at %d: %w", i, offset, err)
			}
			if length == 0 {
				return nil, 0, fmt.Errorf("chunk %d of the frame at %d is empty", i, offset)
			}
			f.Chunks[i].Length = uint32(length)
			sum += length
		}
		if sum != plain {
			return nil, 0, fmt.Errorf("the chunks of the frame at %d have %d of %d bytes", offset, sum, plain)
		}
		offset += int64(stored)
		frames = append(frames, f)
	}
	return frames, offset, nil
}

var errEnds = errors.New("the listing ends too soon")

// number takes an unsigned varint of at most limit off data.
func number(data []byte, limit uint64) (uint64, []byte, error) {
	v, n := binary.Uvarint(data)
	switch {
	case n <= 0:
		return 0, nil, errEnds
	case v > limit:
		return 0, nil, fmt.Errorf("%d is more than %d", v, limit)
	case n > 1 && data[n-1] == 0:
		return 0, nil, errors.New("a number is not in its shortest form")
	}
	return v, data[n:], nil
}

// ReadDirectory reads what is in the pack of size bytes that r holds. Everything that it returns is authentic, and within
// bounds: each frame lies in the pack, and its chunks lie in the frame. It fails with *CorruptError when the pack is not
// what a Builder made with this key, and with the error of r when that fails.
func ReadDirectory(key Key, r io.ReaderAt, size int64) (Directory, error) {
	var dir Directory
	if size < headerSize+tagSize+footerSize || size > 1<<32-1 {
		return dir, corrupt("it is %d bytes long", size)
	}
	head, foot := make([]byte, headerSize), make([]byte, footerSize)
	if err := readFull(r, foot, size-footerSize); err != nil {
		return dir, err
	}
	if err := readFull(r, head, 0); err != nil {
		return dir, err
	}
	if string(head[:8]) != headMagic || string(foot[8:]) != tailMagic {
		return dir, corrupt("it does not start and end as a pack does")
	}
	dir.Version = head[8]
	if dir.Version != plainVersion && dir.Version != parityVersion || foot[4] != dir.Version || head[9] != algorithm {
		return dir, corrupt("it has version %d and algorithm %d: if it is not damaged, a newer varve is needed", head[8], head[9])
	}
	dir.Kind = Kind(head[10])
	if dir.Kind != Data && dir.Kind != Tree {
		return dir, corrupt("it is of the unknown kind %d", dir.Kind)
	}
	copy(dir.Salt[:], head[saltAt:])
	aead, commitment := derive(key, dir.Salt)
	if subtle.ConstantTimeCompare(commitment[:], head[commitAt:]) != 1 || string(header(dir.Version, dir.Kind, dir.Salt, commitment)) != string(head) ||
		foot[5]|foot[6]|foot[7] != 0 {
		return dir, corrupt("its header or footer is not that of this repository")
	}
	sealed := int64(binary.BigEndian.Uint32(foot))
	offset := size - footerSize - sealed
	if sealed < tagSize || offset < headerSize {
		return dir, corrupt("its directory would have %d bytes", sealed)
	}
	listing := make([]byte, sealed) // no more than the pack is long
	if err := readFull(r, listing, offset); err != nil {
		return dir, err
	}
	listing, err := aead.Open(listing[:0], nonce(directoryNonce, uint64(offset)), listing, head[:commitAt])
	if err != nil {
		return dir, corrupt("its directory is not authentic")
	}
	var end int64
	if dir.Frames, end, err = decodeListing(listing, offset); err != nil {
		return dir, corrupt("its directory is not valid: %v", err)
	}
	if dir.Parity = int(offset - end); dir.Parity != 0 && dir.Version == plainVersion {
		return dir, corrupt("its frames end at %d, and its directory begins at %d", end, offset)
	}
	return dir, nil
}

// readFull fills p from offset off; a file that is shorter than it was said to be is corrupt.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return corrupt("it ends at %d", off+int64(n))
	}
	return err
}

// Opener opens the frames of one pack. It may be used concurrently.
type Opener struct {
	aead cipher.AEAD
	head []byte
}

// Opener returns what opens the frames of the pack of that version, kind and salt.
func (d Directory) Opener(key Key) *Opener {
	aead, commitment := derive(key, d.Salt)
	return &Opener{aead: aead, head: header(d.Version, d.Kind, d.Salt, commitment)[:commitAt]}
}

// Open authenticates the sealed frame that lies at offset in its pack and returns its payload, in dst's memory where
// there is room; dst and sealed do not overlap. It fails with *CorruptError.
func (o *Opener) Open(dst []byte, offset uint32, sealed []byte) (Codec, []byte, error) {
	plain, err := o.aead.Open(dst[:0], nonce(frameNonce, uint64(offset)), sealed, o.head)
	if err != nil || len(plain) == 0 {
		return 0, nil, corrupt("the frame at %d is not authentic", offset)
	}
	return Codec(plain[0]), plain[1:], nil
}
