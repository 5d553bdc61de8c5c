package volume

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// A mark is the sign of something that is recognised but not read inside.
type mark struct {
	kind        string
	label, uuid string // where they are easily had
	offset      int64  // of the mark
	end         bool   // its place is counted from the end
	nature      nature
}

type nature byte

const (
	foreign   nature = iota // a filesystem that no reader knows
	encrypted               // what is inside cannot be seen
	member                  // a part of something that may have other parts elsewhere
)

// why completes "read in full, because …".
func (m mark) why() string {
	switch m.nature {
	case encrypted:
		return "it is encrypted"
	case member:
		return "it is a part of something larger"
	}
	return "this kind of filesystem is not read"
}

// signature says where the mark of something is. A negative offset counts from the end of the volume, after that was rounded down to a
// multiple of align.
type signature struct {
	kind   string
	nature nature
	offset int64
	align  int64
	magic  string
	detail func(s *scanner, at int64, m *mark) bool // finds label and UUID, or that it is something else; nil: nothing to find
}

// signatures are what is recognised. Filesystems that a reader knows are not in it.
var signatures = []signature{
	{kind: "LUKS", nature: encrypted, magic: "LUKS\xba\xbe", detail: luks},
	{kind: "BitLocker", nature: encrypted, offset: 3, magic: "-FVE-FS-"},
	// BitLocker To Go, which looks like FAT32: the GUID of its metadata.
	{kind: "BitLocker", nature: encrypted, offset: 424, magic: "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01"},
	{kind: "LVM", nature: member, offset: 0 << 9, magic: "LABELONE", detail: lvm},
	{kind: "LVM", nature: member, offset: 1 << 9, magic: "LABELONE", detail: lvm},
	{kind: "LVM", nature: member, offset: 2 << 9, magic: "LABELONE", detail: lvm},
	{kind: "LVM", nature: member, offset: 3 << 9, magic: "LABELONE", detail: lvm},
	// MD: superblock 1.1, 1.2, 1.0, and 0.90 of both byte orders.
	{kind: "RAID member", nature: member, magic: "\xfc\x4e\x2b\xa9", detail: md},
	{kind: "RAID member", nature: member, offset: 4096, magic: "\xfc\x4e\x2b\xa9", detail: md},
	{kind: "RAID member", nature: member, offset: -8192, align: 4096, magic: "\xfc\x4e\x2b\xa9", detail: md},
	{kind: "RAID member", nature: member, offset: -65536, align: 65536, magic: "\xfc\x4e\x2b\xa9\x00\x00\x00\x00\x5a\x00\x00\x00"},
	{kind: "RAID member", nature: member, offset: -65536, align: 65536, magic: "\xa9\x2b\x4e\xfc\x00\x00\x00\x00\x00\x00\x00\x5a"},
	// RAID of mainboards and controllers: Intel, SNIA DDF, NVIDIA, LSI, Promise.
	{kind: "RAID member", nature: member, offset: -2 << 9, align: 512, magic: "Intel Raid ISM Cfg Sig. "},
	{kind: "RAID member", nature: member, offset: -2 << 12, align: 4096, magic: "Intel Raid ISM Cfg Sig. "},
	{kind: "RAID member", nature: member, offset: -1 << 9, align: 512, magic: "\xde\x11\xde\x11"},
	{kind: "RAID member", nature: member, offset: -1 << 12, align: 4096, magic: "\xde\x11\xde\x11"},
	{kind: "RAID member", nature: member, offset: -2 << 9, align: 512, magic: "NVIDIA  "},
	{kind: "RAID member", nature: member, offset: -1 << 9, align: 512, magic: "$XIDE$"},
	{kind: "RAID member", nature: member, offset: -63 << 9, align: 512, magic: "Promise Technology, Inc."},

	{kind: "bcachefs", nature: member, offset: 4096 + 24, magic: "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", detail: bcachefs},
	{kind: "bcachefs", nature: member, offset: 4096 + 24, magic: "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", detail: bcachefs},
	{kind: "Ceph", nature: member, magic: "bluestore block device"},
	{kind: "ZFS", nature: member, offset: 16 << 10, magic: nvlist, detail: zfs},
	{kind: "ZFS", nature: member, offset: 272 << 10, magic: nvlist, detail: zfs},
	{kind: "ZFS", nature: member, offset: -496 << 10, align: 256 << 10, magic: nvlist, detail: zfs},
	{kind: "ZFS", nature: member, offset: -240 << 10, align: 256 << 10, magic: nvlist, detail: zfs},
	{kind: "VMFS", nature: member, offset: 1 << 20, magic: "\x0d\xd0\x01\xc0"},

	{kind: "ReFS", offset: 3, magic: "ReFS\x00\x00\x00\x00"},
	{kind: "HFS+", offset: 1024, magic: "H+\x00\x04"},
	{kind: "HFS+", offset: 1024, magic: "HX\x00\x05"},
	{kind: "HFS", offset: 1024, magic: "BD", detail: hfs},
	{kind: "APFS", offset: 32, magic: "NXSB", detail: apfs},
	{kind: "squashfs", magic: "hsqs"},
	{kind: "squashfs", magic: "sqsh"},
	{kind: "ISO 9660", offset: 32768, magic: "\x01CD001", detail: iso},
	{kind: "UDF", offset: 32768, magic: "\x00BEA01"},
	{kind: "UDF", offset: 32768 + 2048, magic: "\x00BEA01"}, // beside ISO 9660
	{kind: "UDF", offset: 32768 + 2*2048, magic: "\x00BEA01"},
	{kind: "F2FS", offset: 1024, magic: "\x10\x20\xf5\xf2", detail: f2fs},
	{kind: "EROFS", offset: 1024, magic: "\xe2\xe1\xf5\xe0", detail: erofs},
	{kind: "NILFS2", offset: 1024 + 6, magic: "\x34\x34", detail: nilfs},
	{kind: "JFS", offset: 32768, magic: "JFS1"},
	{kind: "ReiserFS", offset: 65536 + 52, magic: "ReIsEr"},
	{kind: "GFS2", offset: 65536, magic: "\x01\x16\x19\x70\x00\x00\x00\x01"},
	{kind: "UFS", offset: 65536 + 1372, magic: "\x19\x01\x54\x19"},
	{kind: "UFS", offset: 8192 + 1372, magic: "\x54\x19\x01\x00"},
}

