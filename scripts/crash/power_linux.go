package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// power records what the program does to a disk with a filesystem, and looks at states of that disk after a power cut.
func power(kind string, states int, varve, folder string, seed uint64) (err error) {
	fs, known := filesystems[kind]
	if !known {
		return fmt.Errorf("the filesystem is ext4, xfs or btrfs, not %q", kind)
	}
	shelf, err := newShelf(filepath.Join(folder, "disks"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shelf.server.Unmount()) }()
	random := rand.New(rand.NewPCG(seed, 0))
	s, cuts, err := record(kind, fs, shelf, varve, folder, random)
	if err != nil {
		return err
	}
	return try(kind, fs, shelf, s, cuts, states, seed, random)
}

// record lets the program work on a filesystem and returns the log of its disk.
func record(kind string, fs filesystem, shelf *shelf, varve, folder string, random *rand.Rand) (*session, *cuts, error) {
	device, path := shelf.add(fs.size, pages{})
	defer shelf.remove(path)
	if err := fs.format(path); err != nil {
		return nil, nil, err
	}
	s := &session{varve: varve, folder: folder, mount: filepath.Join(folder, "mount"), device: device}
	var tags []string
	tags, s.days = newDays(6, random)
	before := device.content()
	device.record()
	if err := mount(kind, path, s.mount); err != nil {
		return nil, nil, err
	}
	err := s.live(tags)
	log := slices.Clone(device.log) // what unmounting writes is no part of it
	if err := errors.Join(err, unmount(s.mount)); err != nil {
		return nil, nil, err
	}
	return s, &cuts{log: log, sure: before}, nil
}

// try makes the states, in the order of their moments, and looks at each.
func try(kind string, fs filesystem, shelf *shelf, s *session, cuts *cuts, states int, seed uint64, random *rand.Rand) error {
	begun := time.Now()
	moments := make([]int, states)
	for i := range moments {
		moments[i] = random.IntN(len(cuts.log) + 1)
		for i%2 == 0 && moments[i] < len(cuts.log) && cuts.log[moments[i]].data != nil {
			moments[i]++ // half of them right before a flush, when most is at stake
		}
	}
	slices.Sort(moments)
	ctx := context.Background()
	bad, restored, promises, pending, continued := 0, 0, 0, 0, 0
	for i, n := range moments {
		keep, tear := []float64{0, 0.1, 0.5, 0.5, 0.9, 1}[random.IntN(6)], []float64{0, 0.2}[random.IntN(2)]
		content, unflushed := cuts.at(n, random, keep, tear)
		p := s.promise(n)
		promises += len(p.tags)
		pending += unflushed
		_, path := shelf.add(fs.size, content)
		err := mount(kind, path, s.mount)
		if err == nil {
			var tags []string
			tags, err = s.judge(ctx, p)
			restored += len(tags)
			if err == nil && i%20 == 7 {
				continued++
				err = s.goOn(p)
			}
			err = errors.Join(err, unmount(s.mount))
		}
		shelf.remove(path)
		if err != nil {
			bad++
			fmt.Fprintf(os.Stderr, "%s, seed %d, state %d: power cut after %d of %d changes, during %s; %.1f of %d unflushed writes kept, %.1f of them torn:\n%v\n",
				kind, seed, i, n, len(cuts.log), p.doing, keep, unflushed, tear, err)
			if bad == 10 {
				states = i + 1
				break
			}
		}
	}
	flushes := 0
	for _, c := range cuts.log {
		if c.data == nil {
			flushes++
		}
	}
	fmt.Printf("%s: %d writes and %d flushes of a disk recorded; %d states after a power cut, %d unflushed writes in each; %d snapshots promised, %d restored equal; went on from %d; %d states with a loss (seed %d, %.0f s)\n",
		kind, len(cuts.log)-flushes, flushes, states, pending/max(1, states), promises, restored, continued, bad, seed, time.Since(begun).Seconds())
	if bad > 0 {
		return fmt.Errorf("%d of %d states have lost something", bad, states)
	}
	return nil
}
