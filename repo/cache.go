package repo

import (
	"container/list"
	"sync"
)

// cache keeps what was fetched, up to a number of bytes, the least recently used going first. Of several goroutines that ask for one
// thing, one fetches it. What could not be fetched is not kept.
type cache[K comparable, V any] struct {
	mu      sync.Mutex
	limit   int
	size    func(V) int // bytes
	bytes   int
	entries map[K]*list.Element
	recent  *list.List // of *cached, most recent first
}

type cached[K comparable, V any] struct {
	key     K
	size    int  // counted in cache.bytes; 0 until fetched
	fetched bool // without an error; guarded by cache.mu, as value is for kept
	once    sync.Once
	value   V
	err     error
}

func newCache[K comparable, V any](limit int, size func(V) int) *cache[K, V] {
	return &cache[K, V]{limit: limit, size: size, entries: map[K]*list.Element{}, recent: list.New()}
}

// get returns what fetch has returned for key, now or before.
func (c *cache[K, V]) get(key K, fetch func() (V, error)) (V, error) {
	c.mu.Lock()
	e, found := c.entries[key]
	if found {
		c.recent.MoveToFront(e)
	} else {
		e = c.recent.PushFront(&cached[K, V]{key: key})
		c.entries[key] = e
	}
	c.mu.Unlock()
	f := e.Value.(*cached[K, V])
	f.once.Do(func() {
		value, err := fetch()
		c.mu.Lock()
		defer c.mu.Unlock()
		f.value, f.err, f.fetched = value, err, err == nil
		if c.entries[key] != e {
			return // dropped meanwhile
		}
		f.size = c.size(value)
		c.bytes += f.size
		for c.bytes > c.limit && c.recent.Len() > 1 {
			c.remove(c.recent.Back())
		}
	})
	if f.err != nil {
		c.drop(key)
	}
	return f.value, f.err
}

// kept returns what was fetched for key, if it is still there.
func (c *cache[K, V]) kept(key K) (value V, found bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, found := c.entries[key]
	if !found {
		return value, false
	}
	c.recent.MoveToFront(e)
	f := e.Value.(*cached[K, V])
	return f.value, f.fetched
}

func (c *cache[K, V]) drop(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, found := c.entries[key]; found {
		c.remove(e)
	}
}

func (c *cache[K, V]) remove(e *list.Element) {
	f := e.Value.(*cached[K, V])
	c.recent.Remove(e)
	delete(c.entries, f.key)
	c.bytes -= f.size
}
