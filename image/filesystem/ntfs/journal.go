package ntfs

import (
	"bytes"
	"fmt"

	"varve/image/filesystem"
)

// The journal, $LogFile, begins with two restart pages, of which the one with the higher sequence number counts:
//
//	"RSTR" ("CHKD" after chkdsk), fixups 4, number of chkdsk 8, bytes of this page 4, of other pages 4, offset of the area 2, minor version 2,
//	major version 2, fixups, and at that offset
//	sequence number 8, clients 2, first free client 2, first client in use 2, flags 2, …
//
// A client is in use (NTFS is the only one) as long as the filesystem is mounted; newer versions leave it in use for ever, and
// set a flag when it is unmounted. Version 2 is that of Windows 8 and later, which write version 1 when they unmount: what stays at 2 was
// not unmounted, or Windows has only gone to sleep when it was shut down. A journal of nothing but ones was emptied.
const (
	noClient     = 0xffff
	journalClean = 2
	maxPage      = 1 << 16
)

// journalState says why the journal is not at rest, "" when it is.
func (f *FS) journalState() (string, error) {
	x, err := f.load(recordLog)
	if err != nil {
		return "", err
	}
	log, err := f.content(x, typeData, "")
	if err != nil {
		return "", err
	}
	if log == nil || log.Size() < 2*stride {
		return "", filesystem.Corrupt("it is not there")
	}
	empty, err := journalEmpty(log)
	if empty || err != nil {
		return "", err
	}
	first := make([]byte, stride)
	if n, err := log.ReadAt(first, 0); n < len(first) {
		return "", err
	}
	size := int64(le.Uint32(first[16:]))
	if !powerOfTwo(size, stride, maxPage) || log.Size() < 2*size {
		return "", filesystem.Corrupt("its pages have %d bytes", size)
	}
	var pages []restartPage
	var problem error
	for i := range int64(2) {
		b := make([]byte, size)
		if n, err := log.ReadAt(b, i*size); n < len(b) {
			return "", err
		}
		page, err := parseRestartPage(b)
		if err != nil {
			problem = fmt.Errorf("page %d: %w", i, err)
			continue
		}
		pages = append(pages, page)
	}
	switch len(pages) {
	case 0:
		return "", problem
	case 2:
		if pages[0].sequence > pages[1].sequence {
			pages = pages[:1]
		} else if pages[1].sequence > pages[0].sequence {
			pages = pages[1:]
		}
	}
	for _, p := range pages {
		if p.major > 1 {
			return "was not unmounted, or by a Windows that only went to sleep (fast startup)", nil
		}
		if p.open {
			return "was not unmounted: its journal is open", nil
		}
	}
	return "", nil
}

// journalEmpty tells whether a journal has only ones wherever a restart page could be.
func journalEmpty(log filesystem.Content) (bool, error) {
	b := make([]byte, stride)
	ones := bytes.Repeat([]byte{0xff}, stride)
	for off := int64(0); off <= log.Size()-stride; off = max(2*off, stride) {
		if n, err := log.ReadAt(b, off); n < len(b) {
			return false, err
		}
		if !bytes.Equal(b, ones) {
			return false, nil
		}
	}
	return true, nil
}

// restartPage is what matters of a restart page.
type restartPage struct {
	sequence uint64
	major    uint16
	open     bool
}

// parseRestartPage parses a restart page, and changes b.
func parseRestartPage(b []byte) (restartPage, error) {
	chkdsk := string(b[:4]) == "CHKD"
	if !chkdsk || le.Uint16(b[6:]) != 0 { // chkdsk may leave it without fixups
		magic := "RSTR"
		if chkdsk {
			magic = "CHKD"
		}
		if err := fixUp(b, magic); err != nil {
			return restartPage{}, err
		}
	}
	at := int(le.Uint16(b[24:]))
	if at < 30 || at%8 != 0 || at+48 > len(b) {
		return restartPage{}, filesystem.Corrupt("its area is at %d of %d", at, len(b))
	}
	area := b[at:]
	clients, inUse := le.Uint16(area[8:]), le.Uint16(area[12:])
	if inUse != noClient && inUse >= clients {
		return restartPage{}, filesystem.Corrupt("client %d of %d", inUse, clients)
	}
	p := restartPage{
		sequence: le.Uint64(area),
		major:    le.Uint16(b[28:]),
		open:     inUse != noClient && le.Uint16(area[14:])&journalClean == 0,
	}
	if chkdsk {
		p.sequence = le.Uint64(b[8:])
	}
	return p, nil
}
