package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
	"varve/index"
	"varve/repo/storage"
)

const (
	frameCacheBytes = 48 << 20 // decoded frames kept for Load
	batchBytes      = 4 << 20  // sealed frames that LoadEach reads at once
	batchGap        = 64 << 10 // bytes that it reads in vain rather than read twice
)

// frameKey is where a frame lies.
type frameKey struct {
	pack   ID
	offset uint32
}

// reading returns the index, opened and brought up to date the first time.
func (r *Repository) reading(ctx context.Context) (*index.Index, error) {
	r.mu.Lock()
	x := r.index
	r.mu.Unlock()
	if x != nil {
		return x, nil
	}
	return r.follow(ctx)
}

// find returns where a chunk is: ErrNotFound. What the index does not know, it looks for in the packs once.
func (r *Repository) find(ctx context.Context, id ID) (index.Place, index.Pack, error) {
	x, err := r.reading(ctx)
	if err != nil {
		return index.Place{}, index.Pack{}, err
	}
	for {
		if place, p, found := lookup(x, id); found {
			return place, p, nil
		}
		again, err := r.rebuild(ctx)
		if err != nil {
			return index.Place{}, index.Pack{}, err
		}
		if !again {
			return index.Place{}, index.Pack{}, fmt.Errorf("chunk %s: %w: a pack that held it is missing or damaged", short(id), ErrNotFound)
		}
	}
}

// lookup returns where x has a chunk, and in which pack, as long as that is live.
func lookup(x *index.Index, id ID) (index.Place, index.Pack, bool) {
	if place, found := x.Lookup(id); found {
		if p, live := x.Pack(place.Pack); live {
			return place, p, true
		}
	}
	return index.Place{}, index.Pack{}, false
}

// Load returns the chunk or tree node id, in buf where there is room. It is for reading here and there: decoded frames
// are cached. The bytes have been hashed. Errors: ErrNotFound, *DamagedError, and those of the storage.
func (r *Repository) Load(ctx context.Context, id ID, buf []byte) ([]byte, error) {
	place, p, err := r.find(ctx, id)
	if err != nil {
		return nil, err
	}
	frame, err := r.frames.get(frameKey{p.ID, place.Offset}, func() ([]byte, error) {
		return r.fetchFrame(ctx, p, place)
	})
	if err == nil {
		var data []byte
		if data, err = r.chunkIn(frame, place, id, buf); err == nil {
			return data, nil
		}
	}
	return r.loadHard(ctx, id, p, place, buf, err)
}

// chunkAt reads the chunk id from a place, past the cache of frames, in buf where there is room. It has been hashed.
func (r *Repository) chunkAt(ctx context.Context, id ID, p index.Pack, place index.Place, buf []byte) ([]byte, error) {
	frame, err := r.fetchFrame(ctx, p, place)
	if err != nil {
		return nil, err
	}
	return r.chunkIn(frame, place, id, buf)
}

// chunkIn returns a copy of a chunk in its decoded frame, hashed.
func (r *Repository) chunkIn(frame []byte, place index.Place, id ID, buf []byte) ([]byte, error) {
	h, lent := r.hashers.Get().(*hasher)
	if !lent {
		h = newHasher(r.secrets.id)
	}
	defer r.hashers.Put(h)
	data, err := chunkOf(h, frame, place, id)
	if err != nil {
		return nil, err
	}
	return append(buf[:0], data...), nil
}

// chunkOf returns the chunk's bytes in its decoded frame, hashed.
func chunkOf(h *hasher, frame []byte, place index.Place, id ID) ([]byte, error) {
	end := uint64(place.At) + uint64(place.Length)
	if end > uint64(len(frame)) {
		return nil, fmt.Errorf("it would end at %d of a frame of %d bytes", end, len(frame))
	}
	data := frame[place.At:end]
	if h.id(data) != id {
		return nil, errors.New("its bytes do not have the hash that is its name")
	}
	return data, nil
}

