package image

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Disks returns the paths of the disks of this machine: devices with a medium that are not made of others, no RAM disks, and no loop devices.
func Disks() ([]string, error) { return disksIn("/sys/block") }

func disksIn(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("asking which disks there are: %w", err)
	}
	var paths []string
	for _, e := range entries {
		dir := filepath.Join(folder, e.Name())
		if number(dir, "size") == 0 || slices.ContainsFunc([]string{"loop", "ram", "zram", "dm-", "md", "nbd", "fd"}, func(prefix string) bool {
			rest, is := strings.CutPrefix(e.Name(), prefix)
			return is && strings.Trim(rest, "0123456789") == ""
		}) {
			continue
		}
		if slaves, err := filepath.Glob(filepath.Join(dir, "slaves", "*")); err == nil && len(slaves) > 0 {
			continue
		}
		paths = append(paths, "/dev/"+strings.ReplaceAll(e.Name(), "!", "/"))
	}
	return paths, nil
}
