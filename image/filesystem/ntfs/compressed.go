package ntfs

import (
	"sync"

	"varve/image/filesystem"
)

// maxUnit is how many bytes are compressed together at most: Windows has 64 KiB at most.
const maxUnit = 1 << 20

// compressed is a stream that is compressed in units of so many clusters. What is in front of the first hole in a unit is the
// unit: as it is when there is no hole, LZNT1 otherwise.
type compressed struct {
	*stream

	mu    sync.Mutex
	unit0 int64  // first cluster of the unit that was read last
	data  []byte // of it; nil: none was
}

func (c *compressed) ReadAt(p []byte, off int64) (int, error) { return c.readAt(p, off, c.read) }

// read fills p with the content at off.
func (c *compressed) read(p []byte, off int64) error {
	cluster := c.f.boot.cluster
	for len(p) > 0 {
		part, err := c.part(off / (c.unit * cluster) * c.unit)
		if err != nil {
			return err
		}
		n := min(int64(len(p)), (part.vcn+part.length)*cluster-off)
		switch part.kind {
		case filesystem.Hole:
			clear(p[:n])
		case filesystem.Plain:
			err = c.readPlain(p[:n], off)
		case filesystem.Encoded:
			err = c.decode(p[:n], off-part.vcn*cluster, part)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// A part is one unit or more of them that are stored in the same way.
type part struct {
	kind        filesystem.ExtentKind
	vcn, length int64 // clusters of the content
	runs        []run // of an encoded one: where it is
}

// part returns what begins with the unit at vcn, as much of it as one run has.
func (c *compressed) part(vcn int64) (part, error) {
	i := c.find(vcn)
	if i == len(c.runs) {
		return part{}, filesystem.Corrupt("there is no cluster %d of %d", vcn, c.clusters)
	}
	if units := (c.runs[i].end() - vcn) / c.unit; units > 0 {
		if c.runs[i].lcn == hole {
			return part{kind: filesystem.Hole, vcn: vcn, length: units * c.unit}, nil
		}
		return part{kind: filesystem.Plain, vcn: vcn, length: units * c.unit}, nil
	}
	// What a last unit lacks to a whole one is a hole.
	p := part{kind: filesystem.Plain, vcn: vcn, length: c.unit}
	end := vcn + c.unit
	for at := vcn; at < end; i++ {
		if i == len(c.runs) || c.runs[i].lcn == hole {
			p.kind = filesystem.Encoded
			at = end
			if i < len(c.runs) {
				at = c.runs[i].end()
			}
			continue
		}
		if p.kind == filesystem.Encoded {
			return part{}, filesystem.Corrupt("the unit at cluster %d has something behind a hole", vcn)
		}
		r := c.runs[i]
		n := min(end, r.end()) - at
		p.runs = append(p.runs, run{at, r.lcn + at - r.vcn, n})
		at += n
	}
	if len(p.runs) == 0 {
		p.kind = filesystem.Hole
	}
	return p, nil
}

// decode fills p with what is at off in an encoded unit.
func (c *compressed) decode(p []byte, off int64, unit part) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.data == nil || c.unit0 != unit.vcn {
		cluster := c.f.boot.cluster
		stored := make([]byte, 0, c.unit*cluster)
		for _, r := range unit.runs {
			piece := stored[len(stored) : int64(len(stored))+r.length*cluster]
			if err := c.f.read(piece, r.lcn*cluster); err != nil {
				return err
			}
			stored = stored[:len(stored)+len(piece)]
		}
		data := c.data
		if c.data = nil; data == nil {
			data = make([]byte, c.unit*cluster)
		}
		if err := decompress(data, stored); err != nil {
			return err
		}
		c.unit0, c.data = unit.vcn, data
	}
	copy(p, c.data[off:])
	return nil
}

// Extents tells where the bytes are. Of a unit that lies in several pieces, each but the last stands for as many bytes of the
// content as it has.
func (c *compressed) Extents() ([]filesystem.Extent, error) {
	var list []filesystem.Extent
	cluster, end := c.f.boot.cluster, c.roundedSize()
	for off := int64(0); off < end; {
		p, err := c.part(off / cluster)
		if err != nil {
			return nil, err
		}
		partEnd := min(end, (p.vcn+p.length)*cluster)
		switch p.kind {
		case filesystem.Hole:
			list = join(list, filesystem.Extent{Kind: filesystem.Hole, Offset: off, Length: partEnd - off})
		case filesystem.Plain:
			places, err := c.places(off, partEnd)
			if err != nil {
				return nil, err
			}
			for _, e := range places {
				list = join(list, e)
			}
		case filesystem.Encoded:
			for i, r := range p.runs {
				e := filesystem.Extent{Kind: filesystem.Encoded, Offset: off, Length: r.length * cluster, Disk: r.lcn * cluster, Stored: r.length * cluster}
				if left := partEnd - off; i == len(p.runs)-1 || e.Length > left {
					e.Length = left
				}
				if e.Length > 0 {
					list = join(list, e)
				}
				off += e.Length
			}
		}
		off = partEnd
	}
	return c.written(list), nil
}

// decompress fills dst with what src has by LZNT1 ([MS-XCA] 2.5), and zeros where that ends before.
//
//	chunk   header 2: bytes, less one, 12 bits; 3, 3 bits; compressed 1 bit. Then 4096 bytes, or less that become so many
//	        in groups of a byte, whose bits tell which of the next 8 are bytes (0), and which two bytes that mean:
//	        length, less 3, in the lower bits; distance, less one, in as many of the upper ones as its place in the chunk needs
func decompress(dst, src []byte) error {
	const chunk = 4096
	for len(dst) > 0 && len(src) >= 2 && le.Uint16(src) != 0 {
		header := le.Uint16(src)
		if header&0x7000 != 0x3000 {
			return filesystem.Corrupt("a compressed chunk begins with %#x", header)
		}
		size := int(header&0xfff) + 1
		if size > len(src)-2 {
			return filesystem.Corrupt("a compressed chunk of %d bytes has %d", size, len(src)-2)
		}
		from, to := src[2:2+size], dst[:min(chunk, len(dst))]
		src, dst = src[2+size:], dst[len(to):]
		n := 0
		if header&0x8000 == 0 {
			n = copy(to, from)
		} else {
			var err error
			if n, err = decompressChunk(to, from); err != nil {
				return err
			}
		}
		clear(to[n:])
	}
	clear(dst)
	return nil
}

// decompressChunk returns how much of dst it fills with what src has.
func decompressChunk(dst, src []byte) (int, error) {
	n := 0
	for len(src) > 0 {
		group := src[0]
		src = src[1:]
		for bit := 0; bit < 8 && len(src) > 0; bit++ {
			if group>>bit&1 == 0 {
				if n == len(dst) {
					return n, filesystem.Corrupt("a compressed chunk has more than %d bytes", n)
				}
				dst[n] = src[0]
				n++
				src = src[1:]
				continue
			}
			if len(src) < 2 {
				return n, filesystem.Corrupt("a compressed chunk ends within two bytes")
			}
			lengthBits := 12
			for n-1 >= 1<<(16-lengthBits) {
				lengthBits--
			}
			token := int(le.Uint16(src))
			src = src[2:]
			length, distance := token&(1<<lengthBits-1)+3, token>>lengthBits+1
			if distance > n || length > len(dst)-n {
				return n, filesystem.Corrupt("a compressed chunk repeats %d bytes from %d before byte %d", length, distance, n)
			}
			for range length { // byte by byte: it may repeat what it has just written
				dst[n] = dst[n-distance]
				n++
			}
		}
	}
	return n, nil
}
