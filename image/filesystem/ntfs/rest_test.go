package ntfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"varve/image/filesystem"
	"varve/image/filesystem/filesystemtest"
)

// edit changes a record of $MFT in an image, whose clusters must be there.
func edit(t *testing.T, image []byte, number int64, change func(record []byte)) {
	t.Helper()
	f := openBytes(t, image)
	places, err := f.mft.places(number*f.boot.record, (number+1)*f.boot.record)
	if err != nil || len(places) != 1 {
		t.Fatalf("record %d is in %v: %v", number, places, err)
	}
	b := image[places[0].Disk : places[0].Disk+f.boot.record]
	if err := fixUp(b, "FILE"); err != nil {
		t.Fatal(err)
	}
	change(b)
	protect(b)
}

// protect is the opposite of fixUp.
func protect(b []byte) {
	at := int(le.Uint16(b[4:]))
	for i := 1; i <= len(b)/stride; i++ {
		end := b[i*stride-2 : i*stride]
		copy(b[at+2*i:], end)
		copy(end, b[at:at+2])
	}
}

// attributeIn returns an attribute of a record.
func attributeIn(t *testing.T, record []byte, kind uint32) []byte {
	t.Helper()
	for at := int(le.Uint16(record[20:])); le.Uint32(record[at:]) != typeEnd; at += int(le.Uint32(record[at+4:])) {
		if le.Uint32(record[at:]) == kind {
			return record[at : at+int(le.Uint32(record[at+4:]))]
		}
	}
	t.Fatalf("there is no attribute %#x", kind)
	return nil
}

// journalOf returns where the journal of the small filesystem is.
func journalOf(t *testing.T, image []byte) []byte {
	t.Helper()
	content, err := openBytes(t, image).Open(recordLog, "")
	if err != nil {
		t.Fatal(err)
	}
	extents, err := content.Extents()
	if err != nil || len(extents) != 1 {
		t.Fatalf("the journal is in %v: %v", extents, err)
	}
	return image[extents[0].Disk : extents[0].Disk+extents[0].Length]
}

// makeRestartPage makes a restart page as Windows writes it.
func makeRestartPage(b []byte, major uint16, sequence uint64, client, flags uint16, size int) {
	clear(b)
	copy(b, "RSTR")
	le.PutUint16(b[4:], 30)
	le.PutUint16(b[6:], uint16(1+len(b)/stride))
	le.PutUint32(b[16:], uint32(len(b)))
	le.PutUint32(b[20:], uint32(len(b)))
	le.PutUint16(b[24:], 48)
	le.PutUint16(b[26:], 2-major) // 1.1 and 2.0
	le.PutUint16(b[28:], major)
	area := b[48:]
	le.PutUint64(area, sequence)
	le.PutUint16(area[8:], 1) // clients
	le.PutUint16(area[10:], noClient)
	if client == noClient {
		le.PutUint16(area[10:], 0)
	}
	le.PutUint16(area[12:], client)
	le.PutUint16(area[14:], flags)
	bits := 67
	for n := size; n > 0; n >>= 1 {
		bits--
	}
	le.PutUint32(area[16:], uint32(bits))
	le.PutUint16(area[20:], 64+160)
	le.PutUint16(area[22:], 64)
	le.PutUint64(area[24:], uint64(size))
	le.PutUint16(area[36:], 48)
	le.PutUint16(area[38:], 64)
	record := area[64:]
	le.PutUint16(record[16:], noClient)
	le.PutUint16(record[18:], noClient)
	le.PutUint32(record[28:], 8)
	copy(record[32:], utf16("NTFS"))
	le.PutUint16(b[30:], 7) // what ends each sector
	protect(b)
}

// freeOf returns what Free says, and how much is free.
func freeOf(t *testing.T, image []byte) (int64, error) {
	t.Helper()
	sum := int64(0)
	err := openBytes(t, image).Free(context.Background(), func(r filesystem.Range) error {
		sum += r.Length
		return nil
	})
	return sum, err
}

