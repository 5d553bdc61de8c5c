package fat

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
)

// There is not everywhere a driver that mounts a FAT, so it is filled by mtools from a folder, with which it is then compared.

func open(r io.ReaderAt, size int64) (filesystem.Filesystem, error) { return Open(r, size) }

// fill makes files in dir that a FAT can hold, and mtools can write: they know no letters beyond 16 bits.
func fill(t *testing.T, dir string) {
	random := rand.NewChaCha8([32]byte{3})
	write := func(name string, size int) {
		path := filepath.Join(dir, name)
		data := make([]byte, size)
		_, _ = random.Read(data) // never fails
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		day := time.Date(1980+size%100, 1, 1, 0, 0, 0, 0, time.UTC)
		if err := os.Chtimes(path, day, day.Add(time.Duration(size)*11*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	for _, size := range []int{0, 1, 511, 512, 513, 4095, 4096, 4097, 65536, 300_001} {
		write(fmt.Sprintf("sizes/%d", size), size)
	}
	for i := range 120 {
		write(fmt.Sprintf("many/file %05d with a rather long name.dat", i), i*7)
	}
	write("UPPER.TXT", 100)
	write("lower.txt", 101)
	write("lowerext.DAT", 102)
	write("UPPEREXT.dat", 102)
	write("Mixed.Txt", 103)
	write("names/Grüße – Ωmega.txt", 104)
	write("names/日本語/ファイル.txt", 105)
	write("names/ leading, and.many.dots", 106)
	write("names/ÄÖÜ.TXT", 107)
	write("a/b/c/d/e/f/g/deep", 108)
	write(strings.Repeat("n", 150)+".txt", 109)
	if err := os.Mkdir(filepath.Join(dir, "empty folder"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// copyIn copies all that is in dir into the image.
func copyIn(t *testing.T, image, dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	command := []string{"mcopy", "-i", image, "-s", "-Q", "-m"}
	for _, e := range entries {
		command = append(command, filepath.Join(dir, e.Name()))
	}
	filesystemtest.Run(t, append(command, "::")...)
}

func TestMadeByTools(t *testing.T) {
	t.Setenv("TZ", "UTC")
	t.Setenv("LC_ALL", "C.UTF-8")
	dir := t.TempDir()
	fill(t, dir)
	for _, c := range []struct {
		size int64
		mkfs string
		kind string
	}{
		{80 << 20, "-F 32 -s 1 -n A_LABEL", "fat32"},
		{1440 << 10, "-F 12", "fat12"},
		{40 << 20, "-F 12 -s 32 -n LABEL", "fat12"},
		{20 << 20, "-F 16", "fat16"},
		{300 << 20, "-F 16 -S 4096 -f 1 -i 12345678", "fat16"},
		{550 << 20, "-F 32 -R 40 -s 16", "fat32"},
		{330 << 20, "-F 32 -S 1024 -s 2 -f 1 -a", "fat32"},
	} {
		t.Run(strings.ReplaceAll(c.mkfs, " ", "")+"/"+strconv.FormatInt(c.size>>10, 10), func(t *testing.T) {
			image := filesystemtest.Image(t, c.size, append([]string{"mkfs.fat"}, strings.Fields(c.mkfs)...)...)
			// What is removed again leaves a gap, into which the files go in pieces.
			for i := range 3 {
				gap := filepath.Join(t.TempDir(), "gap")
				size := 5000
				if i == 0 && c.size == 80<<20 {
					size = 7 << 20 // so that the files lie behind cluster 65536
				}
				if err := os.WriteFile(gap, bytes.Repeat([]byte("gone "), size), 0o644); err != nil {
					t.Fatal(err)
				}
				filesystemtest.Run(t, "mcopy", "-i", image, gap, fmt.Sprintf("::gap %d", i))
			}
			filesystemtest.Run(t, "mdel", "-i", image, "::gap 1")
			copyIn(t, image, dir)
			filesystemtest.Run(t, "mdel", "-i", image, "::gap 0", "::gap 2")
			tree := filesystemtest.OpenTree(t, image, open)
			if kind := tree.Info().Type; kind != c.kind {
				t.Fatalf("it is a %s", kind)
			}
			filesystemtest.CheckTree(t, tree, image, dir, filesystemtest.Abilities{})
			spoiled := filesystemtest.CheckFree(t, image, open, "fsck.fat", "-n")
			filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, spoiled, open), spoiled, dir, filesystemtest.Abilities{})
			compareCounts(t, tree, image)
			compareNames(t, tree, image)
		})
	}
}

// compareCounts compares how many clusters are free with what fsck.fat counts.
func compareCounts(t *testing.T, s filesystem.Filesystem, image string) {
	out := filesystemtest.Run(t, "fsck.fat", "-n", "-v", image)
	counts := regexp.MustCompile(`(\d+)/(\d+) clusters`).FindStringSubmatch(out)
	if counts == nil {
		t.Fatalf("fsck.fat does not count: %s", out)
	}
	used, _ := strconv.ParseInt(counts[1], 10, 64)
	total, _ := strconv.ParseInt(counts[2], 10, 64)
	info := s.Info()
	free := filesystemtest.Sum(filesystemtest.Free(t, s)) / int64(info.BlockSize)
	if free != total-used {
		t.Errorf("%d clusters of %d are free; fsck.fat says that %d are not", free, total, used)
	}
	t.Logf("%s: %d of %d clusters are free", info.Type, free, total)
	if info.Type == "fat32" && info.Used != info.Size-free*int64(info.BlockSize) {
		t.Errorf("%d bytes are used, of %d, with %d clusters free", info.Used, info.Size, free)
	}
}

// compareNames compares label and serial number with those that blkid finds.
func compareNames(t *testing.T, s filesystem.Filesystem, image string) {
	out := filesystemtest.Run(t, "blkid", "-p", "-o", "export", image)
	facts := map[string]string{}
	for _, line := range strings.Split(out, "\n") {
		name, value, _ := strings.Cut(line, "=")
		facts[name] = value
	}
	info := s.Info()
	if info.UUID != facts["UUID"] || info.Label != facts["LABEL"] {
		t.Errorf("it is %q %q, and for blkid %q %q", info.UUID, info.Label, facts["UUID"], facts["LABEL"])
	}
}

// TestFewClusters: a FAT32 with less clusters than Microsoft allows is made by mkfs.fat, and read by drivers, but not by mtools.
func TestFewClusters(t *testing.T) {
	for _, c := range []struct {
		size int64
		mkfs string
	}{{33 << 20, "-F 32"}, {1 << 20, "-F 32 -s 1 -n SMALL"}, {300 << 20, "-F 32 -s 128"}} {
		image := filesystemtest.Image(t, c.size, append([]string{"mkfs.fat"}, strings.Fields(c.mkfs)...)...)
		s := filesystemtest.OpenImage(t, image, open)
		if kind := s.Info().Type; kind != "fat32" {
			t.Errorf("it is a %s", kind)
		}
		filesystemtest.CheckFree(t, image, open, "fsck.fat", "-n")
		compareCounts(t, s, image)
		compareNames(t, s, image)
	}
}

// TestSamplesAreSound: what is made by hand here is what a checker takes for a filesystem.
func TestSamplesAreSound(t *testing.T) {
	for _, bits := range widths {
		path := filepath.Join(t.TempDir(), "image")
		image := bytes.ReplaceAll(sample(t, bits).image, []byte("BOOT LABEL "), []byte("A DISK     ")) // two labels are one too many
		if bits == 32 {
			copy(image[2*512:], image[:512]) // the copy of the boot sector
		}
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		filesystemtest.Run(t, "fsck.fat", "-n", path)
		filesystemtest.CheckFree(t, path, open, "fsck.fat", "-n")
		filesystemtest.CheckDamage(t, path, open, 200)
	}
}

func TestBadClustersOfTools(t *testing.T) {
	list := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(list, []byte("5000\n5001\n7000\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	image := filesystemtest.Image(t, 20<<20, "mkfs.fat", "-F", "32", "-s", "2", "-l", list)
	s := filesystemtest.OpenImage(t, image, open)
	if free, clusters := filesystemtest.Free(t, s), int64(s.(*FS).clusters); filesystemtest.Sum(free) != (clusters-4)*1024 || len(free) != 3 {
		t.Errorf("free are %v", free)
	}
}

func TestDamage(t *testing.T) {
	t.Setenv("TZ", "UTC")
	dir := t.TempDir()
	fill(t, dir)
	for _, mkfs := range []string{"-F 12 -s 32", "-F 16", "-F 32 -s 1"} {
		image := filesystemtest.Image(t, 40<<20, append([]string{"mkfs.fat"}, strings.Fields(mkfs)...)...)
		copyIn(t, image, dir)
		filesystemtest.CheckDamage(t, image, open, 200)
	}
}
