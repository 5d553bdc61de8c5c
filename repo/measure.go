package repo

import (
	"context"

	"varve/index"
	"varve/repo/pack"
)

// Measured says what chunks take in the repository, in bytes.
type Measured struct {
	Packs, PackBytes int64 // all of them
	Chunks           int64 // distinct ones that were marked and found, tree nodes among them
	Bytes            int64 // of these chunks
	Stored           int64 // their shares of the packs in which they lie: see eachShare
	Missing          int64 // marked, and in no readable pack

	ParityPacks, ParityBytes int64 // packs that have some, and what it takes of them
}

// Measure adds up what is marked. It reads the directories of all packs.
func (r *Repository) Measure(ctx context.Context, mark Marker) (Measured, error) {
	var m Measured
	var wanted marked
	if err := wanted.add(ctx, mark); err != nil {
		return m, err
	}
	packs, err := r.storedPacks(ctx, nil)
	if err != nil {
		return m, err
	}
	for i, p := range packs {
		if err := ctx.Err(); err != nil {
			return m, err
		}
		r.progress("reading the directories of packs", i, len(packs))
		m.Packs++
		m.PackBytes += p.Size
		dir, err := r.readDirectory(ctx, p.ID, p.Size)
		if err != nil {
			r.logf("%v", err)
			continue
		}
		if dir.Parity > 0 {
			m.ParityPacks++
			m.ParityBytes += int64(dir.Parity)
		}
		eachShare(dir, p.Size, func(c pack.Chunk, share int64) {
			if wanted.live.claim(c.ID) {
				m.Chunks++
				m.Bytes += int64(c.Length)
				m.Stored += share
			}
		})
	}
	r.progress("reading the directories of packs", len(packs), len(packs))
	m.Missing = int64(wanted.live.unclaimed())
	return m, nil
}

// IndexStats tells about the index on this machine, brought up to date.
func (r *Repository) IndexStats(ctx context.Context) (index.Stats, error) {
	x, err := r.follow(ctx)
	if err != nil {
		return index.Stats{}, err
	}
	return x.Stats(), nil
}
