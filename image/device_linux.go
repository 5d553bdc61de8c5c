package image

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func goneHere(err error) bool {
	return errors.Is(err, unix.ESTALE) || errors.Is(err, unix.ENOMEDIUM) || errors.Is(err, unix.ESHUTDOWN) || errors.Is(err, unix.ENOTCONN)
}

// describe fills in what the system knows of an open file or device.
func describe(f *os.File, info *Info) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: the system tells nothing of it", f.Name())
	}
	switch mode := st.Mode(); {
	case mode.IsRegular():
		info.Type, info.Size = "file", st.Size()
		info.ModTime, info.ChangeTime = st.ModTime(), time.Unix(sys.Ctim.Unix())
		info.Inode, info.Device = sys.Ino, uint64(sys.Dev)
		return nil
	case mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0:
		info.Type, info.Device = "device", uint64(sys.Rdev)
	default:
		return fmt.Errorf("%s is neither a file nor a block device (%s); to back up what a program prints, pipe it in and name - as the source", f.Name(), st.Mode().Type())
	}
	if info.Size, err = deviceSize(f); err != nil {
		return fmt.Errorf("asking for the size of %s: %w", f.Name(), err)
	}
	if info.SectorSize, err = unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET); err != nil {
		return fmt.Errorf("asking for the sector size of %s: %w", f.Name(), err)
	}
	dir := sysDir(info.Device)
	disk := dir
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		disk = filepath.Dir(dir)
	}
	info.Model, info.Serial = sysText(disk, "device/model"), sysText(disk, "device/serial")
	if info.Serial == "" {
		info.Serial = sysText(disk, "serial")
	}
	info.Mounted, err = inUse(dir)
	return err
}

// deviceSize returns the bytes of a block device.
func deviceSize(f *os.File) (int64, error) {
	var size uint64
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size))); errno != 0 {
		return 0, errno
	}
	return int64(size), nil
}

// sysDir returns the folder of a device in sysfs.
func sysDir(device uint64) string {
	link := fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(device), unix.Minor(device))
	if dir, err := filepath.EvalSymlinks(link); err == nil {
		return dir
	}
	return link
}

func sysText(dir, name string) string {
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// inUse lists where the device of a sysfs folder is mounted or used as swap: itself, its partitions, and what is built
// on them (device mapper, RAID).
func inUse(dir string) ([]string, error) {
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	var places []string
	seen := map[string]bool{}
	var visit func(dir string)
	visit = func(dir string) {
		if seen[dir] {
			return
		}
		seen[dir] = true
		places = append(places, mounts[sysText(dir, "dev")]...)
		entries, err := os.ReadDir(dir)
		if err != nil {
			return
		}
		for _, e := range entries {
			if _, err := os.Stat(filepath.Join(dir, e.Name(), "partition")); err == nil {
				visit(filepath.Join(dir, e.Name()))
			}
		}
		holders, err := os.ReadDir(filepath.Join(dir, "holders"))
		if err != nil {
			return
		}
		for _, h := range holders {
			if held, err := filepath.EvalSymlinks(filepath.Join(dir, "holders", h.Name())); err == nil {
				visit(held)
			}
		}
	}
	visit(dir)
	return places, nil
}

// mountPoints returns for each device, as "major:minor", where it is mounted (proc(5), mountinfo) or that it is swap.
func mountPoints() (map[string][]string, error) {
	places := map[string][]string{}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("asking what is mounted: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		point := unescape(fields[4])
		device := fields[2]
		// btrfs shows a device number of its own; the source field names the real one.
		if dash := strings.Index(lines.Text(), " - "); dash >= 0 {
			after := strings.Fields(lines.Text()[dash+3:])
			if len(after) >= 2 && strings.HasPrefix(after[1], "/") {
				if real := deviceNumber(unescape(after[1])); real != "" {
					device = real
				}
			}
		}
		places[device] = append(places[device], point)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("asking what is mounted: %w", err)
	}
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return places, nil // a system without swap
	}
	for i, line := range strings.Split(string(swaps), "\n") {
		if fields := strings.Fields(line); i > 0 && len(fields) > 0 {
			if device := deviceNumber(unescape(fields[0])); device != "" {
				places[device] = append(places[device], "swap")
			}
		}
	}
	return places, nil
}

// deviceNumber returns "major:minor" of a block device, or "".
func deviceNumber(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return ""
	}
	return fmt.Sprintf("%d:%d", unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)))
}

// unescape undoes the octal escapes of mountinfo.
func unescape(text string) string {
	for _, c := range []struct{ code, plain string }{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
		text = strings.ReplaceAll(text, c.code, c.plain)
	}
	return text
}
