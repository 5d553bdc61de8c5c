package image

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"syscall"
)

// Bad is a run of bytes of a disk that could not be read.
type Bad struct {
	Offset, Length int64
	Err            string // why
}

// maxBadRun is how many bytes in a row may be unreadable before the disk counts as gone.
const maxBadRun = 256 << 20

// Salvage returns a source that reads what can be read of src. A reading that fails is tried again in smaller pieces, down
// to a sector; what then still fails reads as zeros and is reported to f, from any goroutine, in no order. So is the end
// of a source that has become shorter than its Info says. A disk that went away, or that has more than 256 MiB of unreadable
// bytes in a row, remains an error.
func Salvage(src Source, f func(Bad)) Source {
	return &salvage{Source: src, report: f, runs: map[int64]int64{}}
}

type salvage struct {
	Source
	report func(Bad)

	mu   sync.Mutex
	runs map[int64]int64 // unreadable runs: end → start, so that one that goes on is found
}

func (s *salvage) ReadAt(p []byte, offset int64) (int, error) {
	n, err := s.Source.ReadAt(p, offset)
	if n == len(p) {
		return n, nil
	}
	if size := s.Info().Size; errors.Is(err, io.EOF) {
		missing := min(int64(len(p)), size-offset) - int64(n)
		if size < 0 || missing <= 0 {
			return n, err // the real end
		}
		clear(p[n : n+int(missing)])
		if err := s.bad(offset+int64(n), missing, errShrank); err != nil {
			return n, err
		}
		if n += int(missing); n == len(p) {
			return n, nil
		}
		return n, io.EOF
	}
	if err == nil || gone(err) {
		return n, err
	}
	return s.pieces(p, offset, err)
}

var errShrank = errors.New("the disk has become shorter")

// pieces reads p in two halves, each in its turn in halves where it fails.
func (s *salvage) pieces(p []byte, offset int64, err error) (int, error) {
	sector := max(512, s.Info().SectorSize)
	if len(p) <= sector {
		clear(p)
		if err := s.bad(offset, int64(len(p)), err); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	half := max(sector, len(p)/2/sector*sector)
	// Halves begin at sectors when p does.
	done := 0
	for _, part := range [][]byte{p[:half], p[half:]} {
		n, err := s.ReadAt(part, offset+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// bad reports an unreadable run, and fails when too much in a row is unreadable.
func (s *salvage) bad(offset, length int64, err error) error {
	s.mu.Lock()
	start, end := offset, offset+length
	if before, found := s.runs[offset]; found {
		delete(s.runs, offset)
		start = before
	}
	s.runs[end] = start
	s.mu.Unlock()
	if end-start > maxBadRun {
		return fmt.Errorf("more than %d MiB in a row cannot be read, up to %d: the disk seems to have gone: %w", maxBadRun>>20, end, err)
	}
	s.report(Bad{offset, length, err.Error()})
	return nil
}

// gone reports whether an error says that there is no disk any more.
func gone(err error) bool {
	for _, e := range []error{syscall.ENODEV, syscall.ENXIO, syscall.EBADF, fs.ErrClosed, fs.ErrNotExist, fs.ErrPermission, errClosed} {
		if errors.Is(err, e) {
			return true
		}
	}
	return goneHere(err)
}
