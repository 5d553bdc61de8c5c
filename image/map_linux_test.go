package image

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// unit is the size of the runs in these tests: filesystems do not tell smaller holes than their blocks.
const unit = 64 << 10

// patched makes a sparse file with noise in the units that are set, and tail bytes more; it returns what is in it.
func patched(t *testing.T, set []bool, tail int) (path string, data []byte) {
	t.Helper()
	data = make([]byte, len(set)*unit+tail)
	path = filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(len(data))); err != nil {
		t.Fatal(err)
	}
	for i, ok := range set {
		if ok {
			copy(data[i*unit:(i+1)*unit], noise(byte(i), unit))
			if _, err := f.WriteAt(data[i*unit:(i+1)*unit], int64(i*unit)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return path, data
}

// sparse returns which bytes list says are holes, and fails when it says more.
func sparse(t *testing.T, list []Extent, off, length int64) []bool {
	t.Helper()
	holes := make([]bool, length)
	for _, e := range list {
		if e.Kind != Data && e.Kind != Sparse {
			t.Fatalf("%+v: a file has no such extents", e)
		}
		for at := e.Offset; e.Kind == Sparse && at < e.Offset+e.Length; at++ {
			holes[at-off] = true
		}
	}
	return holes
}

// TestMap: of any range, exactly the units that were never written are holes; also when many ask at once.
func TestMap(t *testing.T) {
	for seed := range byte(10) {
		random := rand.New(rand.NewChaCha8([32]byte{seed}))
		set := make([]bool, 1+random.IntN(40))
		for i := range set {
			set[i] = random.IntN(3) > 0
		}
		path, data := patched(t, set, random.IntN(2)*random.IntN(unit))
		size := int64(len(data))
		s := open(t, path)
		var workers sync.WaitGroup
		for worker := range uint64(4) {
			workers.Go(func() {
				random := rand.New(rand.NewPCG(uint64(seed), worker))
				for range 20 {
					off := random.Int64N(size) / Block * Block
					end := min(size, off+(1+random.Int64N(size))/Block*Block+Block)
					list, err := s.Map(off, end-off)
					if err != nil {
						t.Error(err)
						return
					}
					if problem := exact(list, set, off, end, size); problem != "" {
						t.Errorf("seed %d: %d to %d of %d: %s: %v", seed, off, end, size, problem, list)
						return
					}
				}
			})
		}
		workers.Wait()
	}
}

// exact returns how list differs from the units that are set, or "". What lies behind the last unit is a hole, of
// which a part of a block may be Data.
func exact(list []Extent, set []bool, off, end, size int64) string {
	at := off
	for i, e := range list {
		if e.Offset != at || e.Length <= 0 || i > 0 && list[i-1].Kind == e.Kind {
			return fmt.Sprintf("extent %d is out of order", i)
		}
		for at = e.Offset; at < e.Offset+e.Length; at += min(Block, e.Offset+e.Length-at) {
			want := Sparse
			if u := int(at / unit); u < len(set) && set[u] {
				want = Data
			}
			if e.Kind != want && size-at >= Block {
				return fmt.Sprintf("byte %d is of kind %d", at, e.Kind)
			}
		}
	}
	if at != end {
		return fmt.Sprintf("it ends at %d", at)
	}
	return ""
}

// TestMapNeverLosesData: whatever was written where, and punched in pieces that are no blocks: what is a hole reads as
// zeros, and holes are whole blocks.
func TestMapNeverLosesData(t *testing.T) {
	for seed := range byte(20) {
		random := rand.New(rand.NewChaCha8([32]byte{seed}))
		path, data := patched(t, make([]bool, 8), random.IntN(5000))
		size := int64(len(data))
		target := openTarget(t, path, size)
		for range 30 {
			off := random.Int64N(size)
			length := 1 + random.Int64N(min(size-off, 3*Block))
			if random.IntN(2) == 0 {
				clear(data[off : off+length])
				if err := target.Zero(off, length); err != nil {
					t.Fatal(err)
				}
				continue
			}
			copy(data[off:off+length], noise(seed, int(length)))
			if _, err := target.WriteAt(data[off:off+length], off); err != nil {
				t.Fatal(err)
			}
		}
		for name, m := range map[string]interface {
			Map(int64, int64) ([]Extent, error)
		}{"source": open(t, path), "target": target} {
			list, err := m.Map(0, size)
			if err != nil {
				t.Fatal(err)
			}
			checkMap(t, list, 0, size, size)
			for at, hole := range sparse(t, list, 0, size) {
				if hole && data[at] != 0 {
					t.Fatalf("seed %d: %s: byte %d is not zero, in a hole of %v", seed, name, at, list)
				}
			}
		}
		if !bytes.Equal(content(t, path), data) {
			t.Fatalf("seed %d: the target is another", seed)
		}
	}
}

// TestMapOfSmallBlocks: a filesystem with smaller blocks than ours has holes that begin and end inside of ours. A block
// with anything in it is data, whichever part of it that is.
func TestMapOfSmallBlocks(t *testing.T) {
	needsRoot(t)
	image := filepath.Join(t.TempDir(), "fs.img")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 8<<20)); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.ext4", "-q", "-b", "1024", image)
	where := mountOn(t, image)
	for piece := range int64(4) {
		path := filepath.Join(where, fmt.Sprint(piece))
		target := openTarget(t, path, 64*Block)
		for _, block := range []int64{3, 10, 11, 63} {
			if _, err := target.WriteAt([]byte{1}, block*Block+piece*1024); err != nil {
				t.Fatal(err)
			}
		}
		if err := target.Sync(); err != nil {
			t.Fatal(err)
		}
		want := []Extent{
			{0, 3 * Block, Sparse}, {3 * Block, Block, Data}, {4 * Block, 6 * Block, Sparse}, {10 * Block, 2 * Block, Data},
			{12 * Block, 51 * Block, Sparse}, {63 * Block, Block, Data},
		}
		for range 2 { // also from what is kept of the first time
			if list, err := target.Map(0, 64*Block); err != nil || !slices.Equal(list, want) {
				t.Errorf("part %d of the block: %v, %v", piece, list, err)
			}
		}
		if err := target.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestZeroMakesHoles: a file that is restored takes no more room than it needs.
func TestZeroMakesHoles(t *testing.T) {
	path, data := patched(t, []bool{true, true, true, true}, 0)
	target := openTarget(t, path, int64(len(data)))
	if err := target.Zero(unit, 2*unit); err != nil {
		t.Fatal(err)
	}
	list, err := target.Map(0, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if problem := exact(list, []bool{true, false, false, true}, 0, 4*unit, 4*unit); problem != "" {
		t.Errorf("%s: %v", problem, list)
	}
}

// TestMapFollowsWrites: what is written while a disk is read is never taken for a hole, whatever was asked before.
func TestMapFollowsWrites(t *testing.T) {
	path, data := patched(t, []bool{true, false, true, true}, 0)
	s := open(t, path)
	for range 2 { // what is known of the first round must not hide what the second finds
		for at := int64(0); at < int64(len(data)); at += Block {
			if _, err := s.Map(at, Block); err != nil {
				t.Fatal(err)
			}
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{1}, unit+5*Block); err != nil {
		t.Fatal(err)
	}
	list, err := s.Map(0, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	checkMap(t, list, 0, int64(len(data)), int64(len(data)))
	if sparse(t, list, 0, int64(len(data)))[unit+5*Block] {
		t.Errorf("what was written is in a hole: %v", list)
	}
}

// TestFileBecomesShorter: what a file had and has no more is no hole. Salvage tells that it is gone.
func TestFileBecomesShorter(t *testing.T) {
	path, data := patched(t, []bool{true, false, true, false, true}, 100)
	size := int64(len(data))
	for _, end := range []int64{4*unit + 5000, 3*unit + 777, unit, 1, 0} {
		s := open(t, path)
		if _, err := s.Map(0, size); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, end); err != nil {
			t.Fatal(err)
		}
		var reports []Bad
		salvaged := Salvage(s, func(b Bad) { reports = append(reports, b) })
		list, err := salvaged.Map(0, size)
		if err != nil {
			t.Fatal(err)
		}
		checkMap(t, list, 0, size, size)
		for at, hole := range sparse(t, list, 0, size) {
			if hole && int64(at) >= end {
				t.Fatalf("cut to %d: byte %d is a hole in %v", end, at, list)
			}
		}
		got := make([]byte, size)
		if n, err := salvaged.ReadAt(got, 0); int64(n) != size || err != nil {
			t.Fatalf("cut to %d: read %d, %v", end, n, err)
		}
		want := make([]byte, size)
		copy(want, data[:end])
		if !bytes.Equal(got, want) {
			t.Errorf("cut to %d: read something else", end)
		}
		if len(reports) != 1 || reports[0].Offset != end || reports[0].Length != size-end {
			t.Errorf("cut to %d: %+v", end, reports)
		}
		// The next round begins with the whole file.
		if err := errors.Join(s.Close(), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

// BenchmarkMap asks segment by segment for a file whose data is one run of many extents.
func BenchmarkMap(b *testing.B) {
	const size, segment = 256 << 20, 1 << 20
	path := filepath.Join(b.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	chunk := noise(1, segment)
	for round := range int64(2) { // every second one first, so that the filesystem scatters them
		for at := round * segment; at < size; at += 2 * segment {
			if _, err := f.WriteAt(chunk, at); err != nil {
				b.Fatal(err)
			}
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	s, err := Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	at := int64(0)
	for b.Loop() {
		if _, err := s.Map(at%size, segment); err != nil {
			b.Fatal(err)
		}
		at += segment
	}
}
