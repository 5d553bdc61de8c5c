// Package index knows where each chunk rests: chunk id → place in a pack.
//
// It is a cache. The packs of the repository describe themselves, so an index that is lost, stale or damaged costs
// the time to read their directories again and nothing else. It never makes a backup fail: what Badger (the database
// under it) cannot take is kept in memory for the rest of the process, and Healthy says why.
//
// # On disk
//
//	DIR/0, DIR/1, …    slots: complete, independent copies. A process owns the first slot that no other holds.
//	  LOCK             flock(2) of the owner (LockFileEx on Windows); left in place
//	  CURRENT          one JSON object, replaced atomically: which generation counts, and how it was left (slot.go)
//	  g1/, g2/, …      generations, each one Badger database. Only the one in CURRENT counts; others are removed
//
// A generation is never repaired. When it cannot be opened, when two processes in a row died while opening it, or when its
// seals do not hold, a new and empty one takes its place. (One may just have been killed, and only the index may know what is
// in a damaged pack.)
//
// # In Badger
//
// Badger runs in managed mode: we number the commits 1, 2, 3, … and the number is the version of every key in it.
// A pack is one number, its ordinal. All versions are kept and no key is ever deleted (deleted keys have come back in
// Badger): a chunk that lies in two packs has two versions, and when one of the packs goes the other still answers.
//
//	key                       value
//	0x01 ‖ chunk id           offset u32 | stored u24 | at u24 | length u24 | check u24         version = ordinal
//	0x02 ‖ 's' ‖ pack id      size u64 | kind u8 | salt 32 | count u32 | xor 32 | crc u32       version = ordinal
//	0x02 ‖ 'g' ‖ pack id      1 gone, 0 here again | crc u32
//	0x02 ‖ 't' ‖ root id      trusted | crc u32
//	0x02 ‖ 'd'                all trust up to this version is dropped | crc u32
//
// Numbers are little-endian. crc is CRC-32C of key, version and the value before it; check is its low 24 bits, so that
// a flipped bit of an entry is a miss. The seal ('s') is written after all entries of its pack were accepted: it counts
// the entries (distinct ids) and XORs their ids. A pack without its seal was not ingested.
//
// # Crashes
//
// Badger's log loses a suffix at worst when the process dies, and seals come after entries, so a seal that is there
// proves its entries. After a power cut, or with a flipped bit in a log, that is no longer so. Therefore an index that
// was not closed is checked when it is opened: tables by checksum, and every entry since the last proper close is
// counted against the seals. One mismatch and the generation is replaced.
//
// A full disk kills a process that uses Badger (it writes through mmap, and the kernel answers with SIGBUS). Free space
// is looked at before each write; below Margin the index stops writing to Badger for good and keeps new entries in
// memory. What stays possible is that another writer eats the whole margin during the seconds of one compaction.
package index

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// ID names a chunk, a pack or a root: 32 bytes of BLAKE3.
type ID = [32]byte

// Pack is what a reader must know of a pack before it reads a frame of it.
type Pack struct {
	ID   ID
	Size int64 // bytes of the whole pack
	Kind byte  // as the caller wants it
	Salt [32]byte
}

// Entry says where in its pack one chunk lies. Stored, At and Length are below 16 MiB.
type Entry struct {
	ID     ID
	Offset uint32 // of the sealed frame in the pack, bytes
	Stored uint32 // sealed bytes of the frame
	At     uint32 // of the chunk in the decoded frame, bytes
	Length uint32 // plain bytes of the chunk
}

// Place is an Entry as found: Pack is the ordinal to give to Index.Pack, valid until Reset or Close.
type Place struct {
	Pack                       uint32
	Offset, Stored, At, Length uint32
	Condemned                  bool // its pack can be read, but is about to go: see SetCondemned
}

// Options of Open.
type Options struct {
	Logf func(format string, args ...any) // what a person may want to know; nil: nothing is logged
}

// Stats are counts for people; they walk the folder, so do not ask in a loop.
type Stats struct {
	Chunks     int64 // entries in live packs (a chunk in two packs counts twice)
	DeadChunks int64 // entries in packs that are gone: Reset and a new ingestion would free them
	Packs      int   // live packs
	KeptPacks  int   // of them, those kept in memory because Badger takes no more writes
	Bytes      int64 // on disk, of this process's slot
}

// ErrClosed is returned for changes to an index after Close.
var ErrClosed = errors.New("the index is closed")

// pack is what the index holds in memory of each sealed pack.
type pack struct {
	Pack
	count uint32
	gone  bool
	kept  bool // its entries are in Index.kept, not in Badger

	condemned bool
}

