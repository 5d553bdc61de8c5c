package storagetest

import (
	"context"
	"fmt"
	"sync"
	"syscall"

	"varve/repo/storage"
)

// sectorSize is how many bytes a medium loses at once.
const sectorSize = 4096

// Sectors is a storage that stands before another one, as if on a disk of which some sectors cannot be read any more: a Get
// that touches one fails with EIO. Objects that are put anew are on other sectors.
type Sectors struct {
	storage.Storage

	mu   sync.Mutex
	lost map[string]map[int64]bool // by object: numbers of sectors
}

// NewSectors returns a storage that does what st does until Lose is called.
func NewSectors(st storage.Storage) *Sectors {
	return &Sectors{Storage: st, lost: map[string]map[int64]bool{}}
}

// Lose makes sectors of an object unreadable; 0 is its first one.
func (s *Sectors) Lose(name string, sectors ...int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost[name] == nil {
		s.lost[name] = map[int64]bool{}
	}
	for _, n := range sectors {
		s.lost[name][int64(n)] = true
	}
}

// Get implements storage.Storage.
func (s *Sectors) Get(ctx context.Context, name string, offset, length int64, buf []byte) ([]byte, error) {
	data, err := s.Storage.Get(ctx, name, offset, length, buf)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.lost[name] {
		if start := n * sectorSize; start < offset+int64(len(data)) && start+sectorSize > offset {
			clear(data) // buf may have been used
			return nil, fmt.Errorf("get %s: sector %d: %w", name, n, syscall.EIO)
		}
	}
	return data, nil
}

// Put implements storage.Storage.
func (s *Sectors) Put(ctx context.Context, name string, data []byte) error {
	s.found(name)
	return s.Storage.Put(ctx, name, data)
}

// PutNew implements storage.Storage.
func (s *Sectors) PutNew(ctx context.Context, name string, data []byte) error {
	err := s.Storage.PutNew(ctx, name, data)
	if err == nil {
		s.found(name)
	}
	return err
}

// found takes back what is lost of an object.
func (s *Sectors) found(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lost, name)
}
