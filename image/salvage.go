package image

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// Bad is a run of bytes that could not be read.
type Bad struct {
	Offset, Length int64
	Err            string
}

// maxUnreadable is how many bytes in a row may fail before the disk as a whole is taken as dead.
const maxUnreadable = 256 << 20

// pieces are the sizes in which a failed read is tried again, before single sectors.
var pieces = []int64{64 << 10, 4 << 10}

// Salvage makes a source of s that goes on where s cannot be read: a read that fails as a damaged medium does is tried
// again in smaller pieces, down to a sector. What stays unreadable reads as zeros and is reported by f, adjacent
// sectors as one, before ReadAt returns. What is read twice is reported twice. Calls of f do not overlap.
//
// What a source lacks at its end since it was opened is reported once, as a whole.
//
// These stay errors: a device that vanished, more than 256 MiB in a row that cannot be read, and all that has to do
// with the way to the disk instead of the disk. A stream cannot be read again, and is returned as it is.
func Salvage(s Source, f func(Bad)) Source {
	info := s.Info()
	if info.Size < 0 {
		return s
	}
	sector := int64(512)
	if info.SectorSize > 0 {
		sector = int64(info.SectorSize)
	}
	return &salvage{Source: s, report: f, size: info.Size, sector: sector, device: info.Type == "device", end: info.Size}
}

type salvage struct {
	Source
	size   int64
	sector int64
	device bool

	unreadable atomic.Int64 // bytes that failed since something could be read

	mu     sync.Mutex // of the calls of report
	report func(Bad)
	end    int64 // the source ends here; less than size when it became shorter
}

// Map tells what s tells. Where even that cannot be read, everything is Data.
func (s *salvage) Map(off, length int64) ([]Extent, error) {
	list, err := s.Source.Map(off, length)
	if err != nil && damaged(err) {
		return cover(nil, off, off+length, Data), nil
	}
	return list, err
}

func (s *salvage) ReadAt(p []byte, off int64) (int, error) {
	n, err := s.Source.ReadAt(p, off)
	if n == len(p) {
		s.good(n)
		return n, err
	}
	var last error
	if rest := s.size - off; rest < int64(len(p)) { // the end of the disk is one for the caller, too
		p, last = p[:max(0, rest)], io.EOF
	}
	if n < len(p) {
		r := reader{salvage: s, p: p, off: off, sizes: append(append([]int64{}, pieces...), s.sector)}
		err := r.failed(int64(n), int64(len(p)), err, 0)
		r.tell() // also what was bad before the error
		if err != nil {
			return n, err
		}
	}
	return len(p), last
}

// good notes that n bytes could be read.
func (s *salvage) good(n int) {
	if n > 0 && s.unreadable.Load() > 0 {
		s.unreadable.Store(0)
	}
}

// reader reads what it can of one range.
type reader struct {
	*salvage
	p     []byte
	off   int64
	sizes []int64 // of pieces, ever smaller
	bad   Bad     // not told yet
}

// failed deals with the bytes from to end of p, of which reading the first failed with err. They are read again in
// pieces of sizes[level]; without any smaller size they are bad.
func (r *reader) failed(from, end int64, err error, level int) error {
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return r.shorter(from, end)
	case !damaged(err):
		return err
	}
	for level < len(r.sizes) && r.sizes[level] >= end-from && r.sizes[level] > r.sector {
		level++ // that is what has failed
	}
	if level >= len(r.sizes) || end-from <= r.sector {
		return r.lost(from, end, err)
	}
	for size := r.sizes[level]; from < end; {
		next := min(end, from+size-(r.off+from)%size)
		n, err := r.Source.ReadAt(r.p[from:next], r.off+from)
		r.good(n)
		from += int64(n)
		if from < next {
			if err := r.failed(from, next, err, level+1); err != nil {
				return err
			}
			from = next
		}
	}
	return nil
}

// lost makes the bytes from to end of p zeros, and bad.
func (r *reader) lost(from, end int64, err error) error {
	clear(r.p[from:end])
	if r.unreadable.Add(end-from) > maxUnreadable {
		return fmt.Errorf("more than %d MiB in a row cannot be read, the disk seems to be gone: %w", maxUnreadable>>20, err)
	}
	text := cause(err)
	if r.bad.Length > 0 && r.bad.Offset+r.bad.Length == r.off+from && r.bad.Err == text {
		r.bad.Length += end - from
		return nil
	}
	r.tell()
	r.bad = Bad{Offset: r.off + from, Length: end - from, Err: text}
	return nil
}

// tell reports the run of bad bytes that has come to its end.
func (r *reader) tell() {
	if r.bad.Length > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.report(r.bad)
		r.bad = Bad{}
	}
}

// shorter deals with a source that has ended before the bytes from to end of p.
func (r *reader) shorter(from, end int64) error {
	if r.device {
		// A device that was pulled out has no bytes at all.
		if n, err := r.Source.ReadAt(make([]byte, r.sector), 0); n == 0 && err != nil && !damaged(err) {
			return fmt.Errorf("the device has vanished: reading its first sector: %v", err) // an io.EOF in it is not the caller's
		}
	}
	clear(r.p[from:end])
	r.mu.Lock()
	defer r.mu.Unlock()
	if at := r.off + from; at < r.salvage.end {
		r.report(Bad{Offset: at, Length: r.salvage.end - at, Err: "the disk became shorter while it was read"})
		r.salvage.end = at
	}
	return nil
}

// cause is the innermost text of an error, without the path that the caller knows.
func cause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