// recognise returns what is recognised in the size bytes of r, each kind once. The error says that not all places can be read.
func recognise(r io.ReaderAt, size int64) ([]mark, error) {
	s := &scanner{r: r, size: size}
	var list []mark
	seen := map[string]bool{}
	for _, sig := range signatures {
		at := sig.offset
		if at < 0 {
			at += size - size%sig.align
		}
		if seen[sig.kind] || string(s.read(at, len(sig.magic))) != sig.magic {
			continue
		}
		m := mark{kind: sig.kind, offset: at, end: sig.offset < 0, nature: sig.nature}
		if sig.detail != nil && !sig.detail(s, at, &m) {
			continue
		}
		seen[sig.kind] = true
		list = append(list, m)
	}
	return list, s.err
}

// scanner reads a volume for signatures.
type scanner struct {
	r    io.ReaderAt
	size int64
	err  error // the first one
}

// read returns n bytes from off, or nothing when they are not on the volume or cannot be read.
func (s *scanner) read(off int64, n int) []byte {
	if off < 0 || int64(n) > s.size || off > s.size-int64(n) {
		return nil
	}
	p := make([]byte, n)
	if got, err := s.r.ReadAt(p, off); got < n {
		if s.err == nil {
			s.err = fmt.Errorf("reading %d bytes at %d: %w", n, off, err)
		}
		return nil
	}
	return p
}

// text returns the text of a field up to its first zero.
func (s *scanner) text(off int64, n int) string {
	text, _, _ := bytes.Cut(s.read(off, n), []byte{0})
	return strings.ToValidUTF8(string(text), "\ufffd")
}

