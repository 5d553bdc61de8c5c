package volume

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"
)

var (
	le = binary.LittleEndian
	be = binary.BigEndian
)

const rawUUID = "\x01\x23\x45\x67\x89\xab\x4c\xde\x8f\x01\x23\x45\x67\x89\xab\xcd"
const uuid = "01234567-89ab-4cde-8f01-23456789abcd"

// volumes are made with what makes them recognisable; blkid, where it knows them, must agree.
var volumes = map[string]struct {
	make  func(v []byte)
	want  mark
	blkid string // its type; "": it does not know it, or wants to see more of it
}{
	"luks1": {func(v []byte) { copy(v, "LUKS\xba\xbe\x00\x01"); copy(v[168:], uuid) }, mark{kind: "LUKS", uuid: uuid, nature: encrypted}, "crypto_LUKS"},
	"luks2": {
		func(v []byte) { copy(v, "LUKS\xba\xbe\x00\x02"); copy(v[24:], "secret"); copy(v[168:], uuid) },
		mark{kind: "LUKS", label: "secret", uuid: uuid, nature: encrypted}, "crypto_LUKS",
	},
	"bitlocker": {
		func(v []byte) { copy(v, "\xeb\x58\x90-FVE-FS-"); copy(v[510:], "\x55\xaa") },
		mark{kind: "BitLocker", nature: encrypted, offset: 3}, "",
	},
	"bitlocker to go": {
		func(v []byte) {
			copy(v, "\xeb\x58\x90MSWIN4.1\x00\x02\x08")
			copy(v[424:], "\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01")
		},
		mark{kind: "BitLocker", nature: encrypted, offset: 424}, "",
	},
	"lvm":                   {func(v []byte) { lvmLabel(v, 1) }, mark{kind: "LVM", uuid: "CCfTX7-HBy2-iSzf-vXB3-X9dq-cpZr-w9XnzV", nature: member, offset: 512}, "LVM2_member"},
	"lvm in another sector": {func(v []byte) { lvmLabel(v, 3) }, mark{kind: "LVM", uuid: "CCfTX7-HBy2-iSzf-vXB3-X9dq-cpZr-w9XnzV", nature: member, offset: 1536}, "LVM2_member"},
	"md 1.0":                {func(v []byte) { mdSuper(v, len(v)-8192) }, mark{kind: "RAID member", label: "host:0", uuid: uuid, nature: member, offset: 4<<20 - 8192}, "linux_raid_member"},
	"md 1.1":                {func(v []byte) { mdSuper(v, 0) }, mark{kind: "RAID member", label: "host:0", uuid: uuid, nature: member}, "linux_raid_member"},
	"md 1.2":                {func(v []byte) { mdSuper(v, 4096) }, mark{kind: "RAID member", label: "host:0", uuid: uuid, nature: member, offset: 4096}, "linux_raid_member"},
	"md 0.90": {
		func(v []byte) { copy(v[len(v)-65536:], "\xfc\x4e\x2b\xa9\x00\x00\x00\x00\x5a\x00\x00\x00") },
		mark{kind: "RAID member", nature: member, offset: 4<<20 - 65536}, "linux_raid_member",
	},
	"md 0.90, big-endian": {
		func(v []byte) { copy(v[len(v)-65536:], "\xa9\x2b\x4e\xfc\x00\x00\x00\x00\x00\x00\x00\x5a") },
		mark{kind: "RAID member", nature: member, offset: 4<<20 - 65536}, "linux_raid_member",
	},
	"intel": {func(v []byte) { copy(v[len(v)-1024:], "Intel Raid ISM Cfg Sig. 1.3.00") }, mark{kind: "RAID member", nature: member, offset: 4<<20 - 1024}, "isw_raid_member"},
	"intel, large sectors": {
		func(v []byte) { copy(v[len(v)-8192:], "Intel Raid ISM Cfg Sig. 1.3.00") },
		mark{kind: "RAID member", nature: member, offset: 4<<20 - 8192}, "",
	},
	"ddf": {
		func(v []byte) { copy(v[len(v)-512:], "\xde\x11\xde\x11"); copy(v[len(v)-512+8+24:], "01.02.00") },
		mark{kind: "RAID member", nature: member, offset: 4<<20 - 512}, "ddf_raid_member",
	},
	"ddf, large sectors": {
		func(v []byte) { copy(v[len(v)-4096:], "\xde\x11\xde\x11") },
		mark{kind: "RAID member", nature: member, offset: 4<<20 - 4096}, "",
	},
	"nvidia":  {func(v []byte) { copy(v[len(v)-1024:], "NVIDIA  ") }, mark{kind: "RAID member", nature: member, offset: 4<<20 - 1024}, "nvidia_raid_member"},
	"lsi":     {func(v []byte) { copy(v[len(v)-512:], "$XIDE$") }, mark{kind: "RAID member", nature: member, offset: 4<<20 - 512}, "lsi_mega_raid_member"},
	"promise": {func(v []byte) { copy(v[len(v)-63*512:], "Promise Technology, Inc.") }, mark{kind: "RAID member", nature: member, offset: 4<<20 - 63*512}, "promise_fasttrack_raid_member"},
	"bcachefs": {
		func(v []byte) {
			copy(v[4096+24:], "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81")
			copy(v[4096+56:], rawUUID)
			copy(v[4096+72:], "many")
		},
		mark{kind: "bcachefs", label: "many", uuid: uuid, nature: member, offset: 4096 + 24}, "",
	},
	"bcachefs, since 2023": {
		func(v []byte) {
			copy(v[4096+24:], "\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef")
			copy(v[4096+56:], rawUUID)
		},
		mark{kind: "bcachefs", uuid: uuid, nature: member, offset: 4096 + 24}, "",
	},
	"bcache": {
		func(v []byte) {
			copy(v[4096+24:], "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81")
			v[4096+8] = 8
			copy(v[4096+40:], rawUUID)
		},
		mark{kind: "bcache", uuid: uuid, nature: member, offset: 4096 + 24}, "bcache",
	},
	"ceph": {func(v []byte) { copy(v, "bluestore block device\n"+uuid) }, mark{kind: "Ceph", nature: member}, "ceph_bluestore"},
	"zfs": {
		func(v []byte) {
			for _, at := range []int{0, 256 << 10, len(v) - 512<<10, len(v) - 256<<10} {
				copy(v[at+16<<10:], nvlist+"\x00\x00\x00\x20\x00\x00\x00\x20"+
					"\x00\x00\x00\x04name\x00\x00\x00\x09\x00\x00\x00\x01\x00\x00\x00\x04tank"+
					"\x00\x00\x00\x28\x00\x00\x00\x28\x00\x00\x00\x09pool_guid\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x01\x01\x23\x45\x67\x89\xab\xcd\xef")
				for i := range 128 {
					le.PutUint64(v[at+128<<10+i<<10:], 0x00bab10c)
				}
			}
		},
		mark{kind: "ZFS", label: "tank", uuid: "81985529216486895", nature: member, offset: 16 << 10}, "zfs_member",
	},
	"zfs, its last label": {
		func(v []byte) { copy(v[len(v)-240<<10:], nvlist) },
		mark{kind: "ZFS", nature: member, offset: 4<<20 - 240<<10}, "",
	},
	"vmfs": {func(v []byte) { copy(v[1<<20:], "\x0d\xd0\x01\xc0") }, mark{kind: "VMFS", nature: member, offset: 1 << 20}, "VMFS_volume_member"},
	"refs": {func(v []byte) { copy(v[3:], "ReFS\x00\x00\x00\x00") }, mark{kind: "ReFS", offset: 3}, "ReFS"},
	"hfs+": {func(v []byte) { copy(v[1024:], "H+\x00\x04"); be.PutUint32(v[1024+40:], 4096) }, mark{kind: "HFS+", offset: 1024}, "hfsplus"},
	"hfsx": {func(v []byte) { copy(v[1024:], "HX\x00\x05"); be.PutUint32(v[1024+40:], 4096) }, mark{kind: "HFS+", offset: 1024}, "hfsplus"},
	"hfs": {
		func(v []byte) { copy(v[1024:], "BD"); be.PutUint16(v[1024+18:], 100); be.PutUint32(v[1024+20:], 512) },
		mark{kind: "HFS", offset: 1024}, "hfs",
	},
	"apfs": {
		func(v []byte) {
			le.PutUint64(v[8:], 1)
			le.PutUint32(v[24:], 0x80000001) // type
			copy(v[32:], "NXSB")
			le.PutUint32(v[36:], 4096)
			copy(v[72:], rawUUID)
		},
		mark{kind: "APFS", uuid: uuid, offset: 32}, "apfs",
	},
	"squashfs": {func(v []byte) { copy(v, "hsqs"); v[28] = 4 }, mark{kind: "squashfs"}, "squashfs"},
	"iso": {
		func(v []byte) {
			copy(v[32768:], "\x01CD001\x01")
			copy(v[32768+40:], "DEBIAN_12                       ")
			copy(v[32768+813:], "2024010203040506\x00")
			copy(v[32768+830:], "0000000000000000\x00")
			copy(v[34816:], "\xffCD001\x01")
		},
		mark{kind: "ISO 9660", label: "DEBIAN_12", uuid: "2024-01-02-03-04-05-06", offset: 32768}, "iso9660",
	},
	"udf": {func(v []byte) { copy(v[32768:], "\x00BEA01\x01"); copy(v[34816:], "\x00NSR02\x01") }, mark{kind: "UDF", offset: 32768}, ""},
	"f2fs": {
		func(v []byte) {
			s := v[1024:]
			copy(s, "\x10\x20\xf5\xf2\x01\x00\x10\x00")
			le.PutUint32(s[8:], 9)
			le.PutUint32(s[12:], 3)
			le.PutUint32(s[16:], 12)
			copy(s[108:], rawUUID)
			for i, u := range utf16.Encode([]rune("phone")) {
				le.PutUint16(s[124+2*i:], u)
			}
		},
		mark{kind: "F2FS", label: "phone", uuid: uuid, offset: 1024}, "f2fs",
	},
	"erofs": {
		func(v []byte) {
			copy(v[1024:], "\xe2\xe1\xf5\xe0")
			v[1036] = 12
			copy(v[1072:], rawUUID)
			copy(v[1088:], "root")
		},
		mark{kind: "EROFS", label: "root", uuid: uuid, offset: 1024}, "erofs",
	},
	"nilfs2": {
		func(v []byte) {
			s := v[1024:]
			le.PutUint32(s, 2)
			copy(s[6:], "\x34\x34")
			le.PutUint16(s[8:], 280)
			copy(s[152:], rawUUID)
			copy(s[168:], "log")
			crc := ^crc32.Update(^uint32(0), crc32.IEEETable, s[:280]) // seeded with 0, and not inverted
			le.PutUint32(s[16:], crc)
		},
		mark{kind: "NILFS2", label: "log", uuid: uuid, offset: 1030}, "nilfs2",
	},
	"jfs":      {func(v []byte) { copy(v[32768:], "JFS1") }, mark{kind: "JFS", offset: 32768}, ""},
	"reiserfs": {func(v []byte) { copy(v[65536+52:], "ReIsEr2Fs"); le.PutUint16(v[65536+44:], 4096); v[65536+12] = 18 }, mark{kind: "ReiserFS", offset: 65536 + 52}, "reiserfs"},
	"gfs2":     {func(v []byte) { copy(v[65536:], "\x01\x16\x19\x70\x00\x00\x00\x01") }, mark{kind: "GFS2", offset: 65536}, ""},
	"ufs2":     {func(v []byte) { copy(v[65536+1372:], "\x19\x01\x54\x19") }, mark{kind: "UFS", offset: 65536 + 1372}, "ufs"},
	"ufs1":     {func(v []byte) { copy(v[8192+1372:], "\x54\x19\x01\x00") }, mark{kind: "UFS", offset: 8192 + 1372}, "ufs"},
}

