//go:build linux

package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// broken is a disk in memory with sectors that cannot be read.
type broken struct {
	data   []byte
	info   Info
	bad    func(sector int64) error // nil: the sector is good
	sector int64

	mu    sync.Mutex
	reads int
	end   int64 // the disk ends here now
}

func newBroken(data []byte, sector int, bad func(int64) error) *broken {
	return &broken{data: data, bad: bad, sector: int64(sector), end: int64(len(data)),
		info: Info{Name: "broken", Type: "device", Size: int64(len(data)), SectorSize: sector}}
}

func (b *broken) Info() Info   { return b.info }
func (b *broken) Close() error { return nil }
func (b *broken) Map(off, length int64) ([]Extent, error) {
	return nil, syscall.EIO
}

func (b *broken) ReadAt(p []byte, off int64) (n int, err error) {
	b.mu.Lock()
	b.reads++
	end := b.end
	b.mu.Unlock()
	for n < len(p) {
		at := off + int64(n)
		if at >= end {
			return n, io.EOF
		}
		if err := b.bad(at / b.sector); err != nil {
			return n, fmt.Errorf("read of broken: %w", err)
		}
		next := min(end, (at/b.sector+1)*b.sector)
		n += copy(p[n:], b.data[at:next])
	}
	return n, nil
}

// TestSalvage: exactly the bad sectors are zero and reported, adjacent ones of a read as one.
func TestSalvage(t *testing.T) {
	for seed := range byte(20) {
		random := rand.New(rand.NewChaCha8([32]byte{seed}))
		sector := []int{512, 4096}[random.IntN(2)]
		size := 1<<20 + random.IntN(100_000)
		bad := map[int64]bool{}
		for range random.IntN(30) {
			at := random.Int64N(int64(size / sector))
			for k := range 1 + random.Int64N(20) {
				bad[at+k] = true
			}
		}
		data := noise(1, size)
		want := bytes.Clone(data)
		for at := range size {
			if bad[int64(at/sector)] {
				want[at] = 0
			}
		}
		var reports []Bad
		s := Salvage(newBroken(data, sector, func(n int64) error {
			if bad[n] {
				return syscall.EIO
			}
			return nil
		}), func(b Bad) { reports = append(reports, b) })
		got := make([]byte, size+10)
		step := []int{512, 4096, 100_000, 1 << 19, size}[random.IntN(5)]
		for at := 0; at < size; at += step {
			end := min(at+step, len(got))
			n, err := s.ReadAt(got[at:end], int64(at))
			if n != min(end, size)-at || (err == io.EOF) != (end > size) || err != nil && err != io.EOF {
				t.Fatalf("seed %d: at %d: read %d, %v", seed, at, n, err)
			}
		}
		if !bytes.Equal(got[:size], want) {
			t.Errorf("seed %d: read something else", seed)
		}
		reported := make([]bool, size)
		for i, r := range reports {
			if r.Err != "input/output error" {
				t.Errorf("seed %d: %+v", seed, r)
			}
			if i > 0 && reports[i-1].Offset+reports[i-1].Length == r.Offset && r.Offset%int64(step) != 0 {
				t.Errorf("seed %d: %+v and %+v are one", seed, reports[i-1], r)
			}
			for at := r.Offset; at < r.Offset+r.Length; at++ {
				reported[at] = true
			}
		}
		for at := range size {
			if reported[at] != bad[int64(at/sector)] {
				t.Fatalf("seed %d: byte %d: reported %v", seed, at, reported[at])
			}
		}
		list, err := s.Map(0, int64(size))
		if err != nil || !slices.Equal(list, []Extent{{0, int64(size), Data}}) {
			t.Errorf("seed %d: %v, %v", seed, list, err)
		}
	}
}

