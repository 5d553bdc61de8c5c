package storage

import (
	"os"

	"golang.org/x/sys/unix"
)

// dropCached lets go of what the system keeps of a file in memory, as far as it is on the disk already.
func dropCached(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
