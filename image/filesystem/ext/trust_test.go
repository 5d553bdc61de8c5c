package ext_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
)

// distrust fails unless the free blocks of an image are untrusted for a reason with this text in it.
func distrust(t *testing.T, image, reason string) {
	t.Helper()
	err := filesystemtest.OpenImage(t, image, open).Free(context.Background(), func(filesystem.Range) error { return nil })
	var untrusted *filesystem.UntrustedError
	if !errors.As(err, &untrusted) || !strings.Contains(untrusted.Reason, reason) {
		t.Errorf("its free blocks: %v, not untrusted because of %q", err, reason)
	}
}

// small makes a small filesystem with some files, as nobody but mkfs is needed for.
func small(t *testing.T, mkfs ...string) (image string) {
	t.Helper()
	from := t.TempDir()
	for i := range 40 {
		write(t, filepath.Join(from, "folder", fmt.Sprintf("file %d", i)), []byte(strings.Repeat("text\n", i*i)))
	}
	return filesystemtest.Image(t, 4<<20, append(mkfs, "-q", "-d", from)...)
}

// script makes a file of commands of debugfs, between which are semicolons.
func script(t *testing.T, commands string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "script")
	write(t, name, []byte(strings.ReplaceAll(commands, "; ", "\n")+"\n"))
	return name
}

// TestUntrusted: whatever is not as it should be, or not known, is a reason.
func TestUntrusted(t *testing.T) {
	ext4 := []string{"mkfs.ext4", "-b", "1024", "-g", "1024"}
	crc16 := append(slices.Clone(ext4), "-O", "^metadata_csum,uninit_bg")
	ext2 := []string{"mkfs.ext2", "-b", "1024", "-g", "1024"}
	for _, c := range []struct {
		mkfs   []string
		change string // what debugfs does
		reason string // "" when nothing is wrong
		dirty  bool
	}{
		{ext4, "ssv mnt_count 3", "", false},
		{ext4, "ssv state 0", "was not unmounted", true},
		{ext4, "ssv state 3", "has errors", true},
		{ext4, "ssv state 5", "was being repaired", true},
		{ext4, "ssv state 9", "unknown state", true},
		{ext4, "ssv last_orphan 12", "", false},
		{ext4, "feature needs_recovery", "its journal is not empty", true},
		{ext4, "feature orphan_present", "", false},
		{ext4, "feature FEATURE_R20", "features that are unknown", false},
		{ext4, "feature FEATURE_I30", "features that are unknown", false},
		{ext4, "feature FEATURE_C30", "", false},
		{ext4, "feature FEATURE_R7", "features that are unknown", false}, // snapshots within ext4, which never came
		{ext4, "ssv rev_level 2", "unknown revision", false},
		{ext4, "ssv free_blocks_count 77", "77 blocks by the superblock", false},
		{ext4, "ssv inodes_count 77", "inodes", false},
		{ext4, "ssv blocks_count 5000", "larger than its partition", false},
		{ext4, "set_bg 1 free_blocks_count 7; set_bg 1 checksum calc", "by its descriptor", false},
		{ext4, "set_bg 1 free_blocks_count 7", "descriptor of group 1 has a wrong checksum", false},
		{ext4, "set_bg 0 block_bitmap 900; set_bg 0 checksum calc", "bitmap of group 0 has a wrong checksum", false},
		{ext4, "set_bg 1 inode_table 4090; set_bg 1 checksum calc", "lie outside", false},
		{ext4, "set_bg 1 block_bitmap 1; set_bg 1 checksum calc", "lie on one another", false},
		{ext4, "freeb 2", "structures free", false},
		{ext4, "journal_open; journal_write -b 900 /dev/null; journal_close; feature -needs_recovery", "the journal is not empty", false},
		{ext4, "clri <8>", "inode 8 is not in use", false},
		{crc16, "ssv mnt_count 3", "", false},
		{crc16, "set_bg 1 itable_unused 3", "descriptor of group 1 has a wrong checksum", false},
		{ext2, "set_bg 1 flags 2", "", false}, // without checksums, flags mean nothing
		{ext2, "ssv state 2", "has errors", true},
		{ext2, "freeb 1030", "structures free", false},
		{ext2, "set_bg 1 inode_table 1025", "lie on one another", false},
		{ext2, "set_bg 1 inode_table 3000", "lie outside", false},
		{ext2, "set_bg 1 free_blocks_count 7", "by its descriptor", false},
	} {
		t.Run(c.mkfs[0]+" "+c.change, func(t *testing.T) {
			image := small(t, c.mkfs...)
			filesystemtest.Run(t, "debugfs", "-w", "-f", script(t, c.change), image)
			if c.reason == "" {
				filesystemtest.Free(t, filesystemtest.OpenImage(t, image, open))
			} else {
				distrust(t, image, c.reason)
			}
			if dirty := filesystemtest.OpenImage(t, image, open).Info().Dirty; (dirty != "") != c.dirty {
				t.Errorf("it is in a state of rest but for %q", dirty)
			}
		})
	}
}

// TestLargeGroups: more clusters than 16 bits count are free in a group.
func TestLargeGroups(t *testing.T) {
	image := filesystemtest.Image(t, 70<<30, "mkfs.ext4", "-q", "-F", "-b", "65536", "-L", "a label", "-O", "^has_journal", "-N", "5000")
	compareInfo(t, image, "ext4")
}

