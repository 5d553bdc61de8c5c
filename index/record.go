package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The first byte of every key.
const (
	chunkPrefix  = 0x01
	recordPrefix = 0x02
)

// The second byte of a record's key.
const (
	sealRecord  = 's'
	goneRecord  = 'g'
	trustRecord = 't'
	dropRecord  = 'd'
)

const (
	max24      = 1<<24 - 1
	idSize     = 32
	entrySize  = 4 + 3 + 3 + 3 + 3
	sealSize   = 8 + 1 + 32 + 4 + 32
	crcSize    = 4
	chunkKeys  = 1 + idSize
	recordKeys = 2 + idSize
)

// errDamaged says that a generation does not hold what its seals promise.
var errDamaged = errors.New("the index is damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum covers a key, its version and a value. The version is in it because Badger keeps it apart from both, and
// here it says which pack is meant.
func checksum(key []byte, version uint64, value []byte) uint32 {
	var v [8]byte
	binary.LittleEndian.PutUint64(v[:], version)
	sum := crc32.Update(0, castagnoli, key)
	sum = crc32.Update(sum, castagnoli, v[:])
	return crc32.Update(sum, castagnoli, value)
}

func put24(b []byte, v uint32) { b[0], b[1], b[2] = byte(v), byte(v>>8), byte(v>>16) }
func get24(b []byte) uint32    { return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 }

// putChunkKey writes the key of a chunk into b, which has chunkKeys bytes.
func putChunkKey(b []byte, id *ID) {
	b[0] = chunkPrefix
	copy(b[1:], id[:])
}

// putEntry writes the value of an entry into b, which has entrySize bytes.
func putEntry(b, key []byte, version uint64, e *Entry) {
	binary.LittleEndian.PutUint32(b, e.Offset)
	put24(b[4:], e.Stored)
	put24(b[7:], e.At)
	put24(b[10:], e.Length)
	put24(b[13:], checksum(key, version, b[:13])&max24)
}

// parseEntry is the inverse of putEntry; false when the value is not one that putEntry made for this key and version.
func parseEntry(b, key []byte, version uint64) (Place, bool) {
	if len(b) != entrySize || get24(b[13:]) != checksum(key, version, b[:13])&max24 {
		return Place{}, false
	}
	return Place{
		Pack:   uint32(version),
		Offset: binary.LittleEndian.Uint32(b),
		Stored: get24(b[4:]),
		At:     get24(b[7:]),
		Length: get24(b[10:]),
	}, true
}

// seal is the record that ends the ingestion of a pack.
type seal struct {
	Pack
	count uint32 // distinct chunks
	xor   ID     // of their ids
}

// sealOf makes the seal of a pack and returns its entries without repetitions of an id.
func sealOf(p Pack, entries []Entry) ([]Entry, seal) {
	s := seal{Pack: p}
	seen := make(map[ID]struct{}, len(entries))
	distinct := make([]Entry, 0, len(entries))
	for _, e := range entries {
		if _, twice := seen[e.ID]; twice {
			continue
		}
		seen[e.ID] = struct{}{}
		distinct = append(distinct, e)
		s.count++
		xorInto(&s.xor, &e.ID)
	}
	return distinct, s
}

func xorInto(sum, id *ID) {
	for i := range sum {
		sum[i] ^= id[i]
	}
}

func (s *seal) encode() []byte {
	b := make([]byte, 0, sealSize)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.Size))
	b = append(b, s.Kind)
	b = append(b, s.Salt[:]...)
	b = binary.LittleEndian.AppendUint32(b, s.count)
	return append(b, s.xor[:]...)
}

// parseSeal is the inverse of encode; b has sealSize bytes.
func parseSeal(id ID, b []byte) seal {
	s := seal{Pack: Pack{ID: id, Size: int64(binary.LittleEndian.Uint64(b)), Kind: b[8]}}
	copy(s.Salt[:], b[9:])
	s.count = binary.LittleEndian.Uint32(b[41:])
	copy(s.xor[:], b[45:])
	return s
}

// record is any key that is not a chunk's. The checksum is not part of value.
type record struct {
	key   []byte
	value []byte
}

func recordKey(kind byte, id ID) []byte {
	return append([]byte{recordPrefix, kind}, id[:]...)
}

func sealKey(pack ID) []byte  { return recordKey(sealRecord, pack) }
func goneKey(pack ID) []byte  { return recordKey(goneRecord, pack) }
func trustKey(root ID) []byte { return recordKey(trustRecord, root) }
func dropKey() []byte         { return []byte{recordPrefix, dropRecord} }

// seal appends the checksum, as it is stored.
func (r record) sealed(version uint64) []byte {
	value := make([]byte, len(r.value), len(r.value)+crcSize)
	copy(value, r.value)
	return binary.LittleEndian.AppendUint32(value, checksum(r.key, version, r.value))
}

// contents is all that the records of a generation say.
type contents struct {
	seals   map[uint32]seal // by ordinal
	gone    map[ID]bool     // packs
	trusted map[ID]uint64   // root → version of the trust
	dropped uint64          // trust up to this version counts no more
}

// read takes in one stored record. key and value may be changed by the caller afterwards.
func (c *contents) read(key []byte, version uint64, stored []byte) error {
	if len(stored) < crcSize || len(key) < 2 || key[0] != recordPrefix {
		return fmt.Errorf("%w: %x is not a record, or too short for one", errDamaged, key)
	}
	value := stored[:len(stored)-crcSize]
	if binary.LittleEndian.Uint32(stored[len(value):]) != checksum(key, version, value) {
		return fmt.Errorf("%w: record %x has a wrong checksum", errDamaged, key)
	}
	var id ID
	copy(id[:], key[2:])
	size := recordKeys
	switch {
	case key[1] == sealRecord && len(value) == sealSize:
		c.seals[uint32(version)] = parseSeal(id, value)
	case key[1] == goneRecord && len(value) == 1:
		c.gone[id] = value[0] != 0
	case key[1] == trustRecord && len(value) == 0:
		c.trusted[id] = version
	case key[1] == dropRecord && len(value) == 0:
		c.dropped = version
		size = len(dropKey())
	default:
		return fmt.Errorf("%w: record %x is of no known kind", errDamaged, key)
	}
	if len(key) != size {
		return fmt.Errorf("%w: record %x has a key of %d bytes", errDamaged, key, len(key))
	}
	return nil
}
