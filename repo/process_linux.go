package repo

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
)

// machine identifies the boot of this system and the process table that we see: only where both are the same does a
// process id in a lease mean a process that we could find.
var machine = sync.OnceValue(func() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	table, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + table
})

// processStart returns when a process began, in clock ticks since the boot, so that a process id that was given to
// another process is not taken for the first. It is empty when there is no such process.
func processStart(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field is the program's name in parentheses and may hold anything; the start time is field 22 (proc(5)).
	_, rest, found := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !found || len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// processGone reports that the process of a lease has certainly ended.
func processGone(pid int, started string) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	now := processStart(pid)
	return started != "" && now != "" && now != started
}
