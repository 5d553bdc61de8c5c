package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// work is a command that is to be killed.
type work struct {
	name    string
	often   int // how often it is chosen, beside the others
	args    []string
	makes   bool // it is a backup of the next day
	removes bool // all snapshots but the last three go
	noIndex bool // the index is taken away before
	beside  []string
	ruin    func(*killer) (*ruin, error) // it is a repair of what this does before
}

var works = []work{
	{name: "backup", often: 8, makes: true},
	{name: "backup with its index to be made anew", often: 3, makes: true, noIndex: true},
	{name: "backup beside prune", often: 4, makes: true, beside: []string{"prune", "--json", "--max-unused", "0"}},
	{name: "forget", often: 2, args: []string{"forget", "--json", "--keep-last", "3"}, removes: true},
	{name: "forget and prune", often: 5, args: []string{"forget", "--json", "--keep-last", "3", "--prune", "--max-unused", "0"}, removes: true},
	{name: "prune", often: 5, args: []string{"prune", "--json", "--max-unused", "0"}},
	{name: "tag", often: 1, args: []string{"tag", "--json", "--add", "kept", "latest"}},
	{name: "check", often: 1, args: []string{"check", "--json", "--read-data"}},
	{name: "repair packs", often: 5, args: []string{"repair", "packs", "--json"}, ruin: (*killer).ruinPacks},
	{name: "repair config", often: 2, args: []string{"repair", "config", "--json"}, ruin: (*killer).ruinCopy},
	{name: "repair snapshots", often: 2, ruin: (*killer).ruinRecord},
	{name: "repair index", often: 2, args: []string{"repair", "index", "--json"}, ruin: (*killer).ruinCache},
}

// killer kills commands one after the other, on one repository.
type killer struct {
	*session
	random *rand.Rand
	last   int                      // number of the last day
	there  []string                 // tags of the snapshots that are there for sure, the newest last
	took   map[string]time.Duration // how long a command takes that is not killed
	killed map[string]int

	lived, restored, healed int // commands that ended first; snapshots that were read back equal, and after a repair
}

// kill kills the program n times, on a repository without parity and then on one with it.
func kill(n int, varve, folder string, seed uint64) error {
	begun := time.Now()
	all := &killer{killed: map[string]int{}}
	for i, parity := range []string{"0%", "5%"} {
		k := &killer{random: rand.New(rand.NewPCG(seed, uint64(i))), took: map[string]time.Duration{}, killed: all.killed}
		k.session = &session{varve: varve, folder: folder, mount: filepath.Join(folder, fmt.Sprint("killed", i)), days: days{}}
		if err := k.many(n*(i+1)/2-n*i/2, parity); err != nil {
			return fmt.Errorf("seed %d, with parity %s: %w", seed, parity, err)
		}
		all.lived += k.lived
		all.restored += k.restored
		all.healed += k.healed
	}
	var each []string
	for _, w := range works {
		each = append(each, fmt.Sprintf("%s %d", w.name, all.killed[w.name]))
	}
	fmt.Printf("killed %d times (%s); %d commands ended first; %d snapshots restored equal; %d snapshots repaired after a killed repair; 0 lost (seed %d, %.0f s)\n",
		n, strings.Join(each, ", "), all.lived, all.restored, all.healed, seed, time.Since(begun).Seconds())
	return nil
}

