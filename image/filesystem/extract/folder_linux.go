package extract

import (
	"os"

	"golang.org/x/sys/unix"
	"varve/image/filesystem"
)

func setAttribute(f *os.File, a filesystem.Attribute) error {
	return unix.Fsetxattr(int(f.Fd()), a.Name, a.Value, 0)
}
