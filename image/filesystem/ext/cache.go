package ext

import "sync/atomic"

// cacheBytes is how much of a filesystem's structures is kept in memory.
const cacheBytes = 4 << 20

// cache keeps blocks of structures: those of the inode table and the upper ones of maps are read again and again. A block has one
// slot where it can be; who comes later takes it over. It may be used by many goroutines at once.
type cache []atomic.Pointer[cached]

type cached struct {
	number int64
	data   []byte
}

func newCache(blockSize int64) cache { return make(cache, cacheBytes/blockSize) }

func (c cache) get(n int64) []byte {
	if b := c[n%int64(len(c))].Load(); b != nil && b.number == n {
		return b.data
	}
	return nil
}

func (c cache) put(n int64, data []byte) { c[n%int64(len(c))].Store(&cached{n, data}) }
