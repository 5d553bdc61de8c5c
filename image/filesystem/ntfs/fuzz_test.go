package ntfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"sync"
	"testing"
	"time"

	"varve/image/filesystem"
)

// metadata are the sectors of the small filesystem that are read to list it.
var metadata = sync.OnceValues(func() ([]int64, error) {
	image, err := small()
	if err != nil {
		return nil, err
	}
	seen := sectors{bytes.NewReader(image), map[int64]bool{}}
	if err := explore(seen, int64(len(image))); err != nil {
		return nil, err
	}
	var list []int64
	for s := range seen.list {
		list = append(list, s)
	}
	slices.Sort(list)
	return list, nil
})

// sectors notes which sectors are read.
type sectors struct {
	io.ReaderAt
	list map[int64]bool
}

func (s sectors) ReadAt(p []byte, off int64) (int, error) {
	for at := off / 512; at*512 < off+int64(len(p)); at++ {
		s.list[at] = true
	}
	return s.ReaderAt.ReadAt(p, off)
}

// explore asks for all that there is, goes on behind errors, and returns the first that is not for want of a feature. It panics when something free is outside.
func explore(r io.ReaderAt, size int64) (first error) {
	note := func(err error) {
		var unsupported *filesystem.UnsupportedError
		if first == nil && !errors.As(err, &unsupported) {
			first = err
		}
	}
	f, err := Open(r, size)
	if err != nil {
		return err
	}
	ctx := context.Background()
	note(f.Free(ctx, func(r filesystem.Range) error {
		if r.Offset < 0 || r.Length <= 0 || r.End() > f.Info().Size {
			panic("what is free is outside")
		}
		return nil
	}))
	p := make([]byte, 10_000)
	seen := map[filesystem.Number]bool{f.Root(): true}
	for queue := []filesystem.Number{f.Root()}; len(queue) > 0 && len(seen) < 2000; queue = queue[1:] {
		n := queue[0]
		s, err := f.Stat(n)
		note(err)
		_, err = f.Attributes(n)
		note(err)
		streams, err := f.Streams(n)
		note(err)
		switch {
		case s.Mode.IsDir():
			note(f.ReadDir(ctx, n, func(e filesystem.Entry) error {
				if !seen[e.Number] {
					seen[e.Number] = true
					queue = append(queue, e.Number)
				}
				return nil
			}))
		case s.Mode&fs.ModeSymlink != 0:
			target, err := f.Readlink(n)
			note(err)
			if err == nil && int64(len(target)) != s.Size {
				panic("a link is not as long as it is")
			}
		case s.Mode.IsRegular():
			streams = append(streams, filesystem.Stream{})
		}
		for _, stream := range streams {
			content, err := f.Open(n, stream.Name)
			note(err)
			if err != nil {
				continue
			}
			extents, err := content.Extents()
			note(err)
			end := int64(0)
			for _, e := range extents {
				if e.Offset != end || e.Length <= 0 || e.Stored < 0 || e.Stored > 0 && (e.Disk < 0 || e.Disk+e.Stored > f.boot.clusters*f.boot.cluster) {
					panic("an extent is nowhere")
				}
				end += e.Length
			}
			for _, off := range []int64{0, content.Size() / 2, content.Size() - 5} {
				if _, err := content.ReadAt(p, max(0, off)); err != io.EOF {
					note(err)
				}
			}
		}
	}
	return first
}

// FuzzFilesystem changes bytes in the structures of the small filesystem: for each which sector 2, offset in it 2, exclusive or 1.
func FuzzFilesystem(f *testing.F) {
	image, err := small()
	if err != nil {
		f.Fatal(err)
	}
	sectors, err := metadata()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{})
	for i := range 15 {
		f.Add([]byte{byte(i * 8), 0, byte(i * 50), byte(i % 2), 1, byte(i), 0, byte(i * 7), 1, 0xff})
	}
	f.Fuzz(func(t *testing.T, patches []byte) {
		damaged := bytes.Clone(image)
		for p := patches; len(p) >= 5; p = p[5:] {
			sector := sectors[int(le.Uint16(p))%len(sectors)]
			damaged[sector*512+int64(le.Uint16(p[2:]))%512] ^= p[4]
		}
		begun := time.Now()
		_ = explore(bytes.NewReader(damaged), int64(len(damaged))) // what matters is that it comes to an end, without a panic
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("it takes %v", took)
		}
	})
}

