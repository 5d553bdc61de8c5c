package xfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sort"
)

// The log is a ring of sectors of 512 bytes, written in rounds. A record is a header (one sector, more for records above
// 32 KiB) and what was to be done. The first four bytes of each sector are the number of its round, the cycle; those of a header are
// a magic number, and the cycle comes next. So the ring is
//
//	├ cycle n, written in this round ┤head├ cycle n-1, of the round before; or zero, when n is 1 ┤
//
// and the last record ends at the head. A filesystem that was unmounted has there a record with one operation: unmount. The kernel
// and xfs_repair decide by that too. They forgive sectors of another cycle near the head, which a crash leaves; here nothing is
// forgiven: 2 MiB before the head and 2 MiB behind it, as much as can be in flight at once, must be as drawn. A wrong "not empty"
// only costs room. It is what is said of a log that xfs_repair -L or xfs_admin -U has made anew, until the next mount.
const (
	logSector     = 512
	logWindow     = 8 * (256 << 10) / logSector // sectors that can be in flight: 8 buffers of 256 KiB
	logHeaderData = 32 << 10                    // bytes of a record for which one sector of header has the cycles
	logRecordMax  = (256 << 10) / logSector     // sectors of a record without its header
	logMagic      = 0xfeedbabe
)

// logState returns why the log is not known to be empty, completing "the filesystem …", or "".
func (f *FS) logState() string {
	if f.super.logStart == 0 {
		return "has its log on another device, so that it is not known whether it is empty"
	}
	off, _ := f.super.run(f.super.logStart, uint64(f.super.logBlocks)) // checked with the superblock
	l := ring{f: f, off: off, sectors: int64(f.super.logBlocks) << f.super.blockLog / logSector}
	head, err := l.findHead()
	if err == nil {
		err = l.checkUnmount(head)
	}
	switch {
	case errors.Is(err, errNotEmpty):
		return "was not unmounted: its log is not empty"
	case err != nil:
		return fmt.Sprintf("has a log of which it is not known whether it is empty: %v", err)
	}
	return ""
}

// errNotEmpty says that the last record of the log is not that of an unmount.
var errNotEmpty = errors.New("the log is not empty")

// ring is the log.
type ring struct {
	f       *FS
	off     int64
	sectors int64
}

// read fills p with the sectors that begin at number at, which wraps.
func (l *ring) read(p []byte, at int64) error {
	at = (at%l.sectors + l.sectors) % l.sectors
	first := min(int64(len(p)), (l.sectors-at)*logSector)
	if err := l.f.read(p[:first], l.off+at*logSector); err != nil {
		return err
	}
	return l.f.read(p[first:], l.off)
}

// cycleOf returns the cycle in which a sector was written.
func cycleOf(sector []byte) uint32 {
	if cycle := binary.BigEndian.Uint32(sector); cycle != logMagic {
		return cycle
	}
	return binary.BigEndian.Uint32(sector[4:])
}

// findHead returns the number of the sector that would be written next, or l.sectors instead of 0.
func (l *ring) findHead() (head int64, err error) {
	var readErr error
	sector := make([]byte, logSector)
	cycle := func(at int64) uint32 {
		if err := l.read(sector, at); err != nil {
			readErr = err
			return 0
		}
		return cycleOf(sector)
	}
	now, before := cycle(0), cycle(l.sectors-1)
	head = l.sectors
	if before != now {
		head = int64(sort.Search(int(l.sectors-1), func(i int) bool { return cycle(int64(i)) != now }))
	}
	switch {
	case readErr != nil:
		return 0, readErr
	case now == 0:
		return 0, errors.New("it is blank")
	case before != now && before != now-1:
		return 0, fmt.Errorf("its rounds are %d and %d", now, before)
	}
	return head, l.checkWindow(head, now)
}

