package repo

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/zeebo/blake3"
	"varve/repo/storage"
)

// A record is stored under snapshots/<id>, where id is the BLAKE3 of its bytes:
//
//	"VARVSNAP" ‖ seal(meta key, "varve snapshot" ‖ repository id, data)
//
// Where packs have parity, the same bytes are also in snapshots/<id>.copy. The record is written before its copy and removed
// after it, so a copy without a record is a record that was lost, and counts as one.
const recordMagic = "VARVSNAP"

// maxRecord bounds a record that is read, in bytes.
const maxRecord = 16 << 20

func recordName(id ID) string { return "snapshots/" + hex.EncodeToString(id[:]) }

func recordCopy(id ID) string { return recordName(id) + ".copy" }

func (r *Repository) recordContext() string { return "varve snapshot" + r.id }

// putRecord stores a record durably. When it fails there is none, as far as it can see to that: nobody wants a snapshot of
// which the backup said that it failed.
func (r *Repository) putRecord(ctx context.Context, data []byte) (ID, error) {
	sealed := append([]byte(recordMagic), seal(r.secrets.meta, r.recordContext(), data)...)
	if len(sealed) > maxRecord {
		return ID{}, fmt.Errorf("storing snapshot record: it would have %d bytes, and no more than %d are read", len(sealed), maxRecord)
	}
	id := blake3.Sum256(sealed)
	err := r.storage.Put(ctx, recordName(id), sealed)
	if err == nil && r.own.Parity > 0 {
		err = r.storage.Put(ctx, recordCopy(id), sealed)
	}
	if err != nil {
		_ = r.DeleteRecord(context.WithoutCancel(ctx), id)
		return ID{}, fmt.Errorf("storing snapshot record: %w", err)
	}
	return id, nil
}

// Records lists the ids of all records, in no order.
func (r *Repository) Records(ctx context.Context) ([]ID, error) {
	var ids []ID
	seen := map[ID]struct{}{}
	err := r.storage.List(ctx, "snapshots/", func(name string, _ int64) error {
		id, err := ParseID(strings.TrimSuffix(strings.TrimPrefix(name, "snapshots/"), ".copy"))
		if err != nil {
			r.logf("ignored %s: it is not the name of a snapshot record", name)
			return nil
		}
		if _, twice := seen[id]; !twice {
			seen[id] = struct{}{}
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing snapshot records: %w", err)
	}
	return ids, nil
}

// Record reads one record, or its copy: ErrNotFound, *DamagedError.
func (r *Repository) Record(ctx context.Context, id ID) ([]byte, error) {
	data, err := r.readRecord(ctx, recordName(id), id)
	if err == nil || ctx.Err() != nil {
		return data, err
	}
	copied, copyErr := r.readRecord(ctx, recordCopy(id), id)
	if copyErr != nil {
		return nil, err
	}
	r.logf("%v; its copy was read", err)
	return copied, nil
}

func (r *Repository) readRecord(ctx context.Context, name string, id ID) ([]byte, error) {
	sealed, err := r.sealedRecord(ctx, name, id)
	if err != nil {
		return nil, err
	}
	data, err := unseal(r.secrets.meta, r.recordContext(), sealed[len(recordMagic):])
	if err != nil {
		return nil, &DamagedError{Object: name, Reason: err.Error()}
	}
	return data, nil
}

// sealedRecord reads a record as it is stored. When that is damaged it is returned with the error.
func (r *Repository) sealedRecord(ctx context.Context, name string, id ID) ([]byte, error) {
	sealed, err := r.storage.Get(ctx, name, 0, -1, nil)
	if errors.Is(err, storage.ErrNotExist) {
		return nil, fmt.Errorf("snapshot %s: %w", short(id), ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("reading snapshot %s: %w", short(id), err)
	}
	if blake3.Sum256(sealed) != id || len(sealed) > maxRecord || !strings.HasPrefix(string(sealed[:min(8, len(sealed))]), recordMagic) {
		return sealed, &DamagedError{Object: name, Reason: "its bytes do not have the hash that is its name"}
	}
	return sealed, nil
}

// DeleteRecord removes a record: ErrNotFound. Of several that remove one, one succeeds. What only it named stays until the
// next prune.
func (r *Repository) DeleteRecord(ctx context.Context, id ID) error {
	names := []string{recordName(id)}
	if r.own.Parity > 0 {
		names = []string{recordCopy(id), recordName(id)}
		if _, err := r.storage.Get(ctx, recordName(id), 0, 0, nil); errors.Is(err, storage.ErrNotExist) {
			names = names[:1] // the copy is all that is left
		}
	}
	for i, name := range names {
		err := r.storage.Delete(ctx, name)
		switch {
		case err == nil:
		case !errors.Is(err, storage.ErrNotExist):
			return err
		case i == len(names)-1:
			return fmt.Errorf("snapshot %s: %w", short(id), ErrNotFound)
		}
	}
	return nil
}

// ReplaceRecord stores data as a new record and then removes the old one: a crash between leaves both. When the old one is
// gone by then, so may be what it referred to: there is no new one then either (ErrNotFound).
func (r *Repository) ReplaceRecord(ctx context.Context, old ID, data []byte) (ID, error) {
	id, err := r.putRecord(ctx, data)
	if err != nil {
		return ID{}, err
	}
	if err := r.DeleteRecord(ctx, old); errors.Is(err, ErrNotFound) {
		return ID{}, errors.Join(err, r.DeleteRecord(ctx, id))
	} else if err != nil {
		return ID{}, err
	}
	return id, nil
}

// storageReader reads one object, for decoders that want an io.ReaderAt. It takes one piece from the end ahead of time, since
// that is where packs keep what is read first.
type storageReader struct {
	get       func(offset, length int64) ([]byte, error)
	size      int64
	tail      []byte
	tailStart int64
}

const tailBytes = 64 << 10

func (s *storageReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > s.size {
		return 0, fmt.Errorf("reading at %d of %d bytes", off, s.size)
	}
	short := false
	if int64(len(p)) > s.size-off {
		p, short = p[:s.size-off], true
	}
	if s.tail == nil {
		start := max(0, s.size-tailBytes)
		tail, err := s.get(start, s.size-start)
		if err != nil {
			return 0, err
		}
		s.tail, s.tailStart = tail, start
	}
	if off >= s.tailStart {
		copy(p, s.tail[off-s.tailStart:])
	} else {
		data, err := s.get(off, int64(len(p)))
		if err != nil {
			return 0, err
		}
		copy(p, data)
	}
	if short {
		return len(p), io.EOF
	}
	return len(p), nil
}
