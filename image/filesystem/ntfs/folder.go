package ntfs

import (
	"context"
	"fmt"
	"io/fs"
	"strings"

	"varve/image/filesystem"
)

const (
	indexName    = "$I30" // the index of a folder
	maxIndexRoot = 1 << 16
	maxDamaged   = 64 // blocks of a folder, after which the others are not tried
)

// Namespaces of a name.
const namespaceDOS = 2 // beside another one

// Flags of a file, in $STANDARD_INFORMATION and in names.
const (
	fileHidden  = 0x2
	fileSystem  = 0x4
	fileReparse = 0x400
	fileFolder  = 0x10000000 // in names alone
)

// name is a $FILE_NAME, as an attribute or as an entry of a folder: folder 8, times 4 × 8, sizes 2 × 8, flags 4, more 4, length in
// characters 1, namespace 1, name.
type name struct {
	folder    uint64
	flags     uint32
	namespace byte
	text      string
}

func parseName(b []byte) (name, error) {
	if len(b) < 66 || len(b) < 66+2*int(b[64]) {
		return name{}, filesystem.Corrupt("a name is cut off")
	}
	return name{le.Uint64(b), le.Uint32(b[56:]), b[65], text(b[66 : 66+2*int(b[64])])}, nil
}

// ReadDir calls f for each entry of a folder, but for the files of the filesystem itself in the root folder, and for names
// that are there for DOS beside others.
func (f *FS) ReadDir(ctx context.Context, folder filesystem.Number, call func(filesystem.Entry) error) error {
	x, err := f.load(folder)
	if err != nil {
		return err
	}
	return f.readFolder(ctx, x, func(number filesystem.Number, n name) error {
		switch {
		case x.number&numberMask == recordRoot && number&numberMask < firstUser || n.namespace == namespaceDOS:
			return nil
		case n.text == "" || n.text == "." || n.text == ".." || strings.ContainsAny(n.text, "/\x00"):
			return &badName{n.text}
		}
		e := filesystem.Entry{Name: n.text, Number: number}
		switch {
		case n.flags&(fileReparse|fileSystem) != 0:
			e.Mode = fs.ModeIrregular // could be a link, a pipe and more
		case n.flags&fileFolder != 0:
			e.Mode = fs.ModeDir
		}
		return call(e)
	})
}

// badName is what a callback of readFolder returns for a name that cannot be. The others are read all the same.
type badName struct{ name string }

func (e *badName) Error() string {
	return fmt.Sprintf("the filesystem is damaged: a file is named %q", e.name)
}

// readFolder calls call for each entry of a folder: those in the root of its index, then block by block. It goes on behind
// what is damaged.
func (f *FS) readFolder(ctx context.Context, x *file, call func(filesystem.Number, name) error) error {
	if !x.folder() {
		return filesystem.Corrupt("file %d is not a folder", x.number&numberMask)
	}
	w := &folderWalk{number: x.number & numberMask, call: call}
	root, err := f.value(x, typeIndexRoot, indexName, maxIndexRoot)
	if err != nil {
		return err
	}
	if len(root) < 32 || le.Uint32(root) != typeName {
		return filesystem.Corrupt("folder %d has no index of names", w.number)
	}
	block := int64(le.Uint32(root[8:]))
	if err := w.entries(root[16:]); err != nil {
		return err
	}
	blocks, err := f.content(x, typeIndexBlocks, indexName)
	if err != nil {
		return err
	}
	if blocks == nil {
		return w.damage
	}
	used, err := f.content(x, typeBitmap, indexName)
	if err != nil {
		return err
	}
	if used == nil || !powerOfTwo(block, stride, maxBlock) {
		return filesystem.Corrupt("folder %d does not tell which blocks of its index are in use", w.number)
	}
	unit := f.boot.cluster // in which blocks are numbered
	if unit > block {
		unit = stride
	}
	count := blocks.Size() / block
	if blocks.Size() > f.size {
		return filesystem.Corrupt("the index of folder %d has %d bytes", w.number, blocks.Size())
	}
	b := make([]byte, block)
	var bits [4096]byte
	for base := int64(0); base < count; base += 8 * int64(len(bits)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		need := min(int64(len(bits)), (count-base+7)/8)
		if n, err := used.ReadAt(bits[:need], base/8); int64(n) < need {
			return fmt.Errorf("which blocks of folder %d are in use: %w", w.number, err)
		}
		for i := base; i < min(count, base+8*need); i++ {
			if bits[(i-base)/8]>>(i%8)&1 == 0 {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := readBlock(blocks, b, i*block, i*block/unit); err != nil {
				w.note(fmt.Errorf("block %d of folder %d: %w", i, w.number, err))
				if w.damaged++; w.damaged == maxDamaged {
					return w.damage
				}
			} else if err := w.entries(b[24:]); err != nil {
				return err
			}
		}
	}
	return w.damage
}

// readBlock fills b with the block of an index at off, which has the given number.
func readBlock(blocks filesystem.Content, b []byte, off, number int64) error {
	if n, err := blocks.ReadAt(b, off); n < len(b) {
		return err
	}
	if err := fixUp(b, "INDX"); err != nil {
		return err
	}
	if is := int64(le.Uint64(b[16:])); is != number {
		return filesystem.Corrupt("it says that it is block %d, not %d", is, number)
	}
	return nil
}

// folderWalk goes through the entries of a folder.
type folderWalk struct {
	number  filesystem.Number
	call    func(filesystem.Number, name) error
	damage  error // the first
	damaged int   // blocks
}

func (w *folderWalk) note(err error) {
	if w.damage == nil {
		w.damage = err
	}
}

// entries goes through a list of entries behind its header: offset of the first 4, of the end 4, bytes 4, flags 1. It returns the
// error of call; what is wrong with the entries is noted, and ends them.
func (w *folderWalk) entries(b []byte) error {
	at, end := int64(le.Uint32(b)), int64(le.Uint32(b[4:]))
	if at < 16 || at%8 != 0 || end > int64(len(b)) {
		w.note(filesystem.Corrupt("entries of folder %d from %d to %d of %d bytes", w.number, at, end, len(b)))
		return nil
	}
	for {
		if at+16 > end {
			w.note(filesystem.Corrupt("a list of entries of folder %d has no end", w.number))
			return nil
		}
		e := b[at:end]
		length, key := int64(le.Uint16(e[8:])), int64(le.Uint16(e[10:]))
		if le.Uint16(e[12:])&2 != 0 { // the last one, which has no name
			return nil
		}
		if length < 16 || length%8 != 0 || length > int64(len(e)) || 16+key > length {
			w.note(filesystem.Corrupt("an entry of folder %d has %d bytes of %d and a name of %d", w.number, length, len(e), key))
			return nil
		}
		n, err := parseName(e[16 : 16+key])
		if err == nil && n.folder&numberMask != uint64(w.number) {
			err = filesystem.Corrupt("an entry of folder %d is of folder %d", w.number, n.folder&numberMask)
		}
		if err == nil {
			err = w.call(filesystem.Number(le.Uint64(e)), n)
			if _, bad := err.(*badName); err != nil && !bad {
				return err
			}
		}
		if err != nil {
			w.note(err)
		}
		at += length
	}
}
