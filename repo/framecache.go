package repo

import (
	"container/list"
	"sync"
)

// frameKey is where a frame lies.
type frameKey struct {
	pack   ID
	offset uint32
}

// frameCache keeps decoded frames, up to a number of bytes, the least recently used going first. Of several goroutines
// that ask for one frame, one fetches it.
type frameCache struct {
	mu      sync.Mutex
	limit   int
	bytes   int
	entries map[frameKey]*list.Element
	recent  *list.List // of *cachedFrame, most recent first
}

type cachedFrame struct {
	key  frameKey
	size int // counted in frameCache.bytes; 0 until fetched
	once sync.Once
	data []byte
	err  error
}

func newFrameCache(limit int) *frameCache {
	return &frameCache{limit: limit, entries: map[frameKey]*list.Element{}, recent: list.New()}
}

func (c *frameCache) get(key frameKey, fetch func() ([]byte, error)) ([]byte, error) {
	c.mu.Lock()
	e, found := c.entries[key]
	if found {
		c.recent.MoveToFront(e)
	} else {
		e = c.recent.PushFront(&cachedFrame{key: key})
		c.entries[key] = e
	}
	c.mu.Unlock()
	f := e.Value.(*cachedFrame)
	f.once.Do(func() {
		f.data, f.err = fetch()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.entries[key] != e {
			return // dropped meanwhile
		}
		f.size = len(f.data)
		c.bytes += f.size
		for c.bytes > c.limit && c.recent.Len() > 1 {
			c.remove(c.recent.Back())
		}
	})
	if f.err != nil {
		c.drop(key)
	}
	return f.data, f.err
}

func (c *frameCache) drop(key frameKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, found := c.entries[key]; found {
		c.remove(e)
	}
}

func (c *frameCache) remove(e *list.Element) {
	f := e.Value.(*cachedFrame)
	c.recent.Remove(e)
	delete(c.entries, f.key)
	c.bytes -= f.size
}
