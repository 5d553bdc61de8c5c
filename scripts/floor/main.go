// Floor measures what no backup of a disk can do without, as the yardstick of scripts/bench.
//
//	floor hash FILE       read the data of FILE and hash it with BLAKE3, on every core; nothing else
//	floor changed OLD NEW count the blocks of NEW that differ from OLD, and compress just those
//	floor store OLD NEW   read and hash the data of NEW, and compress what differs from OLD, on every core
//	floor restored DISK FREED RESTORED
//	                      compare RESTORED with DISK, block by block; where FREED has zeros RESTORED may have them too
//
// The first is the least time in which an unchanged disk can be known to be unchanged without change
// tracking: every byte is read, every byte is hashed. The second is the least an increment can store when
// nothing in it deduplicates. The third is the least time of an increment: nothing is cut, looked up, encrypted, read
// back or written. What differs is found beforehand, and the time of the rest is printed, in seconds. OLD may be an empty file.
// FREED is DISK after zerofree, so that restored disks are compared byte for byte where free blocks were not kept.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"
)

const (
	block = 4096
	piece = 1 << 20 // read, hashed and compressed at a time: it stays in a core's cache, the best case for hashing

	seekData = 3 // lseek(2) on Linux: the next data, the next hole
	seekHole = 4
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "hash":
		err = hash(os.Args[2])
	case len(os.Args) == 4 && os.Args[1] == "changed":
		err = changed(os.Args[2], os.Args[3])
	case len(os.Args) == 4 && os.Args[1] == "store":
		err = store(os.Args[2], os.Args[3])
	case len(os.Args) == 5 && os.Args[1] == "restored":
		err = restored(os.Args[2], os.Args[3], os.Args[4])
	default:
		err = errors.New("usage: floor hash FILE | floor changed OLD NEW | floor store OLD NEW | floor restored DISK FREED RESTORED")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
}

// hash prints the number of bytes that were read and hashed.
func hash(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	pieces, err := dataPieces(f)
	if err != nil {
		return err
	}
	if err := eachPiece(f, pieces, func() (func(span, []byte), error) {
		return func(_ span, p []byte) { blake3.Sum256(p) }, nil
	}); err != nil {
		return err
	}
	var total int64
	for _, s := range pieces {
		total += s.length
	}
	fmt.Println(total)
	return nil
}

// eachPiece reads pieces on every core, which takes the next one until none is left, and hands them to what worker makes for it.
func eachPiece(f *os.File, pieces []span, worker func() (func(span, []byte), error)) error {
	next := make(chan span)
	errs := make([]error, runtime.GOMAXPROCS(0))
	var workers sync.WaitGroup
	for i := range errs {
		workers.Go(func() {
			var work func(span, []byte)
			work, errs[i] = worker()
			buf := make([]byte, piece)
			for s := range next {
				if errs[i] != nil {
					continue // drain, so that the sender ends
				}
				p := buf[:s.length]
				if _, errs[i] = f.ReadAt(p, s.offset); errs[i] == nil {
					work(s, p)
				}
			}
		})
	}
	for _, s := range pieces {
		next <- s
	}
	close(next)
	workers.Wait()
	return errors.Join(errs...)
}

// changed prints four numbers: the blocks of NEW that differ from OLD at the same place and are not all zero,
// their bytes, their bytes compressed by zstd's default level in pieces of 1 MiB, and how many of them follow each other at most.
func changed(oldPath, newPath string) error {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	var blocks, size, stored, run, longest int
	last := int64(-1)
	var frame, packed []byte
	flush := func() {
		packed = encoder.EncodeAll(frame, packed[:0])
		stored += min(len(packed), len(frame))
		frame = frame[:0]
	}
	err = eachChanged(oldPath, newPath, func(at int64, b []byte) {
		blocks++
		if at != last {
			run = 0
		}
		run++
		longest, last = max(longest, run), at+int64(len(b))
		size += len(b)
		frame = append(frame, b...)
		if len(frame) >= piece {
			flush()
		}
	})
	if err != nil {
		return err
	}
	flush()
	fmt.Println(blocks, size, stored, longest)
	return nil
}

