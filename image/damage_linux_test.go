package image

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// medium is a file of a filesystem of our own, with bytes that can be neither read nor written.
type medium struct {
	fs.Inode

	mu   sync.Mutex
	data []byte
	bad  func(off, end int64) syscall.Errno // of a read or write of these bytes; 0: it succeeds
}

var (
	_ fs.NodeOpener    = (*medium)(nil)
	_ fs.NodeGetattrer = (*medium)(nil)
	_ fs.NodeReader    = (*medium)(nil)
	_ fs.NodeWriter    = (*medium)(nil)
	_ fs.NodeFsyncer   = (*medium)(nil)
)

func (m *medium) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0 // the kernel asks for what was asked for, and keeps nothing
}

func (m *medium) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blocks = syscall.S_IFREG|0o600, uint64(len(m.data)), uint64(len(m.data)/512)
	return 0
}

func (m *medium) Read(_ context.Context, _ fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	m.mu.Lock()
	defer m.mu.Unlock()
	end := min(off+int64(len(p)), int64(len(m.data)))
	if errno := m.bad(off, end); errno != 0 {
		return nil, errno
	}
	return fuse.ReadResultData(bytes.Clone(m.data[min(off, end):end])), 0
}

func (m *medium) Write(_ context.Context, _ fs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if errno := m.bad(off, off+int64(len(p))); errno != 0 {
		return 0, errno
	}
	return uint32(copy(m.data[off:], p)), 0
}

func (m *medium) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }

// mountMedium makes a medium of data, in which a read or write that touches a bad sector fails, and returns its path.
func mountMedium(t *testing.T, data []byte, bad map[int64]bool, sector int64) string {
	t.Helper()
	return mountFile(t, &medium{data: data, bad: func(off, end int64) syscall.Errno {
		for at := off / sector; at*sector < end; at++ {
			if bad[at] {
				return syscall.EIO
			}
		}
		return 0
	}})
}

func mountFile(t *testing.T, m *medium) string {
	t.Helper()
	if unix.Access("/dev/fuse", unix.R_OK|unix.W_OK) != nil {
		t.Skip("SKIPPED: a medium that fails needs FUSE")
	}
	where, root := t.TempDir(), &fs.Inode{}
	server, err := fs.Mount(where, root, &fs.Options{
		OnAdd: func(ctx context.Context) {
			root.AddChild("disk", root.NewPersistentInode(ctx, m, fs.StableAttr{Mode: syscall.S_IFREG}), true)
		},
		MountOptions: fuse.MountOptions{FsName: "medium", DirectMount: true, MaxWrite: 512 << 10},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(where, "disk")
}

// damage returns noise of size bytes, some sectors of which are bad, and what a salvage of it has to be.
func damage(seed byte, size, sector int64) (data, want []byte, bad map[int64]bool) {
	random := rand.New(rand.NewChaCha8([32]byte{seed}))
	data, bad = noise(seed, int(size)), map[int64]bool{}
	for range 1 + random.IntN(10) {
		at := random.Int64N(size / sector)
		for k := range min(1+random.Int64N(20), size/sector-at) {
			bad[at+k] = true
		}
	}
	want = bytes.Clone(data)
	for at := range bad {
		clear(want[at*sector : min((at+1)*sector, size)])
	}
	return data, want, bad
}

// checkSalvage reads a damaged disk: what is lost are exactly the bad sectors, and they are told.
func checkSalvage(t *testing.T, path string, want []byte, bad map[int64]bool, sector int64) {
	t.Helper()
	src := open(t, path)
	got := make([]byte, len(want))
	if n, err := src.ReadAt(got, 0); n == len(got) || !errors.Is(err, syscall.EIO) {
		t.Errorf("without salvage: read %d, %v", n, err)
	}
	lost := make([]bool, len(want))
	s := Salvage(src, func(b Bad) {
		if b.Err != syscall.EIO.Error() {
			t.Errorf("%+v", b)
		}
		for at := b.Offset; at < b.Offset+b.Length; at++ {
			lost[at] = true
		}
	})
	if _, err := s.Map(0, int64(len(want))); err != nil {
		t.Error(err)
	}
	for at := 0; at < len(got); at += 300 << 10 {
		p := got[at:min(at+300<<10, len(got))]
		if n, err := s.ReadAt(p, int64(at)); n != len(p) || err != nil {
			t.Fatalf("at %d: read %d, %v", at, n, err)
		}
	}
	if !bytes.Equal(got, want) {
		t.Error("read something else")
	}
	for at := range lost {
		if lost[at] != bad[int64(at)/sector] {
			t.Fatalf("byte %d: lost %v", at, lost[at])
		}
	}
}

// TestDamagedFile: a file on a medium that cannot be read everywhere.
func TestDamagedFile(t *testing.T) {
	for seed := range byte(5) {
		data, want, bad := damage(seed, 2<<20+777, 512)
		checkSalvage(t, mountMedium(t, data, bad, 512), want, bad, 512)
	}
}

// TestDamagedDevice: a device loses no more than its bad sectors, although the page cache loses whole pages.
func TestDamagedDevice(t *testing.T) {
	needsRoot(t)
	for seed, sector := range []int64{512, 512, 512, 4096} {
		data, want, bad := damage(byte(seed), 2<<20+3*sector, sector)
		device := loop(t, mountMedium(t, data, bad, sector))
		checkSalvage(t, device, want, bad, sector)
	}
}

// TestMediumGone: what a disk that went away does not give is not taken for zeros.
func TestMediumGone(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENODEV, syscall.ENXIO, syscall.ESTALE, syscall.EBADF, syscall.ENOTCONN} {
		path := mountFile(t, &medium{data: noise(1, 1<<20), bad: func(off, end int64) syscall.Errno {
			if end > 600<<10 {
				return errno
			}
			return 0
		}})
		s := Salvage(open(t, path), func(b Bad) { t.Errorf("%v: %+v", errno, b) })
		if n, err := s.ReadAt(make([]byte, 1<<20), 0); n == 1<<20 || !errors.Is(err, errno) {
			t.Errorf("%v: read %d, %v", errno, n, err)
		}
	}
}

// TestWriteErrors: what cannot be written to a target is an error of WriteAt, Zero or, at the latest, Sync.
func TestWriteErrors(t *testing.T) {
	file := mountMedium(t, make([]byte, 1<<20), map[int64]bool{1000: true}, 512)
	for _, path := range []string{file, "a device"} {
		if path != file {
			path = loop(t, file)
		}
		for name, write := range map[string]func(Target, int64, int64) error{
			"WriteAt": func(target Target, off, length int64) error {
				_, err := target.WriteAt(noise(1, int(length)), off)
				return err
			},
			"Zero": Target.Zero,
		} {
			target, err := OpenTarget(path, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(write(target, 0, 500<<10), target.Sync()); err != nil {
				t.Errorf("%s: %s of good sectors: %v", path, name, err)
			}
			if err := errors.Join(write(target, 500<<10, 100<<10), target.Sync()); !errors.Is(err, syscall.EIO) {
				t.Errorf("%s: %s of a bad sector: %v", path, name, err)
			}
			if err := target.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}