// probe asks ntfs-3g whether it would mount an image to write on it.
func probe(t *testing.T, image []byte) bool {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, image, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filesystemtest.Command(t, "ntfs-3g.probe"), "--readwrite", path).CombinedOutput()
	var status *exec.ExitError
	switch {
	case err == nil:
		return true
	case errors.As(err, &status) && (status.ExitCode() == 14 || status.ExitCode() == 15): // hibernated, not unmounted
		return false
	}
	t.Fatalf("ntfs-3g.probe: %v\n%s", err, out)
	return false
}

// TestJournal: journals that are at rest and such that are not, as ntfs-3g judges them.
func TestJournal(t *testing.T) {
	const page = 4096
	type restart struct {
		major         uint16
		sequence      uint64
		client, flags uint16
	}
	clean, dirty := restart{1, 5, 0, journalClean}, restart{1, 5, 0, 0}
	for _, c := range []struct {
		name   string
		pages  [2]restart
		spoil  func(log []byte)
		reason string // part of it, "" when it is at rest
	}{
		{"unmounted", [2]restart{clean, clean}, nil, ""},
		{"open", [2]restart{dirty, dirty}, nil, "journal is open"},
		{"opened since", [2]restart{clean, {1, 6, 0, 0}}, nil, "journal is open"},
		{"opened since, in the first page", [2]restart{{1, 7, 0, 0}, clean}, nil, "journal is open"},
		{"closed since", [2]restart{{1, 4, 0, 0}, clean}, nil, ""},
		{"no client, as Windows 2000 leaves it", [2]restart{{1, 5, noClient, 0}, {1, 5, noClient, 0}}, nil, ""},
		{"Windows asleep", [2]restart{{2, 5, 0, journalClean}, {2, 5, 0, journalClean}}, nil, "fast startup"},
		{"the second page torn", [2]restart{clean, clean}, func(log []byte) { log[page+1022]++ }, ""},
		{"both pages torn", [2]restart{clean, clean}, func(log []byte) { log[1022]++; log[page+1022]++ }, "cannot be read"},
		{"chkdsk has been there", [2]restart{clean, clean}, func(log []byte) { copy(log, "CHKD"); copy(log[page:], "CHKD") }, ""},
		{"open, and chkdsk has been there", [2]restart{dirty, dirty}, func(log []byte) { copy(log, "CHKD"); copy(log[page:], "CHKD") }, "journal is open"},
		{"no pages", [2]restart{clean, clean}, func(log []byte) { clear(log) }, "cannot be read"},
		{"emptied", [2]restart{clean, clean}, func(log []byte) { copy(log, bytes.Repeat([]byte{0xff}, len(log))) }, ""},
		{"emptied, and begun", [2]restart{clean, clean}, func(log []byte) {
			copy(log, bytes.Repeat([]byte{0xff}, len(log)))
			copy(log[2*page:], "RCRD")
		}, "cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := smallImage(t)
			log := journalOf(t, image)
			for i, p := range c.pages {
				makeRestartPage(log[i*page:(i+1)*page], p.major, p.sequence, p.client, p.flags, len(log))
			}
			if c.spoil != nil {
				c.spoil(log)
			}
			f := openBytes(t, image)
			if got := f.Info().Dirty; (got == "") != (c.reason == "") || !strings.Contains(got, c.reason) {
				t.Errorf("the filesystem %q", got)
			}
			_, err := freeOf(t, image)
			var untrusted *filesystem.UntrustedError
			if (err == nil) != (c.reason == "") || err != nil && !errors.As(err, &untrusted) {
				t.Errorf("its free clusters: %v", err)
			}
		})
	}
}

// TestJournalAsNTFS3G has ntfs-3g judge journals that are made as those of TestJournal.
func TestJournalAsNTFS3G(t *testing.T) {
	image := mkfs(t, 2<<20, "-c", "512")
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if !probe(t, b) {
		t.Fatal("ntfs-3g does not take a new filesystem")
	}
	log := journalOf(t, b)
	for _, c := range []struct {
		major         uint16
		client, flags uint16
	}{{1, 0, journalClean}, {1, 0, 0}, {1, noClient, 0}, {2, 0, journalClean}} {
		for i := range 2 {
			makeRestartPage(log[i*4096:(i+1)*4096], c.major, 5, c.client, c.flags, len(log))
		}
		want := probe(t, b)
		if got := openBytes(t, b).Info().Dirty; (got == "") != want {
			t.Errorf("%+v: the filesystem %q, and ntfs-3g takes it: %v", c, got, want)
		}
	}
}

