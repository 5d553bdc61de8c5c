package ntfs

import (
	"fmt"
	"io"
	"sort"

	"varve/image/filesystem"
)

// content returns the value of an attribute, nil when the file has none of that type and name.
func (f *FS) content(x *file, kind uint32, name string) (filesystem.Content, error) {
	var s *stream
	for i := range x.attributes {
		a := &x.attributes[i]
		if a.kind != kind || a.name != name {
			continue
		}
		var err error
		switch {
		case s != nil:
			err = s.extend(a)
		case a.elsewhere:
			s, err = f.stream(a)
		default:
			return &resident{f, a}, nil
		}
		if err != nil {
			return nil, fmt.Errorf("attribute %#x of file %d: %w", kind, x.number&numberMask, err)
		}
	}
	if s == nil {
		return nil, nil
	}
	if err := s.complete(); err != nil {
		return nil, fmt.Errorf("attribute %#x of file %d: %w", kind, x.number&numberMask, err)
	}
	if s.unit > 1 {
		return &compressed{stream: s}, nil
	}
	return s, nil
}

// value returns the bytes of an attribute, nil when the file has none of that type and name, an error when it has more than limit.
func (f *FS) value(x *file, kind uint32, name string, limit int64) ([]byte, error) {
	c, err := f.content(x, kind, name)
	if c == nil || err != nil {
		return nil, err
	}
	if c.Size() > limit {
		return nil, filesystem.Corrupt("attribute %#x of file %d has %d bytes", kind, x.number&numberMask, c.Size())
	}
	b := make([]byte, c.Size())
	if n, err := c.ReadAt(b, 0); n < len(b) {
		return nil, err
	}
	return b, nil
}

// resident is a value in a record.
type resident struct {
	f *FS
	a *attribute
}

func (c *resident) Size() int64 { return int64(len(c.a.value)) }