// Index answers where chunks are. All methods may be called concurrently.
type Index struct {
	logf func(string, ...any)

	write sync.Mutex // held by whoever changes anything; taken before mu
	slot  *slot      // nil: the index lives in memory alone
	next  uint32     // number of the next commit

	mu       sync.RWMutex
	db       *database // nil: none could be used
	closed   bool
	running  bool  // a database could not be closed and keeps the slot until the process ends
	stopped  error // why nothing is written to db any more; nil when it is
	packs    map[uint32]*pack
	ordinals map[ID]uint32
	trusted  map[ID]struct{}
	kept     map[ID]Place   // entries that Badger did not take
	others   map[ID][]Place // further places of ids in kept

	condemned map[ID]struct{} // see SetCondemned; not all of them need be known here

	damaged atomic.Bool // a read or a write failed: the next Open shall look closely
}

// Memory returns an index without a disk, for when Open failed or no cache is wanted. Healthy returns reason.
func Memory(reason error) *Index {
	x := &Index{logf: func(string, ...any) {}}
	x.empty()
	x.stopped = reason
	return x
}

// empty forgets everything that is held in memory.
func (x *Index) empty() {
	x.next = 1
	x.packs = make(map[uint32]*pack)
	x.ordinals = make(map[ID]uint32)
	x.trusted = make(map[ID]struct{})
	x.kept, x.others = nil, nil
}

// Known returns the live packs and their ordinals: those whose every entry was taken in. The map is the caller's.
func (x *Index) Known() map[ID]uint32 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	known := make(map[ID]uint32, len(x.packs))
	for n, p := range x.packs {
		if !p.gone {
			known[p.ID] = n
		}
	}
	return known
}

// Pack returns the live pack of that ordinal.
func (x *Index) Pack(ordinal uint32) (Pack, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if p := x.packs[ordinal]; p != nil && !p.gone {
		return p.Pack, true
	}
	return Pack{}, false
}

// Lookup returns where a chunk is. Only live packs answer, condemned ones last. An entry that is damaged is a miss, so a
// miss means "not known here", and a hit is advice: its reader authenticates what it finds there.
func (x *Index) Lookup(id ID) (Place, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	kept, found := Place{}, false
	if len(x.kept) != 0 {
		if kept, found = x.lookupKept(id); found && !kept.Condemned {
			return kept, true
		}
	}
	if x.db != nil {
		if place, ok := x.db.find(id, x.packs); ok && !(found && place.Condemned) {
			return place, true
		}
	}
	return kept, found
}

// better reports whether a place in pack p is to be preferred to what was found so far.
func (p *pack) better(found bool, soFar Place) bool {
	return p != nil && !p.gone && (!found || soFar.Condemned && !p.condemned)
}

func (x *Index) lookupKept(id ID) (best Place, found bool) {
	place, ok := x.kept[id]
	if !ok {
		return Place{}, false
	}
	take := func(place Place) {
		if p := x.packs[place.Pack]; p.better(found, best) {
			best, found = place, true
			best.Condemned = p.condemned
		}
	}
	take(place)
	for _, place := range x.others[id] {
		take(place)
	}
	return best, found
}

// Add takes in a pack: after it returns nil its chunks are found. Adding a known pack again changes nothing, or brings
// it back when it was gone. An error means that the arguments are wrong or the index is closed; a database that cannot
// be written is no error (see Healthy). entries is not kept.
func (x *Index) Add(p Pack, entries []Entry) error {
	for _, e := range entries {
		if e.Stored > max24 || e.At > max24 || e.Length > max24 {
			return fmt.Errorf("adding pack %x: chunk %x: stored %d, at %d, length %d: 16 MiB and more cannot be indexed",
				p.ID, e.ID, e.Stored, e.At, e.Length)
		}
	}
	x.write.Lock()
	defer x.write.Unlock()
	if x.closed {
		return ErrClosed
	}
	if n, known := x.ordinals[p.ID]; known {
		if x.packs[n].gone {
			x.mark(nil, []uint32{n})
		}
		return nil
	}
	entries, seal := sealOf(p, entries)
	n := x.number()
	stored := x.commit("adding a pack", func(db *database) error { return db.add(n, seal, entries) })
	x.mu.Lock()
	defer x.mu.Unlock()
	_, condemned := x.condemned[p.ID]
	x.packs[n] = &pack{Pack: p, count: seal.count, kept: !stored, condemned: condemned}
	x.ordinals[p.ID] = n
	if !stored {
		x.keep(n, entries)
	}
	return nil
}

