package filesystemtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Fill makes files of all kinds in dir, and removes some, so that their blocks are free and not empty. It takes about 30 MB.
func Fill(t testing.TB, dir string, can Abilities) {
	t.Helper()
	f := filler{t: t, dir: dir, random: rand.NewChaCha8([32]byte{7})}
	f.write("small.txt", []byte("hello\n"))
	f.write("empty", nil)
	f.write("a/b/c/deep.txt", []byte(strings.Repeat("deep file\n", 100)))
	for _, size := range []int{1, 511, 513, 4095, 4096, 4097, 65536, 300_001} {
		f.write(fmt.Sprintf("sizes/%d", size), f.noise(size))
	}
	f.write("large.bin", f.noise(8<<20))
	f.write("zeros.bin", make([]byte, 1<<20))
	f.check(os.MkdirAll(f.path("empty folder"), 0o755))
	f.write("names/Grüße – Ωmega.txt", []byte("Greek\n"))
	f.write("names/日本語/ファイル.txt", []byte("Japanese\n"))
	f.write("names/face-\U0001F600.txt", []byte("beyond 16 bits\n"))
	f.write("names/ leading, and.many.dots", []byte("dots\n"))
	f.write(strings.Repeat("n", 250)+".txt", []byte("a long name\n"))
	for i := range 700 {
		f.write(fmt.Sprintf("many/file-%05d-with-a-rather-long-name.dat", i), []byte(strings.Repeat(fmt.Sprintln(i), i%50)))
	}
	for i := 0; i < 700; i += 3 {
		f.remove(fmt.Sprintf("many/file-%05d-with-a-rather-long-name.dat", i))
	}
	f.fragments()
	f.write("gone.bin", f.noise(6<<20))
	f.sync()
	f.remove("gone.bin")
	if can.Sparse {
		f.sparse("sparse.bin", 40<<20, 0, 5<<20, 20<<20+123, 39<<20)
		f.sparse("hole at the end", 9<<20, 4096)
	}
	if can.Links {
		f.check(os.Symlink("small.txt", f.path("link")))
		f.check(os.Symlink("/somewhere/else", f.path("link to nowhere")))
		f.check(os.Symlink("a/b/"+strings.Repeat("x", 140), f.path("long link")))
		f.check(os.Symlink("a/"+strings.Repeat("y", 55), f.path("link of 57")))
		f.check(os.Symlink("a/"+strings.Repeat("z", 58), f.path("link of 60")))
		f.check(os.Link(f.path("sizes/4096"), f.path("a/another name")))
	}
	if can.Owners {
		f.check(os.Chown(f.path("small.txt"), 1000, 70_000))
		f.check(os.Chmod(f.path("small.txt"), 0o640|os.ModeSetuid))
		f.check(os.Chmod(f.path("empty folder"), 0o700|os.ModeSticky))
	}
	f.attributes(can)
	if can.Special {
		f.special()
	}
	f.sync()
}

type filler struct {
	t      testing.TB
	dir    string
	random *rand.ChaCha8
}

func (f *filler) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

func (f *filler) check(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *filler) noise(n int) []byte {
	b := make([]byte, n)
	_, _ = f.random.Read(b) // never fails
	return b
}

func (f *filler) write(name string, data []byte) {
	f.t.Helper()
	f.check(os.MkdirAll(filepath.Dir(f.path(name)), 0o755))
	f.check(os.WriteFile(f.path(name), data, 0o644))
}

func (f *filler) remove(name string) { f.t.Helper(); f.check(os.Remove(f.path(name))) }

// sync makes what is in dir durable, without waiting for all other filesystems of the machine.
func (f *filler) sync() {
	f.t.Helper()
	Run(f.t, "sync", "-f", f.dir)
}

// fragments writes three files in turns, of which one goes.
func (f *filler) fragments() {
	names := []string{"fragments.bin", "fragments.gone", "fragments.too"}
	var files []*os.File
	for _, name := range names {
		file, err := os.Create(f.path(name))
		f.check(err)
		files = append(files, file)
	}
	for range 40 {
		for _, file := range files {
			_, err := file.Write(f.noise(32 << 10))
			f.check(err)
			f.check(file.Sync())
		}
	}
	for _, file := range files {
		f.check(file.Close())
	}
	f.remove("fragments.gone")
}

// sparse writes a file of holes with some data at each of the offsets.
func (f *filler) sparse(name string, size int64, offsets ...int64) {
	file, err := os.Create(f.path(name))
	f.check(err)
	f.check(file.Truncate(size))
	for _, at := range offsets {
		_, err := file.WriteAt(f.noise(int(min(70_000, size-at))), at)
		f.check(err)
	}
	f.check(file.Close())
}
