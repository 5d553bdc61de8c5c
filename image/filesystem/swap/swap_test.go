package swap_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
	"varve/image/filesystem/swap"
)

func open(r io.ReaderAt, size int64) (filesystem.Filesystem, error) { return swap.Open(r, size) }

// header returns the first page of swap space, as mkswap writes it.
func header(page int, order binary.ByteOrder, last uint32) []byte {
	b := make([]byte, page)
	order.PutUint32(b[1024:], 1)
	order.PutUint32(b[1028:], last)
	copy(b[1036:], "0123456789abcdef")
	copy(b[1052:], "a label")
	copy(b[page-10:], "SWAPSPACE2")
	return b
}

// TestMkswap: what mkswap makes is read as it says, and survives that what is free is overwritten.
func TestMkswap(t *testing.T) {
	for page := 4 << 10; page <= 64<<10; page *= 2 {
		image := filesystemtest.Image(t, 1<<20+5000, "mkswap", "--pagesize", strconv.Itoa(page), "-L", "some swap")
		info := filesystemtest.OpenImage(t, image, open).Info()
		blkid := filesystemtest.Run(t, "blkid", "-p", "-o", "export", image)
		for _, line := range []string{"TYPE=swap", "LABEL=some\\ swap", "UUID=" + info.UUID} {
			if !strings.Contains(blkid, line+"\n") {
				t.Errorf("blkid does not say %s:\n%s", line, blkid)
			}
		}
		size := (1<<20 + 5000) / int64(page) * int64(page)
		if want := (filesystem.Info{Type: "swap", Label: "some swap", UUID: info.UUID, BlockSize: page, Size: size, Used: -1}); info != want {
			t.Errorf("it says %+v, not %+v", info, want)
		}
		if free := filesystemtest.Free(t, filesystemtest.OpenImage(t, image, open)); len(free) != 1 || free[0] != (filesystem.Range{Offset: int64(page), Length: size - int64(page)}) {
			t.Errorf("of pages of %d bytes, %v is free", page, free)
		}
		filesystemtest.CheckFree(t, image, open, "swaplabel")
	}
}

// TestOrders: both orders of bytes.
func TestOrders(t *testing.T) {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		data := append(header(8192, order, 9), make([]byte, 9*8192)...)
		s, err := swap.Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		if info := s.Info(); info.Label != "a label" || info.UUID != "30313233-3435-3637-3839-616263646566" || info.BlockSize != 8192 {
			t.Errorf("%v: %+v", order, info)
		}
		if free := filesystemtest.Free(t, s); len(free) != 1 || free[0] != (filesystem.Range{Offset: 8192, Length: 9 * 8192}) {
			t.Errorf("%v: %v is free", order, free)
		}
	}
}

// TestUntrusted: whatever is not as it should be is a reason.
func TestUntrusted(t *testing.T) {
	const pages = 10
	for name, change := range map[string]func([]byte){
		"version 0":              func(b []byte) { copy(b[4086:], "SWAP-SPACE") },
		"version 2":              func(b []byte) { b[1024] = 2 },
		"no pages":               func(b []byte) { b[1028] = 0 },
		"more pages than bytes":  func(b []byte) { b[1028] = pages },
		"too many bad pages":     func(b []byte) { b[1033] = 8 },
		"asleep by the kernel":   func(b []byte) { copy(b[4086:], "S1SUSPEND\x00") },
		"asleep, second version": func(b []byte) { copy(b[4086:], "S2SUSPEND\x00") },
		"asleep by uswsusp":      func(b []byte) { copy(b[4086:], "ULSUSPEND\x00") },
		"asleep by LINHIB":       func(b []byte) { copy(b[4086:], "LINHIB0001") },
		"asleep by TuxOnIce":     func(b []byte) { copy(b[4086:], "\xed\xc3\x02\xe9\x98\x56\xe5\x0c\x00\x00") },
	} {
		data := append(header(4096, binary.LittleEndian, pages-1), make([]byte, 4096*(pages-1))...)
		change(data)
		s, err := swap.Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if dirty := s.Info().Dirty; (dirty != "") != strings.HasPrefix(name, "asleep") {
			t.Errorf("%s: in a state of rest but for %q", name, dirty)
		}
		var untrusted *filesystem.UntrustedError
		if err := s.Free(context.Background(), func(filesystem.Range) error { return nil }); !errors.As(err, &untrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFlippedBits: with any one bit of the header flipped, nothing but pages behind it is free.
func TestFlippedBits(t *testing.T) {
	const pages = 2
	data := append(header(4096, binary.LittleEndian, pages-1), make([]byte, 4096*(pages-1))...)
	noticed := 0
	for bit := range 8 * 4096 {
		data[bit/8] ^= 1 << (bit % 8)
		s, err := swap.Open(bytes.NewReader(data), int64(len(data)))
		if err == nil {
			err = s.Free(context.Background(), func(r filesystem.Range) error {
				if r.Offset != 4096 || r.End() > int64(len(data)) {
					t.Errorf("with bit %d flipped, %+v is free", bit, r)
				}
				return nil
			})
		}
		if err != nil {
			noticed++
		}
		data[bit/8] ^= 1 << (bit % 8)
	}
	if noticed < 10*8+4*8 { // the signature, the version
		t.Errorf("only %d were noticed", noticed)
	}
}

// TestUnknown: what is no swap space is not opened, and what cannot be read is an error.
func TestUnknown(t *testing.T) {
	for _, size := range []int{0, 10, 4095, 4096, 1 << 20} {
		if _, err := swap.Open(bytes.NewReader(make([]byte, size)), int64(size)); err != filesystem.ErrUnknown {
			t.Errorf("%d zeros: %v", size, err)
		}
	}
	if _, err := swap.Open(bytes.NewReader(header(4096, binary.LittleEndian, 9)), 40960); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a source that is cut off: %v", err)
	}
	closed, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if _, err := swap.Open(closed, 1<<20); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a closed file: %v", err)
	}
}

// FuzzOpen makes the header of its fields and its signature, of which alone it depends.
func FuzzOpen(f *testing.F) {
	for page := range byte(5) {
		for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
			f.Add(page, header(4096, order, 99)[1024:1080], []byte("SWAPSPACE2"), int64(100*64<<10))
		}
	}
	for _, signature := range []string{"SWAP-SPACE", "S1SUSPEND\x00", "LINHIB0001"} {
		f.Add(byte(0), header(4096, binary.LittleEndian, 99)[1024:1080], []byte(signature), int64(100*4096))
	}
	f.Fuzz(func(t *testing.T, page byte, fields, signature []byte, size int64) {
		head := make([]byte, 4096<<(page%5))
		copy(head[1024:], fields[:min(len(fields), 1000)])
		copy(head[len(head)-10:], signature)
		s, err := swap.Open(padded(head), size)
		if err != nil {
			return
		}
		_ = s.Free(context.Background(), func(r filesystem.Range) error {
			if r.Offset < int64(s.Info().BlockSize) || r.Length <= 0 || r.End() > size || r.End() > s.Info().Size {
				t.Errorf("%+v is free, of %d bytes", r, size)
			}
			return nil
		})
	})
}

// padded is bytes with zeros behind them, without end.
type padded []byte

func (b padded) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(b)) {
		copy(p, b[off:])
	}
	return len(p), nil
}
