package xfs

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"varve/image/filesystem"
)

// folderSpace is the bytes of a folder that are entries. Behind them are indexes by hash, and of free room.
const folderSpace = 32 << 30

// maxBadBlocks are the blocks of a folder that may be damaged before the rest is not tried any more.
const maxBadBlocks = 64

// ReadDir reads a folder in the order of the disk. The indexes are not read.
func (f *FS) ReadDir(ctx context.Context, n filesystem.Number, each func(filesystem.Entry) error) error {
	i, err := f.inode(n)
	if err != nil {
		return err
	}
	if !i.mode.IsDir() {
		return fmt.Errorf("inode %d is not a folder", n)
	}
	data, _, err := i.forks()
	if err != nil {
		return err
	}
	d := folder{FS: f, number: i.number, each: each}
	if data.format == formatLocal {
		if i.size > int64(len(data.b)) {
			return filesystem.Corrupt("folder %d has %d bytes in %d", n, i.size, len(data.b))
		}
		return d.inInode(data.b[:i.size])
	}
	list, err := data.readOnce()
	if err != nil {
		return err
	}
	return d.inBlocks(ctx, list)
}

// folder is a folder that is being read.
type folder struct {
	*FS
	number uint64
	each   func(filesystem.Entry) error
}

// stopError is an error of who is called.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

// inInode reads the entries of a folder that fits its inode: count 1, count of those that need 8 bytes 1, parent 4 or 8, and of
// each entry: length of the name 1, offset 2, name, type 1, number 4 or 8.
func (d *folder) inInode(b []byte) error {
	if len(b) < 2 {
		return filesystem.Corrupt("folder %d has %d bytes", d.number, len(b))
	}
	count, width := int(b[0]), 4
	if b[1] != 0 {
		width = 8
	}
	at := 2 + width
	for range count {
		if at+3 > len(b) {
			return filesystem.Corrupt("folder %d ends within an entry", d.number)
		}
		name := at + 3
		end := name + int(b[at])
		next := end + width
		if d.super.ftype {
			next++
		}
		if next > len(b) {
			return filesystem.Corrupt("folder %d ends within an entry", d.number)
		}
		number := uint64(binary.BigEndian.Uint32(b[next-4:]))
		if width == 8 {
			number = binary.BigEndian.Uint64(b[next-8:])
		}
		if err := d.entry(b[name:end], b[end], number); err != nil {
			var stop *stopError
			if errors.As(err, &stop) {
				return stop.err
			}
			return err
		}
		at = next
	}
	return nil
}

// inBlocks reads the entries of a folder in blocks, each of which is a power of two of blocks of the filesystem, maybe in
// several extents. It goes on behind damaged ones.
func (d *folder) inBlocks(ctx context.Context, list []extent) error {
	var first error
	bad := 0
	damaged := func(err error) error {
		var stop *stopError
		if errors.As(err, &stop) {
			return stop.err
		}
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
		if bad++; bad > maxBadBlocks {
			return first
		}
		return nil
	}
	whole := uint64(1) << d.super.folderLog
	b := make([]byte, d.super.blockSize()<<d.super.folderLog)
	var disk int64    // of the first byte of b
	have := uint64(0) // blocks that b has
	next := uint64(0) // block of the folder that belongs behind them
	for _, e := range list {
		if e.unwritten {
			return filesystem.Corrupt("folder %d has blocks that were never written", d.number)
		}
		for done := uint64(0); done < e.count; {
			if err := ctx.Err(); err != nil {
				return err
			}
			at, from := e.offset+done, e.disk+int64(done<<d.super.blockLog)
			if at<<d.super.blockLog >= folderSpace {
				return first
			}
			if have > 0 && at != next || have == 0 && at%whole != 0 {
				have = 0
				if err := damaged(filesystem.Corrupt("folder %d has a hole at %d", d.number, at)); err != nil {
					return err
				}
				if at%whole != 0 { // the rest of a block that has no beginning
					done += min(e.count-done, whole-at%whole)
					continue
				}
			}
			if have == 0 {
				disk = from
			}
			n := min(e.count-done, whole-have)
			part := b[have<<d.super.blockLog:][:n<<d.super.blockLog]
			have, next, done = have+n, at+n, done+n
			if err := d.read(part, from); err != nil {
				have = 0
				if err := damaged(err); err != nil {
					return err
				}
			}
			if have == whole {
				have = 0
				if err := damaged(d.block(b, disk)); err != nil {
					return err
				}
			}
		}
	}
	if have > 0 && first == nil {
		return filesystem.Corrupt("folder %d ends within a block", d.number)
	}
	return first
}

// block reads the entries of a block that was read from off.
func (d *folder) block(b []byte, off int64) error {
	be := binary.BigEndian
	single, data, at := "XD2B", "XD2D", 16
	if d.super.v5 {
		single, data, at = "XDB3", "XDD3", 64
		if err := d.identify(b, folderBlock, off, d.number); err != nil {
			return err
		}
	}
	end := len(b)
	switch magic := string(b[:4]); magic {
	case data:
	case single: // the index by hash is at the end: 8 bytes for each entry, their count, and how many of them are stale
		count := int64(be.Uint32(b[end-8:]))
		if count > int64(end-8-at)/8 {
			return filesystem.Corrupt("folder %d has %d entries in a block", d.number, count)
		}
		end -= 8 + int(count)*8
	default:
		return filesystem.Corrupt("at %d there are no entries of folder %d", off, d.number)
	}
	kind := 0
	if d.super.ftype {
		kind = 1
	}
	// An entry is: number 8, length of the name 1, name, type 1, its own offset 2 at the end; free room: 0xffff 2, length 2, and
	// the same. Both are multiples of 8 bytes.
	var bad error
	for at < end {
		length, free := 0, false
		switch room := end - at; {
		case room >= 8 && be.Uint16(b[at:]) == 0xffff:
			length, free = int(be.Uint16(b[at+2:])), true
		case room >= 16:
			length = (8 + 1 + int(b[at+8]) + kind + 2 + 7) &^ 7
		}
		if length == 0 || length%8 != 0 || length > end-at || int(be.Uint16(b[at+length-2:])) != at {
			return filesystem.Corrupt("folder %d has an entry of %d bytes at %d of a block", d.number, length, at)
		}
		if !free {
			name := b[at+9:][:b[at+8]]
			if err := d.entry(name, b[at+9+len(name)], be.Uint64(b[at:])); err != nil {
				var stop *stopError
				if errors.As(err, &stop) {
					return err
				}
				bad = err // of this entry alone
			}
		}
		at += length
	}
	return bad
}

// entry calls each with an entry. kind is its type, where the filesystem has such.
func (d *folder) entry(name []byte, kind byte, number uint64) error {
	e := filesystem.Entry{Name: string(name), Number: filesystem.Number(number), Mode: fs.ModeIrregular}
	if e.Name == "." || e.Name == ".." {
		return nil
	}
	if e.Name == "" || strings.ContainsAny(e.Name, "/\x00") {
		return filesystem.Corrupt("folder %d has an entry %q", d.number, e.Name)
	}
	if _, ok := d.super.inode(number); !ok {
		return filesystem.Corrupt("folder %d has an entry %q for inode %d, for which there is no place", d.number, e.Name, number)
	}
	if mode, known := entryTypes[kind]; known && d.super.ftype {
		e.Mode = mode
	}
	if err := d.each(e); err != nil {
		return &stopError{err}
	}
	return nil
}
