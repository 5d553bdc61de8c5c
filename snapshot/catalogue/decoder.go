package catalogue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// decoder takes values off the front of data; after the first failure data is empty and all values are zero.
type decoder struct {
	data []byte
	err  error
}

var errShort = errors.New("it ends in the middle of a value")

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.data = nil
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// bytes returns the next n bytes, without a copy, or nil.
func (d *decoder) bytes(n int) []byte {
	if len(d.data) < n {
		d.fail(errShort)
		return nil
	}
	b := d.data[:n]
	d.data = d.data[n:]
	return b
}

// number64 takes a varint that is at most limit.
func (d *decoder) number64(limit uint64) uint64 {
	v, n := binary.Uvarint(d.data)
	switch {
	case n <= 0:
		d.fail(errShort)
		return 0
	case n > 1 && d.data[n-1] == 0:
		d.fail(errors.New("a number is not in its shortest form"))
		return 0
	case v > limit:
		d.fail(fmt.Errorf("a number of %d is more than %d", v, limit))
		return 0
	}
	d.data = d.data[n:]
	return v
}

// delta takes a difference in zigzag form that is at most limit in that form.
func (d *decoder) delta(limit uint64) int64 {
	v := d.number64(limit)
	return int64(v>>1) ^ -int64(v&1)
}

// owner takes the difference of a user or group to the one before.
func (d *decoder) owner(before uint32) uint32 {
	v := int64(before) + d.delta(1<<34)
	if v < 0 || v > math.MaxUint32 {
		d.fail(fmt.Errorf("there is no owner %d", v))
		return 0
	}
	return uint32(v)
}

// time takes a time, whose seconds are a difference to before and replace it.
func (d *decoder) time(before *int64) time.Time {
	s := *before + d.delta(1<<42)
	nanos := d.number64(999_999_999)
	if s < firstSecond || s > lastSecond || s == firstSecond && nanos == 0 {
		d.fail(fmt.Errorf("a time of %d seconds is not in the years 1 to 9999", s))
		return time.Time{}
	}
	*before = s
	return time.Unix(s, int64(nanos)).UTC()
}

// takeName takes a name and puts it into name, which holds the one before. It has to be greater.
func (d *decoder) takeName(name *[]byte) {
	before := *name
	shared := int(d.number64(uint64(len(before))))
	rest := d.bytes(int(d.number64(maxName)))
	if len(rest) == 0 || shared+len(rest) > maxName {
		d.fail(errors.New("a name is empty or too long"))
		return
	}
	if shared < len(before) && rest[0] <= before[shared] {
		d.fail(errors.New("names are not in order, or share more than it says"))
		return
	}
	*name = append(before[:shared], rest...)
	for _, b := range rest {
		if b == '/' || b == 0 {
			d.fail(errors.New("a name has a slash or a zero byte in it"))
		}
	}
	if n := *name; n[0] == '.' && (len(n) == 1 || len(n) == 2 && n[1] == '.') {
		d.fail(errors.New("a name means this folder or the one above"))
	}
}
