package ntfs

import (
	"fmt"
	"io/fs"
	"strings"

	"varve/image/filesystem"
)

const (
	maxReparse = 16 << 10   // bytes, by [MS-FSCC] 2.1.2
	maxInterix = 8 + 2*4096 // bytes, as ntfs-3g has it
	maxEA      = 64 << 10
)

// Tags of reparse points ([MS-FSCC] 2.1.2.1).
const (
	tagMountPoint  = 0xa0000003
	tagSymlink     = 0xa000000c
	tagDedup       = 0x80000013
	tagWOF         = 0x80000017
	tagLinuxLink   = 0xa000001d
	tagLinuxSocket = 0x80000023
	tagLinuxPipe   = 0x80000024
	tagLinuxChar   = 0x80000025
	tagLinuxBlock  = 0x80000026
)

// keeper says who keeps the content of a file with the given tag.
func keeper(tag uint32) string {
	switch tag {
	case tagWOF:
		return "compressed by Windows (CompactOS)"
	case tagDedup:
		return "deduplicated by Windows"
	}
	return fmt.Sprintf("kept elsewhere (reparse tag %#x)", tag)
}

// form is what a file is.
type form struct {
	kind   fs.FileMode // the type
	target string      // of a symbolic link
	device uint64
	tag    uint32 // of a reparse point that is none of the above
}

// form tells what a file is: by its reparse point, by what Interix keeps in a small file of the system (ntfs-3g writes these), or
// by its flags.
func (f *FS) form(x *file, facts linux) (form, error) {
	result := form{}
	if x.folder() {
		result.kind = fs.ModeDir
	}
	reparse, err := f.value(x, typeReparse, "", maxReparse)
	if err != nil {
		return result, err
	}
	if reparse != nil {
		if result, err = parseReparse(reparse, result.kind, facts); err != nil {
			return result, fmt.Errorf("file %d: %w", x.number&numberMask, err)
		}
		return result, nil
	}
	info, err := x.standard()
	if err != nil {
		return result, err
	}
	if flags := le.Uint32(info[32:]); !x.folder() && flags&fileSystem != 0 {
		return f.interix(x, flags)
	}
	return result, nil
}

// parseReparse parses a reparse point of a file of the given type: tag 4, bytes 2, 2, and what the tag says.
func parseReparse(b []byte, kind fs.FileMode, facts linux) (form, error) {
	if len(b) < 8 {
		return form{}, filesystem.Corrupt("a reparse point has %d bytes", len(b))
	}
	tag, data := le.Uint32(b), b[8:]
	if int(le.Uint16(b[4:])) > len(data) {
		return form{}, filesystem.Corrupt("a reparse point has %d bytes of %d", len(data), le.Uint16(b[4:]))
	}
	data = data[:le.Uint16(b[4:])]
	switch tag {
	case tagMountPoint:
		return windowsLink(data, 8)
	case tagSymlink:
		return windowsLink(data, 12)
	case tagLinuxLink: // version 4, target
		if len(data) < 4 || le.Uint32(data) != 2 {
			return form{}, filesystem.Unsupported("a symbolic link of Linux in Windows has another form")
		}
		return form{kind: fs.ModeSymlink, target: string(data[4:])}, nil
	case tagLinuxSocket:
		return form{kind: fs.ModeSocket}, nil
	case tagLinuxPipe:
		return form{kind: fs.ModeNamedPipe}, nil
	case tagLinuxChar:
		return form{kind: fs.ModeDevice | fs.ModeCharDevice, device: facts.device}, nil
	case tagLinuxBlock:
		return form{kind: fs.ModeDevice, device: facts.device}, nil
	}
	return form{kind: kind, tag: tag}, nil
}

