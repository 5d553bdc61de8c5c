package ext

import (
	"bytes"
	"testing"

	"varve/image/filesystem"
)

// FuzzAttributes decodes a region of attributes.
func FuzzAttributes(f *testing.F) {
	f.Add([]byte("\x05\x01\x20\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00small\x00\x00\x00\x00\x00\x00\x00valu"))
	f.Add([]byte("\x00\x02\x18\x00\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, region []byte) {
		list, err := readAttributes(region, 0)
		if err != nil {
			return
		}
		if len(list) > len(region)/16 {
			t.Errorf("%d attributes in %d bytes", len(list), len(region))
		}
		for _, a := range list {
			value, err := a.value(region)
			if err == nil && len(value) != int(a.length) {
				t.Errorf("%+v has %d bytes", a, len(value))
			}
			_, _ = accessList(value)
		}
	})
}

// FuzzFolder decodes a block of a folder.
func FuzzFolder(f *testing.F) {
	f.Add([]byte("\x0b\x00\x00\x00\x0c\x00\x01\x02.\x00\x00\x00\x02\x00\x00\x00\x0c\x00\x02\x02..\x00\x00\x0c\x00\x00\x00\x10\x00\x05\x01hello\x00\x00\x00"), false)
	f.Add([]byte("\x0c\x00\x00\x00\xff\xff\x05\x01hello\x00\x00\x00"), true)
	f.Fuzz(func(t *testing.T, block []byte, large bool) {
		s := &FS{superblock: superblock{blockSize: 1024, incompat: incompatFileType}}
		if large {
			s.blockSize = 64 << 10
		}
		count := 0
		d := listing{inode: &inode{FS: s}, each: func(e filesystem.Entry) error {
			count++
			if !bytes.Contains(block, []byte(e.Name)) {
				t.Errorf("the name %q", e.Name)
			}
			return nil
		}}
		if err := d.entries(block); err != nil || count > len(block)/8 {
			t.Errorf("%d entries in %d bytes: %v", count, len(block), err)
		}
	})
}

// TestLargeNumbers: of blocks, there are more than 32 bits count.
func TestLargeNumbers(t *testing.T) {
	raw := make([]byte, superblockSize)
	for at, value := range map[int]uint32{
		0x00: 1000, 0x04: 5, 0x0C: 4, 0x18: 2, 0x1C: 2, 0x20: 32768, 0x24: 32768, 0x28: 8192, 0x38: 0xEF53, 0x4C: 1, 0x54: 11, 0x58: 256,
		0x60: incompat64Bit, 0xFC: 64 << 16, 0x150: 3, 0x158: 2,
	} {
		le.PutUint32(raw[at:], value)
	}
	var s superblock
	if err := s.parse(raw); err != nil {
		t.Fatal(err)
	}
	if s.blocks != 3<<32+5 || s.freeBlocks != 2<<32+4 || s.groups != 3<<17+1 {
		t.Errorf("%d blocks, %d free, %d groups", s.blocks, s.freeBlocks, s.groups)
	}
	d, err := s.descriptor(0, append(make([]byte, 0x20), 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
	if err != nil || d.blockBitmap != 1<<32 || d.inodeBitmap != 2<<32 || d.inodeTable != 3<<32 || d.freeClusters != 4<<16 {
		t.Errorf("%+v: %v", d, err)
	}
}

// TestChecksums: the values of a catalogue of CRCs (CRC-16/MODBUS, and CRC-32C before it is inverted).
func TestChecksums(t *testing.T) {
	if sum := crc16(0xFFFF, []byte("1234"), []byte("56789")); sum != 0x4B37 {
		t.Errorf("CRC-16: %#x", sum)
	}
	if sum := ^crc32c(^uint32(0), []byte("1234"), []byte("56789")); sum != 0xE3069283 {
		t.Errorf("CRC-32C: %#x", sum)
	}
}

// TestNext: the first zero or one from any bit to any other.
func TestNext(t *testing.T) {
	bitmap := []byte{0xFF, 0, 0x10, 0, 0, 0, 0, 0x80, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F}
	for value := range uint64(2) {
		for at := range int64(129) {
			for end := at; end <= 128; end++ {
				want := at
				for want < end && uint64(bitmap[want/8]>>(want%8)&1) != value {
					want++
				}
				if got := next(bitmap, at, end, value); got != want {
					t.Fatalf("the first %d from %d to %d: %d, not %d", value, at, end, got, want)
				}
			}
		}
	}
}
