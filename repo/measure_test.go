package repo

import (
	"context"
	"errors"
	"testing"
)

func TestMeasure(t *testing.T) {
	ctx := context.Background()
	r, _ := newRepository(t)
	first, second := someChunks(1, 20), someChunks(2, 30)
	kept, _ := save(t, r, first...)
	save(t, r, append(second, first[:5]...)...)
	bytes := func(list [][]byte) (n int64) {
		for _, c := range list {
			n += int64(len(c))
		}
		return n
	}
	m, err := r.Measure(ctx, marker(r))
	if err != nil {
		t.Fatal(err)
	}
	if m.Chunks != 50 || m.Bytes != bytes(first)+bytes(second) || m.Missing != 0 || m.Packs != 2 {
		t.Errorf("all: %+v", m)
	}
	if m.Stored <= 0 || m.Stored > m.PackBytes {
		t.Errorf("%d bytes are stored in packs of %d", m.Stored, m.PackBytes)
	}
	only := func(ctx context.Context, node func(ID) bool, chunk func(ID)) error {
		data, err := r.Record(ctx, kept)
		for _, id := range decodeList(data) {
			chunk(id)
			chunk(id) // counts once
		}
		chunk(ID{1, 2, 3})
		return err
	}
	part, err := r.Measure(ctx, only)
	if err != nil {
		t.Fatal(err)
	}
	if part.Chunks != 20 || part.Bytes != bytes(first) || part.Missing != 1 || part.PackBytes != m.PackBytes || part.Stored >= m.Stored {
		t.Errorf("one: %+v of %+v", part, m)
	}
	x, err := r.IndexStats(ctx)
	if err != nil || x.Chunks != 50 || x.Packs != 2 {
		t.Errorf("index: %+v, %v", x, err)
	}
}

func TestAloneAndBeside(t *testing.T) {
	ctx := context.Background()
	r, _ := newRepository(t)
	var locked *LockedError
	inner := errors.New("inner")
	ran := false
	err := r.Alone(ctx, "test", func() error {
		for name, f := range map[string]func(context.Context, string, func() error) error{"alone": r.Alone, "beside": r.Beside} {
			if err := f(ctx, "other", func() error { ran = true; return nil }); !errors.As(err, &locked) || ran {
				t.Errorf("%s under an exclusive lease: %v, ran: %v", name, err, ran)
			}
		}
		return inner
	})
	if !errors.Is(err, inner) {
		t.Error(err)
	}
	err = r.Beside(ctx, "test", func() error {
		if err := r.Alone(ctx, "other", func() error { return nil }); !errors.As(err, &locked) {
			t.Errorf("alone under a shared lease: %v", err)
		}
		return r.Beside(ctx, "other", func() error { return nil })
	})
	if err != nil {
		t.Error(err)
	}
	if leases, err := r.Leases(ctx); err != nil || len(leases) != 0 {
		t.Errorf("%v are left, %v", leases, err)
	}
}

func TestHasherNamesChunks(t *testing.T) {
	r, _ := newRepository(t)
	c := someChunks(3, 1)[0]
	record, _ := save(t, r, c)
	data, err := r.Record(context.Background(), record)
	if err != nil {
		t.Fatal(err)
	}
	if id := r.Hasher()(c); id != decodeList(data)[0] {
		t.Errorf("%x is not the chunk's id", id)
	}
}
