package ntfs

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"varve/image/filesystem"
)

// Flags of a volume, in $VOLUME_INFORMATION.
const (
	volumeDirty     = 0x0001
	volumeInCheck   = 0x4000
	maxLabel        = 1 << 10 // bytes
	maxVolume       = 1 << 10
	hibernationFile = "hiberfil.sys"
)

// readVolume reads $Volume, and finds out whether the filesystem is at rest.
func (f *FS) readVolume() error {
	x, err := f.load(recordVolume)
	if err != nil {
		return err
	}
	info, err := f.value(x, typeVolume, "", maxVolume) // nothing 8, version 2, flags 2
	if err != nil {
		return err
	}
	if len(info) < 12 {
		return filesystem.Corrupt("it says nothing of the filesystem")
	}
	label, err := f.value(x, typeVolumeName, "", maxLabel)
	if err != nil {
		return err
	}
	f.label = text(label)
	f.version = [2]byte{info[8], info[9]}
	f.dirty = f.unrest(le.Uint16(info[10:]))
	return nil
}

// unrest says why the filesystem is not at rest, "" when it is. What cannot be told is no rest.
func (f *FS) unrest(flags uint16) string {
	if flags&(volumeDirty|volumeInCheck) != 0 {
		return "is marked as dirty: it was not unmounted, or is damaged"
	}
	why, err := f.journalState()
	if err != nil {
		return fmt.Sprintf("has a journal that cannot be read (%v)", err)
	}
	if why != "" {
		return why
	}
	asleep, err := f.hibernates()
	if err != nil {
		return fmt.Sprintf("does not tell whether Windows hibernates (%v)", err)
	}
	if asleep {
		return "belongs to a Windows that hibernates"
	}
	return ""
}

// hibernates tells whether the root folder has the memory of a Windows that has not gone on since: it has filesystems mounted, and
// has in memory what belongs on them.
func (f *FS) hibernates() (bool, error) {
	root, err := f.load(recordRoot)
	if err != nil {
		return false, err
	}
	var found filesystem.Number
	done := errors.New("found")
	err = f.readFolder(context.Background(), root, func(n filesystem.Number, name name) error {
		if strings.EqualFold(name.text, hibernationFile) {
			found = n
			return done
		}
		return nil
	})
	if err == nil {
		return false, nil
	}
	if !errors.Is(err, done) {
		return false, err
	}
	x, err := f.load(found)
	if err != nil {
		return false, err
	}
	content, err := f.content(x, typeData, "")
	if content == nil || err != nil {
		return false, err
	}
	// Windows writes "HIBR" in front before it sleeps, and something else when it has read all of it. A file that is shorter than
	// the header is on disks of a sleeping Windows without the file proper.
	head := make([]byte, 4096)
	if content.Size() < int64(len(head)) {
		return true, nil
	}
	if n, err := content.ReadAt(head, 0); n < len(head) {
		return false, err
	}
	switch string(head[:4]) {
	case "\x00\x00\x00\x00", "wake", "WAKE":
		return false, nil
	}
	return true, nil
}
