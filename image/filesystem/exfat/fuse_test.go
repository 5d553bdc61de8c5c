package exfat

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
)

func open(r io.ReaderAt, size int64) (filesystem.Filesystem, error) { return Open(r, size) }

// filled makes an image with files in it.
func filled(t *testing.T, size int64, mkfs ...string) string {
	t.Setenv("TZ", "UTC")
	image := filesystemtest.Image(t, size, append([]string{"mkfs.exfat"}, mkfs...)...)
	dir := filesystemtest.Mount(t, image, "exfat")
	filesystemtest.Fill(t, dir, filesystemtest.Abilities{})
	filesystemtest.Unmount(t, dir)
	return image
}

func TestMounted(t *testing.T) {
	for _, c := range []struct {
		size int64
		mkfs string
	}{
		{64 << 20, "-c 512 -L LABEL"},
		{256 << 20, "-c 128K -L Grüße-\U0001F600"},
		{100 << 20, "--pack-bitmap -b 1M"},
	} {
		t.Run(c.mkfs, func(t *testing.T) {
			image := filled(t, c.size, strings.Fields(c.mkfs)...)
			dir := filesystemtest.Mount(t, image, "exfat", "ro")
			tree := filesystemtest.OpenTree(t, image, open)
			filesystemtest.CheckTree(t, tree, image, dir, filesystemtest.Abilities{})
			spoiled := filesystemtest.CheckFree(t, image, open, "fsck.exfat", "-n")
			filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, spoiled, open), spoiled, dir, filesystemtest.Abilities{})
			compareCounts(t, tree, image)
			compareNames(t, tree, image)
			filesystemtest.CheckDamage(t, image, open, 60)
		})
	}
}

// compareCounts compares how many clusters are free with what dump.exfat counts.
func compareCounts(t *testing.T, s filesystem.Filesystem, image string) {
	out := filesystemtest.Run(t, "dump.exfat", image)
	counts := regexp.MustCompile(`Free Clusters:\s*(\d+)`).FindStringSubmatch(out)
	if counts == nil {
		t.Fatalf("dump.exfat does not count: %s", out)
	}
	want, _ := strconv.ParseInt(counts[1], 10, 64)
	if free := filesystemtest.Sum(filesystemtest.Free(t, s)) / int64(s.Info().BlockSize); free != want {
		t.Errorf("%d clusters are free, and for dump.exfat %d", free, want)
	}
	t.Logf("%d of %d clusters are free", want, s.(*FS).clusters)
}

// compareNames compares label and serial number with those that blkid finds.
func compareNames(t *testing.T, s filesystem.Filesystem, image string) {
	info := s.Info()
	for field, value := range map[string]string{"UUID": info.UUID, "LABEL": info.Label} {
		out := "" // it fails where there is nothing to say
		if value != "" {
			out = strings.TrimSuffix(filesystemtest.Run(t, "blkid", "-p", "-o", "value", "-s", field, image), "\n")
		}
		if value != out {
			t.Errorf("its %s is %q, and for blkid %q", field, value, out)
		}
	}
}

// TestLongSectors has sectors of 4096 bytes, as the device for which it was made.
func TestLongSectors(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: loop devices need root")
	}
	t.Setenv("TZ", "UTC")
	image := filesystemtest.Image(t, 32<<20, "truncate", "-s", "32M")
	device := strings.TrimSpace(filesystemtest.Run(t, "losetup", "--find", "--show", "--sector-size", "4096", image))
	out, err := exec.Command(filesystemtest.Command(t, "mkfs.exfat"), device).CombinedOutput()
	filesystemtest.Run(t, "losetup", "-d", device)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dir := filesystemtest.Mount(t, image, "exfat")
	for i := range 100 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("a file with the number %d", i)), make([]byte, i*100), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	filesystemtest.Unmount(t, dir)
	dir = filesystemtest.Mount(t, image, "exfat", "ro")
	tree := filesystemtest.OpenTree(t, image, open)
	if sector := tree.(*FS).sector; sector != 4096 {
		t.Errorf("sectors have %d bytes", sector)
	}
	filesystemtest.CheckTree(t, tree, image, dir, filesystemtest.Abilities{})
	compareCounts(t, tree, image)
}

// TestManyEntries has a folder of many clusters, whose chain was made when it grew among others.
func TestManyEntries(t *testing.T) {
	t.Setenv("TZ", "UTC")
	image := filesystemtest.Image(t, 32<<20, "mkfs.exfat", "-c", "512")
	dir := filesystemtest.Mount(t, image, "exfat")
	for i := range 300 {
		for _, folder := range []string{"one", "two"} {
			if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
				t.Fatal(err)
			}
			name := fmt.Sprintf("%s-%d", strings.Repeat("\U0001F600", i%100), i)
			if err := os.WriteFile(filepath.Join(dir, folder, name), []byte(name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	filesystemtest.Unmount(t, dir)
	dir = filesystemtest.Mount(t, image, "exfat", "ro")
	tree := filesystemtest.OpenTree(t, image, open)
	filesystemtest.CheckTree(t, tree, image, dir, filesystemtest.Abilities{})
}

// TestDirtyOfDriver: while it is mounted for writing, nothing is believed.
func TestDirtyOfDriver(t *testing.T) {
	image := filesystemtest.Image(t, 16<<20, "mkfs.exfat")
	dir := filesystemtest.Mount(t, image, "exfat")
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o644); err != nil {
		t.Fatal(err)
	}
	filesystemtest.Run(t, "sync", "-f", dir)
	dirty := filesystemtest.OpenImage(t, image, open).Info().Dirty
	filesystemtest.Unmount(t, dir)
	if at := filesystemtest.OpenImage(t, image, open).Info().Dirty; dirty == "" || at != "" {
		t.Errorf("mounted: %q, unmounted: %q", dirty, at)
	}
}
