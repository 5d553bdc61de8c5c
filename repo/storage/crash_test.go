package storage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A power cut is a function call here: crash makes, out of the recorded changes up to a moment, a state in which a file
// system may be found afterwards. What was synced is there. Of the rest any part may be: a file that was not synced may be
// empty or cut short, and of the names in a folder that was not synced any may be as they were before.

// inode is a file or a folder.
type inode struct {
	folder bool
	names  map[string]*inode // of a folder

	written, synced []byte // of a file: all bytes, and those that are sure
	changes         []func(names map[string]*inode)
}

// crash returns what the objects may be after a power cut that comes when events have been done.
func crash(events []event, r *rand.Rand, keep float64) map[string]string {
	root := &inode{folder: true, names: map[string]*inode{}}
	live := map[string]*inode{".": root} // by path, as the running system sees it
	sure := map[*inode]map[string]*inode{root: {}}
	change := func(at string, f func(names map[string]*inode)) {
		dir := live[path.Dir(at)]
		dir.changes = append(dir.changes, f)
	}
	for _, e := range events {
		switch base := path.Base(e.path); e.op {
		case "create", "mkdir":
			n := &inode{folder: e.op == "mkdir"}
			live[e.path], sure[n] = n, map[string]*inode{}
			change(e.path, func(names map[string]*inode) { names[base] = n })
		case "write":
			live[e.path].written = append(live[e.path].written, e.data...)
		case "sync":
			live[e.path].synced = live[e.path].written
		case "rename":
			n, to := live[e.path], path.Base(e.to)
			delete(live, e.path)
			live[e.to] = n
			change(e.path, func(names map[string]*inode) {
				delete(names, base)
				names[to] = n
			})
		case "link":
			n, to := live[e.path], path.Base(e.to)
			live[e.to] = n
			change(e.path, func(names map[string]*inode) { names[to] = n })
		case "remove":
			delete(live, e.path)
			change(e.path, func(names map[string]*inode) { delete(names, base) })
		case "syncdir":
			dir := live[e.path]
			for _, f := range dir.changes {
				f(sure[dir])
			}
			dir.changes = nil
		}
	}
	found := map[string]string{}
	var walk func(at string, n *inode)
	walk = func(at string, n *inode) {
		if !n.folder {
			data := n.synced
			if rest := n.written[len(data):]; len(rest) > 0 && r.Float64() < keep {
				data = append(append([]byte(nil), data...), rest[:r.IntN(len(rest)+1)]...)
			}
			found[at] = string(data)
			return
		}
		names := maps.Clone(sure[n])
		for _, f := range n.changes {
			if r.Float64() < keep {
				f(names)
			}
		}
		for name, below := range names {
			walk(path.Join(at, name), below)
		}
	}
	walk("", root)
	return found
}

// promise is what must be found when a crash comes after some number of events.
type promise struct {
	events int
	sure   map[string]string   // objects that an operation which returned has put
	doing  string              // the object that an operation was at work on, if any
	may    map[string]struct{} // what that one may hold: "+data", or "" for nothing
}

// broken returns what is wrong with a state that a crash left.
func (p *promise) broken(found map[string]string) error {
	objects := map[string]string{}
	for name, data := range found {
		name, ours := strings.CutPrefix(name, "repository/")
		if ours && !strings.Contains(name, tempPrefix) {
			objects[name] = data
		}
	}
	for name, want := range p.sure {
		if got, there := objects[name]; name != p.doing && (!there || got != want) {
			return fmt.Errorf("%s was put and holds %d of %d bytes (there: %v)", name, len(got), len(want), there)
		}
	}
	for name, got := range objects {
		if _, want := p.sure[name]; !want && name != p.doing {
			return fmt.Errorf("%s came back with %d bytes", name, len(got))
		}
	}
	if p.doing != "" {
		state := ""
		if got, there := objects[p.doing]; there {
			state = "+" + got
		}
		if _, ok := p.may[state]; !ok {
			return fmt.Errorf("%s was being changed and holds %d bytes that are neither old nor new", p.doing, len(state))
		}
	}
	return nil
}

