package exfat

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"varve/image/filesystem"
)

// FuzzExFAT reads everything of a sample with other bytes in some places: an input is a list of offsets, of 2 bytes and in units of 2, with
// 2 bytes for each. Whole disks as inputs are so long that little else than shortening them is done. Checksums are made right
// unless asked otherwise: few inputs would have right ones by chance.
func FuzzExFAT(f *testing.F) {
	f.Add(true, []byte{})
	f.Add(false, []byte{0x00, 0x35, 0x00, 0x01})
	f.Add(true, []byte{0x00, 0x18, 0x05, 0x00, 0x04, 0x18, 0x06, 0x00})
	original := sample(f).image
	f.Fuzz(func(t *testing.T, right bool, changes []byte) {
		image := bytes.Clone(original)
		for ; len(changes) >= 4; changes = changes[4:] {
			if at := 2 * int(le.Uint16(changes)); at+2 <= len(image) {
				copy(image[at:], changes[2:4])
			}
		}
		if right {
			correct(image)
		}
		read(t, image)
	})
}

// correct makes all checksums right.
func correct(image []byte) {
	d := &disk{image: image}
	d.seal()
	for at := 25 * 512; at+maxEntries*entrySize <= len(image); at += entrySize {
		if s := set(image[at:]); s[0] == typeFile && length(s) <= maxEntries*entrySize {
			le.PutUint16(s[2:], setChecksum(s[:length(s)]))
		}
	}
}

func read(t *testing.T, image []byte) {
	fsys, err := Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return
	}
	at := fsys.data
	_ = fsys.Free(context.Background(), func(r filesystem.Range) error { // whether or not it is trusted
		if r.Offset < at || r.Length <= 0 || r.Length%fsys.cluster != 0 || r.End() > fsys.Info().Size || r.End() > int64(len(image)) {
			t.Fatalf("%+v is free, in %+v", r, fsys.Info())
		}
		at = r.End() + 1
		return nil
	})
	walk(t, fsys)
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
