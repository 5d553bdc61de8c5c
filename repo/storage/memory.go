package storage

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
)

// Memory keeps objects in memory, for tests.
type Memory struct {
	mu      sync.RWMutex
	objects map[string][]byte
}

// NewMemory returns an empty storage.
func NewMemory() *Memory { return &Memory{objects: map[string][]byte{}} }

// Location implements Storage.
func (m *Memory) Location() string { return "memory" }

// Near implements Storage.
func (m *Memory) Near() bool { return true }

// Put implements Storage.
func (m *Memory) Put(ctx context.Context, name string, data []byte) error {
	return m.put(ctx, name, data, true)
}

// PutNew implements Storage.
func (m *Memory) PutNew(ctx context.Context, name string, data []byte) error {
	return m.put(ctx, name, data, false)
}

func (m *Memory) put(ctx context.Context, name string, data []byte, replace bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, found := m.objects[name]; found && !replace {
		return fmt.Errorf("writing %s: %w", name, ErrExist)
	}
	m.objects[name] = bytes.Clone(data)
	return nil
}

// Get implements Storage.
func (m *Memory) Get(ctx context.Context, name string, offset, length int64, buf []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	data, found := m.objects[name]
	if !found {
		return nil, fmt.Errorf("reading %s: %w", name, ErrNotExist)
	}
	length, err := span(int64(len(data)), offset, length)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return append(buf[:0], data[offset:offset+length]...), nil
}

// List implements Storage.
func (m *Memory) List(ctx context.Context, prefix string, f func(name string, size int64) error) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	type object struct {
		name string
		size int64
	}
	var found []object
	m.mu.RLock()
	for name, data := range m.objects {
		if strings.HasPrefix(name, prefix) {
			found = append(found, object{name, int64(len(data))})
		}
	}
	m.mu.RUnlock()
	for _, o := range found {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f(o.name, o.size); err != nil {
			return err
		}
	}
	return nil
}

// Delete implements Storage.
func (m *Memory) Delete(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, found := m.objects[name]; !found {
		return fmt.Errorf("deleting %s: %w", name, ErrNotExist)
	}
	delete(m.objects, name)
	return nil
}
