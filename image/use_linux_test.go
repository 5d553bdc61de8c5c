package image

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestParseMounts(t *testing.T) {
	got := parseMounts(`22 1 254:0 / / rw,relatime shared:1 master:3 - ext4 /dev/vda rw
36 35 98:0 /mnt1 /mnt/a\040b\134c rw,noatime - ext3 /dev/x\011y ro,errors=continue
40 22 0:41 /@home /home rw - btrfs /dev/sdb2 rw
cut off
41 22 0:42 / /proc rw
`)
	want := []mount{
		{"254:0", "/", "/dev/vda", false},
		{"98:0", `/mnt/a b\c`, "/dev/x\ty", true},
		{"0:41", "/home", "/dev/sdb2", false},
		{"0:42", "/proc", "", false},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestParseSwaps(t *testing.T) {
	got := parseSwaps("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n" +
		"/dev/sda2                               partition\t1048572\t\t0\t\t-2\n/var/a\\040swap\tfile 1 0 -3\n\n")
	if want := []string{"/dev/sda2", "/var/a swap"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

func TestSerialOfPage(t *testing.T) {
	for page, want := range map[string]string{
		"\x00\x80\x00\x0a  S4X1 77  ":  "S4X1 77",
		"\x00\x80\x00\x04S4X1more":     "S4X1",
		"\x00\x80\xff\xffS4X1":         "S4X1",
		"\x00\x80\x00\x00":             "",
		"\x00\x83\x00\x04S4X1":         "",
		"\x00\x80":                     "",
		"":                             "",
		"\x00\x80\x00\x05S4\x00\x00\n": "S4",
	} {
		if got := serialOfPage([]byte(page)); got != want {
			t.Errorf("%q: %q", page, got)
		}
	}
}

// FuzzParse: what the kernel and a disk say of themselves is never more than text.
func FuzzParse(f *testing.F) {
	f.Add("36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n")
	f.Add("Filename Type\n/dev/sda2 partition 1 0 -2\n")
	f.Add("\x00\x80\x00\x04S4X1")
	f.Add("a - \\777\\04")
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range parseMounts(text) {
			if strings.ContainsAny(m.number, " \n") {
				t.Errorf("the number of a mount is %q", m.number)
			}
		}
		for _, name := range parseSwaps(text) {
			if len(name) > len(text) {
				t.Errorf("longer than all: %q", name)
			}
		}
		if serial := serialOfPage([]byte(text)); len(serial) > len(text) {
			t.Errorf("longer than all: %q", serial)
		}
	})
}

// tree makes files of a folder like sysfs; those that begin with -> are links.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if link, ok := strings.CutPrefix(text, "->"); ok {
			err = os.Symlink(link, name)
		} else {
			err = os.WriteFile(name, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestFamily: partitions, encryption on one, volumes on that, and RAID over two disks.
func TestFamily(t *testing.T) {
	root := tree(t, map[string]string{
		"sda/dev": "8:0", "sda/sda1/partition": "1", "sda/sda2/partition": "2",
		"sda/sda1/start": "2048\n", "sda/sda1/size": "100\n", "sda/sda2/start": "4096\n", "sda/sda2/size": "200\n",
		"sda/sda2/holders/dm-0": "->../../../dm-0", "sda/holders/md0": "->../../md0",
		"dm-0/dev": "253:0", "dm-0/holders/dm-1": "->../../dm-1", "dm-0/holders/dm-2": "->../../dm-2",
		"dm-1/dev": "253:1", "dm-2/dev": "253:2", "md0/md0p1/partition": "1",
		"dm-2/holders/dm-0": "->../../dm-0", // never; but it must end
		"sdb/dev":           "8:16", "sdb/holders/md0": "->../../md0", "sdb/holders/gone": "->../../nothing",
	})
	for disk, want := range map[string][]string{
		"sda":      {"sda", "sda/sda1", "sda/sda2", "md0", "md0/md0p1", "dm-0", "dm-1", "dm-2"},
		"sda/sda1": {"sda/sda1"},
		"sda/sda2": {"sda/sda2", "dm-0", "dm-1", "dm-2"},
		"sdb":      {"sdb", "md0", "md0/md0p1"},
	} {
		var got []string
		for _, m := range family(filepath.Join(root, disk)) {
			name, err := filepath.Rel(root, m.dir)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, name)
			volumes := span{2 << 20, 102400}
			at := map[string]span{"sda1": {1 << 20, 51200}, "sda2": volumes, "dm-0": volumes, "dm-1": volumes, "dm-2": volumes}[filepath.Base(name)]
			if disk == "sda" && m.span != at {
				t.Errorf("%s lies at %+v, not %+v", name, m.span, at)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v", disk, got)
		}
	}
}

func TestModelAndSerial(t *testing.T) {
	root := tree(t, map[string]string{
		"nvme0n1/device/model": "Samsung SSD 980   \n", "nvme0n1/device/serial": "S64 \n", "nvme0n1/nvme0n1p3/partition": "3\n",
		"vda/serial":       "disk-1\n",
		"sda/device/model": "WDC WD40\n", "sda/device/vpd_pg80": "\x00\x80\x00\x08  WD-77  ", "sda/sda1/partition": "1\n",
		"dm-0/dm/name": "vg-root\n", "dm-0/dm/uuid": "LVM-abc\n",
		"loop0/dev": "7:0\n", "loop0/loop0p1/partition": "1\n",
	})
	for disk, want := range map[string][2]string{
		"nvme0n1":           {"Samsung SSD 980", "S64"},
		"nvme0n1/nvme0n1p3": {"Samsung SSD 980", "S64-part3"},
		"vda":               {"", "disk-1"},
		"sda":               {"WDC WD40", "WD-77"},
		"sda/sda1":          {"WDC WD40", "WD-77-part1"},
		"dm-0":              {"vg-root", "LVM-abc"},
		"loop0":             {"", ""},
		"loop0/loop0p1":     {"", ""},
	} {
		model, serial := modelAndSerial(filepath.Join(root, disk))
		if got := [2]string{model, serial}; got != want {
			t.Errorf("%s: %q", disk, got)
		}
	}
}
