package index

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"
)

func id(kind string, n int) ID {
	return sha256.Sum256(binary.LittleEndian.AppendUint64([]byte(kind), uint64(n)))
}

// testPack makes pack n with count chunks of its own.
func testPack(n, count int) (Pack, []Entry) {
	p := Pack{ID: id("pack", n), Size: int64(n)<<20 + 7, Kind: byte(1 + n%2), Salt: id("salt", n)}
	var entries []Entry
	for i := range count {
		entries = append(entries, Entry{ID: id("chunk", n*1_000_000+i), Offset: uint32(i * 77), Stored: uint32(1000 + i), At: uint32(i * 4096 % (1 << 20)), Length: uint32(1 + i)})
	}
	return p, entries
}

func mustOpen(t testing.TB, dir string) *Index {
	t.Helper()
	x, err := Open(dir, Options{Logf: t.Logf})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Healthy(); err != nil {
		t.Fatal(err)
	}
	return x
}

func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	x := mustOpen(t, dir)
	p, es := testPack(1, 5000)
	if err := x.Add(p, es); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, e := range es {
			pl, ok := x.Lookup(e.ID)
			if !ok || (pl != Place{pl.Pack, e.Offset, e.Stored, e.At, e.Length}) {
				t.Fatal(pl, ok)
			}
			if q, ok := x.Pack(pl.Pack); !ok || q != p {
				t.Fatal(q, ok)
			}
		}
		t.Log(x.Stats())
		x.Close()
		x = mustOpen(t, dir)
	}
	x.Close()
}
