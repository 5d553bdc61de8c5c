package repo

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"varve/repo/pack"
	"varve/repo/storage"
)

// BenchmarkPrune removes 1 % of a repository of many chunks (VARVE_BENCH_CHUNKS, 200 000 if not set; a million takes about
// 50 GB of a disk). It reports its time and the highest memory of the process while it goes on. Packs have directories as
// real ones, 600 chunks each, and next to nothing in their frames, which this prune does not read.
func BenchmarkPrune(b *testing.B) {
	ctx := context.Background()
	chunks, err := strconv.Atoi(cmp.Or(os.Getenv("VARVE_BENCH_CHUNKS"), "200000"))
	if err != nil {
		b.Fatal(err)
	}
	const inPack = 600
	packs := chunks / inPack
	st, err := storage.OpenLocal(b.TempDir(), true)
	if err != nil {
		b.Fatal(err)
	}
	r, err := Init(ctx, st, Options{Password: []byte("secret"), CacheDir: b.TempDir()}, testKDF, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	ids := func(n int) (ids [inPack]ID) {
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[:], uint64(n))
		random := rand.NewChaCha8(seed)
		for i := range ids {
			random.Read(ids[i][:])
		}
		return ids
	}
	put := func(n int) {
		p := pack.NewBuilder(r.secrets.pack, pack.Data, 0, [16]byte{}, nil)
		all := ids(n)
		for at := 0; at < inPack; at += 20 {
			var list []pack.Chunk
			for _, id := range all[at : at+20] {
				list = append(list, pack.Chunk{ID: id, Length: 52_000})
			}
			p.Append(pack.Raw, []byte("x"), 20*52_000, list)
		}
		data, id, _ := p.Finish()
		if err := st.Put(ctx, packName(id), data); err != nil {
			b.Fatal(err)
		}
	}
	for n := range packs {
		put(n)
	}
	mark := func(ctx context.Context, node func(ID) bool, chunk func(ID)) error {
		for n := range packs {
			if n%100 == 0 {
				continue
			}
			for _, id := range ids(n) {
				chunk(id)
			}
		}
		return nil
	}
	if _, err := r.follow(ctx); err != nil {
		b.Fatal(err)
	}
	debug.SetGCPercent(200) // as the program has it
	debug.SetMemoryLimit(250 << 20)
	debug.FreeOSMemory()
	peak := watchMemory(b)
	for b.Loop() {
		p, err := r.Prune(ctx, PruneOptions{}, mark)
		if err != nil || p.DeletedPacks != int64((packs+99)/100) || p.RepackedPacks != 0 {
			b.Fatalf("%+v, %v", p, err)
		}
		b.StopTimer()
		for n := 0; n < packs; n += 100 {
			put(n)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(packs*inPack), "chunks")
	b.ReportMetric(float64(peak())/1e6, "MB-peak")
}

// watchMemory returns what ends the watch and returns the most memory, in bytes, that the process had meanwhile. Files that are
// mapped do not count: the kernel takes that memory back when it needs it.
func watchMemory(b *testing.B) func() int64 {
	status := func() (kib int64) {
		text, err := os.ReadFile("/proc/self/status")
		if err != nil {
			b.Skip("SKIPPED: memory: it is read from /proc")
		}
		for line := range strings.Lines(string(text)) {
			if rest, found := strings.CutPrefix(line, "RssAnon:"); found {
				if _, err := fmt.Sscan(rest, &kib); err != nil {
					b.Fatal(err)
				}
			}
		}
		return kib
	}
	highest := status()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				highest = max(highest, status())
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-stopped
		return highest << 10
	}
}
