package repo

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/klauspost/compress/zstd"
	"varve/index"
	"varve/repo/pack"
)

// readerFrames is how many frames a FrameReader keeps.
const readerFrames = 2

// FrameReader is Load for one goroutine which reads chunks that were stored one after the other: it has frames of its own,
// in memory that it uses again and again, and decodes each only as far as it is wanted.
type FrameReader struct {
	repo   *Repository
	hasher *hasher
	sealed []byte
	frames [readerFrames]readFrame
	uses   int
}

// readFrame is a frame that is decoded from its start up to some place.
type readFrame struct {
	key     frameKey
	used    int // FrameReader.uses when it was wanted last
	opened  opening
	codec   pack.Codec
	payload []byte // authenticated, in opened; nil: none
	plain   []byte // what decoder has given so far; it is not needed for Raw
	source  bytes.Reader
	decoder *zstd.Decoder
}

// FrameReader returns a new one.
func (r *Repository) FrameReader() *FrameReader {
	return &FrameReader{repo: r, hasher: newHasher(r.secrets.id)}
}

// Load returns the chunk id, hashed. It is valid until the next call; buf is used only for what has to be read in another
// way. Errors are those of Repository.Load.
func (f *FrameReader) Load(ctx context.Context, id ID, buf []byte) ([]byte, error) {
	place, p, err := f.repo.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if frame, err := f.frame(ctx, p, place); err == nil {
		if plain, err := frame.upTo(int(place.At) + int(place.Length)); err == nil {
			if data, err := chunkOf(f.hasher, plain, place, id); err == nil {
				return data, nil
			}
		}
	}
	return f.repo.Load(ctx, id, buf) // which tries more, and says what is wrong
}

// frame returns a frame from memory or, authenticated, in place of the one that was not wanted for longest.
func (f *FrameReader) frame(ctx context.Context, p index.Pack, place index.Place) (*readFrame, error) {
	key := frameKey{p.ID, place.Offset}
	f.uses++
	oldest := &f.frames[0]
	for i := range f.frames {
		if r := &f.frames[i]; r.payload != nil && r.key == key {
			r.used = f.uses
			return r, nil
		} else if r.used < oldest.used {
			oldest = r
		}
	}
	var err error
	if f.sealed, err = f.repo.packRange(ctx, p.ID, int64(place.Offset), int64(place.Stored), f.sealed); err != nil {
		return nil, err
	}
	oldest.payload = nil
	codec, payload, err := oldest.opened.open(f.repo.opener(p), place.Offset, f.sealed)
	if err != nil {
		return nil, err
	}
	oldest.key, oldest.used, oldest.codec = key, f.uses, codec
	if err := oldest.start(payload); err != nil {
		return nil, err
	}
	oldest.payload = payload
	return oldest, nil
}

// start makes payload what is decoded next.
func (r *readFrame) start(payload []byte) error {
	r.plain = r.plain[:0]
	if r.codec == pack.Raw {
		return nil
	}
	if r.codec != pack.Zstd {
		return unknownCodec(r.codec)
	}
	r.source.Reset(payload)
	if r.decoder == nil {
		var err error
		r.decoder, err = newDecoder(&r.source, 1)
		return err
	}
	return r.decoder.Reset(&r.source)
}

// upTo returns the frame's first n bytes at least, as far as it has them.
func (r *readFrame) upTo(n int) ([]byte, error) {
	if r.codec == pack.Raw {
		return r.payload, nil
	}
	if n > pack.MaxFrame {
		return nil, errors.New("a frame is not that long")
	}
	if have := len(r.plain); have < n {
		if r.plain == nil {
			r.plain = make([]byte, 0, pack.MaxFrame)
		}
		r.plain = r.plain[:n]
		if k, err := io.ReadFull(r.decoder, r.plain[have:]); err != nil {
			r.plain = r.plain[:have+k]
			return nil, err
		}
	}
	return r.plain, nil
}
