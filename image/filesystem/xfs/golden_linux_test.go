package xfs_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
	"varve/image/filesystem/xfs"
)

var update = flag.Bool("update", false, "make the golden filesystems anew, in testdata; needs a kernel that mounts version 4")

// TestMakeGolden makes the golden filesystems, when it is told to.
func TestMakeGolden(t *testing.T) {
	if !*update {
		return
	}
	check(t, os.MkdirAll("testdata", 0o755))
	for name, mkfs := range map[string]string{
		"version4": "-m crc=0,uuid=01020304-0506-0708-090a-0b0c0d0e0f10 -b size=512 -i size=256 -d agcount=2 -L four -n ftype=0",
		"version5": "-m rmapbt=1,reflink=1,uuid=11121314-1516-1718-191a-1b1c1d1e1f20 -b size=1024 -d agcount=2 -i nrext64=1 -L five",
	} {
		image := filesystemtest.Image(t, 32*mib, append([]string{"mkfs.xfs", "-q", "--unsupported"}, strings.Fields(mkfs)...)...)
		dir := filesystemtest.Mount(t, image, "xfs")
		fillGolden(t, dir)
		filesystemtest.Unmount(t, dir)
		dir = filesystemtest.Mount(t, image, "xfs", "ro")
		lines := describeFolder(t, dir)
		filesystemtest.Unmount(t, dir)
		// What is free is compared with xfs_db here, so that it need not be there later.
		compareCounts(t, image)
		first, _, _ := strings.Cut(describe(t, filesystemtest.OpenImage(t, image, open).(*xfs.FS)), "\n")
		check(t, os.WriteFile(filepath.Join("testdata", name+".txt"), []byte(strings.Join(append([]string{first}, lines...), "\n")+"\n"), 0o644))
		check(t, os.WriteFile(filepath.Join("testdata", name+".gz"), packGolden(t, image), 0o644))
	}
}

// packGolden packs an image, as readGolden reads it. Of the log, which has not gone around, it keeps the last record, and of what is
// before it the cycles, which are 1.
func packGolden(t *testing.T, image string) []byte {
	t.Helper()
	b, err := os.ReadFile(image)
	check(t, err)
	be := binary.BigEndian
	blockSize := int64(be.Uint32(b[4:]))
	start, length := int64(be.Uint64(b[48:])), int64(be.Uint32(b[96:]))*blockSize
	group := start >> b[124]
	log := b[(group*int64(be.Uint32(b[84:]))+start&(1<<b[124]-1))*blockSize:][:length]
	last, head := 0, 0
	for at := 0; at < len(log); at += goldenSector {
		switch begin := be.Uint32(log[at:]); {
		case begin == 1:
			head = at + goldenSector
		case begin == 0xfeedbabe && be.Uint32(log[at+4:]) == 1:
			last, head = at, at+goldenSector
		}
	}
	clear(log[head:])
	for at := 0; at < last; at += goldenSector {
		clear(log[at : at+goldenSector])
		be.PutUint32(log[at:], 1)
	}
	var packed bytes.Buffer
	packer, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
	check(t, err)
	_, err = packer.Write(be.AppendUint64(nil, uint64(len(b))))
	check(t, err)
	for at := 0; at < len(b); at += goldenSector {
		sector := b[at:][:goldenSector]
		if len(bytes.Trim(sector, "\x00")) == 0 {
			continue
		}
		_, err := packer.Write(append(be.AppendUint32(nil, uint32(at/goldenSector)), sector...))
		check(t, err)
	}
	check(t, packer.Close())
	return packed.Bytes()
}

