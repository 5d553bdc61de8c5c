package repo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"
	"varve/repo/pack"
	"varve/repo/storage"
)

// readings is how often something is read before it is called damaged: a disk, a cable or a server may fail once. What the
// last reading gave is what counts.
const readings = 4

// drop makes the next reading of name one of the medium.
func (r *Repository) drop(name string) {
	if c, ok := r.storage.(storage.Cached); ok {
		c.Drop(name)
	}
}

// again calls f, which reads name, until it returns nil, up to so often as readings says. What is not there, is not there:
// that is not tried again.
func (r *Repository) again(ctx context.Context, name string, f func() error) error {
	var first error
	for try := 1; ; try++ {
		if try > 1 {
			r.drop(name)
		}
		err := f()
		if err == nil && first != nil {
			r.logf("%s was read in reading number %d; before: %v", name, try, first)
		}
		if err == nil || try == readings || errors.Is(err, storage.ErrNotExist) || ctx.Err() != nil {
			return cmp.Or(ctx.Err(), err)
		}
		first = cmp.Or(first, err)
	}
}

// examined is a pack that was read in full.
type examined struct {
	data   []byte         // as far as it could be read, with zeros elsewhere
	unread bool           // nothing of it could be read
	listed bool           // dir is what the pack holds
	dir    pack.Directory //
	bad    []bool         // by frame: it cannot be read, or is not what was stored
}

// examine reads a pack in full: its name, its directory, every frame, every chunk. The error says all that is wrong with
// it; storage.ErrNotExist: it is not there. The data is in buf where there is room.
func (r *Repository) examine(ctx context.Context, p StoredPack, buf []byte, scratch *frameScratch) (e examined, err error) {
	try := 0
	r.drop(packName(p.ID))
	err = r.again(ctx, packName(p.ID), func() error {
		try++
		data, err := r.storage.Get(ctx, packName(p.ID), 0, -1, buf)
		if err != nil && try == readings && !errors.Is(err, storage.ErrNotExist) && ctx.Err() == nil {
			data = r.pieces(ctx, packName(p.ID), p.Size)
		}
		e = examined{data: data, unread: err != nil && data == nil}
		return errors.Join(err, r.verifyData(&e, p, scratch))
	})
	if err != nil && !e.listed && ctx.Err() == nil {
		// The directory may be readable by itself, and says then what is lost.
		if dir, dirErr := r.readDirectory(ctx, p.ID, p.Size); dirErr == nil {
			e.listed, e.dir = true, dir
			_ = r.verifyFrames(&e, scratch)
		}
	}
	return e, err
}

// verifyData fills e from its data and says what is wrong with that.
func (r *Repository) verifyData(e *examined, p StoredPack, scratch *frameScratch) error {
	if e.unread {
		return nil // there is an error for that already
	}
	var named error
	if sum := blake3.Sum256(e.data); sum != p.ID {
		named = fmt.Errorf("its bytes have the hash %s", hex.EncodeToString(sum[:6]))
	}
	var err error
	if e.dir, err = pack.ReadDirectory(r.secrets.pack, bytes.NewReader(e.data), int64(len(e.data))); err != nil {
		return errors.Join(named, err)
	}
	e.listed = true
	return errors.Join(named, r.verifyFrames(e, scratch))
}

// verifyFrames fills e.bad.
func (r *Repository) verifyFrames(e *examined, scratch *frameScratch) error {
	var first error
	opener, frames := e.dir.Opener(r.secrets.pack), 0
	e.bad = make([]bool, len(e.dir.Frames))
	for i, f := range e.dir.Frames {
		err := errors.New("the pack ends before it")
		if uint64(f.Offset)+uint64(f.Stored) <= uint64(len(e.data)) {
			err = scratch.verify(opener, f, e.data[f.Offset:f.Offset+f.Stored])
		}
		if err != nil {
			e.bad[i] = true
			frames++
			first = cmp.Or(first, fmt.Errorf("frame at %d: %w", f.Offset, err))
		}
	}
	if frames > 1 {
		return errors.Join(first, fmt.Errorf("and %d more frames", frames-1))
	}
	return first
}

const (
	pieceBytes    = 64 << 10 // how much of an object is read at once that cannot be read as a whole
	sectorBytes   = 4096     // how much a medium loses at once
	pieceFailures = 512      // so many failed readings of one object are borne: each may take a failing disk seconds
)

// pieces reads what can be read of an object of size bytes. Elsewhere are zeros. It returns nil when nothing can be read.
func (r *Repository) pieces(ctx context.Context, name string, size int64) []byte {
	if size <= 0 || size > maxPack {
		return nil
	}
	data := make([]byte, size)
	failures, any := 0, false
	var read func(start, end, step int64)
	read = func(start, end, step int64) {
		for ; start < end && failures < pieceFailures && ctx.Err() == nil; start += step {
			piece := data[start:min(start+step, end)]
			if _, err := r.storage.Get(ctx, name, start, int64(len(piece)), piece); err == nil {
				any = true
				continue
			}
			clear(piece)
			failures++
			if step > sectorBytes {
				read(start, start+int64(len(piece)), sectorBytes)
			}
		}
	}
	read(0, size, pieceBytes)
	if !any {
		return nil
	}
	return data
}
