package ext

import (
	"bytes"
	"context"
	"math/bits"

	"varve/image/filesystem"
)

const (
	bitmapBytes   = 1 << 20 // of bitmaps that are read at once, at most
	pendingGroups = 1024    // whose descriptors are in memory
)

// scan goes through the block bitmaps, in order.
type scan struct {
	*FS
	ctx     context.Context
	free    func(filesystem.Range) error
	refused error  // of free
	used    []span // structures from here on

	bitmaps  []byte
	pending  []descriptor // of the next groups
	group    int64        // the first of them
	run      span         // free blocks that free was not called for yet
	clusters int64        // that are free
}

// all calls free for everything that is, and compares the sum with the superblock.
func (s *scan) all() error {
	if err := s.readDescriptors(s.ctx, func(_ int64, d descriptor) error {
		s.pending = append(s.pending, d)
		if len(s.pending) < pendingGroups {
			return nil
		}
		return s.look()
	}); err != nil {
		return err
	}
	if err := s.look(); err != nil {
		return err
	}
	if err := s.tell(); err != nil {
		return err
	}
	if s.clusters != s.freeBlocks/s.clusterBlocks {
		return filesystem.Corrupt("%d clusters are free in the bitmaps, and %d blocks by the superblock", s.clusters, s.freeBlocks)
	}
	raw, err := s.readSuperblock()
	if err != nil {
		return err
	}
	if !bytes.Equal(raw, s.raw) {
		return filesystem.Untrusted("the filesystem was changed while it was read")
	}
	return nil
}

// look goes through the pending groups. Bitmaps that lie one behind the other are read at once.
func (s *scan) look() error {
	for rest := s.pending; len(rest) > 0; {
		first, count := rest[0], int64(1)
		if first.flags&blocksUninitialised != 0 {
			clear(s.bitmaps[:s.blockSize])
		} else {
			for count < min(int64(len(rest)), bitmapBytes/s.blockSize) && rest[count].flags&blocksUninitialised == 0 &&
				rest[count].blockBitmap == first.blockBitmap+count {
				count++
			}
			if err := s.ctx.Err(); err != nil {
				return err
			}
			if err := s.read(s.bitmaps[:count*s.blockSize], first.blockBitmap*s.blockSize); err != nil {
				return err
			}
		}
		for i := range count {
			if err := s.lookAt(rest[i], s.bitmaps[i*s.blockSize:(i+1)*s.blockSize]); err != nil {
				return err
			}
			s.group++
		}
		rest = rest[count:]
	}
	s.pending = s.pending[:0]
	return nil
}

// lookAt goes through the bitmap of a group. That of one without is zeros.
func (s *scan) lookAt(d descriptor, bitmap []byte) error {
	start, end := s.groupStart(s.group), s.groupEnd(s.group)
	fresh := d.flags&blocksUninitialised != 0
	if s.blockSums && !fresh {
		sum := crc32c(s.seed, bitmap[:s.groupClusters/8])
		if s.descriptorSize < 64 {
			sum &= 0xFFFF
		}
		if sum != d.sum {
			return filesystem.Corrupt("the block bitmap of group %d has a wrong checksum", s.group)
		}
	}
	for len(s.used) > 0 && s.used[0].end <= start {
		s.used = s.used[1:]
	}
	for _, u := range s.used {
		if u.start >= end {
			break
		}
		from := (max(u.start, start) - start) / s.clusterBlocks
		to := divideUp(min(u.end, end)-start, s.clusterBlocks)
		if fresh {
			for bit := from; bit < to; bit++ {
				bitmap[bit/8] |= 1 << (bit % 8)
			}
		} else if next(bitmap, from, to, 0) < to {
			return filesystem.Corrupt("the block bitmap of group %d calls structures free", s.group)
		}
	}
	clusters, count := divideUp(end-start, s.clusterBlocks), int64(0)
	for at := int64(0); at < clusters; {
		from := next(bitmap, at, clusters, 0)
		at = next(bitmap, from, clusters, 1)
		count += at - from
		if whole := min(at, (end-start)/s.clusterBlocks); from < whole { // the last cluster of all may go beyond the end
			if err := s.add(span{start + from*s.clusterBlocks, start + whole*s.clusterBlocks}); err != nil {
				return err
			}
		}
	}
	if count != d.freeClusters {
		return filesystem.Corrupt("%d clusters are free in the bitmap of group %d, and %d by its descriptor", count, s.group, d.freeClusters)
	}
	s.clusters += count
	return nil
}

// add takes a run to be free, as part of the one before where that ends here.
func (s *scan) add(run span) error {
	if run.start == s.run.end {
		s.run.end = run.end
		return nil
	}
	if err := s.tell(); err != nil {
		return err
	}
	s.run = run
	return nil
}

// tell calls free for the run that has come to its end.
func (s *scan) tell() error {
	if s.run.end == 0 {
		return nil
	}
	s.refused = s.free(filesystem.Range{Offset: s.run.start * s.blockSize, Length: (s.run.end - s.run.start) * s.blockSize})
	return s.refused
}

// next returns the first bit from at on that is value, or end.
func next(bitmap []byte, at, end int64, value uint64) int64 {
	for at < end {
		word := le.Uint64(bitmap[at/64*8:])
		if value == 0 {
			word = ^word
		}
		if word >>= at % 64; word != 0 {
			return min(end, at+int64(bits.TrailingZeros64(word)))
		}
		at = at/64*64 + 64
	}
	return end
}