// fillGolden makes a few files of each kind.
func fillGolden(t *testing.T, dir string) {
	t.Helper()
	path := func(name string) string { return filepath.Join(dir, name) }
	check(t, os.WriteFile(path("small"), []byte("hello\n"), 0o640))
	check(t, os.WriteFile(path("empty"), nil, 0o4755))
	check(t, os.WriteFile(path("large"), bytes.Repeat([]byte("0123456789abcdef"), 1000), 0o600))
	check(t, os.Chown(path("small"), 1000, 70_000))
	check(t, os.Link(path("small"), path("Größe")))
	check(t, os.Symlink("small", path("link")))
	check(t, os.Symlink(strings.Repeat("far/", 150), path("long link")))
	check(t, syscall.Mknod(path("pipe"), syscall.S_IFIFO|0o600, 0))
	check(t, syscall.Mknod(path("terminal"), syscall.S_IFCHR|0o620, 4<<8|64))
	check(t, syscall.Mknod(path("disk"), syscall.S_IFBLK|0o660, 259<<8|300&0xff|(300&^0xff)<<12))

	for _, names := range []int{0, 3, 8, 40, 150} {
		folder := path(fmt.Sprintf("folder of %d", names))
		check(t, os.Mkdir(folder, 0o755))
		for i := range names {
			check(t, os.Link(path("small"), filepath.Join(folder, fmt.Sprintf("%d-%s", i, strings.Repeat("x", 10+i%40)))))
		}
		for i := 40; i < names-60; i++ {
			check(t, os.Remove(filepath.Join(folder, fmt.Sprintf("%d-%s", i, strings.Repeat("x", 10+i%40)))))
		}
	}
	punch(t, path("fragments"), 1024, 150)
	set, err := os.Create(path("set aside"))
	check(t, err)
	check(t, syscall.Fallocate(int(set.Fd()), 0, 0, 20_001))
	_, err = set.WriteAt([]byte("written"), 10_000)
	check(t, err)
	check(t, set.Close())
	check(t, os.Truncate(path("large"), 1_000_000))

	for _, count := range []int{1, 6, 60} {
		name := path(fmt.Sprintf("attributes %d", count))
		check(t, os.WriteFile(name, nil, 0o600))
		for i := range count {
			check(t, syscall.Setxattr(name, fmt.Sprintf("user.%s-%d", strings.Repeat("a", i%20), i), []byte(strings.Repeat("v", i%40)), 0))
		}
	}
	attribute := path("attributes in blocks")
	check(t, os.WriteFile(attribute, nil, 0o600))
	check(t, syscall.Setxattr(attribute, "user.one", bytes.Repeat([]byte("one"), 1000), 0))
	check(t, syscall.Setxattr(attribute, "trusted.two", bytes.Repeat([]byte("two"), 300), 0))
	check(t, syscall.Setxattr(attribute, "security.three", []byte("three"), 0))
	// Version 2; owner rw, user 1000 r, group r, mask r, others none.
	acl := "\x02\x00\x00\x00" + "\x01\x00\x06\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" +
		"\x04\x00\x04\x00\xff\xff\xff\xff" + "\x10\x00\x04\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
	check(t, syscall.Setxattr(path("large"), "system.posix_acl_access", []byte(acl), 0))
	check(t, syscall.Setxattr(path("folder of 3"), "system.posix_acl_default", []byte(acl), 0))
	check(t, os.Chtimes(path("empty"), time.Unix(1, 2), time.Unix(-3_600_000, 123_456_789)))
}

// describeFolder writes down what the kernel says is in dir, as describe does.
func describeFolder(t *testing.T, dir string) []string {
	t.Helper()
	var lines []string
	check(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		st, err := os.Lstat(path)
		if err != nil {
			return err
		}
		sys := st.Sys().(*syscall.Stat_t)
		file := filesystem.File{
			Number: filesystem.Number(sys.Ino), Mode: st.Mode(), Links: int(sys.Nlink), UID: sys.Uid, GID: sys.Gid,
			Modified: st.ModTime().UTC(), Changed: time.Unix(sys.Ctim.Unix()).UTC(),
		}
		content := ""
		switch {
		case st.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			file.Size, content = int64(len(b)), digest(b)
		case st.Mode()&fs.ModeSymlink != 0:
			if content, err = os.Readlink(path); err != nil {
				return err
			}
			file.Size = int64(len(content))
		case st.Mode()&fs.ModeDevice != 0:
			major := sys.Rdev >> 8 & 0xfff
			file.Device = major<<32 | sys.Rdev&0xff | sys.Rdev>>12&0xfff00
		}
		var attributes []filesystem.Attribute
		if st.Mode()&fs.ModeSymlink == 0 {
			attributes = attributesOf(t, path)
		}
		name, err := filepath.Rel(dir, path)
		lines = append(lines, line(name, file, content, attributes))
		return err
	}))
	slices.Sort(lines)
	return lines
}

// attributesOf returns the attributes of a file, but access lists in their form on the disk, which the kernel shows too.
func attributesOf(t *testing.T, path string) []filesystem.Attribute {
	t.Helper()
	b := make([]byte, 64<<10)
	n, err := syscall.Listxattr(path, b)
	check(t, err)
	var list []filesystem.Attribute
	for _, name := range strings.Split(string(b[:n]), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.SGI_ACL_") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := syscall.Getxattr(path, name, value)
		check(t, err)
		list = append(list, filesystem.Attribute{Name: name, Value: value[:n]})
	}
	return list
}
