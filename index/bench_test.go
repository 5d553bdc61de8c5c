package index

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// benchChunks is how large an index the benchmarks make; the figures in the documents are for 20 million.
func benchChunks(b *testing.B) int {
	v := os.Getenv("VARVE_BENCH_CHUNKS")
	if v == "" {
		return 200_000
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		b.Fatalf("VARVE_BENCH_CHUNKS: %v", err)
	}
	return n
}

const benchPack = 1300 // chunks in a pack of 64 MiB

// benchIDs fills ids with the chunks of pack n, or of the kind that no pack has.
func benchIDs(known bool, n int, ids []ID) {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(n))
	if known {
		seed[8] = 1
	}
	r := rand.NewChaCha8(seed)
	for i := range ids {
		r.Read(ids[i][:])
	}
}

// benchFill makes an index of that many chunks in dir.
func benchFill(b *testing.B, dir string, chunks int) {
	x := mustOpen(b, dir)
	defer x.Close()
	ids := make([]ID, benchPack)
	entries := make([]Entry, benchPack)
	for n := 0; n*benchPack < chunks; n++ {
		benchIDs(true, n, ids)
		for i := range entries {
			entries[i] = Entry{ids[i], uint32(i/20) << 20, 700_000, uint32(i%20) * 50_000, 50_000}
		}
		if err := x.Add(Pack{ID: id("pack", n), Size: 64 << 20, Kind: 1}, entries); err != nil {
			b.Fatal(err)
		}
	}
	if err := x.Healthy(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkIndex makes one index of VARVE_BENCH_CHUNKS chunks and measures what it costs.
func BenchmarkIndex(b *testing.B) {
	chunks := benchChunks(b)
	root, dir := b.TempDir(), "" // one of the sub-benchmark would not outlive it
	b.Run("Fill", func(b *testing.B) {
		for n := range b.N {
			os.RemoveAll(dir)
			dir = filepath.Join(root, strconv.Itoa(n))
			benchFill(b, dir, chunks)
		}
		b.ReportMetric(float64(chunks)*float64(b.N)/b.Elapsed().Seconds(), "chunks/s")
		x := mustOpen(b, dir)
		defer x.Close()
		b.ReportMetric(float64(x.Stats().Bytes)/float64(chunks), "disk-B/chunk")
	})
	b.Run("OpenClose", func(b *testing.B) {
		for range b.N {
			x := mustOpen(b, dir)
			x.Close()
		}
	})
	b.Run("Process", func(b *testing.B) { benchProcess(b, dir, "closed") })
	x := mustOpen(b, dir)
	for _, known := range []bool{false, true} {
		name := "Miss"
		if known {
			name = "Hit"
		}
		b.Run("Lookup"+name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetParallelism(1)
			b.RunParallel(func(pb *testing.PB) {
				ids := make([]ID, benchPack)
				for i := len(ids); pb.Next(); i++ {
					if i == len(ids) {
						b := rand.IntN(chunks/benchPack + 1)
						benchIDs(known, b, ids)
						i = 0
					}
					if _, found := x.Lookup(ids[i]); found != known {
						panic(fmt.Sprintf("%x: found %v", ids[i], found))
					}
				}
			})
		})
	}
	x.Close()
	b.Run("ProcessUnclean", func(b *testing.B) { benchProcess(b, dir, "open") })
}

// benchProcess opens the index in a process of its own and reports how long that took and what it has resident.
func benchProcess(b *testing.B, dir, left string) {
	for range b.N {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "VARVE_INDEX_CHILD=measure "+left, "VARVE_INDEX_DIR="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.Output()
		if err != nil {
			b.Fatal(err)
		}
		var took, rss, anon, peak int64
		if _, err := fmt.Sscan(string(out), &took, &rss, &anon, &peak); err != nil {
			b.Fatalf("%q: %v", out, err)
		}
		b.ReportMetric(float64(took)/1e6, "open-ms")
		b.ReportMetric(float64(rss)/1e6, "rss-MB")
		b.ReportMetric(float64(anon)/1e6, "anon-MB") // without the pages of mapped files, which the kernel can take back
		b.ReportMetric(float64(peak)/1e6, "peak-MB")
	}
}

// measure is the child of benchProcess.
func measure(dir, left string) {
	if left == open {
		s, err := takeSlot(dir + "/0")
		if err != nil {
			panic(err)
		}
		st := s.state
		st.Left, st.Checked = open, 0
		if err := s.set(st); err != nil {
			panic(err)
		}
		s.lock.Close()
	}
	start := time.Now()
	x, err := Open(dir, Options{})
	if err != nil {
		panic(err)
	}
	took := time.Since(start)
	if x.Stats().Packs == 0 {
		panic("empty")
	}
	rss, anon := procStatus("VmRSS"), procStatus("RssAnon")
	x.Close()
	fmt.Println(took.Nanoseconds(), rss, anon, procStatus("VmHWM"))
}

// procStatus reads a size, in bytes, that the kernel keeps of this process.
func procStatus(name string) int64 {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), name+":"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}
