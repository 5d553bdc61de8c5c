package repo

import (
	"context"
	"errors"

	"varve/repo/pack"
	"varve/repo/storage"
)

// Every byte of a pack is the share of one of its chunks: the pack's bytes go to its frames in proportion to their sealed
// lengths, with all that is around frames, and a frame's to its chunks in proportion to their plain lengths. So what a set
// of chunks takes is the sum of their shares, and the shares of all chunks of a pack are its size.

// eachShare calls f for every chunk of a pack of size bytes with its share.
func eachShare(dir pack.Directory, size int64, f func(c pack.Chunk, share int64)) {
	sealed := int64(0)
	for _, frame := range dir.Frames {
		sealed += int64(frame.Stored)
	}
	before, given := int64(0), int64(0) // sealed bytes of frames, and shares, so far
	for _, frame := range dir.Frames {
		plain := int64(0)
		for _, c := range frame.Chunks {
			plain += int64(c.Length)
			// Of the two ends that a chunk has, each is rounded once: nothing is lost between neighbours. A pack has less than
			// 2^28 bytes, so the product has less than 2^56.
			end := (before + int64(frame.Stored)*plain/int64(frame.Plain)) * size / sealed
			f(c, end-given)
			given = end
		}
		before += int64(frame.Stored)
	}
}

// Shares says how the bytes of the packs fall to those who refer to chunks.
type Shares struct {
	Packs      int64   // bytes of all packs
	Unreadable int64   // bytes of those whose directory cannot be read
	First      []int64 // by marker: the shares of the chunks that it refers to, and none before it
	Alone      []int64 // by marker: the shares of the chunks that no other refers to
}

// Used returns the bytes that stay in use when only the first n of the markers are left.
func (s Shares) Used(n int) (bytes int64) {
	for _, b := range s.First[:n] {
		bytes += b
	}
	return bytes
}

// Shares adds up what each of several markers refers to. It reads the directories of all packs, goes through every tree
// node twice at most, however many refer to it, and takes about 30 bytes of memory for each chunk.
func (r *Repository) Shares(ctx context.Context, marks []Marker) (Shares, error) {
	s := Shares{First: make([]int64, len(marks)), Alone: make([]int64, len(marks))}
	chunks := map[uint64]owner{} // by fingerprint: see idSet
	nodes := map[ID]owner{}      // exact: see marked
	for i, mark := range marks {
		chunk := func(id ID) { note(chunks, fingerprint(id), i) }
		err := mark(ctx, func(id ID) bool {
			chunk(id)
			return note(nodes, id, i)
		}, chunk)
		if err != nil {
			return s, err
		}
	}
	packs, err := r.storedPacks(ctx, nil)
	if err != nil {
		return s, err
	}
	for i, p := range packs {
		if err := ctx.Err(); err != nil {
			return s, err
		}
		r.progress("reading the directories of packs", i, len(packs))
		dir, err := r.readDirectory(ctx, p.ID, p.Size)
		if errors.Is(err, storage.ErrNotExist) {
			continue // a prune has removed it since it was listed
		}
		s.Packs += p.Size
		var damaged *DamagedError
		if errors.As(err, &damaged) {
			r.logf("%v", err)
			s.Unreadable += p.Size
			continue
		}
		if err != nil {
			return s, err
		}
		eachShare(dir, p.Size, func(c pack.Chunk, share int64) {
			o, found := chunks[fingerprint(c.ID)]
			if !found {
				return
			}
			delete(chunks, fingerprint(c.ID)) // a second copy is garbage
			s.First[o.marker()] += share
			if !o.shared() {
				s.Alone[o.marker()] += share
			}
		})
	}
	r.progress("reading the directories of packs", len(packs), len(packs))
	return s, nil
}

// owner is the number of the first marker that referred to something, and in its lowest bit whether another one did too.
type owner uint32

func (o owner) marker() int  { return int(o >> 1) }
func (o owner) shared() bool { return o&1 != 0 }

// note records that marker i refers to id. It reports whether that is news for id, and so perhaps for what is below it.
func note[K comparable](owners map[K]owner, id K, i int) (news bool) {
	o, found := owners[id]
	switch {
	case !found:
		owners[id] = owner(i << 1)
		return true
	case o.marker() == i || o.shared():
		return false
	}
	owners[id] = o | 1
	return true
}

// Free returns how many bytes can still be stored where the repository lies: errors.ErrUnsupported where that is not known.
func (r *Repository) Free(ctx context.Context) (int64, error) {
	if st, ok := r.storage.(storage.Sized); ok {
		return st.Free(ctx)
	}
	return 0, errors.ErrUnsupported
}
