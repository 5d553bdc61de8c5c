package blocks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var (
	secret = [32]byte{1, 2, 3}
	pack   = ID{4, 5, 6}
)

// noise is n pseudo-random bytes that are the same on every run.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	data := make([]byte, n)
	rand.NewChaCha8(key).Read(data)
	return data
}

// file makes one of chunks, which are named by their number.
func file(chunks ...[]byte) []byte {
	b := NewBuilder(secret)
	for i, c := range chunks {
		b.Add(ID{byte(i)}, c)
	}
	return b.Finish(pack)
}

// What a file says of a chunk is what its bytes say.
func TestCompareIsCompareBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		chunks := [][]byte{noise(1, 1<<20)} // which leaves room for all others
		for i := range rapid.IntRange(1, 6).Draw(t, "chunks") {
			chunks = append(chunks, noise(uint64(i), rapid.IntRange(Size+1, 12*Size).Draw(t, "length")))
		}
		f, err := Parse(secret, pack, file(chunks...))
		if err != nil {
			t.Fatal(err)
		}
		h := NewHasher(secret)
		i := rapid.IntRange(0, len(chunks)-1).Draw(t, "chunk")
		first := rapid.IntRange(0, len(chunks[i])/Size).Draw(t, "first")
		data := slices.Concat(chunks[i][min(first*Size, len(chunks[i])):], noise(99, Size))
		data = data[:rapid.IntRange(1, len(data)).Draw(t, "blocks")]
		for range rapid.IntRange(0, 5).Draw(t, "changes") {
			data[rapid.IntRange(0, len(data)-1).Draw(t, "at")] ^= byte(rapid.IntRange(0, 255).Draw(t, "bits"))
		}
		n := (len(data) + Size - 1) / Size
		same, want := make([]bool, n), make([]bool, n)
		length, known := f.Compare(h, ID{byte(i)}, first, data, same)
		CompareBytes(chunks[i], first, data, want)
		if !known || length != len(chunks[i]) || !slices.Equal(same, want) {
			t.Fatalf("known: %v, %d bytes of %d, %v, not %v", known, length, len(chunks[i]), same, want)
		}
		if holds, length, known := f.Holds(h, ID{byte(i)}, first, data); !known || length != len(chunks[i]) || holds == slices.Contains(want, false) {
			t.Fatalf("known: %v, %d bytes of %d, held: %v, where blocks are %v", known, length, len(chunks[i]), holds, want)
		}
		if _, known := f.Compare(h, ID{200}, 0, data, same); known {
			t.Fatal("a chunk is known that is not in the pack")
		}
	})
}

// A file that was changed in one bit or cut, or that is of another pack or repository, is not used.
func TestOnlyTheRightFileIsUsed(t *testing.T) {
	good := file(noise(1, 60_000), noise(2, 40_000))
	if _, err := Parse(secret, pack, good); err != nil {
		t.Fatal(err)
	}
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := Parse(secret, pack, bad); err == nil {
				t.Fatalf("bit %d of byte %d is another one, and the file is used", bit, i)
			}
		}
		if _, err := Parse(secret, pack, good[:i]); err == nil {
			t.Fatalf("the file is used when it ends at %d", i)
		}
	}
	if _, err := Parse(secret, ID{7}, good); err == nil {
		t.Error("it is used for another pack")
	}
	if _, err := Parse([32]byte{7}, pack, good); err == nil {
		t.Error("it is used for another repository")
	}
	if _, err := Parse(secret, pack, append(bytes.Clone(good), 0)); err == nil {
		t.Error("it is used with a byte more")
	}
}

