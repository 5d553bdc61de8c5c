package ntfs

import (
	"math"

	"varve/image/filesystem"
)

// Types of attributes.
const (
	typeStandard    = 0x10 // $STANDARD_INFORMATION
	typeList        = 0x20 // $ATTRIBUTE_LIST
	typeName        = 0x30 // $FILE_NAME
	typeVolumeName  = 0x60 // $VOLUME_NAME
	typeVolume      = 0x70 // $VOLUME_INFORMATION
	typeData        = 0x80 // $DATA
	typeIndexRoot   = 0x90 // $INDEX_ROOT
	typeIndexBlocks = 0xa0 // $INDEX_ALLOCATION
	typeBitmap      = 0xb0 // $BITMAP
	typeReparse     = 0xc0 // $REPARSE_POINT
	typeEA          = 0xe0 // $EA
	typeEnd         = math.MaxUint32
)

// Flags of a record.
const (
	recordInUse  = 1
	recordFolder = 2
)

// Flags of an attribute.
const (
	compressionMask = 0x00ff // 1: LZNT1
	flagEncrypted   = 0x4000
)

// record is a record of $MFT.
type record struct {
	number     uint64
	sequence   uint16
	flags      uint16
	base       uint64 // the file whose attributes it has, 0: its own
	attributes []attribute
}

// attribute is an attribute, or a piece of one whose runs did not fit into one record.
type attribute struct {
	kind  uint32
	name  string
	flags uint16

	// of one that is in the record
	record uint64
	at     int64 // where its value is in the record
	value  []byte

	// of one that is elsewhere
	elsewhere         bool
	first, last       int64  // clusters of the value that the piece is for
	pairs             []byte // the runs, as they are stored
	unit              int64  // clusters that are compressed together; 0 or 1: not compressed
	size, initialized int64  // bytes; in the first piece only
}

// parseRecord parses the record with the given number, and changes b, of which the result keeps parts.
func parseRecord(b []byte, number uint64) (*record, error) {
	if err := fixUp(b, "FILE"); err != nil {
		return nil, err
	}
	r := &record{number: number, sequence: le.Uint16(b[16:]), flags: le.Uint16(b[22:]), base: le.Uint64(b[32:])}
	at, used := int64(le.Uint16(b[20:])), int64(le.Uint32(b[24:]))
	if used > int64(len(b)) || at < 42 || at%8 != 0 || at > used {
		return nil, filesystem.Corrupt("attributes from %d to %d in %d bytes", at, used, len(b))
	}
	// Records of version 3.1 say which one they are, in front of their fixups.
	if le.Uint16(b[4:]) >= 48 && le.Uint32(b[44:]) != uint32(number) {
		return nil, filesystem.Corrupt("it says that it is record %d", le.Uint32(b[44:]))
	}
	for {
		if at+4 > used {
			return nil, filesystem.Corrupt("its attributes have no end")
		}
		if le.Uint32(b[at:]) == typeEnd {
			return r, nil
		}
		if at+24 > used {
			return nil, filesystem.Corrupt("an attribute at %d goes beyond the %d bytes that are used", at, used)
		}
		length := int64(le.Uint32(b[at+4:]))
		if length < 24 || length%8 != 0 || length > used-at {
			return nil, filesystem.Corrupt("an attribute at %d of %d bytes goes beyond the %d that are used", at, length, used)
		}
		a, err := parseAttribute(b[at : at+length])
		if err != nil {
			return nil, err
		}
		a.record = number
		a.at += at
		r.attributes = append(r.attributes, a)
		at += length
	}
}

