package snapshot

import (
	"fmt"
	"strconv"
	"strings"
)

// Address is what an address means: a disk of a snapshot, a volume of it, or a file there.
type Address struct {
	Snapshot *Snapshot
	Disk     *Disk
	Volume   *Volume // nil: the disk as a whole
	Path     string  // "/" and more on the volume; "" means the volume itself
}

// FindAddress returns what an address means:
//
//	SNAPSHOT[:DISK]               a disk
//	SNAPSHOT[:DISK]:pN            a partition, or pN for the only one: a disk without partitions is its own p1
//	SNAPSHOT[:DISK]:pN/PATH       a file or folder
//
// DISK is needed where there are several. A disk whose name looks like that of a partition is meant before one.
func FindAddress(list []*Snapshot, address string, f Filter) (Address, error) {
	name, rest, _ := strings.Cut(address, ":")
	whole, disk := name, ""
	if number, _, ok := cutPartition(rest); !ok || number == 0 || namesDisk(list, name, rest, f) {
		disk, rest, _ = strings.Cut(rest, ":")
		// A name may have colons: the longest that a disk has is meant.
		for more, after := rest, ""; more != ""; more = after {
			var next string
			next, after, _ = strings.Cut(more, ":")
			if !namesDisk(list, name, disk+":"+next, f) {
				break
			}
			disk, rest = disk+":"+next, after
		}
		if disk != "" {
			whole += ":" + disk
		}
	}
	var a Address
	var err error
	if a.Snapshot, a.Disk, err = FindDisk(list, whole, f); err != nil || rest == "" {
		return a, err
	}
	number, path, ok := cutPartition(rest)
	if !ok {
		return a, fmt.Errorf("%w: %q: write p1, p2, … behind the disk", ErrNoVolume, rest)
	}
	a.Path = path
	a.Volume, err = a.Disk.Volume(number)
	return a, err
}

// cutPartition splits p2/path.
func cutPartition(text string) (number int, path string, ok bool) {
	text, path, found := strings.Cut(text, "/")
	if found {
		path = "/" + path
	}
	digits, isPartition := strings.CutPrefix(text, "p")
	number, err := strconv.Atoi(digits)
	return number, path, isPartition && err == nil && number > 0
}

// namesDisk reports whether the snapshot of that name has a disk of that name.
func namesDisk(list []*Snapshot, name, disk string, f Filter) bool {
	s, err := Find(list, name, f)
	if err != nil || disk == "" {
		return false
	}
	for i := range s.Disks {
		if s.Disks[i].Name == disk {
			return true
		}
	}
	return false
}
