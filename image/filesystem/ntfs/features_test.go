package ntfs

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"varve/image/filesystem/filesystemtest"
)

// fillFeatures makes files that have what is special in NTFS, as far as ntfs-3g shows it as this package does. unit is how many bytes are
// compressed together.
func fillFeatures(t *testing.T, image string, unit int) {
	t.Helper()
	dir := filesystemtest.Mount(t, image, "ntfs", "compression")
	path := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	write := func(name, data string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path(name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.NewChaCha8([32]byte{1})
	noise := func(n int) string {
		b := make([]byte, n)
		_, _ = random.Read(b) // never fails
		return string(b)
	}

	// What is written into a folder with this flag is compressed.
	if err := os.Mkdir(path("compressed"), 0o755); err != nil {
		t.Fatal(err)
	}
	setfattr(t, path("compressed"), "system.ntfs_attrib_be", "\x00\x00\x08\x00")
	text := func(n int) string { return strings.Repeat("the same again, and ", n/20+1)[:n] }
	write("compressed/text", text(5*unit-1000))
	write("compressed/small", "hello\n")
	write("compressed/zeros", string(make([]byte, 3*unit/2)))
	write("compressed/noise", noise(unit+1000))
	write("compressed/mixed", text(unit+1)+noise(unit/4)+text(unit))
	patch(t, path("compressed/text"), int64(2*unit-100), noise(2000))
	patch(t, path("compressed/holes"), int64(50*unit+10), text(5000))

	write("streams/file", "content\n")
	for i := range 30 {
		setfattr(t, path("streams/file"), fmt.Sprintf("user.stream %d of some with a name that is not short", i), strings.Repeat("s", i*5))
	}
	setfattr(t, path("streams/file"), "user.large", text(30_000))
	setfattr(t, path("streams"), "user.of a folder", "value")

	write("names/A long name.text", "has another name for DOS\n")
	setfattr(t, path("names/A long name.text"), "system.ntfs_dos_name", "ALONGN~1.TEX")
	write("names/half \xed\xa0\x80 a pair", "not UTF-16\n")
	write("names/many", "has many names\n")
	for i := range 40 {
		if err := os.Link(path("names/many"), path(fmt.Sprintf("names/another name of it, %d of 40", i))); err != nil {
			t.Fatal(err)
		}
	}
	write("hidden of the system", "")
	setfattr(t, path("hidden of the system"), "system.ntfs_attrib_be", "\x00\x00\x00\x06")

	// The runs of these do not fit into one record.
	for i := range 250 {
		for _, name := range []string{"scattered", "scattered too"} {
			patch(t, path(name), int64(i)*2048, fmt.Sprintf("%s, part %d", name, i))
		}
	}

	for i := range 120 {
		write(fmt.Sprintf("folder/file %d with a name that fills blocks", i), fmt.Sprintln(i))
	}
	for i := 0; i < 120; i += 5 {
		if err := os.Remove(path(fmt.Sprintf("folder/file %d with a name that fills blocks", i))); err != nil {
			t.Fatal(err)
		}
	}

	write("links/target", "target\n")
	makeReparse(t, path("links/of Windows"), tagSymlink, windowsData(`..\links\target`, 1))
	makeReparse(t, path("links/of Linux in Windows"), tagLinuxLink, "\x02\x00\x00\x00../links/target")
	if err := os.Symlink("target", path("links/of Interix")); err != nil {
		t.Fatal(err)
	}
	filesystemtest.Unmount(t, dir)
}

// fillKinds makes files that ntfs-3g shows in another way, or not at all, for special_files=wsl.
func fillKinds(t *testing.T, image string) {
	t.Helper()
	dir := filesystemtest.Mount(t, image, "ntfs", "special_files=wsl")
	path := func(name string) string { return filepath.Join(dir, "kinds", name) }
	if err := os.MkdirAll(path("junction"), 0o755); err != nil {
		t.Fatal(err)
	}
	setfattr(t, path("junction"), "system.ntfs_reparse_data", string(reparsePoint(tagMountPoint, mountData(`\??\C:\Users`))))
	makeReparse(t, path("absolute link"), tagSymlink, windowsData(`\??\C:\Users\All Users`, 0))
	makeReparse(t, path("link from the root"), tagSymlink, windowsData(`\Windows`, 1))
	makeReparse(t, path("link to a share"), tagSymlink, windowsData(`\??\UNC\server\share`, 0))
	makeReparse(t, path("link that leads nowhere"), tagSymlink, windowsData(`..\nowhere`, 1))
	makeReparse(t, path("short"), tagWOF, "\x01\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00")
	for _, name := range []string{"compacted", "deduplicated", "in a cloud"} {
		tag := map[string]uint32{"compacted": tagWOF, "deduplicated": tagDedup, "in a cloud": 0x9000001a}[name] // OneDrive
		if err := os.WriteFile(path(name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path(name), 100_000); err != nil {
			t.Fatal(err)
		}
		setfattr(t, path(name), "system.ntfs_reparse_data", string(reparsePoint(tag, "something")))
	}
	filesystemtest.Run(t, "mknod", path("pipe"), "p")
	filesystemtest.Run(t, "mknod", path("char"), "c", "4", "64")
	filesystemtest.Run(t, "mknod", path("block"), "b", "259", "300")
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: path("socket")})
	if err != nil {
		t.Fatal(err)
	}
	socket.SetUnlinkOnClose(false)
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path("of somebody"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	setfattr(t, path("of somebody"), "system.ntfs_ea", extendedAttributes("$LXUID", "\xe8\x03\x00\x00", "USER.NOTE", "a value",
		"$LXGID", "\xe9\x03\x00\x00", "$LXMOD", "\xa0\x8d\x00\x00", "EMPTY", ""))
	if err := os.WriteFile(path("PageFile.sys"), make([]byte, 40_000), 0o644); err != nil {
		t.Fatal(err)
	}
	filesystemtest.Unmount(t, dir)
}

// patch writes data at an offset of a file.
func patch(t *testing.T, path string, off int64, data string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(data), off); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func setfattr(t *testing.T, path, name, value string) {
	t.Helper()
	filesystemtest.Run(t, "setfattr", "-h", "-n", name, "-v", "0x"+hex.EncodeToString([]byte(value)), path)
}

// makeReparse makes an empty file that is a reparse point.
func makeReparse(t *testing.T, path string, tag uint32, data string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	setfattr(t, path, "system.ntfs_reparse_data", string(reparsePoint(tag, data)))
}

func reparsePoint(tag uint32, data string) []byte {
	b := le.AppendUint32(nil, tag)
	b = le.AppendUint16(b, uint16(len(data)))
	return append(append(b, 0, 0), data...)
}

// windowsData is what a symbolic link of Windows has: the name that is shown in front, as Windows writes it.
func windowsData(target string, flags uint32) string {
	shown, counts := utf16(strings.TrimPrefix(target, `\??\`)), utf16(target)
	b := le.AppendUint16(nil, uint16(len(shown)))
	b = le.AppendUint16(b, uint16(len(counts)))
	b = le.AppendUint16(b, 0)
	b = le.AppendUint16(b, uint16(len(shown)))
	b = le.AppendUint32(b, flags)
	return string(b) + shown + counts
}

// mountData is what a junction has.
func mountData(target string) string {
	shown, counts := utf16(strings.TrimPrefix(target, `\??\`)), utf16(target)
	b := le.AppendUint16(nil, 0)
	b = le.AppendUint16(b, uint16(len(counts)))
	b = le.AppendUint16(b, uint16(len(counts)+2))
	b = le.AppendUint16(b, uint16(len(shown)))
	return string(b) + counts + "\x00\x00" + shown + "\x00\x00"
}

// utf16 is ASCII in UTF-16.
func utf16(s string) string {
	var b []byte
	for i := range len(s) {
		b = append(b, s[i], 0)
	}
	return string(b)
}

// extendedAttributes are names and values as they are stored.
func extendedAttributes(pairs ...string) string {
	var all []byte
	for i := 0; i < len(pairs); i += 2 {
		name, value := pairs[i], pairs[i+1]
		b := []byte{0, 0, 0, 0, 0, byte(len(name))}
		b = le.AppendUint16(b, uint16(len(value)))
		b = append(append(append(b, name...), 0), value...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		le.PutUint32(b, uint32(len(b)))
		all = append(all, b...)
	}
	return string(all)
}