func (c *resident) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errNegative
	}
	if off > c.Size() {
		return 0, io.EOF
	}
	n := copy(p, c.a.value[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Extents tells where the record has the value. It is encoded by the fixups.
func (c *resident) Extents() ([]filesystem.Extent, error) {
	var list []filesystem.Extent
	record := int64(c.a.record) * c.f.boot.record
	places, err := c.f.mft.places(record+c.a.at, record+c.a.at+c.Size())
	for _, e := range places {
		e.Kind, e.Offset = filesystem.Encoded, e.Offset-record-c.a.at
		list = append(list, e)
	}
	return list, err
}

var errNegative = fmt.Errorf("reading at a negative offset")

// stream is a value that is elsewhere than in a record.
type stream struct {
	f                 *FS
	size, initialized int64 // bytes
	unit              int64 // clusters that are compressed together; 1: not compressed
	runs              []run
	clusters          int64 // that runs tell of
	refusal           error // why it cannot be read though its place is known
}

// stream begins a stream with its first piece.
func (f *FS) stream(a *attribute) (*stream, error) {
	s := &stream{f: f, size: a.size, initialized: a.initialized, unit: 1}
	switch method := a.flags & compressionMask; {
	case a.flags&flagEncrypted != 0:
		s.refusal = filesystem.Unsupported("it is encrypted by Windows (EFS)")
	case method == 1 && a.unit > 1:
		s.unit = a.unit
		if a.unit*f.boot.cluster > maxUnit {
			return nil, filesystem.Corrupt("%d bytes are compressed together", a.unit*f.boot.cluster)
		}
	case method > 1:
		s.refusal = filesystem.Unsupported("it is compressed by method %d", method)
	}
	return s, s.extend(a)
}

// extend adds a piece.
func (s *stream) extend(a *attribute) error {
	if !a.elsewhere || a.first != s.clusters {
		return filesystem.Corrupt("a piece begins with cluster %d, where %d is expected", a.first, s.clusters)
	}
	runs, err := parseRuns(a.pairs, a.first, a.last, s.f.boot.clusters)
	if err != nil {
		return err
	}
	s.runs = append(s.runs, runs...)
	s.clusters = a.last + 1
	return nil
}

// complete checks that no piece is missing.
func (s *stream) complete() error {
	if s.size > s.clusters*s.f.boot.cluster {
		return filesystem.Corrupt("it has %d bytes in %d clusters", s.size, s.clusters)
	}
	return nil
}

func (s *stream) Size() int64 { return s.size }

func (s *stream) ReadAt(p []byte, off int64) (int, error) { return s.readAt(p, off, s.readPlain) }

// readAt reads by read what has been written, and zeros from there to the end.
func (s *stream) readAt(p []byte, off int64, read func(p []byte, off int64) error) (int, error) {
	if off < 0 {
		return 0, errNegative
	}
	if off >= s.size {
		return 0, io.EOF
	}
	if s.refusal != nil {
		return 0, s.refusal
	}
	n := min(int64(len(p)), s.size-off)
	written := max(0, min(n, s.initialized-off))
	if err := read(p[:written], off); err != nil {
		return 0, err
	}
	clear(p[written:n])
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// readPlain fills p with what the runs have at off.
func (s *stream) readPlain(p []byte, off int64) error {
	cluster := s.f.boot.cluster
	for i := s.find(off / cluster); len(p) > 0; i++ {
		if i == len(s.runs) {
			return filesystem.Corrupt("there is no cluster %d of %d", off/cluster, s.clusters)
		}
		r := s.runs[i]
		n := min(int64(len(p)), r.end()*cluster-off)
		if r.lcn == hole {
			clear(p[:n])
		} else if err := s.f.read(p[:n], (r.lcn-r.vcn)*cluster+off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// find returns which run has a cluster of the value, len(s.runs) when none has.
func (s *stream) find(vcn int64) int {
	return sort.Search(len(s.runs), func(i int) bool { return s.runs[i].end() > vcn })
}

// Extents tells where the bytes are. What has not been written yet is a hole that has room.
func (s *stream) Extents() ([]filesystem.Extent, error) {
	list, err := s.places(0, s.roundedSize())
	if err != nil {
		return nil, err
	}
	if s.refusal == nil {
		return s.written(list), nil
	}
	for i := range list {
		if list[i].Kind == filesystem.Plain {
			list[i].Kind = filesystem.Encoded
		}
	}
	return list, nil
}

func (s *stream) roundedSize() int64 {
	return (s.size + s.f.boot.cluster - 1) / s.f.boot.cluster * s.f.boot.cluster
}

// places tells where the bytes from off to end are, as if all had been written and nothing were encoded.
func (s *stream) places(off, end int64) ([]filesystem.Extent, error) {
	var list []filesystem.Extent
	cluster := s.f.boot.cluster
	for i := s.find(off / cluster); off < end; i++ {
		if i == len(s.runs) {
			return nil, filesystem.Corrupt("there is no cluster %d of %d", off/cluster, s.clusters)
		}
		r := s.runs[i]
		n := min(end, r.end()*cluster) - off
		e := filesystem.Extent{Kind: filesystem.Hole, Offset: off, Length: n}
		if r.lcn != hole {
			e = filesystem.Extent{Kind: filesystem.Plain, Offset: off, Length: n, Disk: (r.lcn-r.vcn)*cluster + off, Stored: n}
		}
		list = join(list, e)
		off += n
	}
	return list, nil
}

// written turns what has not been written into holes.
func (s *stream) written(list []filesystem.Extent) []filesystem.Extent {
	if s.initialized >= s.size {
		return list
	}
	var cut []filesystem.Extent
	for _, e := range list {
		if n := s.initialized - e.Offset; e.Kind == filesystem.Plain && n < e.Length {
			if n > 0 {
				cut = join(cut, filesystem.Extent{Kind: filesystem.Plain, Offset: e.Offset, Length: n, Disk: e.Disk, Stored: n})
			}
			n = max(0, n)
			e = filesystem.Extent{Kind: filesystem.Hole, Offset: e.Offset + n, Length: e.Length - n, Disk: e.Disk + n, Stored: e.Length - n}
		}
		cut = join(cut, e)
	}
	return cut
}

// join appends an extent, as a part of the last one where it goes on in the file and on the partition.
func join(list []filesystem.Extent, e filesystem.Extent) []filesystem.Extent {
	if i := len(list) - 1; i >= 0 && list[i].Kind == e.Kind {
		last := &list[i]
		if last.Stored == 0 && e.Stored == 0 || last.Stored > 0 && e.Stored > 0 && last.Disk+last.Stored == e.Disk {
			last.Length += e.Length
			last.Stored += e.Stored
			return list
		}
	}
	return append(list, e)
}
