package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"varve/image"
	"varve/repo"
	"varve/snapshot"
)

// hexID is the full form of an id.
func hexID(id snapshot.ID) string { return hex.EncodeToString(id[:]) }

// shortID is the form of an id for people: enough to address it by.
func shortID(id snapshot.ID) string { return hexID(id)[:8] }

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

// checkDiskName reports why name cannot be the name of a disk in an address.
func checkDiskName(name string) error {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
		return fmt.Errorf("%q is not a name", name)
	}
	return nil
}

// uniqueNames makes names distinct: the second "disk.img" becomes "disk.img-2".
func uniqueNames(names []string) []string {
	taken := map[string]bool{}
	for _, name := range names {
		taken[name] = true
	}
	seen := map[string]bool{}
	unique := make([]string, len(names))
	for i, name := range names {
		if seen[name] {
			n := 2
			for taken[name+"-"+strconv.Itoa(n)] {
				n++
			}
			name += "-" + strconv.Itoa(n)
			taken[name] = true
		}
		seen[name] = true
		unique[i] = name
	}
	return unique
}

// outside reports an error when path is the repository's folder, or lies inside it.
func outside(path, repository string) error {
	p, err1 := resolve(path)
	r, err2 := resolve(repository)
	if err1 != nil || err2 != nil {
		return nil // what does not exist is told by who opens it
	}
	if p == r || strings.HasPrefix(p, strings.TrimSuffix(r, string(filepath.Separator))+string(filepath.Separator)) {
		return fmt.Errorf("%s is part of the repository itself", path)
	}
	return nil
}

// resolve returns the absolute path behind links, also of a file that is still to be made.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		if real, err = filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			real = filepath.Join(real, filepath.Base(path))
		}
	}
	return real, err
}

// writerPool lends writers to one disk after the other, so that many disks take no more memory than one.
type writerPool struct {
	make func() (*repo.Writer, error)

	mu   sync.Mutex
	all  []*repo.Writer
	used int // of the disk at hand
}

func (p *writerPool) next() (snapshot.Writer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.used == len(p.all) {
		w, err := p.make()
		if err != nil {
			return nil, err
		}
		p.all = append(p.all, w)
	}
	p.used++
	return p.all[p.used-1], nil
}

// maxBadWarnings is how many unreadable ranges of a disk are told one by one.
const maxBadWarnings = 10

// badRanges collects what could not be read of a disk.
type badRanges struct {
	mu     sync.Mutex
	ranges []snapshot.Range
}

func (b *badRanges) add(u *ui, disk string, r image.Bad) {
	b.mu.Lock()
	b.ranges = append(b.ranges, snapshot.Range{Offset: r.Offset, Length: r.Length})
	n := len(b.ranges)
	b.mu.Unlock()
	if n <= maxBadWarnings {
		u.warn("read", disk, fmt.Errorf("%d bytes at %d cannot be read: %s", r.Length, r.Offset, r.Err))
	}
}

// summarize tells how much there is beyond what add told.
func (b *badRanges) summarize(u *ui, disk string) {
	if n := len(b.ranges); n > maxBadWarnings {
		u.warn("read", disk, fmt.Errorf("and %d more ranges cannot be read; the snapshot lists them all", n-maxBadWarnings))
	}
}

// merged returns the ranges in order, those that touch as one.
func (b *badRanges) merged() []snapshot.Range {
	slices.SortFunc(b.ranges, func(x, y snapshot.Range) int { return cmp.Compare(x.Offset, y.Offset) })
	var merged []snapshot.Range
	for _, r := range b.ranges {
		if last := len(merged) - 1; last >= 0 && merged[last].End() >= r.Offset {
			merged[last].Length = max(merged[last].End(), r.End()) - merged[last].Offset
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// stdin returns standard input. A read that waits ends with ctx, which a plain read of a pipe would not.
func (u *ui) stdin(ctx context.Context) io.Reader {
	out, in := io.Pipe()
	go func() {
		// Hidden methods of the file would make the copy in small pieces.
		_, err := io.CopyBuffer(struct{ io.Writer }{in}, struct{ io.Reader }{u.in}, make([]byte, 1<<20))
		in.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { out.CloseWithError(errors.New("interrupted")) })
	return out
}
