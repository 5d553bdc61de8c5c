package snapshot

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
	"varve/image"
)

// drawDisk makes a disk of a few segments with data, zeros and holes of all kinds.
func drawDisk(t *rapid.T) *disk {
	size := drawSize(t)
	d := &disk{data: make([]byte, size), holes: map[int64]image.Kind{}, fresh: true}
	drawEdits(t, d, rapid.IntRange(1, 20).Draw(t, "runs"))
	return d
}

// drawSize is small most of the time, and a few segments now and then.
func drawSize(t *rapid.T) int {
	limit := rapid.SampledFrom([]int{Block, 2 << 20, 2 << 20, 2 << 20, 2 << 20, 2 << 20, 5 << 20, 2*Segment + 1<<20}).Draw(t, "limit")
	return rapid.IntRange(1, limit).Draw(t, "size")
}

// drawEdits changes n runs of d: new data, data from elsewhere on it, zeros, holes, single blocks.
func drawEdits(t *rapid.T, d *disk, n int) {
	size := len(d.data)
	for range n {
		at := rapid.IntRange(0, (size-1)/Block).Draw(t, "block") * Block
		blocks := rapid.SampledFrom([]int{1, 1, 2, 7, 40, 300, 3000}).Draw(t, "blocks")
		end := min(at+blocks*Block, size)
		kind := image.Data
		switch rapid.IntRange(0, 5).Draw(t, "what") {
		case 0, 1, 2:
			copy(d.data[at:end], noise(uint64(rapid.IntRange(0, 500).Draw(t, "seed")), end-at))
		case 3:
			from := rapid.IntRange(0, (size-1)/Block).Draw(t, "from") * Block
			copy(d.data[at:end], bytes.Clone(d.data[from:]))
		case 4:
			clear(d.data[at:end])
		case 5:
			clear(d.data[at:end])
			kind = rapid.SampledFrom([]image.Kind{image.Sparse, image.Free, image.Excluded}).Draw(t, "kind")
		}
		for b := at / Block; b*Block < end; b++ {
			if kind == image.Data {
				delete(d.holes, int64(b))
			} else {
				d.holes[int64(b)] = kind
			}
		}
	}
}

func (d *disk) clone() *disk {
	c := &disk{data: bytes.Clone(d.data), holes: map[int64]image.Kind{}, fresh: d.fresh}
	for b, k := range d.holes {
		c.holes[b] = k
	}
	return c
}

// A guided scan gives the same tree as an unguided one, whatever was changed, and both read back as the disk.
func TestGuidedEqualsUnguided(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := drawDisk(t)
		s := newStore()
		parent, err := create(s, first, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		d := first.clone()
		for day := range rapid.IntRange(1, 3).Draw(t, "days") {
			drawEdits(t, d, rapid.IntRange(0, 6).Draw(t, "edits"))
			if rapid.IntRange(0, 4).Draw(t, "resize") == 0 {
				size := drawSize(t)
				resized := make([]byte, size)
				copy(resized, d.data)
				d.data = resized
			}
			guided, err := create(s, d, parent, 2)
			if err != nil {
				t.Fatal(err)
			}
			unguided, err := create(newStore(), d, nil, 1)
			if err != nil {
				t.Fatal(err)
			}
			if guided.Root != unguided.Root {
				t.Fatalf("day %d: the guided tree differs from the unguided one", day)
			}
			if guided.Stats.Used != unguided.Stats.Used || guided.Stats.Chunks != unguided.Stats.Chunks {
				t.Fatalf("day %d: guided %+v, unguided %+v", day, guided.Stats, unguided.Stats)
			}
			got, err := readBack(s, guided)
			if err != nil || !bytes.Equal(got, d.data) {
				t.Fatalf("day %d: the snapshot does not read as the disk: %v", day, err)
			}
			parent = guided
		}
	})
}

