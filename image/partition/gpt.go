package partition

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"
)

const (
	gptSignature = "EFI PART"

	headerLength = 92 // bytes, at least

	// Bounds of what is read. Tools make 128 entries of 128 bytes.
	minEntry   = 128
	maxEntry   = 4096 // bytes
	maxEntries = 4096
)

// guid is a GUID as it is on the disk: its first three fields are little-endian.
type guid [16]byte

// String writes it as Linux does, in small letters.
func (g guid) String() string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(g[0:]), le.Uint16(g[4:]), le.Uint16(g[6:]), g[8:10], g[10:16])
}

// header is one of the two copies of a GPT.
type header struct {
	lba, other  uint64 // of this header, and of the other one
	first, last uint64 // LBA for partitions
	id          guid
	array       uint64 // LBA of the entries
	count, size uint32 // of entries, and bytes of one
	crc         uint32 // of all entries

	entries []byte
}

// hasGPT reports whether the disk has a whole GPT in its place.
func (d disk) hasGPT() bool {
	_, err := d.readHeader(1)
	return err == nil
}

// readHeader reads the header in sector lba, and its entries. The error says for people what is wrong; unless the signature is missing
// there is also a header, of which nothing is certain.
func (d disk) readHeader(lba uint64) (*header, error) {
	sector, err := d.read(lba, d.sector)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(sector, []byte(gptSignature)) {
		return nil, errors.New("it has no signature")
	}
	le := binary.LittleEndian
	h := &header{
		lba:   lba,
		other: le.Uint64(sector[32:]),
		first: le.Uint64(sector[40:]),
		last:  le.Uint64(sector[48:]),
		id:    guid(sector[56:72]),
		array: le.Uint64(sector[72:]),
		count: le.Uint32(sector[80:]),
		size:  le.Uint32(sector[84:]),
		crc:   le.Uint32(sector[88:]),
	}
	length, want := le.Uint32(sector[12:]), le.Uint32(sector[16:])
	if length < headerLength || int64(length) > d.sector {
		return h, fmt.Errorf("its header has %d bytes", length)
	}
	clear(sector[16:20])
	switch {
	case crc32.ChecksumIEEE(sector[:length]) != want:
		return h, errors.New("the checksum of its header is wrong")
	case le.Uint64(sector[24:]) != lba:
		return h, errors.New("it was copied from another place")
	case h.first > h.last:
		return h, errors.New("it leaves no room for partitions")
	case h.count < 1 || h.count > maxEntries:
		return h, fmt.Errorf("it has %d entries", h.count)
	case h.size < minEntry || h.size > maxEntry || h.size&(h.size-1) != 0:
		return h, fmt.Errorf("its entries have %d bytes", h.size)
	}
	if h.entries, err = d.read(h.array, h.length()); err != nil {
		return h, fmt.Errorf("reading its entries: %w", err)
	}
	if crc32.ChecksumIEEE(h.entries) != h.crc {
		return h, errors.New("the checksum of its entries is wrong")
	}
	return h, nil
}

// length is how many bytes the entries have.
func (h *header) length() int64 { return int64(h.count) * int64(h.size) }

// says reports whether two headers say the same of the disk.
func (h *header) says(other *header) bool {
	return h.id == other.id && h.first == other.first && h.last == other.last && h.count == other.count && h.size == other.size && h.crc == other.crc
}

// readGPT reads the GPT that the protective MBR names.
func readGPT(r io.ReaderAt, size int64, sizes []int64, b boot) *Table {
	var broken []*header // the primary header for each size of a sector, as it is
	var why []error
	for _, sector := range sizes {
		d := disk{r, size, sector}
		h, err := d.readHeader(1)
		if err == nil {
			return d.newGPT(b, h).withBackup(d, h).entries(d, h)
		}
		broken, why = append(broken, h), append(why, err)
	}
	for i, sector := range sizes {
		d := disk{r, size, sector}
		for _, lba := range d.backups(broken[i], b) {
			h, err := d.readHeader(lba)
			if err != nil {
				continue
			}
			t := d.newGPT(b, h)
			t.doubt("only the backup of its partition table is left", "the primary GPT is damaged (%v): its backup was read", why[i])
			if lba != d.sectors()-1 {
				t.note("the backup GPT is not at the end of the disk")
			}
			t.structure(d, 1, d.sector)
			t.structure(d, 2, h.length())
			return t.entries(d, h)
		}
	}
	// That one is told which got farthest.
	at := 0
	for i, h := range broken {
		if h != nil {
			at = i
		}
	}
	d := disk{r, size, sizes[at]}
	t := &Table{Scheme: GPT, SectorSize: int(d.sector)}
	t.structure(d, 0, d.sector)
	t.doubt("its partition table is damaged", "the primary GPT is damaged (%v), and so is its backup: what partitions there are is not known", why[at])
	return t.finish()
}