// checkWindow checks that the sectors around the head have the cycles that they should.
func (l *ring) checkWindow(head int64, now uint32) error {
	first, count := head-logWindow, int64(2*logWindow)
	if count >= l.sectors {
		first, count = 0, l.sectors
	}
	const step = 256
	buf := make([]byte, step*logSector)
	for done := int64(0); done < count; done += step {
		p := buf[:min(step, count-done)*logSector]
		if err := l.read(p, first+done); err != nil {
			return err
		}
		for i := int64(0); i < int64(len(p)); i += logSector {
			at := ((first+done+i/logSector)%l.sectors + l.sectors) % l.sectors
			want := now
			if at >= head {
				want--
			}
			if is := cycleOf(p[i:]); is != want {
				return fmt.Errorf("sector %d is of round %d, not %d, and the head is at %d", at, is, want, head)
			}
		}
	}
	return nil
}

// checkUnmount checks that the last record before head is that of an unmount.
func (l *ring) checkUnmount(head int64) error {
	const most = logRecordMax + 8
	count := min(most, l.sectors)
	p := make([]byte, count*logSector)
	if err := l.read(p, head-count); err != nil {
		return err
	}
	// No other sector begins with the magic number: it was replaced by the cycle when the sector was written.
	back := int64(0)
	for i := count - 1; i >= 0 && back == 0; i-- {
		if binary.BigEndian.Uint32(p[i*logSector:]) == logMagic {
			back = count - i
		}
	}
	if back == 0 {
		return fmt.Errorf("it has no record before its head at %d", head)
	}
	return l.checkRecord(p[(count-back)*logSector:], (head-back+l.sectors)%l.sectors)
}

// checkRecord checks that record, which begins at sector at and ends at the head, is one unmount.
func (l *ring) checkRecord(record []byte, at int64) error {
	be := binary.BigEndian
	version, length, size := be.Uint32(record[8:]), be.Uint32(record[12:]), be.Uint32(record[320:])
	headers := 1
	if version&2 != 0 && size > logHeaderData {
		headers = int(min(size+logHeaderData-1, 1<<30) / logHeaderData)
	}
	sectors := len(record) / logSector
	switch {
	case uuid(record[304:]) != l.f.super.uuid:
		return errors.New("it is that of another filesystem")
	case be.Uint64(record[16:]) != uint64(be.Uint32(record[4:]))<<32|uint64(at):
		return fmt.Errorf("the last record, at %d, says it lies elsewhere", at)
	case headers >= sectors || int64(length) > int64(sectors-headers)*logSector || int64(length) <= int64(sectors-headers-1)*logSector:
		return fmt.Errorf("the last record, at %d, does not end at the head", at)
	case l.f.super.v5 && !recordWhole(record, headers, int(length)):
		return errors.New("the checksum of the last record is wrong")
	}
	operation := record[headers*logSector:] // xlog_op_header, whose first word is the cycle here, and what is unmounted
	const client, unmount = 0xaa, 0x20
	magic := operation[12:14] // in the order of the machine that wrote it
	if be.Uint32(record[40:]) != 1 || operation[8] != client || operation[9]&unmount == 0 ||
		!bytes.Equal(magic, []byte("nU")) && !bytes.Equal(magic, []byte("Un")) {
		return errNotEmpty
	}
	return nil
}

// recordWhole checks the checksum of a record: over the header without reserved bytes, further headers, and the length bytes behind
// them. 32-bit systems leave a word of padding out. mkfs writes none, which is zero.
func recordWhole(record []byte, headers, length int) bool {
	want := binary.LittleEndian.Uint32(record[32:])
	if want == 0 {
		return true
	}
	for _, size := range []int{328, 324} {
		sum := checksum(record[:size], 32)
		for i := 1; i < (length+logHeaderData-1)/logHeaderData; i++ { // the headers that are in use
			sum = crc32.Update(sum, castagnoli, record[i*logSector:][:260])
		}
		if crc32.Update(sum, castagnoli, record[headers*logSector:][:length]) == want {
			return true
		}
	}
	return false
}
