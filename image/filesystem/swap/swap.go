// Package swap reads the header of Linux swap space, as mkswap writes it and the kernel reads it (include/linux/swap.h).
//
//	0            left to boot loaders
//	1024         version 4 | last page 4 | bad pages 4 | UUID 16 | label 16 | zero 117 | numbers of bad pages 4 each
//	page − 10    "SWAPSPACE2"
//	page         what was swapped out
//
// The numbers are in the order of the machine that made it; a page has 4 to 64 KiB.
//
// What was swapped out is of no use once the machine has stopped, so all behind the first page is free. It is not while the machine
// sleeps: the signature is then another one, and its memory is in the pages.
package swap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"varve/image/filesystem"
)

const (
	minPage   = 4 << 10
	maxPage   = 64 << 10
	signature = 10 // bytes, at the end of the first page
)

// asleep are the beginnings of signatures of a machine that sleeps.
var asleep = []string{
	"S1SUSPEND", "S2SUSPEND", // the kernel
	"ULSUSPEND",                        // uswsusp
	"LINHIB0001",                       // what was to replace the kernel's
	"\xed\xc3\x02\xe9\x98\x56\xe5\x0c", // TuxOnIce
}

// FS is one swap space. It implements filesystem.Filesystem.
type FS struct {
	info filesystem.Info
	free filesystem.Range
	err  error // why nothing is free
}

// Open reads the header at the start of r, a partition of size bytes. The error is filesystem.ErrUnknown when there is none.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	head := make([]byte, max(0, min(size, maxPage)))
	if n, err := r.ReadAt(head, 0); n < len(head) {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	for page := minPage; page <= len(head); page *= 2 {
		if s := parse(head[:page], size); s != nil {
			return s, nil
		}
	}
	return nil, filesystem.ErrUnknown
}

// parse returns the swap space whose first page is head, or nil.
func parse(head []byte, size int64) *FS {
	page := int64(len(head))
	sign := head[page-signature:]
	s := &FS{info: filesystem.Info{Type: "swap", BlockSize: int(page), Size: size / page * page, Used: -1}}
	switch {
	case string(sign) == "SWAPSPACE2":
		s.parseHeader(head, size)
	case string(sign) == "SWAP-SPACE":
		s.err = filesystem.Untrusted("the swap space has version 0")
	default:
		for _, begin := range asleep {
			if bytes.HasPrefix(sign, []byte(begin)) {
				s.parseHeader(head, size) // it is as before but for the signature
				s.info.Dirty = "holds the memory of a machine that sleeps"
				s.err = filesystem.Untrusted("the swap space %s", s.info.Dirty)
				return s
			}
		}
		return nil
	}
	return s
}

// parseHeader fills in what a header of version 1 says.
func (s *FS) parseHeader(head []byte, size int64) {
	var order binary.ByteOrder = binary.LittleEndian
	if order.Uint32(head[1024:]) != 1 {
		order = binary.BigEndian
	}
	page := int64(len(head))
	version, last, bad := order.Uint32(head[1024:]), int64(order.Uint32(head[1028:])), int64(order.Uint32(head[1032:]))
	if version != 1 {
		s.err = filesystem.Untrusted("the swap space has the unknown version %d", binary.LittleEndian.Uint32(head[1024:]))
		return
	}
	if uuid := head[1036:1052]; !bytes.Equal(uuid, make([]byte, 16)) {
		s.info.UUID = fmt.Sprintf("%x-%x-%x-%x-%x", uuid[:4], uuid[4:6], uuid[6:8], uuid[8:10], uuid[10:])
	}
	label, _, _ := bytes.Cut(head[1052:1068], []byte{0})
	s.info.Label = string(label)
	switch {
	case last == 0 || last >= size/page:
		s.err = filesystem.Untrusted("the swap space has %d pages of %d bytes, and its partition has %d bytes", last+1, page, size)
	case bad > (page-1536-signature)/4:
		s.err = filesystem.Untrusted("the swap space has %d bad pages, which its header has no room for", bad)
	default:
		s.info.Size = (last + 1) * page
		s.free = filesystem.Range{Offset: page, Length: last * page}
	}
}

// Info has the page as the unit.
func (s *FS) Info() filesystem.Info { return s.info }

// Free calls free once: for everything behind the first page.
func (s *FS) Free(ctx context.Context, free func(filesystem.Range) error) error {
	if s.err != nil {
		return s.err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return free(s.free)
}