// fetchFrame reads, authenticates and decodes a frame.
func (r *Repository) fetchFrame(ctx context.Context, p index.Pack, place index.Place) ([]byte, error) {
	sealed, err := r.packRange(ctx, p.ID, int64(place.Offset), int64(place.Stored), nil)
	if err != nil {
		return nil, err
	}
	codec, payload, err := r.opener(p).Open(nil, place.Offset, sealed)
	if err != nil {
		return nil, err
	}
	return decodeFrame(codec, payload, nil)
}

// loadHard is Load for a chunk that could not be read from its place. A reading may fail once, a pack may have been
// removed by a prune that kept the chunk elsewhere, and the index may be wrong about the place. Then the pack is healed, and
// then another copy is looked for.
func (r *Repository) loadHard(ctx context.Context, id ID, p index.Pack, place index.Place, buf []byte, first error) ([]byte, error) {
	failure := first
	for range 3 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r.frames.drop(frameKey{p.ID, place.Offset})
		data, err := r.chunkAt(ctx, id, p, place, buf)
		if err == nil {
			r.logf("chunk %s was read in another attempt; before: %v", short(id), first)
			return data, nil
		}
		failure = err
		if errors.Is(err, storage.ErrNotExist) {
			failure = errors.New("the pack is missing")
			if _, err := r.follow(ctx); err != nil {
				return nil, err
			}
		} else if r.placeAgrees(ctx, id, p, place) {
			break
		} else if again, err := r.rebuild(ctx); err != nil {
			return nil, err
		} else if !again {
			break
		}
		if place, p, err = r.find(ctx, id); err != nil {
			return nil, err
		}
	}
	_, err := r.healPack(ctx, p.ID, p.Size)
	if err == nil {
		if data, err := r.chunkAt(ctx, id, p, place, buf); err == nil {
			return data, nil
		}
	}
	if data, found := r.loadCopy(ctx, id, p, buf); found {
		return data, nil
	}
	return nil, &DamagedError{Object: packName(p.ID), Reason: fmt.Sprintf("chunk %s cannot be read from it: %v%s", short(id), failure, tooDamaged(err))}
}

// placeAgrees reports whether the pack's own directory has the chunk where the index has it.
func (r *Repository) placeAgrees(ctx context.Context, id ID, p index.Pack, place index.Place) bool {
	dir, err := r.readDirectory(ctx, p.ID, p.Size)
	if err != nil {
		return true // the pack is damaged beyond its frames
	}
	for _, e := range indexEntries(dir) {
		if e.ID == id {
			return e.Offset == place.Offset && e.Stored == place.Stored && e.At == place.At && e.Length == place.Length
		}
	}
	return false
}

// wanted is one chunk that LoadEach is to deliver. Its pack is a number that LoadEach gives: the ordinals in places
// change their meaning when the index is made anew, which may happen between two of them.
type wanted struct {
	pack  int
	place index.Place
	i     int
}

