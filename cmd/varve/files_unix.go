//go:build unix

package main

import "syscall"

// restrictFiles keeps what this process makes, caches and restored disks among it, from other users.
func restrictFiles() { syscall.Umask(0o077) }
