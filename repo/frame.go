package repo

import (
	"fmt"
	"io"
	"runtime"
	"slices"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"
	"varve/repo/pack"
)

// Compression is how much work goes into making frames small.
type Compression string

const (
	CompressionOff     Compression = "off"
	CompressionFastest Compression = "fastest"
	CompressionDefault Compression = "default"
	CompressionBetter  Compression = "better"
	CompressionMax     Compression = "max"
)

// Compressions lists the levels, least work first.
var Compressions = []Compression{CompressionOff, CompressionFastest, CompressionDefault, CompressionBetter, CompressionMax}

// encoderOptions returns the zstd settings of a level, nil for off. docs/decisions/compression.md has the figures.
func (c Compression) encoderOptions() ([]zstd.EOption, error) {
	options := []zstd.EOption{
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(pack.MaxFrame),
		zstd.WithEncoderCRC(false), // what is decoded is authenticated and hashed
		zstd.WithLowerEncoderMem(true),
	}
	switch c {
	case CompressionOff:
		return nil, nil
	case CompressionFastest:
		return append(options, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithNoEntropyCompression(true)), nil
	case CompressionDefault:
		return append(options, zstd.WithEncoderLevel(zstd.SpeedFastest)), nil
	case CompressionBetter:
		return append(options, zstd.WithEncoderLevel(zstd.SpeedDefault)), nil
	case CompressionMax:
		return append(options, zstd.WithEncoderLevel(zstd.SpeedBestCompression)), nil
	}
	return nil, fmt.Errorf("unknown compression %q: it is one of %v", c, Compressions)
}

// compressor turns frames into payloads. It is for one goroutine at a time.
type compressor struct {
	encoder *zstd.Encoder // nil for off
	out     []byte
}

func newCompressor(c Compression) (*compressor, error) {
	options, err := c.encoderOptions()
	if err != nil || options == nil {
		return &compressor{}, err
	}
	encoder, err := zstd.NewWriter(nil, options...)
	if err != nil {
		return nil, err
	}
	return &compressor{encoder: encoder}, nil
}

// encode returns the payload for frame; it is valid until the next call. A frame that does not shrink stays as it is.
func (c *compressor) encode(frame []byte) (pack.Codec, []byte) {
	if c.encoder == nil {
		return pack.Raw, frame
	}
	c.out = c.encoder.EncodeAll(frame, c.out[:0])
	if len(c.out) >= len(frame) {
		return pack.Raw, frame
	}
	return pack.Zstd, c.out
}

// newDecoder returns a decoder of frames, and of nothing larger; source is for those that read a stream.
func newDecoder(source io.Reader, concurrency int) (*zstd.Decoder, error) {
	return zstd.NewReader(source,
		zstd.WithDecoderConcurrency(concurrency),
		zstd.WithDecoderMaxMemory(pack.MaxFrame),
		zstd.WithDecoderMaxWindow(pack.MaxFrame),
		zstd.WithDecoderLowmem(true))
}

// decoder decodes any number of frames at once.
var decoder = func() *zstd.Decoder {
	d, err := newDecoder(nil, runtime.GOMAXPROCS(0))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
}()

// decodeFrame returns the plain bytes of an authenticated payload, in dst where there is room.
func decodeFrame(codec pack.Codec, payload, dst []byte) ([]byte, error) {
	switch codec {
	case pack.Raw:
		return append(dst[:0], payload...), nil
	case pack.Zstd:
		return decoder.DecodeAll(payload, dst[:0])
	}
	return nil, unknownCodec(codec)
}

func unknownCodec(codec pack.Codec) error {
	return fmt.Errorf("unknown codec %d: a newer varve is needed", codec)
}

// opening is memory in which frames are opened, one after the other.
type opening []byte

// open authenticates a sealed frame; the payload is valid until the next call.
func (b *opening) open(o *pack.Opener, offset uint32, sealed []byte) (pack.Codec, []byte, error) {
	*b = slices.Grow((*b)[:0], len(sealed))
	return o.Open(*b, offset, sealed)
}

// hasher computes ids of chunks. It is for one goroutine at a time.
type hasher struct {
	keyed *blake3.Hasher
	sum   []byte
}

func newHasher(key [32]byte) *hasher {
	keyed, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // only for a key that is not 32 bytes long
	}
	return &hasher{keyed: keyed, sum: make([]byte, 0, 32)}
}

func (h *hasher) id(data []byte) (id ID) {
	h.keyed.Reset()
	_, _ = h.keyed.Write(data) // never fails
	h.sum = h.keyed.Sum(h.sum[:0])
	copy(id[:], h.sum)
	return id
}

// frameScratch holds the buffers in which one goroutine decodes frames.
type frameScratch struct {
	hasher *hasher
	opened opening
	plain  []byte
}

func newFrameScratch(key [32]byte) *frameScratch { return &frameScratch{hasher: newHasher(key)} }

// takeScratch lends out a frameScratch, which is given back to r.scratches: each has 2 MiB of memory, and packs are verified
// every moment.
func (r *Repository) takeScratch() *frameScratch {
	if s, ok := r.scratches.Get().(*frameScratch); ok {
		return s
	}
	return newFrameScratch(r.secrets.id)
}

// open authenticates and decodes a sealed frame; the result is valid until the next call.
func (s *frameScratch) open(o *pack.Opener, offset uint32, sealed []byte) ([]byte, error) {
	codec, payload, err := s.opened.open(o, offset, sealed)
	if err != nil {
		return nil, err
	}
	if s.plain, err = decodeFrame(codec, payload, s.plain); err != nil {
		return nil, fmt.Errorf("decompressing the frame at %d: %w", offset, err)
	}
	return s.plain, nil
}

// verify opens a frame and hashes all its chunks.
func (s *frameScratch) verify(o *pack.Opener, f pack.Frame, sealed []byte) error {
	plain, err := s.open(o, f.Offset, sealed)
	if err != nil {
		return err
	}
	if len(plain) != int(f.Plain) {
		return fmt.Errorf("the frame at %d decodes to %d bytes, not %d", f.Offset, len(plain), f.Plain)
	}
	at := 0
	for _, c := range f.Chunks {
		if s.hasher.id(plain[at:at+int(c.Length)]) != c.ID {
			return fmt.Errorf("chunk %s in the frame at %d does not have the hash that is its name", short(c.ID), f.Offset)
		}
		at += int(c.Length)
	}
	return nil
}

// Hasher returns a function that computes the ids of chunks. It is for one goroutine at a time.
func (r *Repository) Hasher() func(data []byte) ID { return newHasher(r.secrets.id).id }
