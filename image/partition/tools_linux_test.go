package partition

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// command runs a program and returns what it says; the test is skipped where there is none.
func command(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	for _, folder := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(folder, name))
		}
	}
	if err != nil {
		t.Skipf("SKIPPED: there is no %s", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, &said)
	}
	return string(out)
}

func image(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t *testing.T, path string, sector int) *Table {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, err := Read(f, st.Size(), sector)
	if err != nil {
		t.Fatal(err)
	}
	sane(t, table, st.Size())
	return table
}

// attributeNames are the names that sfdisk has for bits.
var attributeNames = map[string]string{
	"RequiredPartition": "required", "NoBlockIOProtocol": "no block io", "LegacyBIOSBootable": "bootable",
	"59": "grow filesystem", "60": "read-only", "62": "hidden", "63": "no automount",
}

var trailing = regexp.MustCompile(`[0-9]+$`)

// bySfdisk returns the table as sfdisk sees it on path, which may be a device with larger sectors, and blkid's names.
func bySfdisk(t *testing.T, path string, sector int) *Table {
	t.Helper()
	var is struct {
		PartitionTable struct {
			Label, ID  string
			SectorSize int
			Partitions []struct {
				Node, Type, UUID, Name, Attrs string
				Start, Size                   int64
				Bootable                      bool
			}
		}
	}
	out := command(t, "", "sfdisk", "-J", path)
	if err := json.Unmarshal([]byte(out), &is); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p := is.PartitionTable
	table := &Table{Scheme: p.Label, SectorSize: max(p.SectorSize, 512), ID: strings.ToLower(p.ID)}
	if p.Label == "dos" {
		table.Scheme, table.ID = MBR, strings.TrimPrefix(table.ID, "0x")
	}
	if table.SectorSize != sector {
		t.Fatalf("sfdisk sees sectors of %d bytes", table.SectorSize)
	}
	names := map[int]string{}
	for _, line := range strings.Split(strings.TrimSpace(command(t, "", "partx", "--raw", "--noheadings", "--sector-size", fmt.Sprint(sector), "-o", "NR,UUID", path)), "\n") {
		if number, id, found := strings.Cut(line, " "); found {
			n, err := strconv.Atoi(number)
			if err != nil {
				t.Fatalf("partx: %q", line)
			}
			names[n] = id
		}
	}
	for _, q := range p.Partitions {
		number, err := strconv.Atoi(trailing.FindString(q.Node))
		if err != nil {
			t.Fatal(err)
		}
		here := Partition{
			Number: number, Start: q.Start * int64(sector), Length: q.Size * int64(sector), Type: strings.ToLower(q.Type), Name: q.Name, ID: names[number],
		}
		if table.Scheme == MBR {
			kind, err := strconv.ParseUint(q.Type, 16, 8)
			if err != nil {
				t.Fatal(err)
			}
			here.Type = fmt.Sprintf("0x%02x", kind)
			here.TypeName = mbrTypes[byte(kind)]
			here.Extended = kind == 5 || kind == 15 || kind == 0x85
			if q.Bootable {
				here.Attributes = []string{"active"}
			}
		} else {
			here.TypeName = gptTypes[here.Type]
			if !strings.EqualFold(q.UUID, here.ID) {
				t.Fatalf("partition %d: %s for sfdisk, %s for partx", number, q.UUID, here.ID)
			}
			for _, bit := range strings.FieldsFunc(q.Attrs, func(r rune) bool { return r == ' ' || r == ',' }) {
				here.Attributes = append(here.Attributes, attributeNames[strings.TrimPrefix(bit, "GUID:")])
			}
		}
		table.Partitions = append(table.Partitions, here)
	}
	return table
}

func compareTables(t *testing.T, got, want *Table) {
	t.Helper()
	noted(t, got, "")
	same(t, got.Partitions, want.Partitions)
	if got.Scheme != want.Scheme || got.ID != want.ID || got.SectorSize != want.SectorSize || len(got.Partitions) == 0 {
		t.Errorf("%+v instead of %+v", got, want)
	}
}

