package volume

import (
	"context"
	"io/fs"
	"strings"

	"varve/image"
	"varve/image/filesystem"
)

// MountedOn returns where the volume is mounted, of all mounts of its disk of size bytes.
func (v *Volume) MountedOn(mounts []image.Mount, size int64) (list []string) {
	for _, m := range mounts {
		if v.Holds(m, size) {
			list = append(list, m.Where)
		}
	}
	return list
}

// Holds reports whether a mount of its disk, of size bytes, lies on the volume.
func (v *Volume) Holds(m image.Mount, size int64) bool {
	end := m.Offset + m.Length
	if m.Length == 0 {
		end = size
	}
	return m.Offset < v.End() && end > v.Start
}

// needed are the places without which a Linux system does not start.
var needed = map[string]string{"/": "the running system is on it", "/boot": "its boot loader or kernel is on it", "/boot/efi": "its boot loader is on it",
	"/efi": "its boot loader is on it", "/usr": "a part of the running system is on it", "/etc": "a part of the running system is on it"}

// bootTypes are the types of partitions that firmware, boot loaders and rescue systems use.
var bootTypes = map[string]string{
	"c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI system partition: the firmware starts from it",
	"0xef":                                 "EFI system partition: the firmware starts from it",
	"21686148-6449-6e6f-744e-656564454649": "BIOS boot partition: the boot loader is on it",
	"9e1a2d38-c612-4316-aa26-8b49521e5a8b": "PReP boot partition: the firmware starts from it",
	"0x41":                                 "PReP boot partition: the firmware starts from it",
	"e3c9e316-0b5c-4db8-817d-f92df00215ae": "Microsoft reserved partition: Windows wants it",
	"de94bba4-06d1-4d40-a16a-bfd50179d6ac": "recovery partition of Windows",
	"0x27":                                 "recovery partition of Windows",
	"bc13c2ff-59e6-4262-a352-b275fd6f7172": "extended boot loader partition",
}

// Critical says of which volumes a system on this disk needs to start, and why, by number. It knows them by where they are mounted, by the
// type of their partitions, and by the files on them: so a disk of another machine can be judged, too.
func (l *Layout) Critical(mounts []image.Mount) map[int]string {
	reasons := map[int]string{}
	system := false
	for i := range l.Volumes {
		v := &l.Volumes[i]
		for _, m := range mounts {
			if why, is := needed[m.Where]; is && v.Holds(m, l.Size) {
				reasons[v.Number] = why + " (" + m.Where + ")"
			}
		}
		if _, known := reasons[v.Number]; !known {
			if why := v.system(); why != "" {
				reasons[v.Number] = why
			}
		}
		_, is := reasons[v.Number]
		system = system || is
	}
	for i := range l.Volumes {
		v := &l.Volumes[i]
		if v.Partition == nil || reasons[v.Number] != "" {
			continue
		}
		why, is := bootTypes[strings.ToLower(v.Partition.Type)]
		for _, a := range v.Partition.Attributes {
			if !is && (a == "active" || a == "bootable") {
				why, is = "it is marked as the one to start from", true
			}
		}
		// A recovery or reserved partition beside no system is nothing to start from; an EFI system partition may be.
		if is && (system || strings.HasPrefix(why, "EFI")) {
			reasons[v.Number] = why
		}
	}
	return reasons
}

// system returns why the files on a volume make it one that a system starts from; "" when they do not.
func (v *Volume) system() string {
	tree, ok := v.FS.(filesystem.Tree)
	if !ok {
		return ""
	}
	for _, s := range []struct {
		why   string
		paths []string // all of them
	}{
		{"Windows is on it", []string{"Windows/System32/config/SYSTEM"}},
		{"the boot manager of Windows is on it", []string{"bootmgr", "Boot/BCD"}},
		{"a Linux system is on it", []string{"etc/fstab", "etc/os-release"}},
		{"a Linux system is on it", []string{"usr/lib/os-release", "etc"}},
		{"a boot loader is on it", []string{"grub/grub.cfg"}},
		{"boot loaders are on it", []string{"EFI/BOOT"}},
		{"boot entries are on it", []string{"loader/entries"}},
	} {
		all := true
		for _, path := range s.paths {
			all = all && has(tree, path)
		}
		if all {
			return s.why
		}
	}
	return ""
}

// has reports whether there is a file or link at path, without regard to case.
func has(tree filesystem.Tree, path string) bool {
	at := tree.Root()
	for name := range strings.SplitSeq(path, "/") {
		found := false
		// An error is as good as no: this is about a reason that is shown, or a partition more or less by default.
		_ = tree.ReadDir(context.Background(), at, func(e filesystem.Entry) error {
			if strings.EqualFold(e.Name, name) {
				at, found = e.Number, true
				return fs.SkipAll
			}
			return nil
		})
		if !found {
			return false
		}
	}
	return true
}