// uuid returns a UUID, or "" where all of it is zero.
func (s *scanner) uuid(off int64) string {
	u := s.read(off, 16)
	if u == nil || bytes.Equal(u, make([]byte, 16)) {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

// luks: version 1 and 2 have the UUID in one place, as text.
func luks(s *scanner, at int64, m *mark) bool {
	m.uuid = s.text(at+168, 40)
	if version := s.read(at+6, 2); len(version) == 2 && version[1] == 2 {
		m.label = s.text(at+24, 48)
	}
	return true
}

// lvm: the label's header has the offset of that of the physical volume, which begins with its UUID as text.
func lvm(s *scanner, at int64, m *mark) bool {
	h := s.read(at, 32)
	if len(h) < 32 || string(h[24:]) != "LVM2 001" {
		return false
	}
	if u := s.text(at+int64(binary.LittleEndian.Uint32(h[20:])), 32); len(u) == 32 {
		m.uuid = strings.Join([]string{u[:6], u[6:10], u[10:14], u[14:18], u[18:22], u[22:26], u[26:]}, "-")
	}
	return true
}

// md: a superblock of version 1 knows where it is.
func md(s *scanner, at int64, m *mark) bool {
	h := s.read(at, 256)
	if h == nil || binary.LittleEndian.Uint32(h[4:]) != 1 || binary.LittleEndian.Uint64(h[144:]) != uint64(at)/512 {
		return false
	}
	m.uuid, m.label = s.uuid(at+16), s.text(at+32, 32)
	return true
}

// bcachefs: bcache has the same magic, and there the number of the superblock's sector before it.
func bcachefs(s *scanner, at int64, m *mark) bool {
	if before := s.read(at-16, 8); before != nil && binary.LittleEndian.Uint64(before) == 8 {
		m.kind, m.uuid, m.label = "bcache", s.uuid(at+16), s.text(at+48, 32)
		return true
	}
	m.uuid, m.label = s.uuid(at+32), s.text(at+48, 32)
	return true
}

// nvlist begins the list of names and values in the label of a ZFS device: XDR, little-endian host, version 0, unique names.
const nvlist = "\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"

// zfs: the pool is named in the list.
func zfs(s *scanner, at int64, m *mark) bool {
	list := s.read(at, 112<<10)
	if list == nil {
		return true
	}
	if _, value, ok := bytes.Cut(list, []byte("\x00\x00\x00\x04name\x00\x00\x00\x09\x00\x00\x00\x01")); ok && len(value) > 4 {
		if n := binary.BigEndian.Uint32(value); n <= 256 && int(n) <= len(value)-4 {
			m.label = strings.ToValidUTF8(string(value[4:4+n]), "\ufffd")
		}
	}
	if _, value, ok := bytes.Cut(list, []byte("\x00\x00\x00\x09pool_guid\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x01")); ok && len(value) >= 8 {
		m.uuid = fmt.Sprint(binary.BigEndian.Uint64(value))
	}
	return true
}

func apfs(s *scanner, at int64, m *mark) bool {
	m.uuid = s.uuid(at + 40)
	return true
}

// iso: the volume is named in its primary descriptor; the time of its last change serves as UUID, as it does for blkid.
func iso(s *scanner, at int64, m *mark) bool {
	m.label = strings.TrimRight(s.text(at+40, 32), " ")
	for _, field := range []int64{830, 813} { // changed, created
		t := s.text(at+field, 16)
		if len(t) == 16 && strings.Trim(t, "0123456789") == "" && strings.Trim(t, "0") != "" {
			m.uuid = strings.Join([]string{t[:4], t[4:6], t[6:8], t[8:10], t[10:12], t[12:14], t[14:]}, "-")
			break
		}
	}
	return true
}

func f2fs(s *scanner, at int64, m *mark) bool {
	m.uuid = s.uuid(at + 108)
	var units []uint16
	for b := s.read(at+124, 1024); len(b) >= 2 && (b[0] != 0 || b[1] != 0); b = b[2:] {
		units = append(units, binary.LittleEndian.Uint16(b))
	}
	m.label = string(utf16.Decode(units))
	return true
}

func erofs(s *scanner, at int64, m *mark) bool {
	m.uuid, m.label = s.uuid(at+48), s.text(at+64, 16)
	return true
}

// nilfs: its magic is short, so the rest of the superblock must look right, too.
func nilfs(s *scanner, at int64, m *mark) bool {
	at -= 6
	h := s.read(at, 10)
	if h == nil || binary.LittleEndian.Uint32(h) != 2 || binary.LittleEndian.Uint16(h[8:]) > 1024 { // revision, bytes
		return false
	}
	m.uuid, m.label = s.uuid(at+152), s.text(at+168, 80)
	return true
}

// hfs: its magic is short, so the bytes of an allocation block must look right, too.
func hfs(s *scanner, at int64, _ *mark) bool {
	h := s.read(at+20, 4)
	return h != nil && binary.BigEndian.Uint32(h) != 0 && binary.BigEndian.Uint32(h)%512 == 0
}
