package index

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// The bytes of an entry and of a seal: whoever changes them makes every index start empty, at best.
func TestStoredBytes(t *testing.T) {
	key, value := make([]byte, chunkKeys), make([]byte, entrySize)
	e := Entry{ID: id("chunk", 1), Offset: 0x01020304, Stored: 0x111213, At: 0x212223, Length: 0x313233}
	putChunkKey(key, &e.ID)
	putEntry(value, key, 77, &e)
	_, s := sealOf(Pack{ID: id("pack", 1), Size: 0x0102030405, Kind: 2, Salt: id("salt", 1)}, []Entry{e, {ID: id("chunk", 2)}, e})
	r := record{sealKey(s.ID), s.encode()}
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"key":      {key, "01" + hex.EncodeToString(e.ID[:])},
		"entry":    {value, "04030201131211232221333231dd88e5"},
		"seal key": {r.key, "0273" + hex.EncodeToString(s.ID[:])},
		"seal":     {r.sealed(77), "05040302010000000273003b0432d8a57bd2e9178e513deee76d445eb6f77aab74a6609e66c6b30412020000001c4c000cadeec04486200c389a4efe415d5681852a8be9c7f27c6f4462035dc84fd94751"},
		"gone":     {record{goneKey(s.ID), []byte{1}}.sealed(77), "015ec6b18f"},
		"trust":    {record{key: trustKey(s.ID)}.sealed(77), "050e615c"},
		"drop":     {record{key: dropKey()}.sealed(77), "729d9da5"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s is %s, want %s", name, got, c.want)
		}
	}
}

// Every flipped bit of an entry, its key or its version is noticed.
func TestFlippedEntry(t *testing.T) {
	key, value := make([]byte, chunkKeys), make([]byte, entrySize)
	e := testEntry(1, 1)
	putChunkKey(key, &e.ID)
	putEntry(value, key, 5, &e)
	if place, ok := parseEntry(value, key, 5); !ok || (place != Place{5, e.Offset, e.Stored, e.At, e.Length, false}) {
		t.Fatalf("%+v, %v", place, ok)
	}
	for _, b := range [][]byte{key, value} {
		for bit := range len(b) * 8 {
			b[bit/8] ^= 1 << (bit % 8)
			if _, ok := parseEntry(value, key, 5); ok {
				t.Errorf("bit %d flipped: taken", bit)
			}
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
	for bit := range 64 {
		if _, ok := parseEntry(value, key, 5^1<<bit); ok {
			t.Errorf("bit %d of the version flipped: taken", bit)
		}
	}
	for n := range value {
		if _, ok := parseEntry(value[:n], key, 5); ok {
			t.Errorf("%d bytes: taken", n)
		}
	}
}

func newContents() contents {
	return contents{seals: make(map[uint32]seal), gone: make(map[ID]bool), trusted: make(map[ID]uint64)}
}

func FuzzEntry(f *testing.F) {
	key, value := make([]byte, chunkKeys), make([]byte, entrySize)
	e := testEntry(1, 1)
	putChunkKey(key, &e.ID)
	putEntry(value, key, 5, &e)
	f.Add(key, uint64(5), value)
	f.Add([]byte{}, uint64(0), []byte{})
	f.Fuzz(func(t *testing.T, key []byte, version uint64, value []byte) {
		place, ok := parseEntry(value, key, version)
		if !ok {
			return
		}
		again := make([]byte, entrySize)
		putEntry(again, key, version, &Entry{Offset: place.Offset, Stored: place.Stored, At: place.At, Length: place.Length})
		if !bytes.Equal(again, value) {
			t.Fatalf("%x became %x", value, again)
		}
	})
}

func FuzzRecord(f *testing.F) {
	_, s := sealOf(Pack{ID: id("pack", 1), Size: 5}, []Entry{testEntry(1, 1)})
	for _, r := range []record{
		{sealKey(s.ID), s.encode()}, {goneKey(s.ID), []byte{1}}, {trustKey(s.ID), nil}, {dropKey(), nil}, {[]byte{2}, nil}, {nil, nil},
		{append([]byte{1}, sealKey(s.ID)[1:]...), s.encode()}, // all but the prefix of a seal
	} {
		f.Add(r.key, uint64(9), r.value)
	}
	f.Fuzz(func(t *testing.T, key []byte, version uint64, value []byte) {
		// With and without its checksum: the parser must hold out against what passes, too.
		c := newContents()
		if err := c.read(key, version, value); err == nil && len(value) < crcSize {
			t.Fatal("taken without a checksum")
		}
		c = newContents()
		if c.read(key, version, record{key, value}.sealed(version)) != nil {
			return
		}
		for n, s := range c.seals {
			if n != uint32(version) || !bytes.Equal(s.encode(), value) || !bytes.Equal(sealKey(s.ID), key) {
				t.Fatalf("%x = %x became %+v", key, value, s)
			}
		}
		if len(c.seals)+len(c.gone)+len(c.trusted) == 0 && c.dropped != version {
			t.Fatalf("%x = %x was taken for nothing", key, value)
		}
	})
}
