package repo

import (
	"context"

	"varve/index"
)

// readerFrames is how many decoded frames a FrameReader keeps.
const readerFrames = 4

// FrameReader is Load for one goroutine which reads chunks that were stored one after the other: it has frames of its own,
// in memory that it uses again and again.
type FrameReader struct {
	repo    *Repository
	scratch *frameScratch
	sealed  []byte
	frames  [readerFrames]readFrame
	uses    int
}

type readFrame struct {
	key   frameKey
	plain []byte // nil: none
	used  int    // FrameReader.uses when it was wanted last
}

// FrameReader returns a new one.
func (r *Repository) FrameReader() *FrameReader {
	return &FrameReader{repo: r, scratch: newFrameScratch(r.secrets.id)}
}

// Load returns the chunk id, hashed. It is valid until the next call; buf is used only for what has to be read in another
// way. Errors are those of Repository.Load.
func (f *FrameReader) Load(ctx context.Context, id ID, buf []byte) ([]byte, error) {
	place, p, err := f.repo.find(ctx, id)
	if err != nil {
		return nil, err
	}
	if plain, err := f.frame(ctx, p, place); err == nil {
		if data, err := chunkOf(f.scratch.hasher, plain, place, id); err == nil {
			return data, nil
		}
	}
	return f.repo.Load(ctx, id, buf) // which tries more, and says what is wrong
}

// frame returns a decoded frame, from memory or in place of the one that was not wanted for longest.
func (f *FrameReader) frame(ctx context.Context, p index.Pack, place index.Place) ([]byte, error) {
	key := frameKey{p.ID, place.Offset}
	f.uses++
	oldest := &f.frames[0]
	for i := range f.frames {
		if r := &f.frames[i]; r.plain != nil && r.key == key {
			r.used = f.uses
			return r.plain, nil
		} else if r.used < oldest.used {
			oldest = r
		}
	}
	var err error
	if f.sealed, err = f.repo.storage.Get(ctx, packName(p.ID), int64(place.Offset), int64(place.Stored), f.sealed); err != nil {
		return nil, err
	}
	f.scratch.plain, oldest.plain = oldest.plain, nil
	plain, err := f.scratch.open(f.repo.opener(p), place.Offset, f.sealed)
	if err != nil {
		return nil, err
	}
	f.scratch.plain = nil // it is the frame's now
	*oldest = readFrame{key, plain, f.uses}
	return plain, nil
}