func TestUnchangedDiskSavesNothing(t *testing.T) {
	d := &disk{data: noise(1, 2*Segment+5000), holes: map[int64]image.Kind{}}
	s := newStore()
	first, err := create(s, d, nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	before := len(s.chunks)
	second, err := create(s, d, first, 2)
	if err != nil {
		t.Fatal(err)
	}
	if second.Root != first.Root || len(s.chunks) != before || second.Stats.Added != 0 || second.Stats.Changed != 0 {
		t.Errorf("an unchanged disk: %+v, %d new objects", second.Stats, len(s.chunks)-before)
	}
	if second.Stats.Read != int64(len(d.data)) {
		t.Errorf("read %d of %d bytes", second.Stats.Read, len(d.data))
	}
}

// A parent that lost a chunk must not pass the loss on.
func TestIncompleteParentIsLookedUp(t *testing.T) {
	d := &disk{data: noise(2, Segment), holes: map[int64]image.Kind{}}
	s := newStore()
	parent, err := create(s, d, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	var lost ID
	for id, data := range s.chunks {
		if len(data) < 256<<10 && data[0] != leafNode {
			lost = id
			break
		}
	}
	delete(s.chunks, lost)
	o := s.options(parent, 1)
	o.ParentComplete = false
	if _, err := Create(context.Background(), d, o); err != nil {
		t.Fatal(err)
	}
	if !s.Has(lost) {
		t.Error("the lost chunk was not stored again")
	}
}

// Chunks that are runs of changed blocks begin and end where no cut by content would. All of them are lost with their
// neighbours, and stored again as they were, since the disk still holds them: the parent is whole again. Only what
// the disk holds parts of cannot be made again, and then the new snapshot does without.
func TestLostChunksAreStoredAgainAsTheyWere(t *testing.T) {
	d := &disk{data: noise(4, 4<<20), holes: map[int64]image.Kind{}}
	s := newStore()
	first, err := create(s, d, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	for at := 20; at < 1000; at += 37 {
		copy(d.data[at*Block:], noise(uint64(at), 2*Block))
	}
	second, err := createParts(s, d, first, 1)
	if err != nil {
		t.Fatal(err)
	}
	extents, err := newTree(s, ID(second.Root), second.Size).segment(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	split := map[ID]bool{} // chunks of which the disk holds parts
	for i := range extents {
		if extents[i].Kind == Part {
			split[extents[i].ID] = true
		}
	}
	for _, parts := range []bool{false, true} {
		whole, lost := maps.Clone(s.chunks), 0
		for i := range extents {
			if e := &extents[i]; !e.Kind.hole() && split[e.ID] == parts {
				delete(s.chunks, e.ID)
				lost++
			}
		}
		if lost < 10 {
			t.Fatalf("%d chunks are lost", lost)
		}
		o := s.options(second, 1)
		o.ParentComplete, o.Parts = false, func() Comparer { return s }
		third, err := Create(t.Context(), d, o)
		if err != nil {
			t.Fatal(err)
		}
		checkWhole(t, s, third, d)
		if got, err := readBack(s, second); parts == (err == nil) || err == nil && !bytes.Equal(got, d.data) {
			t.Errorf("parts %v: the parent: %v", parts, err)
		}
		if !parts && third.Root != second.Root {
			t.Error("another tree was made")
		}
		s.chunks = whole
	}
}

func TestStreamEqualsFile(t *testing.T) {
	for _, size := range []int{0, 1, 4095, Segment - 1, Segment, Segment + 1, 2*Segment + 12345} {
		data := noise(3, size)
		if size > Segment {
			clear(data[1<<20 : 3<<20])
		}
		s := newStore()
		file, err := create(s, &disk{data: data, holes: map[int64]image.Kind{}}, nil, 2)
		if err != nil {
			t.Fatal(err)
		}
		src := image.Stream(bytes.NewReader(data), "stdin")
		stream, err := create(s, src, file, 2)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if stream.Size != int64(size) || stream.Root != file.Root {
			t.Errorf("%d bytes: a stream gives %d bytes with another tree", size, stream.Size)
		}
	}
}

// lateEnd is a stream whose last bytes reach their reader after all others were told that there are none for them.
type lateEnd struct {
	image.Source
	after  int64         // the segment that has the last bytes starts here
	others chan struct{} // has room for all who read behind the end
	before int           // how many of them are told first
}

func (l *lateEnd) ReadAt(p []byte, off int64) (int, error) {
	n, err := l.Source.ReadAt(p, off)
	if off > l.after {
		l.others <- struct{}{}
	} else if off == l.after {
		for range l.before {
			select {
			case <-l.others:
			case <-time.After(time.Second): // they know another way that there is nothing for them
			}
		}
	}
	return n, err
}

// Workers who wait behind the end of a stream know only that it has ended, not where.
func TestStreamEndsWhereItsBytesDo(t *testing.T) {
	const workers = 4
	data := noise(9, Segment+12345)
	src := &lateEnd{Source: image.Stream(bytes.NewReader(data), "stdin"), after: Segment,
		others: make(chan struct{}, workers), before: workers - 1}
	s := newStore()
	d, err := create(s, src, nil, workers)
	if err != nil {
		t.Fatal(err)
	}
	if d.Size != int64(len(data)) {
		t.Fatalf("the disk has %d bytes, the stream %d", d.Size, len(data))
	}
	got, err := readBack(s, d)
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("it does not read back as what was streamed: %v", err)
	}
}

func TestReadErrorEndsCreate(t *testing.T) {
	d := &disk{data: noise(4, 2*Segment), holes: map[int64]image.Kind{}, fail: Segment + 100}
	if _, err := create(newStore(), d, nil, 2); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}

// Memory and time for a sparse disk depend on what is on it.
func TestHugeSparseDisk(t *testing.T) {
	const size = 8 << 40
	s := newStore()
	src := &sparse{size: size, data: map[int64]byte{0: 1, size/2 + 12345*Block: 2, size - 1: 3}}
	d, err := create(s, src, nil, 2)
	if err != nil {
		t.Fatal(err)
	}
	if d.Stats.Chunks != 3 || d.Stats.Used > 3*5*Block {
		t.Errorf("%+v", d.Stats)
	}
	r := NewReader(context.Background(), s, d)
	for at, want := range src.data {
		var b [1]byte
		if _, err := r.ReadAt(b[:], at); err != nil || b[0] != want {
			t.Errorf("at %d: %d, %v; want %d", at, b[0], err, want)
		}
	}
}

// sparse is a disk with a few bytes that are not zero.
type sparse struct {
	size int64
	data map[int64]byte
}

func (s *sparse) Info() image.Info { return image.Info{Name: "sparse", Path: "/sparse", Size: s.size} }
func (s *sparse) Close() error     { return nil }

func (s *sparse) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	for at, b := range s.data {
		if at >= off && at < off+int64(len(p)) {
			p[at-off] = b
		}
	}
	return len(p), nil
}

func (s *sparse) Map(off, length int64) ([]image.Extent, error) {
	list := []image.Extent{{Offset: off, Length: length, Kind: image.Sparse}}
	var places []int64
	for at := range s.data {
		if at >= off && at < off+length {
			places = append(places, at/Block*Block)
		}
	}
	slices.Sort(places)
	for _, at := range places {
		last := list[len(list)-1]
		list = list[:len(list)-1]
		for _, e := range []image.Extent{
			{Offset: last.Offset, Length: at - last.Offset, Kind: image.Sparse},
			{Offset: at, Length: min(Block, last.Offset+last.Length-at), Kind: image.Data},
			{Offset: at + Block, Length: last.Offset + last.Length - at - Block, Kind: image.Sparse},
		} {
			if e.Length > 0 {
				list = append(list, e)
			}
		}
	}
	return list, nil
}