// parseAttribute parses an attribute, which has 24 bytes at least. The result keeps parts of b.
func parseAttribute(b []byte) (attribute, error) {
	a := attribute{kind: le.Uint32(b), elsewhere: b[8] != 0, flags: le.Uint16(b[12:])}
	nameAt, nameEnd := int(le.Uint16(b[10:])), int(le.Uint16(b[10:]))+2*int(b[9])
	if b[9] > 0 {
		if nameEnd > len(b) {
			return a, filesystem.Corrupt("the name of attribute %#x goes beyond its %d bytes", a.kind, len(b))
		}
		a.name = text(b[nameAt:nameEnd])
	}
	if !a.elsewhere {
		a.at = int64(le.Uint16(b[20:]))
		end := a.at + int64(le.Uint32(b[16:]))
		if a.at < 24 || end > int64(len(b)) {
			return a, filesystem.Corrupt("the value of attribute %#x goes from %d to %d of its %d bytes", a.kind, a.at, end, len(b))
		}
		a.value = b[a.at:end]
		return a, nil
	}
	if len(b) < 64 {
		return a, filesystem.Corrupt("attribute %#x has only %d bytes", a.kind, len(b))
	}
	a.first, a.last = int64(le.Uint64(b[16:])), int64(le.Uint64(b[24:]))
	a.size, a.initialized = int64(le.Uint64(b[48:])), int64(le.Uint64(b[56:]))
	if a.first < 0 || a.last < a.first-1 || a.last >= math.MaxInt64/maxCluster {
		return a, filesystem.Corrupt("attribute %#x has the clusters from %d to %d", a.kind, a.first, a.last)
	}
	if a.first == 0 && (a.initialized < 0 || a.initialized > a.size) {
		return a, filesystem.Corrupt("attribute %#x has %d bytes, of which %d are written", a.kind, a.size, a.initialized)
	}
	pairs := int(le.Uint16(b[32:]))
	if pairs < 64 || pairs > len(b) {
		return a, filesystem.Corrupt("the runs of attribute %#x begin at %d of its %d bytes", a.kind, pairs, len(b))
	}
	a.pairs = b[pairs:]
	if b[34] > 16 {
		return a, filesystem.Corrupt("attribute %#x has compression units of 2^%d clusters", a.kind, b[34])
	}
	a.unit = 1 << b[34]
	return a, nil
}

// A run is some clusters of a value that lie together.
type run struct {
	vcn, lcn int64 // first cluster in the value, and on the partition; -1: a hole
	length   int64 // clusters
}

func (r run) end() int64 { return r.vcn + r.length }

const hole = -1

// parseRuns parses runs that are for the clusters of a value from first to last, of a partition of so many clusters.
func parseRuns(b []byte, first, last, clusters int64) ([]run, error) {
	var list []run
	vcn, lcn := first, int64(0)
	for len(b) > 0 && b[0] != 0 {
		lengthSize, distanceSize := int(b[0]&15), int(b[0]>>4)
		if lengthSize == 0 || lengthSize > 8 || distanceSize > 8 || 1+lengthSize+distanceSize > len(b) {
			return nil, filesystem.Corrupt("a run has the size %#x", b[0])
		}
		length, distance := signed(b[1:1+lengthSize]), signed(b[1+lengthSize:1+lengthSize+distanceSize])
		b = b[1+lengthSize+distanceSize:]
		if length <= 0 || length > last+1-vcn {
			return nil, filesystem.Corrupt("a run of %d clusters at %d of %d", length, vcn, last+1)
		}
		r := run{vcn, hole, length}
		if distanceSize > 0 {
			if length > clusters || distance < -lcn || distance > clusters-length-lcn {
				return nil, filesystem.Corrupt("a run of %d clusters, %d after cluster %d of %d", length, distance, lcn, clusters)
			}
			lcn += distance
			r.lcn = lcn
		}
		list = append(list, r)
		vcn += length
	}
	if vcn != last+1 {
		return nil, filesystem.Corrupt("the runs end at cluster %d of %d", vcn, last+1)
	}
	return list, nil
}

// signed is a number of 0 to 8 bytes.
func signed(b []byte) int64 {
	if len(b) == 0 {
		return 0
	}
	n := int64(int8(b[len(b)-1]))
	for i := len(b) - 2; i >= 0; i-- {
		n = n<<8 | int64(b[i])
	}
	return n
}

// text turns UTF-16 into UTF-8. NTFS allows any numbers in names; halves of pairs become three bytes each, as with ntfs-3g, so that
// names which differ stay different.
func text(b []byte) string {
	s := make([]byte, 0, len(b))
	for i := 0; i+1 < len(b); i += 2 {
		c := rune(le.Uint16(b[i:]))
		if c&0xfc00 == 0xd800 && i+3 < len(b) {
			if d := rune(le.Uint16(b[i+2:])); d&0xfc00 == 0xdc00 {
				c = 0x10000 + (c&0x3ff)<<10 + d&0x3ff
				i += 2
			}
		}
		switch {
		case c < 0x80:
			s = append(s, byte(c))
		case c < 0x800:
			s = append(s, byte(0xc0|c>>6), byte(0x80|c&0x3f))
		case c < 0x10000:
			s = append(s, byte(0xe0|c>>12), byte(0x80|c>>6&0x3f), byte(0x80|c&0x3f))
		default:
			s = append(s, byte(0xf0|c>>18), byte(0x80|c>>12&0x3f), byte(0x80|c>>6&0x3f), byte(0x80|c&0x3f))
		}
	}
	return string(s)
}