// No file is longer than 0.5 % of the chunks of its pack, nor than maxFile; those of ordinary chunks know all of them.
func TestSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := NewBuilder(secret)
		plain, blocks := 0, []int{}
		for range rapid.IntRange(1, 60).Draw(t, "chunks") {
			n := rapid.SampledFrom([]int{1, 1, 2, 3, 4, 8, 13, 60}).Draw(t, "blocks")
			blocks = append(blocks, n)
			b.Add(ID{byte(len(blocks))}, make([]byte, n*Size))
			plain += n * Size
		}
		data := b.Finish(pack)
		if len(data) > plain/200 {
			t.Fatalf("%d bytes for %d", len(data), plain)
		}
		if data == nil {
			return
		}
		f, err := Parse(secret, pack, data)
		if err != nil {
			t.Fatal(err)
		}
		least, most := 1<<20, 0 // blocks of those that are known, and of those that are not
		for i, n := range blocks {
			if _, known := f.chunks[shortID{byte(i + 1)}]; known {
				least = min(least, n)
			} else {
				most = max(most, n)
			}
		}
		if most >= least {
			t.Fatalf("a chunk of %d blocks is known, one of %d is not", least, most)
		}
	})

	b := NewBuilder(secret)
	ordinary, chunk := 0, make([]byte, 1<<20)
	for i := range 700 { // more than half a GiB
		id := ID{byte(i), byte(i >> 8)}
		b.Add(id, chunk)
		if i == 40 {
			ordinary = len(b.chunks)
		}
	}
	data := b.Finish(pack)
	if f, err := Parse(secret, pack, data); err != nil || ordinary != 41 || len(f.chunks) < 500 {
		t.Errorf("a file of %d bytes of %d chunks: %v", len(data), len(b.chunks), err)
	}
}

// The folder gives back what was put into it, and keeps only the files of packs that exist.
func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "blocks")
	folder := Folder{Dir: dir, Secret: secret}
	if err := folder.Keep(func(ID) bool { return false }); err != nil {
		t.Errorf("there is no folder yet: %v", err)
	}
	gone := ID{9}
	for _, id := range []ID{pack, gone} {
		b := NewBuilder(secret)
		b.Add(ID{1}, noise(1, 100_000))
		if err := folder.Save(id, b.Finish(id)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := folder.Load(gone); err != nil {
		t.Fatal(err)
	}
	stray := filepath.Join(dir, "09", "something")
	if err := os.WriteFile(stray, []byte("else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := folder.Keep(func(id ID) bool { return id == pack }); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stray); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is no file of digests is kept: %v", err)
	}
	if _, err := folder.Load(gone); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file of a pack that is gone: %v", err)
	}
	if _, err := folder.Load(pack); err != nil {
		t.Errorf("the file of a pack that is there: %v", err)
	}
	if err := os.Truncate(folder.name(pack), 500); err != nil {
		t.Fatal(err)
	}
	if _, err := folder.Load(pack); err == nil {
		t.Error("a torn file is used")
	}
}

// The digests of a block do not change: they are there from one version of the program to the next.
func TestDigestStays(t *testing.T) {
	got := NewHasher(secret).digest(noise(1, Size))
	if want := []byte{0xd4, 0x30, 0xd, 0x1e, 0x30, 0x47, 0x8e, 0xdc, 0x8f, 0xba, 0x13, 0xa8, 0x31, 0x2f, 0x9e, 0xc2}; !bytes.Equal(got, want) {
		t.Errorf("%x, not %x", got, want)
	}
}

// Nothing that is in a file makes Parse or Compare fail otherwise than with an error, even with the right checksum.
func FuzzParse(f *testing.F) {
	good := file(noise(1, 60_000), noise(2, 40_000))
	f.Add(good[:len(good)-checksumSize])
	f.Add([]byte(magic + "\x01\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte(magic + "\x01\x00\x00\x00\xff\xff\xff\xff"))
	h := NewHasher(secret)
	data := make([]byte, 3*Size-1)
	f.Fuzz(func(t *testing.T, body []byte) {
		file, err := Parse(secret, pack, append(bytes.Clone(body), checksum(secret, pack, body)...))
		if err != nil {
			return
		}
		for id, e := range file.chunks {
			var long ID
			copy(long[:], id[:])
			for _, first := range []int{0, e.blocks() - 1, e.blocks(), 1 << 20} {
				if length, known := file.Compare(h, long, first, data, make([]bool, 3)); !known || length != e.length {
					t.Fatalf("a chunk of %d bytes: %v, %d", e.length, known, length)
				}
				if _, length, known := file.Holds(h, long, first, data); !known || length != e.length {
					t.Fatalf("a chunk of %d bytes: %v, %d", e.length, known, length)
				}
			}
		}
	})
}