func FuzzRecord(f *testing.F) {
	image, err := small()
	if err != nil {
		f.Fatal(err)
	}
	b, err := parseBoot(image)
	if err != nil {
		f.Fatal(err)
	}
	for n := range int64(40) {
		at := b.mft*b.cluster + n*b.record
		f.Add(image[at : at+b.record])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < stride || len(data) > maxRecord {
			return
		}
		data = bytes.Clone(data)[:len(data)/stride*stride]
		// Fixups that are right let the rest be looked at.
		if at, n := int(le.Uint16(data[4:])), len(data)/stride; at >= 8 && at%2 == 0 && at+2*(n+1) <= stride-2 {
			le.PutUint16(data[6:], uint16(1+n))
			protect(data)
		}
		r, err := parseRecord(data, uint64(le.Uint32(data[44:])))
		if err != nil {
			return
		}
		for i := range r.attributes {
			a := &r.attributes[i]
			if a.elsewhere {
				runs, err := parseRuns(a.pairs, a.first, a.last, 1000)
				if err == nil {
					checkRuns(t, runs, a.first, a.last, 1000)
				}
			} else if a.at+int64(len(a.value)) > int64(len(data)) {
				t.Errorf("a value ends at %d of %d", a.at+int64(len(a.value)), len(data))
			}
		}
	})
}

func checkRuns(t *testing.T, runs []run, first, last, clusters int64) {
	t.Helper()
	vcn := first
	for _, r := range runs {
		if r.vcn != vcn || r.length <= 0 || r.lcn != hole && (r.lcn < 0 || r.lcn > clusters-r.length) {
			t.Errorf("%+v where cluster %d is expected", r, vcn)
		}
		vcn += r.length
	}
	if vcn != last+1 {
		t.Errorf("the runs end at %d of %d", vcn, last+1)
	}
}

func FuzzRuns(f *testing.F) {
	f.Add([]byte{0x11, 0x10, 0x50, 0x01, 0x10, 0x11, 0x10, 0xe0, 0}, int64(0), int64(47), int64(1000))
	f.Add([]byte{0x88, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x80}, int64(5), int64(5), int64(1)<<50)
	f.Fuzz(func(t *testing.T, b []byte, first, last, clusters int64) {
		if first < 0 || last < first-1 || last > 1<<42 || clusters <= 0 {
			return
		}
		if runs, err := parseRuns(b, first, last, clusters); err == nil {
			checkRuns(t, runs, first, last, clusters)
		}
	})
}

func FuzzDecompress(f *testing.F) {
	f.Add([]byte{0x03, 0xb0, 0x02, 'a', 0xfc, 0x0f, 0x03, 0xb0, 0x00, 'x', 'y', 'z'})
	f.Add([]byte{0x03, 0x30, 1, 2, 3, 4, 0, 0})
	f.Fuzz(func(t *testing.T, src []byte) {
		one, two := bytes.Repeat([]byte{1}, 2*4096), bytes.Repeat([]byte{2}, 2*4096)
		err, again := decompress(one, src), decompress(two, src)
		if (err == nil) != (again == nil) || err == nil && !bytes.Equal(one, two) {
			t.Errorf("%v, %v: it depends on what was there before", err, again)
		}
	})
}

func FuzzSmallStructures(f *testing.F) {
	f.Add(reparsePoint(tagSymlink, windowsData(`..\a\b`, 1)))
	f.Add(reparsePoint(tagMountPoint, mountData(`\??\C:\`)))
	f.Add([]byte(extendedAttributes("A", "", "LONGER", "value")))
	f.Add([]byte("\x80\x00\x00\x00\x20\x00\x01\x1a\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x01\x00\x01\x00n\x00\x00\x00\x00\x00"))
	page := make([]byte, 1024)
	makeRestartPage(page, 1, 5, 0, journalClean, 1<<20)
	f.Add(page)
	f.Fuzz(func(t *testing.T, b []byte) {
		if form, err := parseReparse(b, 0, linux{}); err == nil && len(form.target) > 2*len(b) {
			t.Errorf("a link of %d bytes leads to %d", len(b), len(form.target))
		}
		if list, err := parseEA(b); err == nil && len(list) > len(b)/10 {
			t.Errorf("%d attributes in %d bytes", len(list), len(b))
		}
		if list, err := parseList(b); err == nil && len(list) > len(b)/26 {
			t.Errorf("%d attributes in %d bytes", len(list), len(b))
		}
		if n, err := parseName(b); err == nil && len(n.text) > 3*255 {
			t.Errorf("a name of %d bytes", len(n.text))
		}
		if len(b) >= bootSize {
			_, _ = parseBoot(b)
			_, _ = parseRestartPage(bytes.Clone(b[:len(b)/stride*stride]))
		}
	})
}
