// Crash shows what a power cut, or kill -9, leaves of a repository.
//
//	crash power VARVE FOLDER STATES ext4|xfs|btrfs [SEED]
//	crash kill  VARVE FOLDER KILLS [SEED]
//
// It works in FOLDER with the program VARVE, prints one line, and exits with status 1 when anything was lost.
//
// power needs root, loop devices and FUSE. The program makes a repository, backs up, forgets, prunes and tags on a loop device
// over a file that keeps a log of every write and every flush. Then STATES states of the disk are made out of the log, as a
// power cut at some moment may leave it: what was flushed is there; each write since then is there, or half of it is, or
// not. Each is mounted. What a command had acknowledged must be there and read back equal, and a check must find nothing.
// On one in twenty the program goes on from there.
//
// kill lets the program do the same, and kills it KILLS times at random moments. What it had acknowledged must be there, and
// it must go on from what it left, its index too. Repairs are killed as well: of what was damaged on purpose before, nothing
// that could be read may become unreadable, and the next run must make good what can be made good.
package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	usage := errors.New("usage: crash power VARVE FOLDER STATES ext4|xfs|btrfs [SEED], or crash kill VARVE FOLDER KILLS [SEED]")
	if len(args) < 4 {
		return usage
	}
	kind := args[0]
	varve, err := filepath.Abs(args[1])
	if err != nil {
		return err
	}
	folder, err := filepath.Abs(args[2])
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[3])
	if err != nil {
		return usage
	}
	args = args[4:]
	var filesystem string
	if kind == "power" && len(args) > 0 {
		filesystem, args = args[0], args[1:]
	}
	seed := rand.Uint64()
	if len(args) > 0 {
		if seed, err = strconv.ParseUint(args[0], 10, 64); err != nil {
			return usage
		}
	}
	switch {
	case kind == "power" && len(args) <= 1:
		return power(filesystem, n, varve, folder, seed)
	case kind == "kill" && len(args) <= 1:
		return kill(n, varve, folder, seed)
	}
	return usage
}
