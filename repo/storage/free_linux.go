package storage

import "golang.org/x/sys/unix"

// free returns the bytes that this user may still write on the file system of a folder.
func free(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Frsize, nil // Bsize is what it likes to be read in, which on FUSE is another size
}
