package image

import "fmt"

// maxDisks is how many disks are looked for.
const maxDisks = 64

// Disks returns the paths of the disks of this machine.
func Disks() ([]string, error) {
	var paths []string
	for i := range maxDisks {
		path := fmt.Sprintf(`\\.\PhysicalDrive%d`, i)
		if s, err := Open(path); err == nil {
			s.Close()
			paths = append(paths, path)
		}
	}
	return paths, nil
}