// TestHibernation: Windows is asleep when its memory is in the root folder.
func TestHibernation(t *testing.T) {
	for _, c := range []struct {
		name, head string
		size       int
		rest       bool
	}{
		{"hiberfil.sys", "HIBR", 10_000, false},
		{"HiberFil.sys", "hibr", 10_000, false},
		{"hiberfil.sys", "RSTR", 10_000, false},
		{"hiberfil.sys", "HIBR", 2000, false},
		{"hiberfil.sys", "WAKE", 10_000, true},
		{"hiberfil.sys", "\x00\x00\x00\x00", 10_000, true},
		{"hiberfil.sys.old", "HIBR", 10_000, true},
	} {
		t.Run(fmt.Sprintf("%s %q %d", c.name, c.head, c.size), func(t *testing.T) {
			image := mkfs(t, 2<<20, "-c", "512")
			dir := filesystemtest.Mount(t, image, "ntfs")
			data := make([]byte, c.size)
			copy(data, c.head)
			if err := os.WriteFile(filepath.Join(dir, c.name), data, 0o644); err != nil {
				t.Fatal(err)
			}
			filesystemtest.Unmount(t, dir)
			b, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			if c.head != "RSTR" && strings.HasPrefix(c.name, "h") { // which ntfs-3g does not know, and names in another case neither
				if probe(t, b) != c.rest {
					t.Errorf("ntfs-3g thinks otherwise")
				}
			}
			f := openBytes(t, b)
			if dirty := f.Info().Dirty; (dirty == "") != c.rest {
				t.Errorf("the filesystem %q", dirty)
			}
			if _, err := freeOf(t, b); (err == nil) != c.rest {
				t.Errorf("its free clusters: %v", err)
			}
		})
	}
}

// TestUntrusted: the map of clusters is not believed when something does not fit.
func TestUntrusted(t *testing.T) {
	whole := smallImage(t)
	if free, err := freeOf(t, whole); free == 0 || err != nil {
		t.Fatalf("%d bytes are free: %v", free, err)
	}
	for _, c := range []struct {
		name   string
		change func(t *testing.T, image []byte) []byte
		reason string
	}{
		{"marked as dirty", func(t *testing.T, image []byte) []byte {
			edit(t, image, recordVolume, func(b []byte) { value(attributeIn(t, b, typeVolume))[10] |= volumeDirty })
			return image
		}, "marked as dirty"},
		{"chkdsk at work", func(t *testing.T, image []byte) []byte {
			edit(t, image, recordVolume, func(b []byte) { value(attributeIn(t, b, typeVolume))[11] |= volumeInCheck >> 8 })
			return image
		}, "marked as dirty"},
		{"a version of the future", func(t *testing.T, image []byte) []byte {
			edit(t, image, recordVolume, func(b []byte) { value(attributeIn(t, b, typeVolume))[9] = 2 })
			return image
		}, "version 3.2"},
		{"partition too short", func(t *testing.T, image []byte) []byte {
			return image[:len(image)-1024]
		}, "the partition only"},
		{"$MFT free", func(t *testing.T, image []byte) []byte {
			f := openBytes(t, image)
			setBit(t, image, f.boot.mft+3, false)
			return image
		}, "the filesystem itself uses it"},
		{"boot sector free", func(t *testing.T, image []byte) []byte {
			setBit(t, image, 0, false)
			return image
		}, "the filesystem itself uses it"},
		{"bitmap not written to its end", func(t *testing.T, image []byte) []byte {
			edit(t, image, recordBitmap, func(b []byte) {
				a := attributeIn(t, b, typeData)
				le.PutUint64(a[56:], le.Uint64(a[48:])/2)
			})
			return image
		}, "its map of clusters has"},
		{"bitmap too short", func(t *testing.T, image []byte) []byte {
			edit(t, image, recordBitmap, func(b []byte) {
				a := attributeIn(t, b, typeData)
				le.PutUint64(a[48:], le.Uint64(a[48:])/2)
				le.PutUint64(a[56:], le.Uint64(a[48:]))
			})
			return image
		}, "its map of clusters has"},
		{"bitmap with a hole", func(t *testing.T, image []byte) []byte {
			edit(t, image, recordBitmap, func(b []byte) {
				a := attributeIn(t, b, typeData)
				pairs := a[le.Uint16(a[32:]):]
				pairs[0] &= 0xf // no distance
				copy(pairs[1+pairs[0]:], []byte{0, 0, 0, 0})
			})
			return image
		}, "has holes"},
		{"bitmap encrypted", func(t *testing.T, image []byte) []byte {
			edit(t, image, recordBitmap, func(b []byte) {
				a := attributeIn(t, b, typeData)
				le.PutUint16(a[12:], flagEncrypted)
			})
			return image
		}, "not stored as it should be"},
		{"file of the filesystem deleted", func(t *testing.T, image []byte) []byte {
			edit(t, image, recordUpCase, func(b []byte) { le.PutUint16(b[22:], 0) })
			return image
		}, "file 10 is not there"},
		{"two files in one place", func(t *testing.T, image []byte) []byte {
			var pairs []byte
			edit(t, image, recordUpCase, func(b []byte) {
				a := attributeIn(t, b, typeData)
				pairs = bytes.Clone(a[le.Uint16(a[32:]):])
			})
			edit(t, image, 4, func(b []byte) { // $AttrDef has as many clusters now as $UpCase
				a := attributeIn(t, b, typeData)
				copy(a[le.Uint16(a[32:]):], pairs)
				le.PutUint64(a[24:], 256-1)
			})
			return image
		}, "belongs to two"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := c.change(t, smallImage(t))
			_, err := freeOf(t, image)
			var untrusted *filesystem.UntrustedError
			if !errors.As(err, &untrusted) || !strings.Contains(err.Error(), c.reason) {
				t.Errorf("its free clusters: %v", err)
			}
			f := openBytes(t, image)
			if err := filesystemtest.Walk(f, func(string, filesystem.Number) error { return nil }); err != nil {
				t.Errorf("its files: %v", err)
			}
		})
	}
}

