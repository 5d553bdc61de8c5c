package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"varve/chunker"
	"varve/image"
	"varve/repo"
	"varve/repo/storage"
	"varve/snapshot"
)

// shelf makes a repository with a password that costs nothing, and names it to the commands of this test.
func shelf(t *testing.T, st storage.Storage, place, password string) *repo.Repository {
	t.Helper()
	params, err := chunker.Default()
	if err != nil {
		t.Fatal(err)
	}
	r, err := repo.Init(context.Background(), st, repo.Options{Password: []byte(password)}, repo.KDF{Time: 1, Memory: 64, Threads: 1}, settings{Chunker: params})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	t.Setenv("VARVE_REPOSITORY", place)
	t.Setenv("VARVE_CACHE_DIR", t.TempDir())
	t.Setenv("VARVE_PASSWORD", password)
	return r
}

// command runs one command and returns what it prints; lines of JSON with --json.
func command(t *testing.T, args ...string) string {
	t.Helper()
	out, errs, err := attempt(args...)
	if err != nil {
		t.Fatalf("varve %s: %v\n%s", strings.Join(args, " "), err, errs)
	}
	return out
}

// attempt is command for one that may fail.
func attempt(args ...string) (out, errs string, err error) {
	var stdout, stderr bytes.Buffer
	a := &app{ui: newUI()}
	a.ui.out, a.ui.err = &stdout, &stderr
	root := a.root()
	root.SetArgs(args)
	err = root.ExecuteContext(context.Background())
	return stdout.String(), stderr.String(), err
}

// field returns a field of the object of a message type among lines of JSON.
func field(t *testing.T, out, kind, name string) int64 {
	t.Helper()
	for line := range strings.Lines(out) {
		var object map[string]any
		if json.Unmarshal([]byte(line), &object) == nil && object["message_type"] == kind {
			return int64(object[name].(float64))
		}
	}
	t.Fatalf("no object %s with %s in\n%s", kind, name, out)
	return 0
}

