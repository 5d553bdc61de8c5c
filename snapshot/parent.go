package snapshot

import (
	"time"

	"varve/image"
)

// Parent returns the newest snapshot of list, oldest first, from which a backup of a disk on host may be guided: it has
// a disk of the same path or, for a device, of the same model and serial number, since names of devices move. Both are
// nil when there is none.
func Parent(list []*Snapshot, host string, disk image.Info) (*Snapshot, *Disk) {
	for i := len(list) - 1; i >= 0; i-- {
		s := list[i]
		if s.Host != host {
			continue
		}
		if d := s.Like(disk); d != nil {
			return s, d
		}
	}
	return nil, nil
}

// Like returns the disk of s that is most likely an earlier state of disk, nil when there is none.
func (s *Snapshot) Like(disk image.Info) *Disk {
	var same *Disk
	for i := range s.Disks {
		d := &s.Disks[i]
		if disk.Serial != "" && d.Serial == disk.Serial && d.Model == disk.Model {
			return d
		}
		// Two devices with different serial numbers that had the same name are two disks.
		if d.Path == disk.Path && (d.Serial == disk.Serial || d.Serial == "" || disk.Serial == "") && same == nil {
			same = d
		}
	}
	return same
}

// coarsest is the coarsest resolution of a filesystem's times that is in use (FAT).
const coarsest = 2 * time.Second

// Unchanged reports whether a regular file is, by all that its filesystem tells, what it was when disk d of snapshot s
// was read, with the same left out as is to be now. A file that was changed within moments of that backup is not taken as unchanged: its times could not tell.
func Unchanged(s *Snapshot, d *Disk, file image.Info, out LeftOut) bool {
	return d.LeftOut.Equal(out) && file.Type == "file" && d.Type == "file" && len(d.Bad) == 0 &&
		file.Size == d.Size && file.Inode == d.Inode && file.Device == d.Device &&
		!file.ModTime.IsZero() && file.ModTime.Equal(d.ModTime) && file.ChangeTime.Equal(d.ChangeTime) &&
		file.ModTime.Before(s.Time.Add(-coarsest)) && file.ChangeTime.Before(s.Time.Add(-coarsest))
}