// value is the value of an attribute that is in a record.
func value(a []byte) []byte { return a[le.Uint16(a[20:]):] }

// setBit changes what the bitmap of an image says of a cluster.
func setBit(t *testing.T, image []byte, cluster int64, used bool) {
	t.Helper()
	f := openBytes(t, image)
	bitmap, err := f.bitmap()
	if err != nil {
		t.Fatal(err)
	}
	places, err := bitmap.places(cluster/8, cluster/8+1)
	if err != nil {
		t.Fatal(err)
	}
	bit := byte(1) << (cluster % 8)
	if image[places[0].Disk] &^= bit; used {
		image[places[0].Disk] |= bit
	}
}

// TestFreeRuns compares the runs with the bits, one by one, for maps that end within a word and behind one.
func TestFreeRuns(t *testing.T) {
	image := smallImage(t)
	f := openBytes(t, image)
	for i := f.boot.clusters - 80; i < f.boot.clusters; i++ {
		setBit(t, image, i, false)
	}
	bitmap, err := f.bitmap()
	if err != nil {
		t.Fatal(err)
	}
	bits := make([]byte, bitmap.Size())
	if _, err := bitmap.ReadAt(bits, 0); err != nil {
		t.Fatal(err)
	}
	type span struct{ first, end int64 }
	for _, clusters := range []int64{f.boot.clusters, 63 * 64, 63*64 + 1, 63*64 - 1} {
		var want, got []span
		for i := range clusters {
			if bits[i/8]>>(i%8)&1 != 0 {
				continue
			}
			if last := len(want) - 1; last >= 0 && want[last].end == i {
				want[last].end++
			} else {
				want = append(want, span{i, i + 1})
			}
		}
		if want[len(want)-1].end != clusters {
			t.Errorf("the last of %d clusters is in use", clusters)
		}
		f.boot.clusters = clusters
		if err := f.eachFree(context.Background(), bitmap, func(first, end int64) error {
			got = append(got, span{first, end})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("of %d clusters these are free:\n%v, not\n%v", clusters, got, want)
		}
	}
	full := errors.New("full")
	if err := f.Free(context.Background(), func(filesystem.Range) error { return full }); !errors.Is(err, full) {
		t.Errorf("the error of the callback becomes %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.Free(ctx, func(filesystem.Range) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
