// Package chunker cuts one segment of a disk, held in memory, into content-defined chunks.
//
//	segment  ├──zeros──┼──chunk──┼───chunk───┼─chunk─┼──zeros──┤
//	block    0    1    2    3    4    5    6    7    8    9   10      (4096 bytes each)
//
// All positions are whole blocks, except that the last block of a disk may be shorter.
//
// Where a chunk ends depends on nothing but the bytes since its start. It ends at the first of
//
//  1. the place where the Rabin fingerprint of the last 64 bytes is zero in its low Bits bits, rounded up to a block
//     (not before Min bytes; Rabin, "Fingerprinting by random polynomials", 1981, as restic/chunker implements it);
//  2. the end of ZeroRun zero blocks in a row;
//  3. Max bytes;
//  4. the end of the segment.
//
// Rule 2 takes the zeros into the chunk, instead of stopping before them, so that it needs no look at what follows.
// That is why a scan that recognises a parent's chunk by its hash may skip cutting altogether: the same bytes from the
// same start end at the same place, whatever comes after them.
package chunker

import (
	"encoding/binary"
	"fmt"

	"github.com/restic/chunker"
)

// Block is the unit of all cuts, in bytes.
const Block = 4096

// Params fixes where chunks end. Two repositories share no chunk boundaries unless all of it is the same.
type Params struct {
	Polynomial uint64 // irreducible over GF(2), of degree 53
	Min        int    // bytes; no cut by content before; a multiple of Block
	Max        int    // bytes; a multiple of Block
	Bits       int    // a cut by content comes every 1<<Bits bytes after Min, on average
	ZeroRun    int    // blocks of zeros that end a chunk
}

// Default is the choice of docs/decisions/chunk-size.md, with a new random polynomial.
func Default() (Params, error) {
	pol, err := chunker.RandomPolynomial()
	if err != nil {
		return Params{}, fmt.Errorf("choosing a chunker polynomial: %w", err)
	}
	return Params{Polynomial: uint64(pol), Min: 48 << 10, Max: 256 << 10, Bits: 13, ZeroRun: 4}, nil
}

// Validate reports why p cannot be used. It is to be asked of parameters that were read from a repository.
func (p Params) Validate() error {
	switch pol := chunker.Pol(p.Polynomial); {
	case pol.Deg() != 53 || !pol.Irreducible():
		return fmt.Errorf("chunker polynomial %#x is not irreducible of degree 53", p.Polynomial)
	case p.Min < Block || p.Min%Block != 0 || p.Max < p.Min || p.Max%Block != 0 || p.Max > 1<<20:
		return fmt.Errorf("chunk sizes %d to %d bytes are not multiples of %d up to 1 MiB", p.Min, p.Max, Block)
	case p.Bits < 10 || p.Bits > 20:
		return fmt.Errorf("%d chunker bits are not within 10 to 20", p.Bits)
	case p.ZeroRun < 1 || p.ZeroRun > p.Max/Block:
		return fmt.Errorf("a zero run of %d blocks is not within 1 to %d", p.ZeroRun, p.Max/Block)
	}
	return nil
}

// Chunker finds the ends of chunks. It is for one goroutine at a time.
type Chunker struct {
	params Params
	fresh  chunker.BaseChunker // as it is before the first byte of a chunk
	base   chunker.BaseChunker
}

// New returns a Chunker for valid parameters.
func New(p Params) *Chunker {
	fresh := chunker.NewBase(chunker.Pol(p.Polynomial),
		chunker.WithBaseAverageBits(p.Bits), chunker.WithBaseBoundaries(uint(p.Min), uint(p.Max)))
	return &Chunker{params: p, fresh: *fresh}
}

// Next returns the length in bytes of the chunk that starts at data[0]. data is the rest of the segment, or at least
// Max bytes of it, and is not empty; its first block is not zero (see Zeros).
func (c *Chunker) Next(data []byte) int {
	limit := zeroRunEnd(data[:min(len(data), c.params.Max)], c.params.ZeroRun)
	if limit <= c.params.Min {
		return limit
	}
	// Copying a fresh state costs less than BaseChunker.Reset, which takes a process-wide lock.
	c.base = c.fresh
	split := c.base.NextSplitPoint(data[:limit])
	if split < 0 {
		return limit
	}
	return min((split+Block-1)/Block*Block, limit)
}

// zeroRunEnd returns the end of the first run zero blocks in a row, or the length of data when there are none.
func zeroRunEnd(data []byte, run int) int {
	zeros := 0
	for at := 0; at < len(data); at += Block {
		end := min(at+Block, len(data))
		if !IsZero(data[at:end]) {
			zeros = 0
		} else if zeros++; zeros == run {
			return end
		}
	}
	return len(data)
}

// Zeros returns the length in bytes of the zero blocks at the start of data, 0 when its first block is not zero.
// A short block at the end counts as a block.
func Zeros(data []byte) int {
	at := 0
	for at < len(data) {
		end := min(at+Block, len(data))
		if !IsZero(data[at:end]) {
			break
		}
		at = end
	}
	return at
}

// IsZero reports whether data is nothing but zero bytes.
func IsZero(data []byte) bool {
	for len(data) >= 32 {
		if binary.LittleEndian.Uint64(data)|binary.LittleEndian.Uint64(data[8:])|
			binary.LittleEndian.Uint64(data[16:])|binary.LittleEndian.Uint64(data[24:]) != 0 {
			return false
		}
		data = data[32:]
	}
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}
