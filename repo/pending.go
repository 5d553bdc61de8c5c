package repo

import "sync"

// pendingSet holds the ids of chunks that were saved but whose pack is not in the index yet.
type pendingSet struct {
	shards [64]struct {
		sync.Mutex
		ids map[ID]struct{}
	}
}

func (p *pendingSet) has(id ID) bool {
	s := &p.shards[id[0]%64]
	s.Lock()
	defer s.Unlock()
	_, found := s.ids[id]
	return found
}

// claim adds id and reports whether it was new: of several goroutines with the same chunk, one stores it.
func (p *pendingSet) claim(id ID) bool {
	s := &p.shards[id[0]%64]
	s.Lock()
	defer s.Unlock()
	if _, found := s.ids[id]; found {
		return false
	}
	if s.ids == nil {
		s.ids = map[ID]struct{}{}
	}
	s.ids[id] = struct{}{}
	return true
}

func (p *pendingSet) drop(id ID) {
	s := &p.shards[id[0]%64]
	s.Lock()
	defer s.Unlock()
	delete(s.ids, id)
}
