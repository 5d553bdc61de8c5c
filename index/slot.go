package index

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// slots is how many processes can have an index of one repository on disk at the same time.
const slots = 16

// How the generation in CURRENT was left.
const (
	opening = "opening" // a process is opening it, or died while doing so, killed or of what it met: checked before use
	again   = "again"   // the next one is opening it, or died while doing so: never opened again
	open    = "open"    // a process uses it, or died while doing so: checked before use
	closed  = "closed"  // complete
)

// state is what CURRENT holds.
type state struct {
	Generation int    `json:"generation"`
	Left       string `json:"left"`
	// Checked is the commit number up to which the entries are known to be complete and on the disk.
	Checked uint32 `json:"checked"`
	// Verified is when the checksums of all tables were last read.
	Verified time.Time `json:"verified"`
}

// slot is a folder with one copy of the index, owned by this process.
type slot struct {
	dir   string
	lock  *flock.Flock
	state state
}

// errBusy says that another process holds the slot; a person sees it when that is so of all.
var errBusy = fmt.Errorf("%d processes use it already", slots)

// takeSlot locks one slot and reads its state.
func takeSlot(dir string) (*slot, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &slot{dir: dir, lock: flock.New(filepath.Join(dir, "LOCK"), flock.SetPermissions(0o600))}
	if locked, err := s.lock.TryLock(); err != nil {
		return nil, err
	} else if !locked {
		return nil, errBusy
	}
	s.read()
	return s, nil
}

// read takes the state from CURRENT. What cannot be read names no generation.
func (s *slot) read() {
	s.state = state{}
	data, err := os.ReadFile(filepath.Join(s.dir, "CURRENT"))
	if err != nil {
		return
	}
	var st state
	if json.Unmarshal(data, &st) == nil && st.Generation > 0 && st.Generation < math.MaxInt32 {
		s.state = st
	}
}

// set makes a state durable.
func (s *slot) set(st state) error {
	data, err := json.Marshal(st)
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(s.dir, "CURRENT"), append(data, '\n')); err != nil {
		return fmt.Errorf("writing the state of the index: %w", err)
	}
	s.state = st
	return nil
}

// replace writes a file as a whole: temporary name, write, sync, rename, sync the folder.
func replace(path string, data []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(path))
}

func (s *slot) generation(n int) string { return filepath.Join(s.dir, "g"+strconv.Itoa(n)) }

// generations lists the numbers of the generations that have a folder.
func (s *slot) generations() []int {
	names, _ := filepath.Glob(filepath.Join(s.dir, "g*"))
	var ns []int
	for _, name := range names {
		if n, err := strconv.Atoi(filepath.Base(name)[1:]); err == nil && n < math.MaxInt32 {
			ns = append(ns, n)
		}
	}
	return ns
}

// fresh returns the state of a generation whose folder does not exist yet.
func (s *slot) fresh() state {
	n := s.state.Generation
	for _, old := range s.generations() {
		n = max(n, old)
	}
	return state{Generation: n + 1, Verified: time.Now()}
}

// sweep removes all generations but the current one. What cannot be removed now is tried again by the next Open.
func (s *slot) sweep() {
	for _, n := range s.generations() {
		if n != s.state.Generation {
			os.RemoveAll(s.generation(n))
		}
	}
}

// size adds up what the files of the slot take on disk.
func (s *slot) size() (bytes int64) {
	filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // Badger may have removed it just now
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			bytes += allocated(info)
		}
		return nil
	})
	return bytes
}

// roomFor returns nil when that many bytes are free, or when nobody can tell.
func (s *slot) roomFor(bytes int64) error {
	n, err := freeSpace(s.dir)
	if err != nil || n >= bytes {
		return nil
	}
	return fmt.Errorf("%d MiB are free in %s and the index needs %d MiB (make room, or name another folder with VARVE_CACHE_DIR): %w",
		n>>20, s.dir, bytes>>20, syscall.ENOSPC)
}
