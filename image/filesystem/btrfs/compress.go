package btrfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib" // three times as fast as the standard library's
	"github.com/klauspost/compress/zstd"
	"varve/image/filesystem"
)

// maxDecoded is how many bytes a compressed extent has at most, compressed or not.
const maxDecoded = 128 << 10

// compressions are the ways to compress, by their numbers on the disk.
var compressions = []string{"none", "zlib", "lzo", "zstd"}

// decodedExtent returns what a compressed extent holds. It is not to be changed.
func (v *volume) decodedExtent(e storedExtent, sums bool) ([]byte, error) {
	if b, ok := v.decoded.get(e); ok {
		return b, nil
	}
	stored := make([]byte, e.length)
	if err := v.readData(stored, e.logical, sums); err != nil {
		return nil, err
	}
	b, err := v.decode(e.compression, stored, int(e.size))
	if err != nil {
		return nil, fmt.Errorf("the extent at address %d: %w", e.logical, err)
	}
	v.decoded.put(e, b)
	return b, nil
}

// decode decompresses stored, behind which there may be the rest of a sector, to size bytes, at most maxDecoded. When they are less
// the rest is zeros: a file that ends in a sector is compressed up to its end (linux/btrfs.h, btrfs_ioctl_encoded_io_args).
// When they are more they are cut.
func (v *volume) decode(compression byte, stored []byte, size int) ([]byte, error) {
	out := make([]byte, size)
	var err error
	switch compressions[compression] {
	case "zlib":
		err = unzlib(out, stored)
	case "lzo":
		err = unlzo(out, stored, int(v.super.sectorSize))
	case "zstd":
		err = unzstd(v.zstd, out, stored)
	}
	if err != nil {
		return nil, filesystem.Corrupt("decompressing %s: %v", compressions[compression], err)
	}
	return out, nil
}

// unzlib decompresses a zlib stream.
func unzlib(out, stored []byte) error {
	r, err := zlib.NewReader(bytes.NewReader(stored))
	for n := 0; err == nil && n < len(out); {
		var got int
		got, err = r.Read(out[n:])
		n += got
	}
	if errors.Is(err, io.EOF) { // what is cut off is io.ErrUnexpectedEOF
		return nil
	}
	return err
}

// unzstd decompresses the first zstd frame of stored.
func unzstd(decoder *zstd.Decoder, out, stored []byte) error {
	frame, err := zstdFrame(stored)
	if err != nil {
		return err
	}
	b, err := decoder.DecodeAll(frame, nil)
	copy(out, b)
	return err
}

// zstdFrame cuts off what is behind the first frame of b (RFC 8878, section 3.1.1).
func zstdFrame(b []byte) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return nil, err
	}
	if h.Skippable {
		return nil, errors.New("it is a skippable frame")
	}
	at := h.HeaderSize
	for last := false; !last; {
		if len(b)-at < 3 {
			return nil, io.ErrUnexpectedEOF
		}
		head := uint32(b[at]) | uint32(b[at+1])<<8 | uint32(b[at+2])<<16
		size := int(head >> 3)
		if head>>1&3 == 1 { // one byte that is repeated
			size = 1
		}
		last = head&1 != 0
		at += 3
		if size > len(b)-at {
			return nil, io.ErrUnexpectedEOF
		}
		at += size
	}
	if h.HasCheckSum {
		at += 4
	}
	if at > len(b) {
		return nil, io.ErrUnexpectedEOF
	}
	return b[:at], nil
}

// unlzo decompresses pieces of a sector each:
//
//	length of all 4, then for each piece: its length 4, LZO1X
//
// The length of a piece lies in one sector: where one would not, there are zeros up to the next sector.
func unlzo(out, stored []byte, sector int) error {
	if len(stored) < 4 {
		return io.ErrUnexpectedEOF
	}
	total := binary.LittleEndian.Uint32(stored)
	if total < 4 || total > uint32(len(stored)) {
		return io.ErrUnexpectedEOF
	}
	stored = stored[:total]
	piece := make([]byte, sector)
	for at := 4; at < len(stored) && len(out) > 0; {
		if len(stored)-at < 4 {
			return io.ErrUnexpectedEOF
		}
		size := binary.LittleEndian.Uint32(stored[at:])
		at += 4
		if size > uint32(len(stored)-at) {
			return io.ErrUnexpectedEOF
		}
		n, err := lzo1x(piece, stored[at:at+int(size)])
		if err != nil {
			return err
		}
		out = out[copy(out, piece[:n]):]
		at += int(size)
		if left := sector - at%sector; left < 4 {
			at += left // also behind the last piece
		}
	}
	return nil
}
