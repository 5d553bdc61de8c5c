package repo

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
)

// A FrameReader gives what Load gives, in whatever order chunks are asked for, of frames that are compressed and of others.
func TestFrameReader(t *testing.T) {
	ctx := context.Background()
	r, st := newRepository(t)
	var chunks [][]byte
	for i := range 200 {
		chunk := noise(uint64(i), 40_000)
		if i%80 < 40 {
			chunk = bytes.Repeat(chunk[:100+i], 300) // frames of these shrink
		}
		chunks = append(chunks, chunk)
	}
	record, _ := save(t, r, chunks...)
	verify(t, r, record, chunks...)
	hash := r.Hasher()
	f := r.FrameReader()
	for range 2000 {
		i := rand.IntN(len(chunks))
		for range rand.IntN(4) { // some after each other, as in a scan
			got, err := f.Load(ctx, hash(chunks[i]), nil)
			if err != nil || !bytes.Equal(got, chunks[i]) {
				t.Fatalf("chunk %d: %v", i, err)
			}
			i = (i + 1) % len(chunks)
		}
	}
	if _, err := f.Load(ctx, ID{1}, nil); err == nil {
		t.Error("a chunk that is not there was read")
	}

	// Damage is an error, and the other frames are still read.
	for _, name := range names(t, st, "packs/") {
		if err := st.Put(ctx, name, rotten(object(t, st, name))); err != nil {
			t.Fatal(err)
		}
	}
	f = reopen(t, st).FrameReader()
	good, bad := 0, 0
	for i := range chunks {
		got, err := f.Load(ctx, hash(chunks[i]), nil)
		if err != nil {
			bad++
		} else if good++; !bytes.Equal(got, chunks[i]) {
			t.Fatalf("chunk %d has other bytes", i)
		}
	}
	if good == 0 || bad == 0 {
		t.Errorf("of damaged packs %d chunks were read, %d were not", good, bad)
	}
}