// store prints how long it takes to read and hash NEW, and to compress what differs from OLD as varve does by default.
func store(oldPath, newPath string) error {
	differs := map[int64]bool{} // by block
	if err := eachChanged(oldPath, newPath, func(at int64, _ []byte) { differs[at/block] = true }); err != nil {
		return err
	}
	begun := time.Now()
	f, err := os.Open(newPath)
	if err != nil {
		return err
	}
	defer f.Close()
	pieces, err := dataPieces(f)
	if err != nil {
		return err
	}
	err = eachPiece(f, pieces, func() (func(span, []byte), error) {
		encoder, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithWindowSize(piece), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
		var frame, packed []byte
		return func(s span, p []byte) {
			blake3.Sum256(p)
			for at := 0; at < len(p); at += block {
				if differs[(s.offset+int64(at))/block] {
					frame = append(frame, p[at:min(at+block, len(p))]...)
				}
			}
			if len(frame) >= piece || s.offset == pieces[len(pieces)-1].offset {
				packed = encoder.EncodeAll(frame, packed[:0])
				frame = frame[:0]
			}
		}, err
	})
	fmt.Printf("%.3f\n", time.Since(begun).Seconds())
	return err
}

// eachChanged calls f for every block of NEW that differs from OLD at the same place and is not all zero.
func eachChanged(oldPath, newPath string, f func(at int64, b []byte)) error {
	before, err := os.Open(oldPath)
	if err != nil {
		return err
	}
	defer before.Close()
	after, err := os.Open(newPath)
	if err != nil {
		return err
	}
	defer after.Close()
	pieces, err := dataPieces(after) // a block that became a hole stores nothing
	if err != nil {
		return err
	}
	was, is, zero := make([]byte, piece), make([]byte, piece), make([]byte, block)
	for _, s := range pieces {
		if _, err := after.ReadAt(is[:s.length], s.offset); err != nil {
			return err
		}
		n, err := before.ReadAt(was[:s.length], s.offset)
		if err != nil && err != io.EOF {
			return err
		}
		for at := 0; at < int(s.length); at += block {
			end := min(at+block, int(s.length))
			b := is[at:end]
			if end <= n && bytes.Equal(b, was[at:end]) || bytes.Equal(b, zero[:len(b)]) {
				continue
			}
			f(s.offset+int64(at), b)
		}
	}
	return nil
}

// restored fails unless each block of the file at path is that of the disk or, where it is zero in freed, zero.
func restored(disk, freed, path string) error {
	var files [3]*os.File
	var size int64
	for i, name := range []string{path, disk, freed} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if i == 0 {
			size = info.Size()
		}
		if info.Size() != size {
			return fmt.Errorf("%s has %d bytes, %s has %d", name, info.Size(), path, size)
		}
		files[i] = f
	}
	// What has no data in either of two is equal.
	pieces, err := dataPieces(files[0])
	if err != nil {
		return err
	}
	more, err := dataPieces(files[1])
	if err != nil {
		return err
	}
	zero := make([]byte, block)
	var bufs [3][]byte
	for i := range bufs {
		bufs[i] = make([]byte, piece)
	}
	for _, s := range append(pieces, more...) {
		for i, f := range files {
			if _, err := f.ReadAt(bufs[i][:s.length], s.offset); err != nil {
				return err
			}
		}
		for at := int64(0); at < s.length; at += block {
			end := min(at+block, s.length)
			is, was, free := bufs[0][at:end], bufs[1][at:end], bufs[2][at:end]
			if !bytes.Equal(is, was) && !(bytes.Equal(is, zero[:len(is)]) && bytes.Equal(free, zero[:len(is)])) {
				return fmt.Errorf("%s is not what %s was at %d", path, disk, s.offset+at)
			}
		}
	}
	return nil
}

type span struct{ offset, length int64 }

// dataPieces lists what is not a hole, on whole blocks, in pieces of at most 1 MiB.
func dataPieces(f *os.File) ([]span, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	var pieces []span
	for at := int64(0); at < info.Size(); {
		start, err := f.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) {
			break // a hole up to the end
		}
		if err != nil {
			return nil, err
		}
		end, err := f.Seek(start, seekHole)
		if err != nil {
			return nil, err
		}
		start = max(at, start/block*block)
		end = min((end+block-1)/block*block, info.Size())
		for ; start < end; start += piece {
			pieces = append(pieces, span{start, min(piece, end-start)})
		}
		at = end
	}
	return pieces, nil
}
