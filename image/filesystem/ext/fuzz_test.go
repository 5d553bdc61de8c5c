package ext_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"varve/image/filesystem"
	"varve/image/filesystem/ext"
	"varve/image/filesystem/filesystemtest"
)

// images are small filesystems, with files of all kinds made by the kernel.
var images = []string{"ext2", "ext3", "ext4", "bigalloc"}

func loadImage(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestImages: what is in them, also where nothing can be mounted.
func TestImages(t *testing.T) {
	free := map[string]int64{"ext2": 210, "ext3": 1125, "ext4": 237, "bigalloc": 242} // blocks, of dumpe2fs
	for _, name := range images {
		t.Run(name, func(t *testing.T) {
			data := loadImage(t, name)
			s, err := ext.Open(bytes.NewReader(data), int64(len(data)))
			if err != nil {
				t.Fatal(err)
			}
			if got := filesystemtest.Sum(filesystemtest.Free(t, s)) / 1024; got != free[name] {
				t.Errorf("%d blocks are free, not %d", got, free[name])
			}
			names := 0
			if err := filesystemtest.Walk(s, func(string, filesystem.Number) error { names++; return nil }); err != nil {
				t.Error(err)
			}
			if want := 31 + strings.Count(name, "ext4"); names != want {
				t.Errorf("%d names, not %d", names, want)
			}
			for path, want := range map[string]string{"folder/hello": "hello\n", "same": strings.Repeat("x", 3000), "empty": ""} {
				c, _ := openContent(t, s, path)
				if err := filesystemtest.CompareContent(c, []byte(want)); err != nil {
					t.Errorf("%s: %v", path, err)
				}
			}
			if target, err := s.Readlink(find(t, s, "long")); err != nil || target != strings.Repeat("y", 100) {
				t.Errorf("a link to %q: %v", target, err)
			}
			list, err := s.Attributes(find(t, s, "folder/hello"))
			if err != nil {
				t.Error(err)
			}
			found := map[string]int{}
			for _, a := range list {
				found[a.Name] = len(a.Value)
			}
			if len(found) != 2 || found["user.large"] != 700 || found["system.posix_acl_access"] != 44 {
				t.Errorf("the attributes %v", found)
			}
		})
	}
}

// FuzzImage changes bytes of an image, in those sectors that are not zeros: two bytes say where, one what to add.
func FuzzImage(f *testing.F) {
	type seed struct {
		data    []byte
		sectors []int64
	}
	var seeds []seed
	for i, name := range images {
		s := seed{data: loadImage(f, name)}
		for at := int64(0); at < int64(len(s.data)); at += 512 {
			if len(bytes.Trim(s.data[at:at+512], "\x00")) > 0 {
				s.sectors = append(s.sectors, at)
			}
		}
		seeds = append(seeds, s)
		f.Add(byte(i), []byte{})
		f.Add(byte(i), []byte{0, 4, 1, 2, 0, 0x80})
	}
	f.Fuzz(func(t *testing.T, which byte, changes []byte) {
		s := seeds[int(which)%len(seeds)]
		d := &changed{Reader: bytes.NewReader(s.data), add: map[int64]byte{}}
		for ; len(changes) >= 3; changes = changes[3:] {
			place := (int64(changes[0]) | int64(changes[1])<<8) % (int64(len(s.sectors)) * 512)
			d.add[s.sectors[place/512]+place%512] += changes[2]
		}
		begun := time.Now()
		exercise(t, d, int64(len(s.data)))
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("it takes %v", took)
		}
	})
}

// changed is bytes of which some are others.
type changed struct {
	*bytes.Reader
	add map[int64]byte
}

func (c *changed) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Reader.ReadAt(p, off)
	for at, add := range c.add {
		if at >= off && at < off+int64(n) {
			p[at-off] += add
		}
	}
	return n, err
}

// exercise asks for everything, of some files.
func exercise(t *testing.T, r io.ReaderAt, size int64) {
	s, err := ext.Open(r, size)
	if err != nil {
		return
	}
	info := s.Info()
	end := int64(0)
	_ = s.Free(context.Background(), func(r filesystem.Range) error {
		if r.Offset < end || r.Length <= 0 || r.End() > info.Size || info.Size > size {
			t.Errorf("%+v is free, behind %d, of %d bytes on %d", r, end, info.Size, size)
		}
		end = r.End() + 1
		return nil
	})
	seen := map[filesystem.Number]bool{s.Root(): true}
	for queue := []filesystem.Number{s.Root()}; len(queue) > 0; queue = queue[1:] {
		n := queue[0]
		_, _ = s.Attributes(n)
		file, err := s.Stat(n)
		switch {
		case err != nil:
		case file.Mode.IsDir():
			entries := 0
			_ = s.ReadDir(context.Background(), n, func(e filesystem.Entry) error {
				if e.Name == "" || e.Name == "." || e.Name == ".." || strings.ContainsAny(e.Name, "/\x00") {
					t.Errorf("the name %q", e.Name)
				}
				if entries++; entries > 10_000 {
					return errors.New("enough")
				}
				if !seen[e.Number] && len(seen) < 200 {
					seen[e.Number] = true
					queue = append(queue, e.Number)
				}
				return nil
			})
		case file.Mode&fs.ModeSymlink != 0:
			_, _ = s.Readlink(n)
		case file.Mode.IsRegular():
			if c, err := s.Open(n, ""); err == nil {
				exerciseContent(t, c, info)
			}
		}
	}
}

func exerciseContent(t *testing.T, c filesystem.Content, info filesystem.Info) {
	buf := make([]byte, 5000)
	for _, at := range []int64{0, c.Size() / 2, c.Size() - 100} {
		n, err := c.ReadAt(buf, max(0, at))
		if n < len(buf) && err == nil {
			t.Errorf("%d bytes at %d, and no error", n, at)
		}
	}
	list, err := c.Extents()
	if err != nil {
		return
	}
	at := int64(0)
	for _, e := range list {
		if e.Offset != at || e.Length <= 0 || e.Stored < 0 || e.Disk < 0 || e.Disk+e.Stored > info.Size {
			t.Errorf("extent %+v, where %d is expected", e, at)
		}
		at += e.Length
	}
	if at < c.Size() || at >= c.Size()+64<<10 {
		t.Errorf("extents up to %d of %d bytes", at, c.Size())
	}
}
