package repo

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/zeebo/blake3"
	"varve/repo/storage"
)

// A ledger says when packs were last read in full and found whole. It is in the repository, so that all machines that check
// it share the work, and it can go at any time: what it says is only which packs are to be read first.
//
//	verified/<id>   "VARVLEDG" ‖ seal(meta key, "varve ledger" ‖ repository id, 1 ‖ entry…)
//	entry           pack id 32 | seconds since 1970, 8 bytes big-endian
//
// Each check writes a new one that takes up all it found, and removes these. Two at once leave two, which count together.
type ledger map[ID]time.Time

const (
	ledgerMagic   = "VARVLEDG"
	ledgerVersion = 1
	ledgerEntry   = 40
	maxLedger     = 64 << 20 // bytes of one that is read or written: 1.6 million packs
	maxLedgers    = 64       // that are read
)

// readLedger returns what all ledgers say of packs, and their names. What cannot be read is told, and left out.
func (r *Repository) readLedger(ctx context.Context) (l ledger, names []string, err error) {
	err = r.storage.List(ctx, "verified/", func(name string, _ int64) error { names = append(names, name); return nil })
	if err != nil {
		return nil, nil, fmt.Errorf("listing when packs were read: %w", err)
	}
	l = ledger{}
	latest := time.Now().Add(time.Hour) // a clock that runs ahead must not put off a reading for years
	for _, name := range names[:min(len(names), maxLedgers)] {
		sealed, err := r.storage.Get(ctx, name, 0, -1, nil)
		if errors.Is(err, storage.ErrNotExist) {
			continue // another check has taken it up
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		var one ledger
		if err == nil {
			one, err = r.parseLedger(name, sealed)
		}
		if err != nil {
			r.logf("when packs were last read in full is not known from %s: %v", name, err)
		}
		for id, t := range one {
			if t.After(l[id]) && t.Before(latest) {
				l[id] = t
			}
		}
	}
	return l, names, nil
}

func (r *Repository) parseLedger(name string, sealed []byte) (ledger, error) {
	rest, found := bytes.CutPrefix(sealed, []byte(ledgerMagic))
	if !found || len(sealed) > maxLedger {
		return nil, &DamagedError{Object: name, Reason: "it does not start as a ledger of checks does"}
	}
	data, err := unseal(r.secrets.meta, "varve ledger"+r.id, rest)
	if err != nil {
		return nil, &DamagedError{Object: name, Reason: err.Error()}
	}
	l, err := decodeLedger(data)
	if err != nil {
		return nil, &DamagedError{Object: name, Reason: err.Error()}
	}
	return l, nil
}

// decodeLedger is the inverse of encode.
func decodeLedger(data []byte) (ledger, error) {
	if len(data) == 0 || data[0] != ledgerVersion || (len(data)-1)%ledgerEntry != 0 {
		return nil, errors.New("its entries are not valid")
	}
	l := ledger{}
	for entry := range slices.Chunk(data[1:], ledgerEntry) {
		l[ID(entry)] = time.Unix(int64(binary.BigEndian.Uint64(entry[32:])), 0)
	}
	return l, nil
}

// encode returns as many entries as are read again.
func (l ledger) encode() []byte {
	data := []byte{ledgerVersion}
	for _, id := range slices.SortedFunc(maps.Keys(l), func(a, b ID) int { return bytes.Compare(a[:], b[:]) }) {
		if len(data)+ledgerEntry > maxLedger-len(ledgerMagic)-1024 {
			break
		}
		data = append(data, id[:]...)
		data = binary.BigEndian.AppendUint64(data, uint64(l[id].Unix()))
	}
	return data
}

// writeLedger stores l in place of those of the names, and returns its own. It is no loss when that fails.
func (r *Repository) writeLedger(ctx context.Context, l ledger, names []string) []string {
	sealed := append([]byte(ledgerMagic), seal(r.secrets.meta, "varve ledger"+r.id, l.encode())...)
	sum := blake3.Sum256(sealed)
	name := "verified/" + hex.EncodeToString(sum[:])
	if err := r.storage.Put(ctx, name, sealed); err != nil {
		r.logf("noting which packs were read: %v", err)
		return append(names, name) // it may be there all the same
	}
	for _, old := range names {
		if err := r.storage.Delete(ctx, old); err != nil && !errors.Is(err, storage.ErrNotExist) && !errors.Is(err, storage.ErrAppendOnly) {
			r.logf("removing an old note of which packs were read: %v", err)
		}
	}
	return []string{name}
}

// oldest returns when that of packs was read which was not read for longest, and how many never were.
func (l ledger) oldest(packs []StoredPack) (oldest time.Time, never int64) {
	for _, p := range packs {
		t, found := l[p.ID]
		if !found {
			never++
		} else if oldest.IsZero() || t.Before(oldest) {
			oldest = t
		}
	}
	return oldest, never
}
