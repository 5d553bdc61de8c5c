package filesystemtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"varve/image/filesystem"
)

// What a damaged filesystem may cost at most, in one round.
const (
	maxTime  = 20 * time.Second
	maxAlloc = 2 << 30 // bytes, in all: what is alive at one time is less
	maxFiles = 20_000  // that are looked at
)

// CheckDamage reads everything in the image file, and then again and again with some bits flipped in what was read: one in a
// hundred rounds a lot of them. A reader must not panic, nor take much time or memory, nor call free what is outside.
func CheckDamage(t testing.TB, image string, open Open, rounds int) {
	t.Helper()
	f, size := openFile(t, image)
	seen := &recorder{ReaderAt: f, sectors: map[int64]bool{}}
	if _, err := readAll(seen, size, open); err != nil {
		t.Fatalf("whole, it cannot be read: %v", err)
	}
	sectors := make([]int64, 0, len(seen.sectors))
	for s := range seen.sectors {
		sectors = append(sectors, s)
	}
	slices.Sort(sectors)
	noticed := 0
	for round := range rounds {
		random := rand.New(rand.NewPCG(uint64(round), 5))
		d := &damaged{ReaderAt: f, flips: map[int64]byte{}}
		n := 1 + random.IntN(8)
		if round%100 == 99 {
			n = 1000
		}
		for range n {
			at := sectors[random.IntN(len(sectors))]*sector + random.Int64N(sector)
			if random.IntN(3) == 0 {
				d.flips[at] = byte(1 + random.IntN(255))
			} else {
				d.flips[at] = 1 << random.IntN(8)
			}
		}
		begun := time.Now()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := readAll(d, size, open)
		runtime.ReadMemStats(&after)
		var p *panicError
		if errors.As(err, &p) {
			t.Fatalf("round %d: %v", round, err)
		}
		if took := time.Since(begun); took > maxTime {
			t.Fatalf("round %d takes %v", round, took)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > maxAlloc {
			t.Fatalf("round %d takes %d bytes of memory", round, took)
		}
		if err != nil {
			noticed++
		}
	}
	if noticed == 0 {
		t.Fatalf("none of %d damaged filesystems was noticed: is anything read?", rounds)
	}
	t.Logf("%d rounds in %d sectors, %d noticed", rounds, len(sectors), noticed)
}

// damaged is an image with some bits flipped.
type damaged struct {
	io.ReaderAt
	flips map[int64]byte
}

func (d *damaged) ReadAt(p []byte, off int64) (int, error) {
	n, err := d.ReaderAt.ReadAt(p, off)
	for at, bits := range d.flips {
		if at >= off && at < off+int64(n) {
			p[at-off] ^= bits
		}
	}
	return n, err
}

type panicError struct{ text string }

func (e *panicError) Error() string { return e.text }

// readAll asks for all that can be asked, and goes on behind errors. It returns how many files it has met and the first error.
func readAll(r io.ReaderAt, size int64, open Open) (files int, first error) {
	defer func() {
		if x := recover(); x != nil {
			first = &panicError{fmt.Sprintf("panic: %v\n%s", x, debug.Stack())}
		}
	}()
	note := func(err error) {
		if err != nil && first == nil {
			first = err
		}
	}
	s, err := open(r, size)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), maxTime)
	defer cancel()
	total := s.Info().Size
	note(s.Free(ctx, func(r filesystem.Range) error {
		if r.Offset < 0 || r.Length <= 0 || r.Offset > size-r.Length || r.End() > total {
			panic(fmt.Sprintf("%+v is free, of %d bytes on %d", r, total, size))
		}
		return nil
	}))
	tree, ok := s.(filesystem.Tree)
	if !ok {
		return 0, first
	}
	seen := map[filesystem.Number]bool{tree.Root(): true}
	for queue := []filesystem.Number{tree.Root()}; len(queue) > 0 && len(seen) < maxFiles; queue = queue[1:] {
		n := queue[0]
		file, err := tree.Stat(n)
		note(err)
		_, attributesErr := tree.Attributes(n)
		note(attributesErr)
		switch {
		case err != nil:
		case file.Mode.IsDir():
			entries := 0
			note(tree.ReadDir(ctx, n, func(e filesystem.Entry) error {
				if entries++; entries > maxFiles {
					return errors.New("more entries than the harness takes")
				}
				if !seen[e.Number] {
					seen[e.Number] = true
					queue = append(queue, e.Number)
				}
				return nil
			}))
		case file.Mode.IsRegular():
			note(readSome(tree, n, files))
		case file.Mode&fs.ModeSymlink != 0:
			_, err := tree.Readlink(n)
			note(err)
		}
		files++
	}
	return files, first
}

// readSome reads some of a file, and its streams.
func readSome(tree filesystem.Tree, n filesystem.Number, files int) error {
	streams, err := tree.Streams(n)
	if err != nil {
		return err
	}
	for _, name := range append([]filesystem.Stream{{}}, streams...) {
		content, err := tree.Open(n, name.Name)
		if err != nil {
			return err
		}
		extents, err := content.Extents()
		if err != nil {
			return err
		}
		at := int64(0)
		for _, e := range extents {
			if e.Offset != at || e.Length <= 0 {
				return fmt.Errorf("file %d: extent %+v, where %d is expected", n, e, at)
			}
			at += e.Length
		}
		if files%10 == 0 {
			buf := make([]byte, 64<<10)
			for _, off := range []int64{0, content.Size() / 2, content.Size() - 100} {
				if _, err := content.ReadAt(buf, max(0, off)); err != nil && !errors.Is(err, io.EOF) {
					return err
				}
			}
		}
	}
	return nil
}