// keep holds entries in memory, about 100 bytes each. Called with mu held.
func (x *Index) keep(n uint32, entries []Entry) {
	if x.kept == nil {
		x.kept, x.others = make(map[ID]Place), make(map[ID][]Place)
	}
	for _, e := range entries {
		place := Place{Pack: n, Offset: e.Offset, Stored: e.Stored, At: e.At, Length: e.Length}
		if _, twice := x.kept[e.ID]; twice {
			x.others[e.ID] = append(x.others[e.ID], place)
		} else {
			x.kept[e.ID] = place
		}
	}
}

// number gives out the next commit number. Called with write held.
func (x *Index) number() uint32 {
	n := x.next
	x.next++
	return n
}

// commit runs one write to the database if it still takes any, and says whether it was done. The first failure, or a
// disk without room, ends writing for good: what a failing database did after that would not be known.
// Called with write held.
func (x *Index) commit(doing string, f func(*database) error) bool {
	if x.db == nil || x.stopped != nil {
		return false
	}
	err := x.slot.roomFor(Margin)
	if err == nil {
		if err = f(x.db); err == nil {
			return true
		}
		x.damaged.Store(true)
	}
	err = fmt.Errorf("%s: %w", doing, err)
	x.logf("the index keeps new entries in memory: %v", err)
	x.mu.Lock()
	x.stopped = err
	x.mu.Unlock()
	return false
}

// SetLive asks of every pack whether it still exists. Those that do not are gone from now on, also for later
// processes, and their chunks are misses; one that exists again answers again. It returns how many have newly gone;
// if any, no root is trusted any more.
func (x *Index) SetLive(exists func(ID) bool) (gone int) {
	x.write.Lock()
	defer x.write.Unlock()
	if x.closed {
		return 0
	}
	var left, back []uint32
	for n, p := range x.packs {
		if here := exists(p.ID); here == p.gone {
			if here {
				back = append(back, n)
			} else {
				left = append(left, n)
			}
		}
	}
	x.mark(left, back)
	return len(left)
}

// SetCondemned says which packs are about to go. What is in them can still be read, but nothing new may rely on it: the
// places say so, and as long as one of the packs is here no root is trusted. It is not remembered on disk; packs is kept.
func (x *Index) SetCondemned(packs map[ID]struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.condemned = packs
	for _, p := range x.packs {
		_, p.condemned = packs[p.ID]
	}
}

// mark changes which packs are gone. Called with write held.
func (x *Index) mark(left, back []uint32) {
	if len(left)+len(back) == 0 {
		return
	}
	x.mu.Lock()
	for _, n := range left {
		x.packs[n].gone = true
	}
	for _, n := range back {
		x.packs[n].gone = false
	}
	if len(left) > 0 {
		clear(x.trusted)
	}
	x.mu.Unlock()
	n := x.number()
	x.commit("remembering which packs are gone", func(db *database) error {
		// Trust goes first: were the rest lost, the next SetLive would find the same packs gone once more.
		if len(left) > 0 {
			if err := db.put(n, record{key: dropKey()}); err != nil {
				return err
			}
		}
		var records []record
		for _, ordinal := range left {
			records = append(records, record{goneKey(x.packs[ordinal].ID), []byte{1}})
		}
		for _, ordinal := range back {
			records = append(records, record{goneKey(x.packs[ordinal].ID), []byte{0}})
		}
		return db.put(n, records...)
	})
}

// Trusted says whether this root was seen complete, no pack has gone since, and none is condemned.
func (x *Index) Trusted(root ID) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for id := range x.condemned {
		if n, known := x.ordinals[id]; known && !x.packs[n].gone {
			return false
		}
	}
	_, ok := x.trusted[root]
	return ok
}

// Trust remembers that everything below these roots was seen in live packs.
func (x *Index) Trust(roots ...ID) error {
	x.write.Lock()
	defer x.write.Unlock()
	if x.closed {
		return ErrClosed
	}
	var records []record
	x.mu.Lock()
	for _, root := range roots {
		if _, known := x.trusted[root]; !known {
			x.trusted[root] = struct{}{}
			records = append(records, record{key: trustKey(root)})
		}
	}
	x.mu.Unlock()
	if len(records) > 0 {
		n := x.number()
		x.commit("remembering trust", func(db *database) error { return db.put(n, records...) })
	}
	return nil
}

// Healthy returns nil, or why nothing more is written to disk: lookups work, and new entries are kept in memory until
// the process ends.
func (x *Index) Healthy() error {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.stopped
}

// Stats counts.
func (x *Index) Stats() Stats {
	x.mu.RLock()
	defer x.mu.RUnlock()
	var s Stats
	for _, p := range x.packs {
		if p.gone {
			s.DeadChunks += int64(p.count)
			continue
		}
		s.Chunks += int64(p.count)
		s.Packs++
		if p.kept {
			s.KeptPacks++
		}
	}
	if x.slot != nil {
		s.Bytes = x.slot.size()
	}
	return s
}
