package btrfs

import (
	"bytes"
	"encoding/binary"
	"maps"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// FuzzFilesystem changes bytes of a small filesystem, makes all checksums right again, and reads everything. An edit is 4 bytes: number
// of the block, place in it (2 bytes), new value.
func FuzzFilesystem(f *testing.F) {
	var whole []*small
	for i, name := range smallNames {
		s := loadSmall(f, name)
		whole = append(whole, s)
		f.Add(byte(i), []byte{})
		for block := range len(s.blocks) {
			f.Add(byte(i), []byte{byte(block), 0, headerSize + 20, 1, byte(block), 0, 96, 200, byte(block), 0, levelOffset, 1})
			f.Add(byte(i), []byte{byte(block), 0xf, 0xf0, 0xff, byte(block), 0, headerSize + 8, 84})
		}
	}
	f.Fuzz(func(t *testing.T, which byte, edits []byte) {
		s := whole[int(which)%len(whole)].clone()
		offsets := slices.Sorted(maps.Keys(s.blocks))
		for ; len(edits) >= 4; edits = edits[4:] {
			block := s.blocks[offsets[int(edits[0])%len(offsets)]]
			block[int(binary.BigEndian.Uint16(edits[1:]))%smallBlock] = edits[3]
		}
		s.seal()
		begun := time.Now()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = describe(s, s.size) // it panics when what is told is not possible
		runtime.ReadMemStats(&after)
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("it took %v", took)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 1<<30 {
			t.Errorf("it took %d bytes of memory", took)
		}
	})
}

// FuzzBlock parses a tree block, and each of its items as all that it could be.
func FuzzBlock(f *testing.F) {
	for _, name := range smallNames {
		for _, b := range loadSmall(f, name).blocks {
			f.Add(b)
		}
	}
	super, err := parseSuperblock(loadSmall(f, "mixed").blocks[superblockOffsets[0]], superblockOffsets[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = append(bytes.Clone(data), make([]byte, smallBlock)...)[:smallBlock]
		copy(data[32:], super.blockUUID[:])
		copy(data, super.checksum.sum(data[maxChecksum:]))
		b, err := parseBlock(super, binary.LittleEndian.Uint64(data[48:]), data)
		if err != nil {
			return
		}
		for i := range b.count {
			if k := b.key(i); b.floor(k) != i {
				t.Fatalf("key %d, %v, is found at %d", i, k, b.floor(k))
			}
			if b.level > 0 {
				if p := b.child(i); p.level >= b.level {
					t.Fatalf("%+v below level %d", p, b.level)
				}
				continue
			}
			item := b.item(i)
			if e, err := parseExtent(super, item); err == nil && (e.run <= 0 || e.end() < e.offset || e.compression != 0 && e.size > maxDecoded) {
				t.Fatalf("extent %+v", e)
			}
			if c, err := parseChunk(super, item.key.offset, item.data); err == nil {
				for _, off := range c.copies {
					if off < 0 || off > super.device.size-int64(c.length) {
						t.Fatalf("chunk %+v", c)
					}
				}
			}
			_, _ = parseRootItem(item.data)
			_, _ = parseGroup(item, &chunk{logical: item.key.object, length: item.key.offset})
			rest := item.data
			for err == nil && len(rest) > 0 {
				before := len(rest)
				if _, rest, err = parseDirItem(rest); err == nil && len(rest) >= before {
					t.Fatal("an entry without bytes")
				}
			}
			err = nil
			a := audit{volume: &volume{super: super}}
			_, _ = a.parseExtent(item, &chunk{kind: chunkData | chunkMetadata})
			l := lister{chunk: &chunk{length: 1 << 40}, sector: smallBlock, known: true, yield: func(r run, err error) bool {
				if err == nil && (r.length == 0 || r.logical+r.length > 1<<40) {
					t.Fatalf("run %+v", r)
				}
				return true
			}}
			_ = l.item(item)
			l.flush()
		}
	})
}

func FuzzSuperblock(f *testing.F) {
	for _, name := range smallNames {
		f.Add(loadSmall(f, name).blocks[superblockOffsets[0]])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(bytes.Clone(b), make([]byte, superblockSize)...)[:superblockSize]
		if kind := int(binary.LittleEndian.Uint16(b[0xc4:])); kind < len(checksums) {
			copy(b, checksums[kind].sum(b[maxChecksum:]))
		}
		s, err := parseSuperblock(b, superblockOffsets[0])
		if err != nil {
			return
		}
		if s.device.size < startRoom || s.device.size%s.sectorSize != 0 || s.nodeSize%s.sectorSize != 0 || len(s.chunks) > 2048 {
			t.Fatalf("superblock %+v", s)
		}
		list, err := parseSystemChunks(s)
		if err != nil {
			return
		}
		if m, err := newChunkMap(list); err == nil && len(m.stripes()) < len(m) {
			t.Fatalf("chunks %+v", m)
		}
	})
}

// FuzzDecode decompresses anything.
func FuzzDecode(f *testing.F) {
	v := &volume{super: &superblock{sectorSize: smallBlock}}
	var err error
	if v.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxDecoded)); err != nil {
		f.Fatal(err)
	}
	s := loadSmall(f, "mixed")
	for _, b := range s.blocks {
		switch {
		case b[0] == 0x78: // zlib
			f.Add(byte(1), 35_000, b)
		case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}):
			f.Add(byte(3), 35_000, b)
		case b[0] != 0 && b[1] < 0x10 && b[2] == 0 && b[3] == 0:
			f.Add(byte(2), 35_000, b)
		}
	}
	f.Add(byte(2), 100, []byte{14, 0, 0, 0, 6, 0, 0, 0, 18, 'a', 0, 17, 0, 0})
	f.Fuzz(func(t *testing.T, compression byte, size int, stored []byte) {
		size, compression = max(0, min(size, maxDecoded)), 1+compression%3
		b, err := v.decode(compression, stored, size)
		if err == nil && len(b) != size {
			t.Fatalf("%d bytes, not %d", len(b), size)
		}
	})
}
