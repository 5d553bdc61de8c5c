package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// pageSize is what a disk writes as a whole or not at all, in bytes: ext4 cannot do with less, its superblock has two sectors.
const pageSize = 4096

// pages are the bytes of a disk, those that are not zero, by number of the page. A page is never changed once it is here:
// states of a disk share what is the same.
type pages map[int64]*[pageSize]byte

// write puts data at an offset. What it leaves of a page that is not in p comes from below.
func (p pages) write(data []byte, off int64, below pages) {
	for len(data) > 0 {
		n := min(len(data), pageSize-int(off%pageSize))
		old, there := p[off/pageSize]
		if !there {
			old = below[off/pageSize]
		}
		page := &[pageSize]byte{}
		if old != nil {
			*page = *old
		}
		copy(page[off%pageSize:], data[:n])
		if *page == ([pageSize]byte{}) {
			page = nil // it may hide one below
		}
		p[off/pageSize] = page
		data, off = data[n:], off+int64(n)
	}
}

// change is a write to a device, or a flush when data is nil: what was written before it is on the disk from then on.
type change struct {
	off  int64
	data []byte
}

// device is the content of a disk, as a file of a FUSE filesystem. A loop device makes a disk of it.
type device struct {
	fs.Inode
	size  int64
	below pages // as it was in the beginning: not changed

	mu        sync.Mutex
	above     pages // what was written
	recording bool
	log       []change
}

// position returns how many changes were recorded.
func (d *device) position() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.log)
}

// content returns what is on the device now.
func (d *device) content() pages {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := maps.Clone(d.below)
	maps.Copy(all, d.above)
	return all
}

// record begins to keep a log.
func (d *device) record() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recording = true
}

func (d *device) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, 0, 0
}

func (d *device) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size, out.Blocks = syscall.S_IFREG|0o600, uint64(d.size), uint64(d.size/512)
	return 0
}

func (d *device) Setattr(ctx context.Context, f fs.FileHandle, _ *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	return d.Getattr(ctx, f, out)
}

func (d *device) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	dest = dest[:max(0, min(int64(len(dest)), d.size-off))]
	clear(dest)
	for done := 0; done < len(dest); {
		at := off + int64(done)
		page, there := d.above[at/pageSize]
		if !there {
			page = d.below[at/pageSize]
		}
		n := min(len(dest)-done, pageSize-int(at%pageSize))
		if page != nil {
			copy(dest[done:done+n], page[at%pageSize:])
		}
		done += n
	}
	return fuse.ReadResultData(dest), 0
}

func (d *device) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off+int64(len(data)) > d.size {
		return 0, syscall.ENOSPC
	}
	d.above.write(data, off, d.below)
	if d.recording {
		d.log = append(d.log, change{off, append([]byte{}, data...)})
	}
	return uint32(len(data)), 0
}

func (d *device) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.recording {
		d.log = append(d.log, change{})
	}
	return 0
}

// shelf is the FUSE filesystem that has the devices as its files. Each has a file of its own, so that nothing that the
// system remembers of one is taken for another.
type shelf struct {
	folder string
	root   *fs.Inode
	server *fuse.Server
	made   int
}

func newShelf(folder string) (*shelf, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	s := &shelf{folder: folder, root: &fs.Inode{}}
	var err error
	s.server, err = fs.Mount(folder, s.root, &fs.Options{MountOptions: fuse.MountOptions{MaxWrite: 1 << 20, FsName: "powercut", DirectMount: true}})
	return s, err
}

// add makes a device of size bytes with that content and returns it with its path.
func (s *shelf) add(size int64, content pages) (*device, string) {
	d := &device{size: size, below: content, above: pages{}}
	s.made++
	name := fmt.Sprintf("disk%d", s.made)
	s.root.AddChild(name, s.root.NewPersistentInode(context.Background(), d, fs.StableAttr{Mode: syscall.S_IFREG}), true)
	return d, filepath.Join(s.folder, name)
}

// remove takes a device away.
func (s *shelf) remove(path string) {
	name := filepath.Base(path)
	s.root.RmChild(name)
	s.root.NotifyEntry(name)
}

// cuts makes, of a recorded log, states in which a disk may be found after a power cut: what was flushed is there, and
// of what was written since any part may be. Moments do not go back.
type cuts struct {
	log     []change
	sure    pages // what was flushed at done
	done    int   // changes in sure
	flushes int   // in sure
}

// at returns the disk after a power cut that comes when n changes have been recorded. Of the writes since the last flush
// each is kept with probability keep; tear of those that are kept are torn between two pages.
func (c *cuts) at(n int, random *rand.Rand, keep, tear float64) (content pages, pending int) {
	last := c.done
	for i := c.done; i < n; i++ {
		if c.log[i].data == nil {
			last = i + 1
		}
	}
	for _, change := range c.log[c.done:last] {
		if change.data == nil {
			c.flushes++
		} else {
			c.sure.write(change.data, change.off, nil)
		}
	}
	c.done = last
	content = maps.Clone(c.sure)
	for _, change := range c.log[last:n] {
		pending++
		if random.Float64() >= keep {
			continue
		}
		data := change.data
		if n := len(data) / pageSize; n > 1 && random.Float64() < tear {
			data = data[:pageSize*(1+random.IntN(n-1))]
		}
		content.write(data, change.off, nil)
	}
	return content, pending
}