// LoadEach reads many chunks: f is called once for every i with the bytes of ids[i], or with the error that kept them
// from being read, from several goroutines and in no order. data is valid until f returns; an error of f ends LoadEach.
// Each frame is read, authenticated and decoded once, and packs are read in order.
func (r *Repository) LoadEach(ctx context.Context, ids []ID, workers int, f func(i int, data []byte, err error) error) error {
	want := make([]wanted, 0, len(ids))
	var packs []index.Pack
	numbers := map[ID]int{}
	for i, id := range ids {
		place, p, err := r.find(ctx, id)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := f(i, nil, err); err != nil {
				return err
			}
			continue
		}
		n, found := numbers[p.ID]
		if !found {
			n = len(packs)
			numbers[p.ID] = n
			packs = append(packs, p)
		}
		want = append(want, wanted{n, place, i})
	}
	slices.SortFunc(want, func(a, b wanted) int {
		return cmp.Or(cmp.Compare(a.pack, b.pack), cmp.Compare(a.place.Offset, b.place.Offset), cmp.Compare(a.place.At, b.place.At))
	})
	group, ctx := errgroup.WithContext(ctx)
	batches := make(chan []wanted)
	group.Go(func() error {
		defer close(batches)
		for len(want) > 0 {
			n := batchLength(want)
			select {
			case batches <- want[:n]:
			case <-ctx.Done():
				return ctx.Err()
			}
			want = want[n:]
		}
		return nil
	})
	for range max(1, workers) {
		group.Go(func() error {
			b := batchReader{repo: r, ids: ids, f: f, scratch: newFrameScratch(r.secrets.id)}
			for batch := range batches {
				if err := b.read(ctx, packs[batch[0].pack], batch); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// batchLength returns how many of the sorted chunks at the start of want are read at once.
func batchLength(want []wanted) int {
	first, end := want[0], frameEnd(want[0])
	n := 1
	for ; n < len(want); n++ {
		w, next := want[n], frameEnd(want[n])
		if w.pack != first.pack || int64(w.place.Offset) > end+batchGap || (next > end && next-int64(first.place.Offset) > batchBytes) {
			break
		}
		end = max(end, next)
	}
	return n
}

// frameEnd returns where the frame of a chunk ends in its pack.
func frameEnd(w wanted) int64 { return int64(w.place.Offset) + int64(w.place.Stored) }

// batchReader delivers batches for one goroutine.
type batchReader struct {
	repo    *Repository
	ids     []ID
	f       func(i int, data []byte, err error) error
	scratch *frameScratch
	sealed  []byte
}

// read delivers the chunks of one batch, which are of one pack and sorted.
func (b *batchReader) read(ctx context.Context, p index.Pack, batch []wanted) error {
	start, end := int64(batch[0].place.Offset), int64(0)
	for _, w := range batch {
		end = max(end, frameEnd(w)) // not always the last one's: an index that is wrong may have frames overlap
	}
	var err error
	if b.sealed, err = b.repo.packRange(ctx, p.ID, start, end-start, b.sealed); err != nil {
		return b.hard(ctx, batch) // perhaps the index is wrong about the place, or the reading failed just once
	}
	opener := b.repo.opener(p)
	for len(batch) > 0 {
		place := batch[0].place
		n := 1
		for n < len(batch) && batch[n].place.Offset == place.Offset && batch[n].place.Stored == place.Stored {
			n++
		}
		at := int64(place.Offset) - start
		plain, err := b.scratch.open(opener, place.Offset, b.sealed[at:at+int64(place.Stored)])
		if err != nil {
			if err := b.hard(ctx, batch[:n]); err != nil {
				return err
			}
		} else if err := b.chunks(ctx, plain, batch[:n]); err != nil {
			return err
		}
		batch = batch[n:]
	}
	return nil
}

// chunks delivers the chunks of one decoded frame.
func (b *batchReader) chunks(ctx context.Context, plain []byte, chunks []wanted) error {
	var data []byte
	for k, w := range chunks {
		if k == 0 || w.place != chunks[k-1].place || b.ids[w.i] != b.ids[chunks[k-1].i] {
			var err error
			if data, err = chunkOf(b.scratch.hasher, plain, w.place, b.ids[w.i]); err != nil {
				data = nil
				if err := b.hard(ctx, chunks[k:k+1]); err != nil {
					return err
				}
			}
		}
		if data != nil {
			if err := b.f(w.i, data, nil); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// hard delivers chunks one by one, with all that Load tries, or their errors.
func (b *batchReader) hard(ctx context.Context, chunks []wanted) error {
	for _, w := range chunks {
		data, err := b.repo.Load(ctx, b.ids[w.i], nil)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := b.f(w.i, data, err); err != nil {
			return err
		}
	}
	return nil
}
