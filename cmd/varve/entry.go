package main

import (
	"fmt"
	"io/fs"
	"iter"
	"strings"
	"time"

	"varve/snapshot/catalogue"
)

// splitPath goes through the names of a path.
func splitPath(path string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for name := range strings.SplitSeq(path, "/") {
			if name != "" && !yield(name) {
				return
			}
		}
	}
}

// longEntry is a file for people, as ls -l shows it.
func longEntry(path string, e *catalogue.Entry) string {
	size := fmt.Sprint(e.Size)
	if e.Mode&fs.ModeDevice != 0 {
		size = fmt.Sprintf("%d, %d", e.Device>>32, e.Device&0xffffffff)
	}
	if e.Mode.IsDir() {
		size = "-"
	}
	line := fmt.Sprintf("%s %5d %5d %12s  %s  %s", e.Mode, e.UID, e.GID, size, stampOr(e.Modified), path)
	if e.Mode&fs.ModeSymlink != 0 {
		line += " -> " + e.Target
	}
	return line
}

// stampOr is a time for people, or a dash.
func stampOr(t time.Time) string {
	if t.IsZero() {
		return "-                  "
	}
	return stamp(t)
}

// typeName is the type of a file as restic names it.
func typeName(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "file"
	case mode.IsDir():
		return "dir"
	case mode&fs.ModeSymlink != 0:
		return "symlink"
	case mode&fs.ModeCharDevice != 0:
		return "chardev"
	case mode&fs.ModeDevice != 0:
		return "dev"
	case mode&fs.ModeNamedPipe != 0:
		return "fifo"
	case mode&fs.ModeSocket != 0:
		return "socket"
	}
	return "irregular"
}

// entryObject is a file for programs, with restic's names.
func entryObject(kind, path string, e *catalogue.Entry) map[string]any {
	if path == "" {
		path = "/"
	}
	o := map[string]any{"message_type": kind, "name": e.Name, "path": path, "type": typeName(e.Mode), "permissions": e.Mode.String(),
		"mode": uint32(e.Mode), "uid": e.UID, "gid": e.GID, "inode": uint64(e.Number)}
	if !e.Modified.IsZero() {
		o["mtime"] = e.Modified
	}
	if !e.Changed.IsZero() {
		o["ctime"] = e.Changed
	}
	if e.Mode.IsRegular() {
		o["size"] = e.Size
	}
	if e.Mode.IsDir() {
		o["files_below"], o["bytes_below"] = e.Files, e.Bytes
	}
	if e.Mode&fs.ModeSymlink != 0 {
		o["linktarget"] = e.Target
	}
	if e.Incomplete {
		o["incomplete"] = true
	}
	return o
}
