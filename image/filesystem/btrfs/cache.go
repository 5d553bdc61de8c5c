package btrfs

import (
	"container/list"
	"sync"
)

// A cache holds the values that were used last. Its methods may be called at the same time.
type cache[K comparable, V any] struct {
	mu    sync.Mutex
	limit int // values
	order list.List
	at    map[K]*list.Element
}

type cached[K comparable, V any] struct {
	key   K
	value V
}

func newCache[K comparable, V any](limit int) *cache[K, V] {
	return &cache[K, V]{limit: limit, at: map[K]*list.Element{}}
}

func (c *cache[K, V]) get(key K) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.at[key]
	if !ok {
		return value, false
	}
	c.order.MoveToFront(e)
	return e.Value.(cached[K, V]).value, true
}

func (c *cache[K, V]) put(key K, value V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.at[key]; ok {
		c.order.Remove(e)
	}
	c.at[key] = c.order.PushFront(cached[K, V]{key, value})
	if c.order.Len() > c.limit {
		delete(c.at, c.order.Remove(c.order.Back()).(cached[K, V]).key)
	}
}
