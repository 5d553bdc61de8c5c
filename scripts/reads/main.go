// Reads measures what a virtual disk on a snapshot would do: single blocks of 4 KiB at random places.
//
//	reads REPOSITORY CACHE FILE N
//
// It reads N blocks of the newest snapshot's only disk where FILE, to which it was restored, has data, compares each with
// FILE, and prints the seconds that reading from the repository took. The places are the same on every run. The password
// comes from VARVE_PASSWORD.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"varve/image"
	"varve/repo"
	"varve/repo/storage"
	"varve/snapshot"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "reads:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 4 {
		return errors.New("usage: reads REPOSITORY CACHE FILE N")
	}
	n, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	ctx := context.Background()
	st, err := storage.OpenLocal(args[0], false)
	if err != nil {
		return err
	}
	r, err := repo.Open(ctx, st, repo.Options{Password: []byte(os.Getenv("VARVE_PASSWORD")), CacheDir: args[1]})
	if err != nil {
		return err
	}
	defer r.Close()
	list, err := snapshot.List(ctx, r, func(error) {})
	if err != nil {
		return err
	}
	_, d, err := snapshot.FindDisk(list, "latest", snapshot.Filter{})
	if err != nil {
		return err
	}
	src, err := image.Open(args[2])
	if err != nil {
		return err
	}
	defer src.Close()
	ranges, err := src.Map(0, d.Size)
	if err != nil {
		return err
	}
	var blocks []int64
	for _, e := range ranges {
		for at := e.Offset; e.Kind == image.Data && at+snapshot.Block <= e.Offset+e.Length; at += snapshot.Block {
			blocks = append(blocks, at)
		}
	}
	if len(blocks) == 0 {
		return errors.New("the disk has no data")
	}
	random := rand.New(rand.NewPCG(4096, 60))
	reader := snapshot.NewReader(ctx, r, d)
	var got, want [snapshot.Block]byte
	var spent time.Duration
	for range n {
		at := blocks[random.IntN(len(blocks))]
		began := time.Now()
		if _, err := reader.ReadAt(got[:], at); err != nil {
			return err
		}
		spent += time.Since(began)
		if _, err := src.ReadAt(want[:], at); err != nil {
			return err
		}
		if !bytes.Equal(got[:], want[:]) {
			return fmt.Errorf("at %d the snapshot is not what the disk is", at)
		}
	}
	fmt.Printf("%.3f\n", spent.Seconds())
	return nil
}
