package image

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

// TestStream: workers which take turns read the stream as it is, whatever pieces it comes in.
func TestStream(t *testing.T) {
	const piece = 1000
	for _, size := range []int{0, 1, 999, 1000, 1001, 250 * piece, 250*piece + 3} {
		data := noise(1, size)
		for name, r := range map[string]io.Reader{
			"whole":             bytes.NewReader(data),
			"halves":            iotest.HalfReader(bytes.NewReader(data)),
			"end with the data": iotest.DataErrReader(bytes.NewReader(data)),
		} {
			s := Stream(r, "stdin")
			if info := s.Info(); info.Size != -1 || info.Type != "stream" || info.Name != "stdin" {
				t.Errorf("%+v", info)
			}
			got := make([]byte, size+10*piece)
			var next, end atomic.Int64
			end.Store(-1)
			var workers sync.WaitGroup
			for range 8 {
				workers.Go(func() {
					for {
						off := (next.Add(1) - 1) * piece
						if off > int64(size)+2*piece {
							return
						}
						n, err := s.ReadAt(got[off:off+piece], off)
						if err == io.EOF && n > 0 {
							end.Store(off + int64(n))
						}
						if n < piece != (err == io.EOF) && !(n == piece && err == io.EOF) {
							t.Errorf("%s, %d bytes, at %d: read %d, %v", name, size, off, n, err)
						}
					}
				})
			}
			workers.Wait()
			if !bytes.Equal(got[:size], data) {
				t.Errorf("%s, %d bytes: read something else", name, size)
			}
			if size%piece != 0 && end.Load() != int64(size) {
				t.Errorf("%s, %d bytes: ends at %d", name, size, end.Load())
			}
			s.Close()
		}
	}
}

// TestStreamErrors: a stream that breaks off has not ended.
func TestStreamErrors(t *testing.T) {
	for _, broken := range []error{errors.New("broken pipe"), io.ErrUnexpectedEOF} {
		s := Stream(io.MultiReader(bytes.NewReader(noise(1, 1500)), iotest.ErrReader(broken)), "stdin")
		p := make([]byte, 1000)
		if n, err := s.ReadAt(p, 0); n != 1000 || err != nil {
			t.Fatal(n, err)
		}
		if n, err := s.ReadAt(p, 1000); n != 500 || !errors.Is(err, broken) || errors.Is(err, io.EOF) {
			t.Errorf("read %d, %v", n, err)
		}
		if n, err := s.ReadAt(p, 2000); n != 0 || !errors.Is(err, broken) {
			t.Errorf("behind it: read %d, %v", n, err)
		}
		if Salvage(s, nil) != s {
			t.Error("a stream cannot be read again, nor be salvaged")
		}
	}
	s := Stream(bytes.NewReader(noise(1, 1500)), "stdin")
	if _, err := s.ReadAt(make([]byte, 1000), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadAt(make([]byte, 10), 500); err == nil || err == io.EOF {
		t.Errorf("what was read before: %v", err)
	}
}

// TestStreamClose: those who wait are released, also while a read of the stream itself never returns.
func TestStreamClose(t *testing.T) {
	r, w := io.Pipe()
	s := Stream(r, "stdin")
	results := make(chan error, 2)
	go func() { _, err := s.ReadAt(make([]byte, 10), 1000); results <- err }()
	go func() { _, err := s.ReadAt(make([]byte, 10), 0); results <- err }()
	w.Write([]byte{1}) // returns when the second is within its read, and waits for more
	closed := make(chan struct{})
	go func() { s.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("Close waits for the reader")
	}
	select {
	case err := <-results:
		if err == nil || err == io.EOF {
			t.Errorf("released with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was released")
	}
	w.Close()
	<-results
}

type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

func TestStreamWithoutProgress(t *testing.T) {
	if _, err := Stream(idle{}, "stdin").ReadAt(make([]byte, 10), 0); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
}