// windowsLink parses a link of Windows: offset and length 2 × 2 of the name that counts, those of the one that is shown, flags 4
// in a symbolic link, and behind that header the names.
func windowsLink(b []byte, header int) (form, error) {
	if len(b) < header {
		return form{}, filesystem.Corrupt("a link has %d bytes", len(b))
	}
	at, length := header+int(le.Uint16(b)), int(le.Uint16(b[2:]))
	if at+length > len(b) {
		return form{}, filesystem.Corrupt("the target of a link goes from %d to %d of %d bytes", at, at+length, len(b))
	}
	target := strings.ReplaceAll(text(b[at:at+length]), `\`, "/")
	if rest, ok := strings.CutPrefix(target, "/??/"); ok {
		target = rest
		if share, ok := strings.CutPrefix(target, "UNC/"); ok {
			target = "//" + share
		}
	}
	return form{kind: fs.ModeSymlink, target: target}, nil
}

// interix tells what a file of the system is: a pipe when it is empty, a socket when it has one byte, neither of them hidden; a
// symbolic link or device when it begins with a word that says so.
func (f *FS) interix(x *file, flags uint32) (form, error) {
	content, err := f.content(x, typeData, "")
	if content == nil || err != nil {
		return form{}, err
	}
	size := content.Size()
	switch {
	case size < 8 && flags&fileHidden != 0:
		return form{}, nil
	case size == 0:
		return form{kind: fs.ModeNamedPipe}, nil
	case size == 1:
		return form{kind: fs.ModeSocket}, nil
	case size <= 8 || size > maxInterix:
		return form{}, nil
	}
	if s, ok := content.(*stream); ok && s.refusal != nil {
		return form{}, nil
	}
	b := make([]byte, size)
	if n, err := content.ReadAt(b[:8], 0); n < 8 {
		return form{}, err
	}
	magic := string(b[:8])
	if magic != "IntxLNK\x01" && (magic != "IntxCHR\x00" && magic != "IntxBLK\x00" || size != 24) {
		return form{}, nil
	}
	if n, err := content.ReadAt(b, 0); n < len(b) {
		return form{}, err
	}
	switch magic {
	case "IntxLNK\x01":
		return form{kind: fs.ModeSymlink, target: text(b[8:])}, nil
	case "IntxCHR\x00":
		return form{kind: fs.ModeDevice | fs.ModeCharDevice, device: device(le.Uint64(b[8:]), le.Uint64(b[16:]))}, nil
	default:
		return form{kind: fs.ModeDevice, device: device(le.Uint64(b[8:]), le.Uint64(b[16:]))}, nil
	}
}

// device is a device as filesystem.File has it.
func device(major, minor uint64) uint64 { return major<<32 | minor&0xffffffff }

// linux is what Linux in Windows has noted of a file.
type linux struct {
	uid, gid uint32
	mode     uint32 // as in struct stat
	hasMode  bool
	device   uint64
}

func isLinuxFact(name string) bool {
	return name == "$LXUID" || name == "$LXGID" || name == "$LXMOD" || name == "$LXDEV"
}

func linuxFacts(attributes []filesystem.Attribute) linux {
	var l linux
	for _, a := range attributes {
		switch {
		case a.Name == "$LXUID" && len(a.Value) == 4:
			l.uid = le.Uint32(a.Value)
		case a.Name == "$LXGID" && len(a.Value) == 4:
			l.gid = le.Uint32(a.Value)
		case a.Name == "$LXMOD" && len(a.Value) == 4:
			l.mode, l.hasMode = le.Uint32(a.Value), true
		case a.Name == "$LXDEV" && len(a.Value) == 8:
			l.device = device(uint64(le.Uint32(a.Value)), uint64(le.Uint32(a.Value[4:])))
		}
	}
	return l
}

// permissions of a file of the given type.
func (l linux) permissions(kind fs.FileMode) fs.FileMode {
	switch {
	case kind == fs.ModeSymlink:
		return 0o777
	case !l.hasMode && kind == fs.ModeDir:
		return 0o755
	case !l.hasMode:
		return 0o644
	}
	mode := fs.FileMode(l.mode & 0o777)
	if l.mode&0o4000 != 0 {
		mode |= fs.ModeSetuid
	}
	if l.mode&0o2000 != 0 {
		mode |= fs.ModeSetgid
	}
	if l.mode&0o1000 != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}

// extended returns all extended attributes of a file.
func (f *FS) extended(x *file) ([]filesystem.Attribute, error) {
	b, err := f.value(x, typeEA, "", maxEA)
	if err != nil {
		return nil, err
	}
	list, err := parseEA(b)
	if err != nil {
		return nil, fmt.Errorf("file %d: %w", x.number&numberMask, err)
	}
	return list, nil
}

// parseEA parses extended attributes: distance of the next 4, flags 1, name's length 1, value's length 2, name, a zero, value.
func parseEA(b []byte) ([]filesystem.Attribute, error) {
	var list []filesystem.Attribute
	for len(b) > 0 {
		if len(b) < 8 {
			return nil, filesystem.Corrupt("%d bytes of extended attributes are left", len(b))
		}
		next, value := int64(le.Uint32(b)), 8+int(b[5])+1
		end := value + int(le.Uint16(b[6:]))
		if next == 0 {
			next = int64(len(b))
		}
		if b[5] == 0 || next > int64(len(b)) || int64(end) > next {
			return nil, filesystem.Corrupt("an extended attribute has %d bytes of %d, and ends at %d", next, len(b), end)
		}
		list = append(list, filesystem.Attribute{Name: string(b[8 : value-1]), Value: b[value:end:end]})
		b = b[next:]
	}
	return list, nil
}
