package image

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// use is one way in which a device is in use.
type use struct {
	device   string // its name in the kernel, such as sda1
	where    string // the mount point, or the name of the swap
	swap     bool
	readOnly bool
	span     span
}

// span is a part of a disk, in bytes; a length of 0 goes on to the end.
type span struct{ offset, length int64 }

// mountsOf returns those uses that are mounts.
func mountsOf(uses []use) []Mount {
	var list []Mount
	for _, u := range uses {
		if !u.swap {
			list = append(list, Mount{Where: u.where, ReadOnly: u.readOnly, Offset: u.span.offset, Length: u.span.length})
		}
	}
	return list
}

func (u use) String() string {
	if u.swap {
		return u.device + " is in use as swap"
	}
	return u.device + " is mounted on " + u.where
}

// usesOf lists how the device with a folder in sysfs is in use, its partitions, and whatever is built on them.
func usesOf(dir string) ([]use, error) {
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("asking what is mounted: %w", err)
	}
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil && !os.IsNotExist(err) { // it is missing in kernels without swap
		return nil, fmt.Errorf("asking what is in use as swap: %w", err)
	}
	var uses []use
	mounts, areas := parseMounts(string(mountinfo)), parseSwaps(string(swaps))
	for _, member := range family(dir) {
		number, name := text(member.dir, "dev"), filepath.Base(member.dir)
		for _, m := range mounts {
			// btrfs and others have numbers of their own, and name the device only as what is mounted.
			if m.number == number || numberOf(m.source) == number {
				uses = append(uses, use{device: name, where: m.point, readOnly: m.readOnly, span: member.span})
			}
		}
		for _, area := range areas {
			if numberOf(area) == number {
				uses = append(uses, use{device: name, where: area, swap: true, span: member.span})
			}
		}
	}
	slices.SortFunc(uses, func(a, b use) int { return strings.Compare(a.device+"\n"+a.where, b.device+"\n"+b.where) })
	return slices.Compact(uses), nil
}

// member is a device that is made of a disk, or the disk itself.
type member struct {
	dir string // its folder in sysfs
	span
}

// family returns a device, its partitions, and all that hold one of these: volumes that are decrypted from it, logical volumes, RAID.
// These lie wherever they like in what they are made of.
func family(dir string) []member {
	list := []member{{dir: dir}}
	add := func(m member) {
		if !slices.ContainsFunc(list, func(known member) bool { return known.dir == m.dir }) {
			list = append(list, m)
		}
	}
	for i := 0; i < len(list); i++ { // grows while it is walked
		of := list[i]
		partitions, _ := filepath.Glob(filepath.Join(of.dir, "*", "partition")) // the pattern is right, there is no other error
		for _, name := range partitions {
			m := member{filepath.Dir(name), of.span}
			if i == 0 {
				m.span = span{512 * number(m.dir, "start"), 512 * number(m.dir, "size")} // sysfs counts in 512 bytes, whatever a sector has
			}
			add(m)
		}
		holders, _ := filepath.Glob(filepath.Join(of.dir, "holders", "*"))
		for _, h := range holders {
			if held, err := filepath.EvalSymlinks(h); err == nil {
				add(member{held, of.span})
			}
		}
	}
	return list
}

// number returns what a file of sysfs says as a number, 0 when it does not.
func number(dir, name string) int64 {
	n, err := strconv.ParseInt(text(dir, name), 10, 63)
	if err != nil {
		return 0
	}
	return n
}

// numberOf returns the number of the block device of a node, as sysfs writes it ("8:1"); "" when it is not one.
func numberOf(path string) string {
	if !strings.HasPrefix(path, "/") {
		return ""
	}
	st, err := os.Stat(path)
	if err != nil {
		return ""
	}
	number, ok := blockDevice(st)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d:%d", unix.Major(number), unix.Minor(number))
}

// mount is a line of /proc/self/mountinfo.
type mount struct {
	number   string // of the device, "8:1"
	point    string
	source   string
	readOnly bool // the filesystem, not just this view of it
}

// parseMounts reads the form of /proc/self/mountinfo (proc(5)). Lines of another form are left out.
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
//	      number     point            any number -  type source
func parseMounts(text string) []mount {
	var list []mount
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		m := mount{number: fields[2], point: unescape(fields[4])}
		if dash := slices.Index(fields, "-"); dash > 0 && dash+2 < len(fields) {
			m.source = unescape(fields[dash+2])
			m.readOnly = dash+3 < len(fields) && slices.Contains(strings.Split(fields[dash+3], ","), "ro")
		}
		list = append(list, m)
	}
	return list
}

// parseSwaps reads the names in the form of /proc/swaps: a title, then a line for each with its name first.
func parseSwaps(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] != "Filename" {
			list = append(list, unescape(fields[0]))
		}
	}
	return list
}

// unescape undoes what the kernel does to spaces in names: a backslash and three octal digits for a byte.
func unescape(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] == '\\' && i+3 < len(name) {
			if c, err := strconv.ParseUint(name[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(name[i])
	}
	return b.String()
}

// usesOfFile lists how a file is in use as a disk: as swap, or through loop devices that are.
func usesOfFile(st fs.FileInfo) ([]use, error) {
	var uses []use
	swaps, _ := os.ReadFile("/proc/swaps") // the kernel itself refuses to open one for writing
	for _, area := range parseSwaps(string(swaps)) {
		if other, err := os.Stat(area); err == nil && os.SameFile(st, other) {
			uses = append(uses, use{device: st.Name(), where: area, swap: true})
		}
	}
	backing, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, name := range backing {
		other, err := os.Stat(text(filepath.Dir(name), filepath.Base(name)))
		if err != nil || !os.SameFile(st, other) {
			continue
		}
		dir, err := filepath.EvalSymlinks(filepath.Dir(filepath.Dir(name)))
		if err != nil {
			continue // detached just now
		}
		more, err := usesOf(dir)
		if err != nil {
			return nil, err
		}
		loop := filepath.Dir(name)
		for _, u := range more {
			u.span.offset += number(loop, "offset")
			if u.span.length == 0 {
				u.span.length = number(loop, "sizelimit")
			}
			uses = append(uses, u)
		}
	}
	return uses, nil
}
