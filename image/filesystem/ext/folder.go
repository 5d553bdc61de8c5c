package ext

import (
	"context"
	"encoding/base64"
	"fmt"
	"io/fs"
	"strings"

	"varve/image/filesystem"
)

// typeOf returns the mode of a type in a folder's entry.
func typeOf(kind byte) fs.FileMode {
	types := [...]uint16{1: typeFile, 2: typeFolder, 3: typeChar, 4: typeBlock, 5: typePipe, 6: typeSocket, 7: typeLink}
	if int(kind) >= len(types) {
		return fs.ModeIrregular
	}
	return modeOf(types[kind])
}

// ReadDir goes through the blocks of a folder in their order; the index over its names, whose blocks look as if they were empty, is passed
// over.
func (f *FS) ReadDir(ctx context.Context, folder filesystem.Number, each func(filesystem.Entry) error) error {
	in, err := f.file(folder)
	if err != nil {
		return err
	}
	if in.kind() != typeFolder {
		return fmt.Errorf("inode %d is not a folder", folder)
	}
	d := listing{inode: in, each: each}
	if in.flags&flagInline != 0 {
		err = d.inInode()
	} else {
		err = d.inBlocks(ctx)
	}
	if d.refused != nil {
		return d.refused
	}
	if err == nil {
		err = d.damage
	}
	if err != nil {
		return fmt.Errorf("folder %d: %w", folder, err)
	}
	return nil
}

// listing is a folder that is being read.
type listing struct {
	*inode
	each    func(filesystem.Entry) error
	refused error // of each, which ends it
	damage  error // the first, beside which it goes on
}

// note remembers damage.
func (d *listing) note(err error) {
	if d.damage == nil {
		d.damage = err
	}
}

// inInode goes through a folder in an inode: 4 bytes say what is above it.
func (d *listing) inInode() error {
	data, err := d.inlineData()
	if err != nil {
		return err
	}
	for _, part := range [][]byte{data[4:60], data[60:]} {
		if err := d.entries(part); err != nil {
			return err
		}
	}
	return nil
}

// inBlocks goes through a folder in blocks of its own. It cannot have more of them than the filesystem has.
func (d *listing) inBlocks(ctx context.Context) error {
	left := d.blocks
	return d.runs(0, divideUp(d.size, d.blockSize), func(r run) error {
		if r.unwritten {
			d.note(filesystem.Corrupt("%d blocks were never written", r.length))
			return nil
		}
		if left -= r.length; left < 0 {
			return filesystem.Corrupt("it has more blocks than the filesystem")
		}
		for i := range r.length {
			if err := ctx.Err(); err != nil {
				return err
			}
			b, err := d.block(r.disk + i)
			if err != nil {
				d.note(err)
				continue
			}
			if d.blockSums && !d.sumIsRight(r.file+i, b) {
				d.note(filesystem.Corrupt("block %d has a wrong checksum", r.disk+i))
				continue
			}
			if err := d.entries(b); err != nil {
				return err
			}
		}
		return nil
	})
}

// sumIsRight checks the checksum of block n of the folder. In a block with names it is in what looks like the last entry.
func (d *listing) sumIsRight(n int64, b []byte) bool {
	if d.flags&flagIndexed != 0 && (n == 0 || le.Uint32(b) == 0 && d.entryLength(b) == int64(len(b))) {
		return d.indexSumIsRight(b)
	}
	tail := b[len(b)-12:]
	return le.Uint64(tail) == 0xDE00000C00000000 && crc32c(d.seed, b[:len(b)-12]) == le.Uint32(tail[8:])
}

// indexSumIsRight checks the checksum of a block of the index, which lies behind the room for its entries of 8 bytes. The first of them has how
// much room there is, and how many there are. Before them are, in the root, the entries of the folder itself and the one above, and 8 bytes.
func (d *listing) indexSumIsRight(b []byte) bool {
	start := 32
	if d.entryLength(b) == int64(len(b)) {
		start = 8
	}
	end, tail := start+8*int(le.Uint16(b[start+2:])), start+8*int(le.Uint16(b[start:]))
	if end > tail || tail+8 > len(b) {
		return false
	}
	return crc32c(d.seed, b[:end], b[tail:tail+4], []byte{0, 0, 0, 0}) == le.Uint32(b[tail+4:])
}

// entryLength returns the length of an entry, of which the lowest two bits are the highest in blocks of 64 KiB.
func (d *listing) entryLength(e []byte) int64 {
	n := int64(le.Uint16(e[4:]))
	if d.blockSize < 64<<10 {
		return n
	}
	if n == 0 || n == 0xFFFF {
		return d.blockSize
	}
	return n&^3 | n&3<<16
}

// entries calls each for the entries in b. It returns the error of each; damage is noted.
func (d *listing) entries(b []byte) error {
	for len(b) > 0 {
		if len(b) < 8 {
			d.note(filesystem.Corrupt("an entry has %d bytes", len(b)))
			return nil
		}
		length, name, kind := d.entryLength(b), int64(b[6]), b[7]
		if length < 8+name || length%4 != 0 || length > int64(len(b)) {
			d.note(filesystem.Corrupt("an entry has %d bytes", length))
			return nil
		}
		if n := le.Uint32(b); n != 0 {
			if d.incompat&incompatFileType == 0 {
				kind = 0
			}
			if d.refused = d.entry(n, string(b[8:8+name]), kind); d.refused != nil {
				return d.refused
			}
		}
		b = b[length:]
	}
	return nil
}

// entry calls each for an entry, unless it is one of the two that all folders have.
func (d *listing) entry(n uint32, name string, kind byte) error {
	if name == "." || name == ".." {
		return nil
	}
	if d.flags&flagEncrypted != 0 {
		name = base64.RawURLEncoding.EncodeToString([]byte(name))
	}
	if name == "" || strings.ContainsAny(name, "/\x00") {
		d.note(filesystem.Corrupt("%q is no name", name))
		return nil
	}
	return d.each(filesystem.Entry{Name: name, Number: filesystem.Number(n), Mode: typeOf(kind)})
}