func lvmLabel(v []byte, sector int) {
	l := v[sector*512:][:512]
	copy(l, "LABELONE")
	le.PutUint64(l[8:], uint64(sector))
	le.PutUint32(l[20:], 32)
	copy(l[24:], "LVM2 001CCfTX7HBy2iSzfvXB3X9dqcpZrw9XnzV")
	crc := uint32(0xf597a6cf)
	for _, b := range l[20:] {
		crc = crc32.IEEETable[byte(crc)^b] ^ crc>>8
	}
	le.PutUint32(l[16:], crc)
}

func mdSuper(v []byte, at int) {
	s := v[at:]
	copy(s, "\xfc\x4e\x2b\xa9\x01")
	copy(s[16:], rawUUID)
	copy(s[32:], "host:0")
	le.PutUint64(s[144:], uint64(at/512))
}

func TestRecognise(t *testing.T) {
	for name, c := range volumes {
		t.Run(name, func(t *testing.T) {
			v := make([]byte, 4<<20)
			if name == "zfs" {
				v = make([]byte, 64<<20) // for blkid
			}
			c.make(v)
			c.want.end = c.want.offset > 2<<20
			marks, err := recognise(bytes.NewReader(v), int64(len(v)))
			if err != nil || len(marks) != 1 || marks[0] != c.want {
				t.Fatalf("%+v, %v instead of %+v", marks, err, c.want)
			}
			path := filepath.Join(t.TempDir(), "volume")
			if err := os.WriteFile(path, v, 0o600); err != nil {
				t.Fatal(err)
			}
			told := blkid(t, path)
			if told["TYPE"] != c.blkid {
				t.Fatalf("a %s for blkid", told["TYPE"])
			}
			if c.blkid != "" && (told["LABEL"] != c.want.label || told["UUID"] != c.want.uuid) {
				t.Errorf("label %q and UUID %q for blkid", told["LABEL"], told["UUID"])
			}
		})
	}
}