// backups returns where the backup of a damaged GPT may be: at the end of the disk, where the damaged header says, and where the disk
// ended when its MBR was made.
func (d disk) backups(broken *header, b boot) []uint64 {
	list := []uint64{d.sectors() - 1}
	if broken != nil {
		list = append(list, broken.other)
	}
	for _, e := range b.entries {
		if e.kind == typeProtective {
			list = append(list, e.start+e.sectors-1)
		}
	}
	return list
}

// newGPT begins the table of a GPT.
func (d disk) newGPT(b boot, h *header) *Table {
	t := &Table{Scheme: GPT, SectorSize: int(d.sector), ID: h.id.String()}
	t.structure(d, 0, d.sector)
	t.structure(d, h.lba, d.sector)
	t.structure(d, h.array, h.length())
	for _, e := range b.entries {
		if !e.empty() && e.kind != typeProtective {
			t.note("the MBR has partitions of its own beside the GPT (hybrid): the GPT was read")
			break
		}
	}
	if h.last >= d.sectors() {
		t.doubt(tooSmall, "the disk ends before the last sector that its GPT gives to partitions")
	}
	return t
}

// withBackup looks for the backup of a whole primary GPT.
func (t *Table) withBackup(d disk, h *header) *Table {
	switch {
	case h.other <= 1:
		t.note("the primary GPT names no backup")
		return t
	case h.other >= d.sectors():
		t.doubt(tooSmall, "the backup GPT is missing: it should be behind the end of the disk")
		return t
	case h.other != d.sectors()-1:
		t.note("the backup GPT is not at the end of the disk: the disk has grown")
	}
	backup, err := d.readHeader(h.other)
	switch {
	case err != nil:
		t.note("the backup GPT is damaged: %v", err)
		t.structure(d, h.other, d.sector)
		if n := uint64((h.length() + d.sector - 1) / d.sector); h.other > n {
			t.structure(d, h.other-n, h.length()) // where it usually is
		}
		return t
	case !backup.says(h):
		t.note("the primary GPT and its backup differ: the primary was read")
	}
	t.structure(d, backup.lba, d.sector)
	t.structure(d, backup.array, backup.length())
	return t
}

// entries adds the partitions.
func (t *Table) entries(d disk, h *header) *Table {
	le := binary.LittleEndian
	for i := range int(h.count) {
		e := h.entries[i*int(h.size):][:h.size]
		kind := guid(e[0:16])
		if kind == (guid{}) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		if last < first || last-first+1 == 0 {
			t.note("partition %d ends before it begins: it was left out", i+1)
			continue
		}
		p := Partition{
			Number:     i + 1,
			Type:       kind.String(),
			ID:         guid(e[16:32]).String(),
			Name:       name(e[56:128]),
			Attributes: attributes(kind.String(), le.Uint64(e[48:])),
		}
		p.TypeName = gptTypes[p.Type]
		t.add(d, p, first, last-first+1)
	}
	return t.finish()
}

// name decodes the name of a partition: UTF-16, up to the first zero.
func name(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := binary.LittleEndian.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// attributes names the bits of a partition. Those from 48 on mean what the type says.
func attributes(kind string, bits uint64) []string {
	names := map[int]string{0: "required", 1: "no block io", 2: "bootable"}
	switch {
	case kind == microsoftData || kind == windowsRecovery:
		names[60], names[61], names[62], names[63] = "read-only", "shadow copy", "hidden", "no automount"
	case strings.HasPrefix(gptTypes[kind], "Linux"):
		names[59], names[60], names[63] = "grow filesystem", "read-only", "no automount"
	}
	var list []string
	for i := range 64 {
		if bits&(1<<i) == 0 {
			continue
		}
		if name := names[i]; name != "" {
			list = append(list, name)
		} else {
			list = append(list, fmt.Sprintf("bit %d", i))
		}
	}
	return list
}
