package fat

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"varve/image/filesystem"
)

// FuzzFAT reads everything of a sample with other bytes in some places: an input is a list of offsets, of 2 bytes, with a byte for each.
// Whole disks as inputs are so long that little else than shortening them is done.
func FuzzFAT(f *testing.F) {
	for _, bits := range widths {
		f.Add(byte(bits), []byte{})
		f.Add(byte(bits), []byte{0x0D, 0x00, 0x02, 0x00, 0x02, 0xF0, 0x00, 0x04, 0xF0})
	}
	samples := map[byte][]byte{}
	for _, bits := range widths {
		samples[byte(bits)] = sample(f, bits).image
	}
	f.Fuzz(func(t *testing.T, bits byte, changes []byte) {
		image := bytes.Clone(samples[bits])
		if image == nil {
			return
		}
		for ; len(changes) >= 3; changes = changes[3:] {
			if at := int(le.Uint16(changes)); at < len(image) {
				image[at] = changes[2]
			}
		}
		size := int64(len(image))
		fsys, err := Open(bytes.NewReader(image), size)
		if err != nil {
			return
		}
		at := fsys.data
		err = fsys.Free(context.Background(), func(r filesystem.Range) error {
			if r.Offset < at || r.Length <= 0 || r.Length%fsys.cluster != 0 || r.End() > fsys.Info().Size || r.End() > size {
				t.Fatalf("%+v is free, in %+v", r, fsys.Info())
			}
			at = r.End() + 1
			return nil
		})
		if at > fsys.data && err != nil {
			t.Fatalf("runs are free, and then they are not: %v", err)
		}
		walk(t, fsys)
	})
}

// walk reads a tree that may be damaged.
func walk(t *testing.T, tree filesystem.Tree) {
	seen := map[filesystem.Number]bool{tree.Root(): true}
	for queue := []filesystem.Number{tree.Root()}; len(queue) > 0 && len(seen) < 500; queue = queue[1:] {
		n := queue[0]
		file, err := tree.Stat(n)
		if err != nil || file.Number != n || file.Size < 0 {
			t.Fatalf("%+v: %v", file, err)
		}
		if file.Mode.IsDir() {
			_ = tree.ReadDir(context.Background(), n, func(e filesystem.Entry) error { // whatever can be read of it
				if !usable(e.Name) || e.Number == 0 {
					t.Fatalf("%+v", e)
				}
				if !seen[e.Number] {
					seen[e.Number] = true
					queue = append(queue, e.Number)
				}
				return nil
			})
			continue
		}
		content, err := tree.Open(n, "")
		if err != nil {
			continue
		}
		extents, err := content.Extents()
		end := int64(0)
		for _, e := range extents {
			if e.Offset != end || e.Length <= 0 || e.Disk < 0 || e.Disk+e.Stored > tree.Info().Size {
				t.Fatalf("%+v of %d bytes in %+v", extents, file.Size, tree.Info())
			}
			end += e.Length
		}
		if err != nil || end < file.Size || content.Size() != file.Size {
			t.Fatalf("%+v of %d bytes: %v", extents, file.Size, err)
		}
		buf := make([]byte, min(file.Size, 64<<10))
		if n, err := content.ReadAt(buf, file.Size-int64(len(buf))); n != len(buf) || err != nil && !errors.Is(err, io.EOF) {
			t.Fatalf("%d of %d bytes: %v", n, len(buf), err)
		}
	}
}
