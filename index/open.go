package index

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// Margin is how much room, in bytes, must be free on the disk for the index to be written. It is what Badger may need
// for the work that a write sets off behind it.
const Margin = 256 << 20

// closeRoom is what must be free to close the database: its last table is written then.
const closeRoom = 4 * memTableSize

// smallIndex is how many bytes on disk are so few that the checksums of all tables are read at every Open.
const smallIndex = 32 << 20

// verifyEvery is how often, in a larger index, they are read although it was closed properly.
const verifyEvery = 7 * 24 * time.Hour

// Open takes the first free slot in dir, a folder that it makes. Damage is no error: the slot starts empty then, and
// Known says so. A disk without room is none either: the slot is read, or else memory serves, and Healthy says why. Errors
// are left for a folder that cannot be used, and for too many processes; a caller can go on with Memory then.
func Open(dir string, o Options) (*Index, error) {
	logf := o.Logf
	if logf == nil {
		logf = func(string, ...any) {}
	}
	problem := errBusy
	for n := range slots {
		x, err := openSlot(filepath.Join(dir, strconv.Itoa(n)), logf)
		if err == nil {
			return x, nil
		}
		if !errors.Is(err, errBusy) {
			problem = err
		}
	}
	problem = fmt.Errorf("opening the index in %s: %w; VARVE_CACHE_DIR can name another folder", dir, problem)
	if errors.Is(problem, syscall.ENOSPC) {
		return Memory(problem), nil
	}
	return nil, problem
}

func openSlot(dir string, logf func(string, ...any)) (*Index, error) {
	s, err := takeSlot(dir)
	if err != nil {
		return nil, err
	}
	x := &Index{logf: logf, slot: s}
	if err := x.start(); err != nil {
		s.lock.Close()
		return nil, err
	}
	return x, nil
}

// start opens what the slot's state names, or a new generation. Called before x is shared, or with write and mu held.
func (x *Index) start() error {
	x.empty()
	x.db, x.stopped = nil, nil
	st := x.slot.state
	if err := x.slot.roomFor(Margin); err != nil {
		x.stopped = err
		// Opened for writing, Badger would die on a full disk. A closed database can be read all the same.
		if st.Left == closed {
			if err := x.openGeneration(st, true); err != nil {
				x.logf("the index cannot be read: %v", err)
				x.slot.set(st) // Windows has no such reading; it is still closed
			}
		}
		return nil
	}
	switch st.Left {
	case open, closed, opening:
		err := x.openGeneration(st, false)
		if err == nil {
			x.slot.sweep()
			return nil
		}
		x.logf("the index is replaced by an empty one: %v", err)
	case again:
		x.logf("the index is replaced by an empty one: the last two processes that opened it died of it")
	}
	if err := x.openGeneration(x.slot.fresh(), false); err != nil {
		return err
	}
	x.slot.sweep()
	return nil
}

// openGeneration opens a database, checks it as its state demands, and takes its contents into memory.
func (x *Index) openGeneration(st state, readOnly bool) (err error) {
	left := st
	verify := st.Left != closed || time.Since(st.Verified).Abs() > verifyEvery || x.slot.size() <= smallIndex
	st.Left = opening
	if left.Left == opening {
		st.Left = again
	}
	if err := x.slot.set(st); err != nil {
		return err
	}
	// The log function holds x, and with it the slot's lock, for as long as Badger's goroutines run.
	logf := func(format string, args ...any) { x.logf(format, args...) }
	db, err := openDatabase(x.slot.generation(st.Generation), verify, readOnly, logf)
	if err != nil {
		return fmt.Errorf("generation %d: %w", st.Generation, err)
	}
	defer func() {
		if err != nil {
			db.close()
			x.empty()
		}
	}()
	db.damaged = func(what string) {
		if !x.damaged.Swap(true) {
			x.logf("the index is damaged and will be checked when it is opened next: %s", what)
		}
	}
	if err := x.load(db, left); err != nil {
		return fmt.Errorf("generation %d: %w", st.Generation, err)
	}
	if verify {
		st.Verified = time.Now()
	}
	st.Left = open
	if readOnly {
		st = left
	}
	if err := x.slot.set(st); err != nil {
		return err
	}
	x.db = db
	x.damaged.Store(false)
	return nil
}

// load reads the records of a database and holds them against its entries if it was not closed.
func (x *Index) load(db *database, left state) error {
	last, err := db.last()
	if err != nil {
		return err
	}
	c, err := db.contents()
	if err != nil {
		return err
	}
	if left.Left != closed {
		if err := db.check(left.Checked, c.seals); err != nil {
			return err
		}
	}
	for n, s := range c.seals {
		x.packs[n] = &pack{Pack: s.Pack, count: s.count, gone: c.gone[s.ID]}
		x.ordinals[s.ID] = n
	}
	for root, version := range c.trusted {
		if version > c.dropped {
			x.trusted[root] = struct{}{}
		}
	}
	x.next = last + 1
	return nil
}

// Reset starts a new, empty generation and removes the old one. After an error nothing has changed.
func (x *Index) Reset() error {
	x.write.Lock()
	defer x.write.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return ErrClosed
	}
	if x.slot == nil || x.running {
		x.empty()
		return nil
	}
	// From here on the old generation does not count, whatever happens.
	if err := x.slot.set(x.slot.fresh()); err != nil {
		return err
	}
	if !x.closeDatabase() {
		x.empty()
		return nil
	}
	x.slot.sweep()
	if err := x.start(); err != nil {
		x.stopped = err
		x.logf("the index keeps new entries in memory: %v", err)
	}
	return nil
}

// closeDatabase closes the database and says whether the slot can be used again by this process.
// Called with write and mu held.
func (x *Index) closeDatabase() bool {
	db := x.db
	x.db = nil
	if db == nil {
		return true
	}
	if err := x.slot.roomFor(closeRoom); err != nil && !db.readOnly {
		// Left as a killed process would leave it; the logs have everything. Badger still runs, so the slot stays
		// locked until this process ends.
		x.stopped, x.running = err, true
		x.logf("the index is not closed: %v", err)
		return false
	}
	if err := db.close(); err != nil {
		x.damaged.Store(true)
		x.logf("closing the index: %v", err)
	}
	return true
}

// Close writes out what is in memory and frees the slot. Further lookups are misses. It returns nil: what could not be
// written is found missing, and read from the packs, by the next Open.
func (x *Index) Close() error {
	x.write.Lock()
	defer x.write.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil
	}
	x.closed = true
	x.kept, x.others = nil, nil
	if x.slot == nil || x.running || !x.closeDatabase() {
		return nil
	}
	st := x.slot.state
	switch {
	case x.damaged.Load() && st.Left == closed: // it was opened for reading only
		st.Left = open
	case !x.damaged.Load() && st.Left == open:
		st.Left, st.Checked = closed, x.next-1
	}
	if st != x.slot.state {
		if err := x.slot.set(st); err != nil {
			x.logf("closing the index: %v", err)
		}
	}
	if err := x.slot.lock.Close(); err != nil {
		x.logf("closing the index: %v", err)
	}
	return nil
}
