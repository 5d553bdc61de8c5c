package ext_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"varve/image/filesystem/filesystemtest"
)

// TestAttributes: large values in inodes of their own, access control lists, and prefixes that only an administrator sees are as the
// kernel gives them.
func TestAttributes(t *testing.T) {
	image := filesystemtest.Image(t, 16<<20, "mkfs.ext4", "-q", "-b", "1024", "-O", "ea_inode")
	dir := filesystemtest.Mount(t, image, "ext4")
	fillSome(t, dir)
	name, folder := filepath.Join(dir, "with attributes"), filepath.Join(dir, "some")
	write(t, name, []byte("x"))
	for key, value := range map[string]string{
		"user.large":              strings.Repeat("0123456789", 2000),
		"user.small":              "s",
		"trusted.some":            "for root",
		"security.some":           "for root",
		"security.capability":     "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"system.posix_acl_access": list("\x01\x00\x06\x00", "\x02\x00\x07\x00\xd2\x04\x00\x00", "\x04\x00\x04\x00", "\x08\x00\x04\x00\x4d\x00\x00\x00", "\x10\x00\x07\x00", "\x20\x00\x04\x00"),
	} {
		if err := syscall.Setxattr(name, key, []byte(value), 0); err != nil {
			t.Fatalf("%s: %v", key, err)
		}
	}
	standard := list("\x01\x00\x07\x00", "\x02\x00\x05\x00\xe1\x10\x00\x00", "\x04\x00\x05\x00", "\x10\x00\x05\x00", "\x20\x00\x05\x00")
	if err := syscall.Setxattr(folder, "system.posix_acl_default", []byte(standard), 0); err != nil {
		t.Fatal(err)
	}
	filesystemtest.Unmount(t, dir)

	dir = filesystemtest.Mount(t, image, "ext4", "ro")
	tree := filesystemtest.OpenTree(t, image, open)
	filesystemtest.CheckTree(t, tree, image, dir, all)
	for path, count := range map[string]int{"with attributes": 6, "some": 1} {
		list, err := tree.Attributes(find(t, tree, path))
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, a := range list {
			got[a.Name] = string(a.Value)
		}
		want := attributesOf(t, filepath.Join(dir, path))
		if len(list) != count || fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Errorf("%s has %q, not %q", path, got, want)
		}
	}
}

// list makes an access control list, as programs have it, of entries; those without an owner get one that says nothing.
func list(entries ...string) string {
	s := "\x02\x00\x00\x00"
	for _, e := range entries {
		s += (e + "\xff\xff\xff\xff")[:8]
	}
	return s
}

// attributesOf returns all attributes.
func attributesOf(t *testing.T, path string) map[string]string {
	t.Helper()
	names := make([]byte, 64<<10)
	n, err := syscall.Listxattr(path, names)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, name := range bytes.Split(bytes.TrimRight(names[:n], "\x00"), []byte{0}) {
		value := make([]byte, 64<<10)
		n, err := syscall.Getxattr(path, string(name), value)
		if err != nil {
			t.Fatal(err)
		}
		found[string(name)] = string(value[:n])
	}
	return found
}