// many makes a repository and kills the program n times.
func (k *killer) many(n int, parity string) error {
	if err := os.MkdirAll(k.mount, 0o700); err != nil {
		return err
	}
	_, err := k.run("init", "-q", "--parity", parity)
	if err == nil {
		err = k.cheapKey()
	}
	if err != nil {
		return err
	}
	choices := []work{}
	for _, w := range works {
		for range w.often {
			choices = append(choices, w)
		}
	}
	for total := 0; total < n; {
		w := choices[k.random.IntN(len(choices))]
		if k.last < 4 || len(k.there) == 0 {
			w = works[0]
		}
		killed, err := k.one(w)
		if err == nil {
			var tags []string
			tags, err = k.judge(context.Background(), promised{opens: true, clean: true, tags: k.there})
			k.restored += len(tags)
			k.keep(tags)
		}
		if err == nil && total%50 == 49 && killed {
			err = k.goOn(promised{opens: true, clean: true})
			if _, forgetErr := k.run("forget", "--host", "other", "--unsafe-allow-remove-all", "--keep-tag", "none"); err == nil {
				err = forgetErr
			}
		}
		if err != nil {
			return fmt.Errorf("after %d kills, the last of %s: %w", total, w.name, err)
		}
		if killed {
			total++
			k.killed[w.name]++
		}
	}
	return nil
}

// run runs varve to its end.
func (k *killer) run(args ...string) (time.Duration, error) {
	begun := time.Now()
	r, err := k.start(args, func() {})
	if err == nil {
		err = r.wait()
	}
	return time.Since(begun), err
}

// one starts a command and kills it at a random moment. It reports false when the command ended before.
func (k *killer) one(w work) (killed bool, err error) {
	if w.ruin != nil {
		return k.repair(w)
	}
	args, tag := w.args, ""
	if w.makes {
		k.last++
		tag = fmt.Sprintf("day%d", k.last)
		k.days[tag] = nextDay(k.days[fmt.Sprintf("day%d", k.last-1)], k.random)
		if args, err = k.backupOf(tag); err != nil {
			return false, err
		}
	}
	if w.noIndex {
		if err := os.RemoveAll(filepath.Join(k.mount, "cache")); err != nil {
			return false, err
		}
	}
	if w.removes {
		k.there = k.there[max(0, len(k.there)-3):] // the others may be there or not
	}
	killed, acknowledged, err := k.strike(w.name, args, w.beside, "")
	if tag != "" && acknowledged {
		k.there = append(k.there, tag)
	}
	return killed, err
}

// strike starts a command, and another beside it, and kills it at a random moment, or at one soon after the file sign appears,
// unless it has ended by then. It reports whether it was killed, and whether it had said that it has done its work.
func (k *killer) strike(name string, args, beside []string, sign string) (killed, acknowledged bool, err error) {
	var said atomic.Bool
	begun := time.Now()
	r, err := k.start(args, func() { said.Store(true) })
	if err != nil {
		return false, false, err
	}
	limit := 200 * time.Millisecond
	if took, known := k.took[name]; known {
		limit = took + took/10
	}
	delay := time.Duration(k.random.Int64N(int64(limit)))
	if sign != "" && k.random.IntN(2) == 0 {
		delay = time.Duration(k.random.Int64N(int64(20 * time.Millisecond)))
		for _, err := os.Stat(sign); err != nil && time.Since(begun) < 2*limit; _, err = os.Stat(sign) {
			time.Sleep(200 * time.Microsecond)
		}
	}
	if beside != nil {
		other, err := k.start(beside, func() {})
		if err != nil {
			return false, false, err
		}
		defer func() {
			time.Sleep(time.Duration(k.random.Int64N(int64(limit) / 2)))
			_ = other.cmd.Process.Kill()
			_ = other.wait() // killed, or it found the repository locked
		}()
	}
	select {
	case <-r.done:
		k.took[name] = time.Since(begun)
	case <-time.After(delay):
		killed = r.cmd.Process.Kill() == nil
	}
	if err = r.wait(); killed {
		err = nil
	} else {
		k.lived++
	}
	return killed, said.Load(), err
}

// keep takes the snapshots that were found for those that have to be there from now on: what was found once must not go.
func (k *killer) keep(tags []string) {
	number := func(tag string) (n int) {
		fmt.Sscanf(tag, "day%d", &n)
		return n
	}
	slices.SortFunc(tags, func(a, b string) int { return number(a) - number(b) })
	k.there = slices.Compact(tags)
	for tag := range k.days {
		if !slices.Contains(k.there, tag) && number(tag) < k.last && tag != "day1" {
			delete(k.days, tag)
		}
	}
}
