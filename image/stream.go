package image

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// maxEmptyReads is how often in a row a reader may return nothing and no error.
const maxEmptyReads = 100

// Stream makes a source of what r reads, from its beginning to io.EOF. Its size is not known (-1), all of it is Data.
//
// Each byte can be read once. ReadAt waits until everything before off was read by others, so that workers which take
// turns at the disk get the stream in order; it fails when off was passed already. It reads len(p) bytes, or up to the
// end with io.EOF, also when off lies behind it. A failed read of r is what all later calls return, too.
// Close lets go of callers that wait; it does not close r, nor interrupt a read of it.
func Stream(r io.Reader, name string) Source {
	s := &stream{r: r, name: name}
	s.turn.L = &s.mu
	return s
}

// errClosed is what those get who waited when the stream was closed.
var errClosed = errors.New("the stream was closed")

type stream struct {
	r    io.Reader
	name string

	mu   sync.Mutex
	turn sync.Cond // pos, busy or err changed
	pos  int64     // bytes read so far
	busy bool      // somebody reads at pos, without mu
	err  error     // io.EOF at the end
}

func (s *stream) Info() Info { return Info{Name: s.name, Path: s.name, Type: "stream", Size: -1} }

func (s *stream) Map(off, length int64) ([]Extent, error) {
	return cover(nil, off, off+length, Data), nil
}

func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = errClosed
	}
	s.turn.Broadcast()
	return nil
}

func (s *stream) ReadAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && (s.busy || s.pos < off) {
		s.turn.Wait()
	}
	if off < s.pos {
		return 0, fmt.Errorf("reading %s at %d: the stream was read up to %d already", s.name, off, s.pos)
	}
	if s.err != nil {
		return 0, s.err
	}
	s.busy = true
	s.mu.Unlock() // Close must not wait for a read that may never return
	n, err := readFull(s.r, p)
	s.mu.Lock()
	s.busy = false
	s.pos += int64(n)
	if s.err == nil {
		s.err = err
	}
	s.turn.Broadcast()
	return n, err
}

// readFull is io.ReadFull, except that the end is always io.EOF: io.ErrUnexpectedEOF is left to readers that mean it,
// such as one of a compressed stream that was cut off.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for empty := 0; n < len(p) && err == nil; {
		var k int
		k, err = r.Read(p[n:])
		n += k
		if k > 0 {
			empty = 0
		} else if empty++; empty == maxEmptyReads && err == nil {
			err = io.ErrNoProgress
		}
	}
	if n == len(p) && err != io.EOF {
		// What failed after the last byte that was asked for is met again by the next read.
		err = nil
	}
	return n, err
}
