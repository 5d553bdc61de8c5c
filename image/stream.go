package image

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// Stream returns a source that reads r once, from start to end. Its size is not known. Each ReadAt waits until all bytes
// before its offset were read by others, and then reads len(p) bytes, or up to the end; the offsets of all calls together
// must therefore cover the stream without a gap.
func Stream(r io.Reader, name string) Source {
	s := &stream{r: r, name: name}
	s.turn = sync.NewCond(&s.mu)
	return s
}

type stream struct {
	name string

	mu   sync.Mutex
	turn *sync.Cond // position or err changed
	r    io.Reader
	at   int64
	err  error // the end, or what ended the stream

}

func (s *stream) Info() Info {
	return Info{Name: s.name, Path: s.name, Type: "stream", Size: -1}
}

func (s *stream) Map(offset, length int64) ([]Extent, error) {
	return []Extent{{offset, length, Data}}, nil
}

var errClosed = errors.New("the stream was closed")

func (s *stream) ReadAt(p []byte, offset int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.at < offset && s.err == nil {
		s.turn.Wait()
	}
	if s.err != nil {
		return 0, s.err
	}
	if s.at > offset {
		return 0, fmt.Errorf("reading %s at %d: the stream has passed to %d", s.name, offset, s.at)
	}
	n, err := io.ReadFull(s.r, p)
	s.at += int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	s.err = err
	s.turn.Broadcast()
	return n, err
}

// Close releases those who wait. It does not close the reader.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = errClosed
	}
	s.turn.Broadcast()
	return nil
}
