package index

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain runs the test binary as a child that owns an index, when a test has started it as one.
func TestMain(m *testing.M) {
	role, arg, _ := strings.Cut(os.Getenv("VARVE_INDEX_CHILD"), " ")
	dir := os.Getenv("VARVE_INDEX_DIR")
	switch role {
	case "":
		os.Exit(m.Run())
	case "measure":
		measure(dir, arg)
	case "writer":
		writer(dir)
	case "holder":
		holder(dir)
	case "reader":
		reader(dir)
	case "template":
		makeTemplate(dir, arg)
	case "full":
		fullDisk(dir)
	}
}

// child prepares the test binary to run in a role of TestMain.
func child(role, dir string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "VARVE_INDEX_CHILD="+role, "VARVE_INDEX_DIR="+dir)
	return cmd
}

// trials is how often a random test tries, more on request.
func trials(t *testing.T, usually int) int {
	v := os.Getenv("VARVE_INDEX_TRIALS")
	if v == "" {
		return usually
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("VARVE_INDEX_TRIALS: %v", err)
	}
	return n
}

// childFailed ends a child.
func childFailed(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

const writerPack = 3000 // chunks; several Badger tables in a second

// writer adds packs, the next after those it finds, until it is killed. It says which ones are done.
func writer(dir string) {
	x, err := Open(dir, Options{})
	if err != nil {
		childFailed(err)
	}
	n := len(x.Known())
	fmt.Println("opened", n)
	for ; ; n++ {
		p, entries := testPack(n, writerPack)
		if err := x.Add(p, entries); err != nil {
			childFailed(err)
		}
		if err := x.Healthy(); err != nil {
			childFailed(err)
		}
		fmt.Println("added", n)
	}
}

// Killed at any moment, while it is opened too, the index has every pack that Add returned for, and no pack in part.
func TestKilledWhileWriting(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	before, opening := 0, 0
	for range trials(t, 15) {
		cmd := child("writer", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		limit := 700 * time.Millisecond
		if r.IntN(4) == 0 {
			limit = 40 * time.Millisecond // some of them while it is opened
		}
		time.AfterFunc(time.Duration(r.Int64N(int64(limit))), func() { cmd.Process.Kill() })
		opened, added := false, -1
		for s := bufio.NewScanner(out); s.Scan(); {
			verb, number, _ := strings.Cut(s.Text(), " ")
			n, err := strconv.Atoi(number)
			if err != nil {
				t.Fatalf("%q", s.Text())
			}
			if opened = true; verb == "opened" {
				n--
			}
			added = n
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() == 1 {
			t.Fatalf("the child ended: %v", err)
		}
		if readState(t, dir).Left != open {
			if opened {
				t.Fatalf("left %+v after it was opened", readState(t, dir))
			}
			opening++
		}
		x := mustOpen(t, dir)
		known := x.Known()
		if opened && len(known) < added+1 || len(known) < before {
			t.Fatalf("%d packs are known, %d were before, %d were added", len(known), before, added+1)
		}
		for n := range len(known) {
			p, entries := testPack(n, writerPack)
			mustFind(t, x, p, entries)
		}
		before = len(known)
		if len(known) > 150 {
			before = 0
			if err := x.Reset(); err != nil {
				t.Fatal(err)
			}
		}
		if r.IntN(2) == 0 {
			leave(t, x, open) // so that the next child checks what this one closed
		}
		x.Close()
	}
	t.Logf("killed %d times while or before it was opened", opening)
}

func readState(t *testing.T, dir string) state {
	t.Helper()
	s := slot{dir: filepath.Join(dir, "0")}
	s.read()
	return s.state
}

// holder opens an index, adds a pack to it, and holds it until its input ends.
func holder(dir string) {
	x, err := Open(dir, Options{})
	if err != nil {
		childFailed(err)
	}
	p, entries := testPack(1, 1000)
	if err := x.Add(p, entries); err != nil {
		childFailed(err)
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	if err := finds(x, p, entries); err != nil {
		childFailed(err)
	}
	x.Close()
}

// A second process has a copy of its own, and the first slot is taken again when it is free.
func TestTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	cmd := child("holder", dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	p1, e1 := testPack(1, 1000)
	p2, e2 := testPack(2, 1000)
	x := mustOpen(t, dir)
	mustMiss(t, x, e1)
	mustAdd(t, x, p2, e2)
	mustAdd(t, x, p1, e1)
	mustFind(t, x, p1, e1)
	mustFind(t, x, p2, e2)
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	y := mustOpen(t, dir) // while x still holds the second slot
	mustFind(t, y, p1, e1)
	mustMiss(t, y, e2)
	x.Close()
	z := mustOpen(t, dir)
	mustFind(t, z, p2, e2)
}

func TestTooManyProcesses(t *testing.T) {
	dir := t.TempDir()
	for n := range slots {
		s, err := takeSlot(filepath.Join(dir, strconv.Itoa(n)))
		if err != nil {
			t.Fatal(err)
		}
		defer s.lock.Close()
	}
	if x, err := Open(dir, Options{}); err == nil || !errors.Is(err, errBusy) {
		x.Close()
		t.Fatal(err)
	}
}