// scripts make tables by sfdisk.
var scripts = map[string]string{
	"gpt": "label: gpt\n,8M,U\n,4M,21686148-6449-6E6F-744E-656564454649\n,,0FC63DAF-8483-4772-8E79-3D69D8477DE4\n",
	"gpt with gaps, names and attributes": "label: gpt\nlabel-id: 0B5EDA77-7777-4A4A-8B8B-0123456789AB\n" +
		"3: start=4096, size=2048, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, name=\"Microsoft basic data\", attrs=\"GUID:60,62,63\"\n" +
		"7: size=4096, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=\"Dépôt 💾 Ωμέγα, thirty-six characte\", attrs=\"RequiredPartition LegacyBIOSBootable GUID:59\"\n" +
		"120: size=4096, type=E6D6D379-F507-44C2-A23C-238F2A3DF928, attrs=\"NoBlockIOProtocol\"\n",
	"gpt, short": "label: gpt\ntable-length: 4\nfirst-lba: 10\n,1M\n,1M\n",
	"gpt, long":  "label: gpt\ntable-length: 2048\nfirst-lba: 2048\n2000: size=1M\n",
	"mbr":        "label: dos\nlabel-id: 0x0000abcd\n,8M,7,*\n,4M,c\n,1M,ef\n,,83\n",
	"mbr with logical partitions": "label: dos\n,8M\n,8M,82,*\n,,5\n" +
		strings.Repeat(",1M,83\n", 3) + ",2M,8e\n,1M,fd,*\n" + strings.Repeat(",1M,b\n", 8),
	"mbr, extended first":   "label: dos\n,16M,f\n,8M,83\n,8M,27\n,,7\n,4M\n,4M,82\n",
	"mbr, empty extended":   "label: dos\n,8M\n,,85\n,4M\n",
	"mbr, only primary one": "label: dos\n3: start=1, size=99999, type=a5\n",
}

func TestBySfdisk(t *testing.T) {
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // sfdisk waits a little before it ends
			path := image(t, 64<<20)
			command(t, script, "sfdisk", "-q", path)
			want := bySfdisk(t, path, 512)
			compareTables(t, readFile(t, path, 0), want)
			compareTables(t, readFile(t, path, 512), want)
		})
	}
}

// TestBySfdiskLargeSectors is the same on a device that reads no less than 4096 bytes.
func TestBySfdiskLargeSectors(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: loop devices need root")
	}
	for name, script := range scripts {
		if strings.Contains(script, "start=") || strings.Contains(script, "first-lba") {
			continue // in sectors
		}
		t.Run(name, func(t *testing.T) {
			path := image(t, 256<<20)
			device := strings.TrimSpace(command(t, "", "losetup", "--find", "--show", "--sector-size", "4096", path))
			defer func() { command(t, "", "losetup", "-d", device) }()
			command(t, script, "sfdisk", "-q", "--no-reread", "--no-tell-kernel", device)
			want := bySfdisk(t, device, 4096)
			compareTables(t, readFile(t, path, 4096), want)
			if want.Scheme == GPT || strings.Contains(name, "logical") {
				compareTables(t, readFile(t, path, 0), want)
			}
		})
	}
}

