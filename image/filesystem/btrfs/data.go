package btrfs

import (
	"bytes"
	"cmp"
	"math"

	"varve/image/filesystem"
)

// The objects of all checksums of data are the same, -10. Under each address there are those of some sectors in a row.
const checksumObject = math.MaxUint64 - 9

// readData fills p with what lies at an address, in one chunk. When it has sums, each sector that has a checksum is compared with it, and
// read from the other copy where it is wrong.
func (v *volume) readData(p []byte, logical uint64, sums bool) error {
	sector := uint64(v.super.sectorSize)
	from := logical &^ (sector - 1)
	end := (logical + uint64(len(p)) + sector - 1) &^ (sector - 1)
	places, err := v.chunks.places(from, end-from)
	if err != nil {
		return err
	}
	buf := p
	if uint64(len(p)) != end-from {
		buf = make([]byte, end-from)
	}
	table := make([][]byte, (end-from)/sector) // nil for a sector without checksum
	if sums {
		if err := v.sums(table, from); err != nil {
			return err
		}
	}
	whole := readFull(v.r, buf, places[0])
	for i, sum := range table {
		at := uint64(i) * sector
		b := buf[at : at+sector]
		if whole == nil && v.agrees(sum, b) {
			continue
		}
		if err := v.readSector(b, sum, from+at, places, int64(at)); err != nil {
			return err
		}
	}
	if len(buf) != len(p) {
		copy(p, buf[logical-from:])
	}
	return nil
}

// readSector reads one sector from the first copy in which it is right. It lies at an offset from places.
func (v *volume) readSector(b, sum []byte, logical uint64, places []int64, offset int64) error {
	var first error
	for _, place := range places {
		err := readFull(v.r, b, place+offset)
		if err == nil && !v.agrees(sum, b) {
			err = filesystem.Corrupt("the checksum of the data at address %d is wrong", logical)
		}
		if err == nil {
			return nil
		}
		first = cmp.Or(first, err)
	}
	return first
}

// agrees tells whether b has a checksum, or there is none.
func (v *volume) agrees(sum, b []byte) bool {
	return sum == nil || bytes.Equal(sum, v.super.checksum.sum(b))
}

// sums finds the checksums of the sectors from an address on.
func (v *volume) sums(table [][]byte, from uint64) error {
	tree, err := v.tree(checksumTree)
	if err != nil {
		return err
	}
	start := key{checksumObject, checksumKind, from}
	before, ok, err := tree.last(key{checksumObject, checksumKind, 0}, start)
	if err != nil {
		return err
	}
	if ok {
		start = before.key
	}
	size, sector := uint64(v.super.checksum.size), uint64(v.super.sectorSize)
	end := from + uint64(len(table))*sector
	for item, err := range tree.items(start, key{checksumObject, checksumKind, end - 1}) {
		if err != nil {
			return err
		}
		at, n := item.key.offset, uint64(len(item.data))/size
		if at%sector != 0 || n > (math.MaxUint64-at)/sector {
			return filesystem.Corrupt("the checksums %v of %d sectors", item.key, n)
		}
		for a := max(at, from); a < min(end, at+n*sector); a += sector {
			i := (a - at) / sector * size
			table[(a-from)/sector] = item.data[i : i+size]
		}
	}
	return nil
}
