// Command varve keeps many full images of disks in little space.
package main

import (
	"os"
	"runtime/debug"
)

func main() {
	restrictFiles()
	// Memory is bounded by what the packages keep; these two make the collector keep close to it.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(250 << 20)
	}
	os.Exit(run(os.Args[1:]))
}
