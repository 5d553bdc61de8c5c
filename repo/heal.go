package repo

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/zeebo/blake3"
	"varve/repo/pack"
	"varve/repo/storage"
)

// Packs with parity survive bad sectors. Nothing here is in the way of packs that read well: only when something of a pack
// cannot be read, or is not what it should be, healPack reads all of it and makes it whole in memory, from where packRange
// then takes what is wanted of it.

// healedBytes is how much of healed packs is kept; the last one is kept in any case.
const healedBytes = 64 << 20

// healer keeps what was healed.
type healer struct {
	kept atomic.Pointer[[]*healedPack] // the newest last; replaced, never changed

	mu    sync.Mutex   // held while a pack is healed: each takes memory for a pack
	tried map[ID]error // nil: it was healed before
}

// healedPack is a pack that was made whole.
type healedPack struct {
	id   ID
	data []byte // read by all, changed by nobody
	harm string // what is wrong with the stored one; empty when only the reading had failed
}

// find returns a pack that is kept, or nil.
func (h *healer) find(id ID) *healedPack {
	if kept := h.kept.Load(); kept != nil {
		for _, p := range *kept {
			if p.id == id {
				return p
			}
		}
	}
	return nil
}

// keep adds a pack and lets go of the oldest. h.mu is held.
func (h *healer) keep(p *healedPack) {
	list, bytes := []*healedPack{p}, len(p.data)
	if kept := h.kept.Load(); kept != nil {
		for i := len(*kept) - 1; i >= 0; i-- {
			old := (*kept)[i]
			if bytes += len(old.data); bytes > healedBytes {
				break
			}
			list = append([]*healedPack{old}, list...)
		}
	}
	h.kept.Store(&list)
}

// packRange is storage.Get for packs: of one that was healed it returns what was healed.
func (r *Repository) packRange(ctx context.Context, id ID, offset, length int64, buf []byte) ([]byte, error) {
	if p := r.healer.find(id); p != nil && offset >= 0 && length >= 0 && length <= int64(len(p.data))-offset {
		return append(buf[:0], p.data[offset:offset+length]...), nil
	}
	return r.storage.Get(ctx, packName(id), offset, length, buf)
}

// healing calls read, which reads of pack id with packRange. Where that fails, and the pack can be healed, it calls it again.
func (r *Repository) healing(ctx context.Context, id ID, size int64, read func() error) error {
	err := read()
	if err == nil || ctx.Err() != nil || errors.Is(err, storage.ErrNotExist) {
		return err
	}
	_, healErr := r.healPack(ctx, id, size)
	if healErr == nil {
		return read()
	}
	if beyond := tooDamaged(healErr); beyond != "" {
		reason := err.Error()
		var damaged *DamagedError
		if errors.As(err, &damaged) {
			reason = damaged.Reason
		}
		return &DamagedError{Object: packName(id), Reason: reason + beyond}
	}
	return err
}

// tooDamaged says, behind what is wrong with a pack, why its parity does not help, if it has any.
func tooDamaged(err error) string {
	var corrupt *pack.CorruptError
	if !errors.As(err, &corrupt) || errors.Is(err, pack.ErrNoParity) {
		return ""
	}
	return "; its parity does not make up for that: " + corrupt.Reason
}

// healPack returns pack id as it was written, made from what can be read of its size bytes and from its parity. Its name
// says that this is what it was, so that it may be stored under that name again. It fails with pack.ErrNoParity,
// *pack.CorruptError where parity is not enough, storage.ErrNotExist, and an error of the storage where nothing of it can be
// read.
func (r *Repository) healPack(ctx context.Context, id ID, size int64) (*healedPack, error) {
	h := &r.healer
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.find(id); p != nil {
		return p, nil
	}
	before, again := h.tried[id]
	if before != nil {
		return nil, before
	}
	if size < 0 || size > maxPack {
		return nil, fmt.Errorf("pack %s is %d bytes long, which no pack is", short(id), size)
	}
	data, err := r.storage.Get(ctx, packName(id), 0, size, nil)
	if errors.Is(err, storage.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		if data = r.pieces(ctx, packName(id), size); data == nil || ctx.Err() != nil {
			return nil, err
		}
	}
	if h.tried == nil {
		h.tried = map[ID]error{}
	}
	p := &healedPack{id: id, data: data}
	if blake3.Sum256(data) != id { // it may have been the reading that failed, not the pack
		var bad int
		p.data, bad, err = pack.Heal(data, id)
		h.tried[id] = err
		if err != nil {
			return nil, err
		}
		p.harm = fmt.Sprintf("%d of its %d sectors are bad", bad, len(p.data)/sectorBytes)
		if bad == 0 {
			p.harm = "something stands behind its end"
		}
		if !again {
			r.logf("pack %s is damaged, and was healed in memory: %s", short(id), p.harm)
		}
	}
	h.keep(p)
	return p, nil
}