// TestBySgdisk reads what another program made, and what is left of it when sgdisk damages it in its own ways.
func TestBySgdisk(t *testing.T) {
	path := image(t, 64<<20)
	command(t, "", "sgdisk", "-n", "1:2048:+8M", "-t", "1:ef00", "-c", "1:EFI system partition", "-n", "5:0:+4M", "-t", "5:8300",
		"-A", "5:set:2", "-n", "9:0:0", "-t", "9:0700", "-A", "9:set:63", path)
	want := bySfdisk(t, path, 512)
	compareTables(t, readFile(t, path, 0), want)

	t.Run("hybrid", func(t *testing.T) {
		command(t, "", "sgdisk", "-h", "1:5", path)
		table := readFile(t, path, 0)
		noted(t, table, "hybrid")
		same(t, table.Partitions, want.Partitions)
		command(t, "", "sgdisk", "-h", "5:EE", path) // the protective entry first
		table = readFile(t, path, 0)
		noted(t, table, "hybrid")
		same(t, table.Partitions, want.Partitions)
	})
	t.Run("larger disk", func(t *testing.T) {
		if err := os.Truncate(path, 80<<20); err != nil {
			t.Fatal(err)
		}
		table := readFile(t, path, 0)
		noted(t, table, "the backup GPT is not at the end of the disk")
		same(t, table.Partitions, want.Partitions)
		command(t, "", "sgdisk", "-e", path) // moves it there
		table = readFile(t, path, 0)
		noted(t, table, "hybrid")
		if len(table.Notes) != 1 {
			t.Errorf("%q", table.Notes)
		}
		same(t, table.Partitions, want.Partitions)
	})
	t.Run("MBR of a GPT", func(t *testing.T) {
		command(t, "", "sgdisk", "-m", "1:5:9", path)
		table := readFile(t, path, 0)
		if table.Scheme != MBR || len(table.Partitions) != 3 {
			t.Fatalf("%+v", table)
		}
		for i, p := range table.Partitions {
			if p.Start != want.Partitions[i].Start || p.Length != want.Partitions[i].Length {
				t.Errorf("%+v instead of %+v", p, want.Partitions[i])
			}
		}
	})
}

func TestByParted(t *testing.T) {
	for name, args := range map[string]string{
		"gpt":   "mklabel gpt mkpart one fat32 1MiB 9MiB mkpart two ext4 9MiB 20MiB set 1 esp on set 2 legacy_boot on mkpart three ntfs 30MiB 100%",
		"msdos": "mklabel msdos mkpart primary fat32 1MiB 9MiB set 1 boot on mkpart extended 9MiB 100% mkpart logical ext4 10MiB 20MiB mkpart logical linux-swap 21MiB 30MiB mkpart logical ntfs 31MiB 40MiB rm 6",
	} {
		t.Run(name, func(t *testing.T) {
			path := image(t, 64<<20)
			command(t, "", "parted", append([]string{"--script", path}, strings.Fields(args)...)...)
			compareTables(t, readFile(t, path, 0), bySfdisk(t, path, 512))
		})
	}
}

// TestBareFilesystems: the first sectors of filesystems end as an MBR does.
func TestBareFilesystems(t *testing.T) {
	for _, mkfs := range []string{
		"mkfs.fat -F 12", "mkfs.fat -F 16", "mkfs.fat -F 32", "mkfs.fat -F 32 --mbr=yes", "mkfs.fat -F 16 -S 4096", "mkntfs -Q -F",
		"mkfs.exfat", "mkfs.ext4 -q -F", "mkfs.xfs -q -f", "mkfs.btrfs -q -f", "mkswap",
	} {
		t.Run(mkfs, func(t *testing.T) {
			size := int64(64 << 20)
			if strings.Contains(mkfs, "xfs") || strings.Contains(mkfs, "btrfs") {
				size = 320 << 20
			}
			path := image(t, size)
			words := strings.Fields(mkfs)
			command(t, "", words[0], append(words[1:], path)...)
			for _, sector := range []int{0, 512, 4096} {
				if table := readFile(t, path, sector); table.Scheme != "" || table.Notes != nil {
					t.Errorf("%+v", table)
				}
			}
		})
	}
}

// TestTypes: every type has the name that others know it by, in our words.
func TestTypes(t *testing.T) {
	theirs := map[string]bool{}
	for _, line := range strings.Split(command(t, "", "sfdisk", "--list-types", "--label", "gpt"), "\n") {
		kind, _, _ := strings.Cut(line, " ")
		theirs[strings.ToLower(kind)] = true
	}
	for kind, name := range gptTypes {
		if !theirs[kind] {
			t.Errorf("%s (%s) is no type for sfdisk", kind, name)
		}
	}
	clear(theirs)
	for _, line := range strings.Split(command(t, "", "sfdisk", "--list-types", "--label", "dos"), "\n") {
		kind, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		theirs[kind] = true
	}
	for kind, name := range mbrTypes {
		if !theirs[fmt.Sprintf("%x", kind)] {
			t.Errorf("%02x (%s) is no type for sfdisk", kind, name)
		}
	}
}