// TestSalvageGivesUp: what is no damage of the medium is never zeros.
func TestSalvageGivesUp(t *testing.T) {
	for _, cause := range []error{syscall.ENODEV, syscall.ENXIO, syscall.ESTALE, syscall.EBADF, syscall.EINVAL, syscall.ENOMEM,
		syscall.ENOTCONN, syscall.EACCES, syscall.EFAULT, errors.New("unheard of")} {
		s := Salvage(newBroken(noise(1, 1<<20), 512, func(n int64) error {
			if n > 100 {
				return cause
			}
			return nil
		}), func(b Bad) { t.Errorf("%v: reported %+v", cause, b) })
		if n, err := s.ReadAt(make([]byte, 1<<20), 0); !errors.Is(err, cause) || n == 1<<20 {
			t.Errorf("%v: read %d, %v", cause, n, err)
		}
	}
}

// TestSalvageDeadDisk: a disk of which nothing can be read for long is an error, one with a bad sector in two is not.
func TestSalvageDeadDisk(t *testing.T) {
	const sector, step = 64 << 10, 1 << 20 // large sectors, so that the test is short
	try := func(bad func(int64) error) error {
		d := newBroken(nil, sector, bad)
		d.info.Size, d.end = 1<<40, 1<<40
		s := Salvage(&zeros{d}, func(Bad) {})
		p := make([]byte, step)
		for at := int64(0); at < 2*maxUnreadable; at += step {
			if _, err := s.ReadAt(p, at); err != nil {
				if at < maxUnreadable {
					t.Errorf("gave up at %d already", at)
				}
				return err
			}
		}
		return nil
	}
	if err := try(func(int64) error { return syscall.EIO }); !errors.Is(err, syscall.EIO) {
		t.Errorf("a dead disk: %v", err)
	}
	if err := try(func(n int64) error {
		if n%2 == 0 {
			return syscall.EIO
		}
		return nil
	}); err != nil {
		t.Errorf("a bad sector in two: %v", err)
	}
}

// zeros is broken without bytes in memory.
type zeros struct{ *broken }

func (z *zeros) ReadAt(p []byte, off int64) (int, error) {
	for at := off; at < off+int64(len(p)); at += z.sector {
		if err := z.bad(at / z.sector); err != nil {
			return int(at - off), err
		}
	}
	return len(p), nil
}

// TestSalvageShorter: what a disk has lost at its end is reported once, as a whole.
func TestSalvageShorter(t *testing.T) {
	data := noise(1, 100_000)
	d := newBroken(data, 512, func(int64) error { return nil })
	d.end = 70_001
	var reports []Bad
	s := Salvage(d, func(b Bad) { reports = append(reports, b) })
	got := make([]byte, 100_000)
	for at := 0; at < len(got); at += 10_000 {
		if n, err := s.ReadAt(got[at:at+10_000], int64(at)); n != 10_000 || err != nil {
			t.Fatal(at, n, err)
		}
	}
	clear(data[70_001:])
	if !bytes.Equal(got, data) {
		t.Error("read something else")
	}
	if len(reports) != 1 || reports[0].Offset != 70_001 || reports[0].Length != 29_999 {
		t.Errorf("%+v", reports)
	}
	d.end = 0
	if _, err := s.ReadAt(got[:512], 0); err == nil || err == io.EOF {
		t.Errorf("a device without any bytes has vanished: %v", err)
	}
}

// TestSalvageTogether: many may read at once.
func TestSalvageTogether(t *testing.T) {
	data := noise(1, 4<<20)
	var total int64
	s := Salvage(newBroken(data, 512, func(n int64) error {
		if n%100 == 0 {
			return syscall.EIO
		}
		return nil
	}), func(b Bad) { total += b.Length }) // calls do not overlap
	var workers sync.WaitGroup
	for w := range 8 {
		workers.Go(func() {
			p := make([]byte, 64<<10)
			for at := w * len(p); at < len(data); at += 8 * len(p) {
				if n, err := s.ReadAt(p, int64(at)); n != len(p) || err != nil {
					t.Error(n, err)
				}
			}
		})
	}
	workers.Wait()
	if want := int64((4<<20/512 + 99) / 100 * 512); total != want {
		t.Errorf("%d bytes reported, %d are bad", total, want)
	}
}
