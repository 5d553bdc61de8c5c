package filesystemtest

import (
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"varve/image/filesystem"
)

// compareFacts compares what only this system tells.
func compareFacts(is filesystem.File, st fs.FileInfo, can Abilities, numbers map[filesystem.Number]uint64) error {
	sys := st.Sys().(*syscall.Stat_t)
	if can.Links && !st.IsDir() {
		if is.Links != int(sys.Nlink) {
			return fmt.Errorf("it has %d names, not %d", is.Links, sys.Nlink)
		}
		if other, known := numbers[is.Number]; known && other != sys.Ino {
			return fmt.Errorf("its number %d is that of another file", is.Number)
		}
		numbers[is.Number] = sys.Ino
	}
	if !can.Owners {
		return nil
	}
	if is.Mode != st.Mode() || is.UID != sys.Uid || is.GID != sys.Gid {
		return fmt.Errorf("it is %v of %d:%d, not %v of %d:%d", is.Mode, is.UID, is.GID, st.Mode(), sys.Uid, sys.Gid)
	}
	if changed := time.Unix(sys.Ctim.Unix()); !is.Changed.Equal(changed) {
		return fmt.Errorf("it was changed at %v, not %v", is.Changed, changed)
	}
	if st.Mode()&fs.ModeDevice != 0 {
		if want := uint64(unix.Major(sys.Rdev))<<32 | uint64(unix.Minor(sys.Rdev)); is.Device != want {
			return fmt.Errorf("it is device %#x, not %#x", is.Device, want)
		}
	}
	return nil
}

// attributesOf returns the attributes that a user may set.
func attributesOf(path string) (map[string]string, error) {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	if err != nil {
		return nil, err
	}
	list := map[string]string{}
	for _, name := range strings.Split(string(names[:n]), "\x00") {
		if !isUsers(name) {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return nil, err
		}
		list[name] = string(value[:n])
	}
	return list, nil
}

// attributes sets attributes: a small one, one that does not fit beside others, and many.
func (f *filler) attributes(can Abilities) {
	if !can.Xattrs {
		return
	}
	f.check(unix.Setxattr(f.path("small.txt"), "user.small", []byte("value"), 0))
	f.check(unix.Setxattr(f.path("large.bin"), "user.larger", f.noise(700), 0))
	f.check(unix.Setxattr(f.path("large.bin"), "user.empty", nil, 0))
	f.check(unix.Setxattr(f.path("empty folder"), "user.of a folder", []byte("value"), 0))
	for i := range 10 {
		f.check(unix.Setxattr(f.path("zeros.bin"), fmt.Sprintf("user.number-%d", i), []byte(strings.Repeat("v", i)), 0))
	}
}

// special makes files that are none.
func (f *filler) special() {
	f.check(unix.Mknod(f.path("pipe"), unix.S_IFIFO|0o600, 0))
	f.check(unix.Mknod(f.path("socket"), unix.S_IFSOCK|0o600, 0))
	f.check(unix.Mknod(f.path("tty"), unix.S_IFCHR|0o620, int(unix.Mkdev(4, 64))))
	f.check(unix.Mknod(f.path("far disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 300))))
}
