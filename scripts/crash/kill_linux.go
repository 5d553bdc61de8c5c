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
}

// killer kills commands one after the other, on one repository.
type killer struct {
	*session
	random *rand.Rand
	last   int                      // number of the last day
	there  []string                 // tags of the snapshots that are there for sure, the newest last
	took   map[string]time.Duration // how long a command takes that is not killed
	killed map[string]int
	lived  int
}

// kill kills the program n times.
func kill(n int, varve, folder string, seed uint64) error {
	begun := time.Now()
	k := &killer{random: rand.New(rand.NewPCG(seed, 0)), took: map[string]time.Duration{}, killed: map[string]int{}}
	k.session = &session{varve: varve, folder: folder, mount: filepath.Join(folder, "killed"), days: days{}}
	if err := os.MkdirAll(k.mount, 0o700); err != nil {
		return err
	}
	r, err := k.start([]string{"init", "-q"}, func() {})
	if err == nil {
		err = r.wait()
	}
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
	restored, total := 0, 0
	for total < n {
		w := choices[k.random.IntN(len(choices))]
		if k.last < 4 {
			w = works[0]
		}
		killed, err := k.one(w)
		if err == nil {
			var tags []string
			tags, err = k.judge(context.Background(), promised{opens: true, clean: true, tags: k.there})
			restored += len(tags)
			k.keep(tags)
		}
		if err == nil && total%50 == 49 && killed {
			err = k.goOn(promised{opens: true, clean: true})
			if _, forgetErr := k.run("forget", "--host", "other", "--unsafe-allow-remove-all", "--keep-tag", "none"); err == nil {
				err = forgetErr
			}
		}
		if err != nil {
			return fmt.Errorf("seed %d, after %d kills, the last of %s: %w", seed, total, w.name, err)
		}
		if killed {
			total++
			k.killed[w.name]++
		}
	}
	var each []string
	for _, w := range works {
		each = append(each, fmt.Sprintf("%s %d", w.name, k.killed[w.name]))
	}
	fmt.Printf("killed %d times (%s); %d commands ended first; %d snapshots restored equal; 0 lost (seed %d, %.0f s)\n",
		total, strings.Join(each, ", "), k.lived, restored, seed, time.Since(begun).Seconds())
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
	var acknowledged atomic.Bool
	begun := time.Now()
	r, err := k.start(args, func() { acknowledged.Store(true) })
	if err != nil {
		return false, err
	}
	limit := 200 * time.Millisecond
	if took, known := k.took[w.name]; known {
		limit = took + took/10
	}
	delay := time.Duration(k.random.Int64N(int64(limit)))
	if w.beside != nil {
		other, err := k.start(w.beside, func() {})
		if err != nil {
			return false, err
		}
		defer func() {
			time.Sleep(time.Duration(k.random.Int64N(int64(limit) / 2)))
			_ = other.cmd.Process.Kill()
			_ = other.wait() // killed, or it found the repository locked
		}()
	}
	select {
	case <-r.done:
		k.took[w.name] = time.Since(begun)
	case <-time.After(delay):
		killed = r.cmd.Process.Kill() == nil
	}
	if err := r.wait(); err != nil && !killed {
		return false, err
	}
	if !killed {
		k.lived++
	}
	if tag != "" && acknowledged.Load() {
		k.there = append(k.there, tag)
	}
	return killed, nil
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