// patch overwrites some bytes of an image.
func patch(t *testing.T, image string, data []byte, at int64) {
	t.Helper()
	f, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, at); err != nil {
		t.Fatal(err)
	}
}

// TestProtected: a filesystem with multiple-mount protection is at rest when nobody holds it.
func TestProtected(t *testing.T) {
	for _, sums := range []string{"metadata_csum", "^metadata_csum"} {
		image := small(t, "mkfs.ext4", "-b", "1024", "-O", "mmp,"+sums)
		filesystemtest.Free(t, filesystemtest.OpenImage(t, image, open))
		head, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		block := int64(binary.LittleEndian.Uint64(head[1024+0x168:]))
		patch(t, image, []byte{5, 0, 0, 0}, block*1024+4)
		if sums == "metadata_csum" {
			distrust(t, image, "multiple-mount protection is none")
		} else {
			distrust(t, image, "multiple-mount protection is held")
		}
	}
}

// TestJournal: an inner journal must be one, empty and without errors.
func TestJournal(t *testing.T) {
	for _, c := range []struct {
		at     int64 // in its first block
		reason string
	}{
		{0x0, "the journal has no superblock"},
		{0x4, "the journal has no superblock"},
		{0x1C, "the journal is not empty"},
		{0x20, "the journal has noticed an error"},
	} {
		image := small(t, "mkfs.ext4", "-b", "1024")
		said := strings.Fields(filesystemtest.Run(t, "debugfs", "-f", script(t, "bmap <8> 0"), image))
		block, err := strconv.ParseInt(said[len(said)-1], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		patch(t, image, []byte{0, 0, 0, 1}, block*1024+c.at)
		distrust(t, image, c.reason)
	}
}

// copyOf copies an image that is mounted, as a backup of a disk in use reads it.
func copyOf(t *testing.T, image, dir string) string {
	t.Helper()
	filesystemtest.Run(t, "sync", "-f", dir)
	copied := filepath.Join(t.TempDir(), "copy")
	filesystemtest.Run(t, "cp", "--sparse=auto", image, copied)
	return copied
}

// frozenCopyOf copies an image that is mounted, as a snapshot of its device does it.
func frozenCopyOf(t *testing.T, image, dir string) string {
	t.Helper()
	filesystemtest.Run(t, "fsfreeze", "-f", dir)
	defer filesystemtest.Run(t, "fsfreeze", "-u", dir)
	copied := filepath.Join(t.TempDir(), "frozen")
	filesystemtest.Run(t, "cp", "--sparse=auto", image, copied)
	return copied
}

// TestMounted: what is read while a filesystem is mounted for writing is not trusted, but its files can be read; once its journal was
// replayed it is. One that was frozen is at rest, although a removed file is still open.
func TestMounted(t *testing.T) {
	for _, c := range []struct {
		features, reason string
		frozen           bool
	}{
		{"has_journal", "its journal is not empty", true},
		{"orphan_file", "its journal is not empty", true},
		{"^has_journal", "was not unmounted", false},
	} {
		t.Run(c.features, func(t *testing.T) {
			image := filesystemtest.Image(t, 24<<20, "mkfs.ext4", "-q", "-O", c.features)
			dir := filesystemtest.Mount(t, image, "ext4", "barrier=0")
			fillSome(t, dir)
			const marker = "this file has no name any more"
			write(t, filepath.Join(dir, "removed"), bytes.Repeat([]byte(marker), 10_000))
			removed, err := os.Open(filepath.Join(dir, "removed"))
			if err != nil {
				t.Fatal(err)
			}
			defer removed.Close()
			filesystemtest.Run(t, "sync", "-f", dir)
			if err := os.Remove(filepath.Join(dir, "removed")); err != nil {
				t.Fatal(err)
			}

			live := copyOf(t, image, dir)
			distrust(t, live, c.reason)
			names := 0
			if err := filesystemtest.Walk(filesystemtest.OpenTree(t, live, open), func(string, filesystem.Number) error {
				names++
				return nil
			}); err != nil || names < 150 {
				t.Errorf("while it is mounted, %d files are seen, and then %v", names, err)
			}
			if out, err := exec.Command(filesystemtest.Command(t, "e2fsck"), "-fy", live).CombinedOutput(); err == nil {
				t.Errorf("nothing was to be repaired:\n%s", out)
			}
			recovered := filesystemtest.Mount(t, live, "ext4", "ro")
			spoiled := filesystemtest.CheckFree(t, live, open, "e2fsck", "-fn")
			filesystemtest.CheckTree(t, filesystemtest.OpenTree(t, spoiled, open), spoiled, recovered, all)
			filesystemtest.Unmount(t, recovered)

			frozen := frozenCopyOf(t, image, dir)
			if !c.frozen {
				distrust(t, frozen, c.reason)
				return
			}
			s := filesystemtest.OpenImage(t, frozen, open)
			if dirty := s.Info().Dirty; dirty != "" {
				t.Errorf("frozen, it %s", dirty)
			}
			data, err := os.ReadFile(frozen)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(data, []byte(marker)) {
				t.Error("the removed file is not in the image")
			}
			for _, r := range filesystemtest.Free(t, s) {
				if bytes.Contains(data[r.Offset:r.End()], []byte(marker)) {
					t.Errorf("a removed file that is open lies in %+v, which is called free", r)
				}
			}
		})
	}
}