// operation is one call of a Local.
type operation struct {
	ctx        context.Context
	kind, name string // put, putnew, delete
	size       int
}

// scenario runs operations on a recorded Local and returns what happened and what was promised after each event.
func scenario(l *Local, r *recording, ops []operation) (promises []promise, err error) {
	sure := map[string]string{}
	state := func(name string) string {
		if data, there := sure[name]; there {
			return "+" + data
		}
		return ""
	}
	for i, op := range ops {
		before, old := len(r.events), state(op.name)
		data := strings.Repeat(fmt.Sprintf("%s %d;", op.name, i), op.size)
		after := "+" + data
		var opErr error
		switch op.kind {
		case "put":
			opErr = l.Put(op.ctx, op.name, []byte(data))
		case "putnew":
			if opErr = l.PutNew(op.ctx, op.name, []byte(data)); errors.Is(opErr, ErrExist) && old != "" {
				after, opErr = old, nil
			}
		case "delete":
			after = ""
			if opErr = l.Delete(op.ctx, op.name); errors.Is(opErr, ErrNotExist) && old == "" {
				opErr = nil
			}
		}
		if opErr != nil {
			return nil, opErr
		}
		for n := before; n < len(r.events); n++ {
			promises = append(promises, promise{n, maps.Clone(sure), op.name, map[string]struct{}{old: {}, after: {}}})
		}
		if after == "" {
			delete(sure, op.name)
		} else {
			sure[op.name] = after[1:]
		}
		promises = append(promises, promise{events: len(r.events), sure: maps.Clone(sure)})
	}
	return promises, nil
}

// states checks every moment of a record, several times each, and returns how many states there were.
func states(events []event, promises []promise, seed uint64) (int, error) {
	r := rand.New(rand.NewPCG(seed, 0))
	n := 0
	for _, p := range promises {
		for _, keep := range []float64{0, 1, 0.5, 0.5, 0.5, 0.9, 0.1} {
			n++
			if err := p.broken(crash(events[:p.events], r, keep)); err != nil {
				return n, fmt.Errorf("power cut after %d events, %v of what was not synced kept: %w", p.events, keep, err)
			}
		}
	}
	return n, nil
}

func TestPowerCut(t *testing.T) {
	total := 0
	rapid.Check(t, func(rt *rapid.T) {
		l, r := record(t)
		ops := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) operation {
			return operation{
				ctx:  t.Context(),
				kind: rapid.SampledFrom([]string{"put", "put", "putnew", "delete"}).Draw(rt, "kind"),
				name: rapid.SampledFrom([]string{"config", "packs/ab/1", "packs/ab/2", "packs/cd/1", "leases/1"}).Draw(rt, "name"),
				size: rapid.IntRange(0, 20).Draw(rt, "size"),
			}
		}), 1, 8).Draw(rt, "operations")
		promises, err := scenario(l, r, ops)
		if err != nil {
			rt.Fatal(err)
		}
		n, err := states(r.events, promises, rapid.Uint64().Draw(rt, "seed"))
		total += n
		if err != nil {
			rt.Fatal(err)
		}
	})
	t.Logf("%d states", total)
}

// TestPowerCutBites: without any one of the syncs the test above fails.
func TestPowerCutBites(t *testing.T) {
	l, r := record(t)
	var ops []operation
	for _, kind := range []string{"put", "delete", "putnew", "put"} {
		for _, name := range []string{"config", "packs/ab/1", "leases/1"} {
			ops = append(ops, operation{t.Context(), kind, name, 20})
		}
	}
	promises, err := scenario(l, r, ops)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := states(r.events, promises, 1); err != nil {
		t.Fatalf("with all syncs: %v", err)
	}
	for i, e := range r.events {
		if e.op != "sync" && e.op != "syncdir" {
			continue
		}
		without := append([]event(nil), r.events...)
		without[i] = event{op: "close", path: e.path}
		if _, err := states(without, promises, 1); err == nil {
			t.Errorf("nothing is lost without event %d, %v: is it of use?", i, e)
		}
	}
}
