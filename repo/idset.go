package repo

import (
	"context"
	"encoding/binary"
)

// idSet holds ids by 63 bits of each, in about 12 bytes: enough for 20 million chunks in 300 MB. Ids are keyed hashes, so
// nobody can make two of them collide on purpose; two that do by chance (once in 10^5 repositories of that size) count as
// one, which only ever keeps garbage. Each id can be claimed once.
type idSet struct {
	slots   []uint64 // 0: empty; bit 0: claimed
	n       int
	claimed int
}

func fingerprint(id ID) uint64 {
	fp := binary.LittleEndian.Uint64(id[:]) &^ 1
	if fp == 0 {
		return 2
	}
	return fp
}

// slot returns where fp is or would be.
func (s *idSet) slot(fp uint64) int {
	mask := len(s.slots) - 1
	at := int(fp>>1) & mask
	for s.slots[at] != 0 && s.slots[at]&^1 != fp {
		at = (at + 1) & mask
	}
	return at
}

// expect makes room for n ids at once: while a set grows it is there twice.
func (s *idSet) expect(n int64) {
	size := 1024
	for int64(size)*3 < n*4 {
		size *= 2
	}
	if size > len(s.slots) {
		s.resize(size)
	}
}

// resize makes the number of slots a power of two that is large enough.
func (s *idSet) resize(slots int) {
	old := s.slots
	s.slots = make([]uint64, slots)
	for _, v := range old {
		if v != 0 {
			s.slots[s.slot(v&^1)] = v
		}
	}
}

// add reports whether id was not there before.
func (s *idSet) add(id ID) bool {
	if s.n*4 >= len(s.slots)*3 {
		s.resize(max(1024, 2*len(s.slots)))
	}
	fp := fingerprint(id)
	at := s.slot(fp)
	if s.slots[at] != 0 {
		return false
	}
	s.slots[at] = fp
	s.n++
	return true
}

func (s *idSet) has(id ID) bool {
	return len(s.slots) > 0 && s.slots[s.slot(fingerprint(id))] != 0
}

// claim reports whether id is there and was not claimed before.
func (s *idSet) claim(id ID) bool {
	if len(s.slots) == 0 {
		return false
	}
	at := s.slot(fingerprint(id))
	if s.slots[at] == 0 || s.slots[at]&1 != 0 {
		return false
	}
	s.slots[at] |= 1
	s.claimed++
	return true
}

// unclaimed returns how many ids nobody has claimed.
func (s *idSet) unclaimed() int { return s.n - s.claimed }

// unclaimAll takes all claims back.
func (s *idSet) unclaimAll() {
	for i := range s.slots {
		s.slots[i] &^= 1
	}
	s.claimed = 0
}

// marked is everything in use.
type marked struct {
	live  idSet
	nodes map[ID]struct{} // of these, the tree nodes; exact: a node wrongly taken as seen would lose what is below it
}

// add adds what mark calls. It may be called again, and then costs no more than what is new.
func (m *marked) add(ctx context.Context, mark Marker) error {
	if m.nodes == nil {
		m.nodes = map[ID]struct{}{}
	}
	return mark(ctx, func(id ID) (first bool) {
		if _, seen := m.nodes[id]; seen {
			return false
		}
		m.nodes[id] = struct{}{}
		m.live.add(id)
		return true
	}, func(id ID) { m.live.add(id) })
}
