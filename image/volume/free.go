package volume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"varve/image/filesystem"
)

// Block is the unit of what is free, in bytes: that of the holes of a disk.
const Block = 4096

// Bounds of what a disk may cost.
const (
	maxRuns  = 2 << 20          // kept at a time: 32 MiB
	budget   = 15 * time.Minute // for the map of one filesystem, which may be scattered over a slow disk
	counting = 20 * time.Second // for that map where somebody waits, and wants no more of it than a number
)

// Run is a run of bytes of the disk.
type Run struct{ Offset, Length int64 }

// End is the offset after the last byte.
func (r Run) End() int64 { return r.Offset + r.Length }

// CountUsed fills Info.Used of a filesystem that keeps no count itself, from its map of what is free; it stays -1 where that cannot be
// relied on, or be read soon enough.
func (v *Volume) CountUsed(ctx context.Context) {
	if v.FS != nil && v.Full == "" && v.Info.Used < 0 && v.Info.Type != "swap" {
		v.free(ctx, counting, &collector{})
	}
}

// free adds what is free on a volume to c, or nothing: then it returns why. A filesystem that keeps no count of what it uses has one
// then.
func (v *Volume) free(ctx context.Context, budget time.Duration, c *collector) string {
	limited, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	size := min(v.Length, v.Info.Size)
	last, sum := int64(0), int64(0)
	c.begin()
	err := v.FS.Free(limited, func(r filesystem.Range) error {
		if r.Offset < last || r.Length <= 0 || r.Length > size-r.Offset {
			return fmt.Errorf("its reader has a mistake: %d bytes from %d cannot be free, after %d and within %d", r.Length, r.Offset, last, size)
		}
		last = r.End()
		sum += r.Length
		c.add(v.Start+r.Offset, v.Start+r.End())
		return limited.Err()
	})
	switch {
	case err == nil:
		if v.Info.Used < 0 && v.Info.Type != "swap" {
			v.Info.Used = size - sum
		}
		return ""
	case errors.Is(limited.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("its map of what is free cannot be read within %v", budget)
	}
	c.rollback()
	return err.Error()
}

// collector keeps runs of whole blocks, and not too many.
type collector struct {
	list  []Run
	begun int   // so many are of volumes before
	least int64 // shorter ones are not kept any more
}

// begin says that the next runs are of another volume.
func (c *collector) begin() { c.begun = len(c.list) }

// rollback forgets the runs of the last volume.
func (c *collector) rollback() { c.list = c.list[:c.begun] }

// add adds the whole blocks between two offsets.
func (c *collector) add(off, end int64) {
	if rest := off % Block; rest != 0 {
		if end-off < Block-rest {
			return
		}
		off += Block - rest
	}
	end -= end % Block
	if end <= off || end-off < c.least {
		return
	}
	c.list = append(c.list, Run{off, end - off})
	for c.least = max(c.least, Block); len(c.list) >= maxRuns; c.least *= 2 {
		c.thin(2 * c.least)
	}
}

// thin leaves out what is shorter than least.
func (c *collector) thin(least int64) {
	kept, begun := c.list[:0], 0
	for i, r := range c.list {
		if r.Length < least {
			continue
		}
		kept = append(kept, r)
		if i < c.begun {
			begun++
		}
	}
	c.list, c.begun = kept, begun
}

// runs returns all runs in order, adjacent ones as one.
func (c *collector) runs() []Run {
	slices.SortFunc(c.list, func(a, b Run) int { return cmp.Compare(a.Offset, b.Offset) })
	merged := c.list[:0]
	for _, r := range c.list {
		if last := len(merged) - 1; last >= 0 && r.Offset == merged[last].End() {
			merged[last].Length += r.Length
			continue
		}
		merged = append(merged, r)
	}
	return merged
}
