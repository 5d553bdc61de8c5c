package btrfs

import (
	"errors"
	"io"
)

var errLZO = errors.New("not LZO1X")

// lzo1x decompresses src to dst and returns how many bytes it had. The error is not nil when they do not fit, or when src is not all of
// a stream up to its end mark.
//
// A stream (Linux, Documentation/staging/lzo.rst) is instructions, each of which copies some bytes from before in the output, and
// then up to three or, as an instruction of their own, many literal bytes of the stream. Their first bytes are, with L for bits of
// the length, D for ones of the distance and S for the number of literals behind:
//
//	1LLDDDSS 01LDDDSS   one more byte of the distance     3 to 8 bytes, from up to 2 KiB before
//	001LLLLL            two more bytes, with S in them    from up to 16 KiB before
//	0001DLLL            two more bytes, with S in them    from 16 KiB to 48 KiB before; the end mark when it is exactly 16 KiB
//	0000DDSS            one more byte, behind literals    2 bytes from up to 1 KiB before, or behind many 3 from the KiB behind 2 KiB
//	0000LLLL            behind no literals                many literals
//
// A length of zero goes on in further bytes: 255 for each zero, and the first other one.
func lzo1x(dst, src []byte) (int, error) {
	l := lzo{dst: dst, src: src}
	if len(src) > 0 && src[0] > 17 {
		// The very first instruction may be a number of literals.
		n := int(l.byte()) - 17
		l.literals(n)
		l.behind = min(n, 4)
	}
	for !l.ended && l.err == nil {
		l.instruction()
	}
	if l.err == nil && l.in != len(src) {
		l.err = errLZO
	}
	return l.out, l.err
}

// lzo is a stream that is being decompressed. After an error there is no progress.
type lzo struct {
	dst, src []byte
	out, in  int
	behind   int // literals that the last instruction copied; 4 for 4 and more
	ended    bool
	err      error
}

func (l *lzo) instruction() {
	c := int(l.byte())
	switch {
	case c >= 64:
		length := c>>5&1 + 3
		if c >= 128 {
			length = c>>5&3 + 5
		}
		l.match(int(l.byte())<<3+c>>2&7+1, length, c&3)
	case c >= 32:
		length := l.length(c&31, 31) + 2
		d := l.two()
		l.match(d>>2+1, length, d&3)
	case c >= 16:
		length := l.length(c&7, 7) + 2
		d := l.two()
		if distance := 16384 + c>>3&1<<14 + d>>2; distance != 16384 {
			l.match(distance, length, d&3)
		} else {
			l.ended = true
		}
	case l.behind == 0:
		l.literals(l.length(c, 15) + 3)
		l.behind = 4
	case l.behind < 4:
		l.match(int(l.byte())<<2+c>>2+1, 2, c&3)
	default:
		l.match(int(l.byte())<<2+c>>2+2049, 3, c&3)
	}
}

// byte returns the next byte of the stream.
func (l *lzo) byte() byte {
	if l.in >= len(l.src) {
		l.err = io.ErrUnexpectedEOF
		return 0
	}
	l.in++
	return l.src[l.in-1]
}

// two returns the next two bytes as a number.
func (l *lzo) two() int {
	low := l.byte()
	return int(low) | int(l.byte())<<8
}

// length returns a length of which n are the bits in the instruction, and most is what goes in there.
func (l *lzo) length(n, most int) int {
	if n > 0 {
		return n
	}
	for n = most; l.err == nil && n <= len(l.dst); n += 255 {
		if c := l.byte(); c != 0 {
			return n + int(c)
		}
	}
	return n
}

// literals copies n bytes of the stream.
func (l *lzo) literals(n int) {
	if l.err != nil || n > len(l.src)-l.in || n > len(l.dst)-l.out {
		l.err = errLZO
		return
	}
	copy(l.dst[l.out:], l.src[l.in:l.in+n])
	l.in += n
	l.out += n
}

// match copies bytes from some distance before in the output, and then literals.
func (l *lzo) match(distance, length, literals int) {
	if l.err != nil || distance > l.out || length > len(l.dst)-l.out {
		l.err = errLZO
		return
	}
	for range length { // byte by byte: what is copied may be what was just written
		l.dst[l.out] = l.dst[l.out-distance]
		l.out++
	}
	l.literals(literals)
	l.behind = literals
}
