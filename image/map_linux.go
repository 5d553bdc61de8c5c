package image

import (
	"errors"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// mapper is Map of one file. Its zero value is ready, for many goroutines at once.
//
// The end of a run of data can only be asked for by walking all of it, extent by extent: in a disk of fragments that is
// much work, and Map is called for every segment. So the last long run is kept. That can make a newer hole look like
// data, never the other way round. Where holes end is asked for each time.
type mapper struct {
	run atomic.Pointer[Extent]
}

func (m *mapper) holes(f *os.File, off, length int64) ([]Extent, error) {
	var list []Extent
	end := off + length
	for at := off; at < end; {
		if run := m.run.Load(); run != nil && run.Offset <= at && at < run.Offset+run.Length {
			next := min(end, run.Offset+run.Length)
			list = cover(list, at, next, Data)
			at = next
			continue
		}
		data, err := f.Seek(at, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO):
			// A hole up to the end of the file. That may have come closer: what is gone is not a hole.
			st, err := f.Stat()
			if err != nil {
				return nil, err
			}
			hole := end
			if st.Size() < end {
				hole = max(at, st.Size()/Block*Block)
			}
			return cover(cover(list, at, hole, Sparse), hole, end, Data), nil
		case noHoles(err):
			return cover(list, at, end, Data), nil
		case err != nil:
			return nil, err
		case data >= end:
			return cover(list, at, end, Sparse), nil
		}
		start := max(at, data/Block*Block)
		list = cover(list, at, start, Sparse)
		next, err := f.Seek(max(at, data), unix.SEEK_HOLE)
		if err != nil || next > end-Block {
			// Also an error: the file became shorter just now, or has trouble that reading it will tell.
			if err == nil {
				m.run.Store(&Extent{Offset: start, Length: next/Block*Block - start, Kind: Data})
			}
			next = end
		} else {
			next = (max(next, data+1) + Block - 1) / Block * Block
		}
		list = cover(list, start, next, Data)
		at = next
	}
	return list, nil
}

// noHoles reports whether err says that a filesystem does not tell holes.
func noHoles(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}