func TestWhy(t *testing.T) {
	for name, want := range map[string]string{
		"luks1": "it is encrypted", "bitlocker": "it is encrypted", "lvm": "it is a part of something larger", "zfs": "it is a part of something larger",
		"hfs+": "this kind of filesystem is not read", "iso": "this kind of filesystem is not read",
	} {
		if got := volumes[name].want.why(); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// blkid returns what blkid says of an image of a volume.
func blkid(t *testing.T, image string) map[string]string {
	t.Helper()
	path, err := exec.LookPath("blkid")
	if err != nil {
		path = "/usr/sbin/blkid"
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("SKIPPED: there is no blkid")
	}
	out, err := exec.Command(path, "-p", "-o", "export", image).Output()
	if exit := (*exec.ExitError)(nil); err != nil && !(errors.As(err, &exit) && exit.ExitCode() == 2) { // 2: nothing is known of it
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, line := range strings.Split(string(out), "\n") {
		key, value, _ := strings.Cut(line, "=")
		told[key] = strings.ReplaceAll(value, `\ `, " ")
	}
	return told
}

// TestRecogniseNothing: empty volumes of any size, also of none, and such as end within a mark, are nothing.
func TestRecogniseNothing(t *testing.T) {
	for _, size := range []int64{0, 1, 5, 511, 512, 1024, 4096, 65536, 1 << 20, 1 << 40, 1<<63 - 1} {
		if marks, err := recognise(zeros{}, size); err != nil || marks != nil {
			t.Errorf("%d bytes: %+v, %v", size, marks, err)
		}
	}
	for name, c := range volumes {
		v := make([]byte, 4<<20)
		c.make(v)
		for _, size := range []int64{c.want.offset, c.want.offset + 1, c.want.offset + 3} {
			if marks, err := recognise(bytes.NewReader(v), size); err != nil || len(marks) > 0 {
				t.Errorf("%s in %d bytes: %+v, %v", name, size, marks, err)
			}
		}
	}
}

// TestAlmost: short marks alone are not enough.
func TestAlmost(t *testing.T) {
	for name, damage := range map[string]func(v []byte){
		"hfs":    func(v []byte) { be.PutUint32(v[1024+20:], 513) },
		"nilfs2": func(v []byte) { le.PutUint32(v[1024:], 3) },
		"md 1.2": func(v []byte) { le.PutUint64(v[4096+144:], 0) },
		"md 1.1": func(v []byte) { v[4] = 2 },
		"lvm":    func(v []byte) { v[512+24] = 'M' },
	} {
		v := make([]byte, 4<<20)
		volumes[name].make(v)
		damage(v)
		if marks, err := recognise(bytes.NewReader(v), int64(len(v))); err != nil || marks != nil {
			t.Errorf("%s: %+v, %v", name, marks, err)
		}
	}
}

func TestRecogniseUnreadable(t *testing.T) {
	v := make([]byte, 4<<20)
	volumes["luks1"].make(v)
	marks, err := recognise(failing{bytes.NewReader(v), 65536 + 50, 65536 + 60}, int64(len(v)))
	if !errors.Is(err, errMedium) || len(marks) != 1 || marks[0].kind != "LUKS" {
		t.Errorf("%+v, %v", marks, err)
	}
}

var errMedium = errors.New("medium error")

// failing cannot read some bytes.
type failing struct {
	io.ReaderAt
	off, end int64
}

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off < f.end && f.off < off+int64(len(p)) {
		return 0, errMedium
	}
	return f.ReaderAt.ReadAt(p, off)
}

// zeros is a disk of any size.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}