func packBytes(t *testing.T, place string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(place, "packs"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			info, statErr := e.Info()
			n, err = n+info.Size(), statErr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestADryRunSaysWhatIsFreed: four days of a disk, each forgotten by itself and two of them together, each time in a copy of
// the repository, which is then pruned of all garbage.
func TestADryRunSaysWhatIsFreed(t *testing.T) {
	work := t.TempDir()
	place := filepath.Join(work, "repository")
	st, err := storage.OpenLocal(place, true)
	if err != nil {
		t.Fatal(err)
	}
	shelf(t, st, place, "test")
	disk := filepath.Join(work, "disk.img")
	data := randomBytes(6_000_000, 1)
	for day := range 4 {
		copy(data[day*1_000_000:], randomBytes(1_500_000, int64(day+2)))
		if err := os.WriteFile(disk, data, 0o600); err != nil {
			t.Fatal(err)
		}
		command(t, "backup", disk, "--time", time.Date(2026, 3, day+1, 12, 0, 0, 0, time.Local).Format(time.RFC3339))
	}
	var list []struct{ ID string }
	if err := json.Unmarshal([]byte(command(t, "snapshots", "--json")), &list); err != nil || len(list) != 4 {
		t.Fatal(list, err)
	}
	for n, args := range [][]string{{list[0].ID}, {list[1].ID}, {list[2].ID}, {list[3].ID}, {list[1].ID, list[2].ID}, {"--keep-last", "1"}} {
		copied := filepath.Join(work, "copy"+strconv.Itoa(n))
		if err := os.CopyFS(copied, os.DirFS(place)); err != nil {
			t.Fatal(err)
		}
		t.Setenv("VARVE_REPOSITORY", copied)
		dry := command(t, append([]string{"forget", "--dry-run", "--json", "--max-unused", "0"}, args...)...)
		said := field(t, dry, "freed", "bytes_together")
		var groups []struct{ Remove []map[string]any }
		first, _, _ := strings.Cut(dry, "\n")
		if err := json.Unmarshal([]byte(first), &groups); err != nil {
			t.Fatal(err)
		}
		alone := int64(0)
		for _, s := range groups[0].Remove {
			alone += int64(s["bytes_alone"].(float64))
		}
		if len(groups[0].Remove) == 1 && alone != said || alone > said || said <= 0 {
			t.Errorf("%v: %d bytes alone, %d together", args, alone, said)
		}
		before := packBytes(t, copied)
		command(t, append([]string{"forget"}, args...)...)
		out := command(t, "prune", "--max-unused", "0", "--json")
		freed := before - packBytes(t, copied)
		if told := field(t, out, "summary", "bytes_freed"); told != freed {
			t.Errorf("%v: prune tells of %d bytes, and freed %d", args, told, freed)
		}
		if off := freed - said; off < -said/50-1000 || off > said/50+1000 {
			t.Errorf("%v: %d bytes were freed, and %d said to be", args, freed, said)
		}
		t.Logf("%d snapshots: %d said, %d freed", len(groups[0].Remove), said, freed)
	}
}

// roomy is a storage with so much room left.
type roomy struct {
	storage.Storage
	room int64
}

func (r *roomy) Free(context.Context) (int64, error) { return r.room, nil }

// TestKeepFreeRemovesNoMoreThanItMust: room is made by the oldest snapshots, by as many as it takes and no more.
func TestKeepFreeRemovesNoMoreThanItMust(t *testing.T) {
	ctx := context.Background()
	place := &roomy{Storage: storage.NewMemory(), room: 1 << 30}
	r := shelf(t, place, "none", "test")
	var params settings
	if err := r.Settings(&params); err != nil {
		t.Fatal(err)
	}
	// Five snapshots, each of one chunk of its own of random bytes.
	for day := range 5 {
		s, err := r.Begin(ctx, repo.SessionOptions{Purpose: "test"})
		if err != nil {
			t.Fatal(err)
		}
		d, err := snapshot.Create(ctx, image.Stream(bytes.NewReader(randomBytes(200_000, int64(day))), "disk.img"), snapshot.CreateOptions{
			Chunker: params.Chunker, Workers: 1, Load: r,
			DataWriter: func() (snapshot.Writer, error) { return s.DataWriter() },
			TreeWriter: func() (snapshot.Writer, error) { return s.TreeWriter() },
		})
		if err != nil {
			t.Fatal(err)
		}
		d.Name = "disk.img"
		record, err := (&snapshot.Snapshot{Version: 1, Time: time.Date(2026, 1, 1+day, 0, 0, 0, 0, time.UTC), Held: day == 1, Disks: []snapshot.Disk{*d}}).Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Commit(ctx, record); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	list, err := all(r)(ctx)
	if err != nil {
		t.Fatal(err)
	}
	none := func(int64) int64 { return 0 }
	for _, c := range []struct {
		more int64 // wanted beyond what is free
		want []int // that go, by day
	}{{-1, nil}, {0, nil}, {1, []int{0}}, {200_000, []int{0}}, {201_000, []int{0, 2}}, {400_000, []int{0, 2}}, {402_000, []int{0, 2, 3}}, {610_000, []int{-1}}} {
		outcomes, err := snapshot.Forget(list, nil, snapshot.Policy{Last: snapshot.Forever}, false, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		a := &app{ui: newUI()}
		f, err := a.weigh(ctx, r, list, outcomes, forgetOptions{keepFree: byteSize(place.room + c.more)}, repo.PruneOptions{MaxUnused: none})
		if len(c.want) == 1 && c.want[0] < 0 {
			if err == nil || len(outcomes[0].Remove) > 0 {
				t.Errorf("%d bytes more than can be had: %d go, %v", c.more, len(outcomes[0].Remove), err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, s := range outcomes[0].Remove {
			got = append([]int{s.Time.Day() - 1}, got...)
		}
		if len(got) != len(c.want) || f.shed != len(got) || len(got) > 0 && (got[0] != c.want[0] || got[len(got)-1] != c.want[len(c.want)-1]) {
			t.Errorf("for %d bytes more, %v go, not %v", c.more, got, c.want)
		}
		if f.together < c.more || f.together > int64(len(got))*201_000 {
			t.Errorf("for %d bytes more, %d are freed", c.more, f.together)
		}
	}
	// What may stay as garbage does not count as free.
	outcomes, err := snapshot.Forget(list, nil, snapshot.Policy{Last: snapshot.Forever}, false, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a := &app{ui: newUI()}
	f, err := a.weigh(ctx, r, list, outcomes, forgetOptions{keepFree: byteSize(place.room + 1)}, repo.PruneOptions{MaxUnused: func(int64) int64 { return 300_000 }})
	if err != nil || f.shed != 2 {
		t.Errorf("with 300 kB of garbage, %+v, %v", f, err)
	}
}
