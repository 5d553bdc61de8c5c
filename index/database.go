package index

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"strings"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

const memTableSize = 16 << 20

// database is one generation, open.
type database struct {
	badger  *badger.DB
	read    *badger.Txn // sees every version; shared by all lookups
	damaged func(what string)

	readOnly bool
}

// settings of Badger for a cache: bounded memory, no fsync per write, nothing compressed (ids do not shrink, and
// Badger's checksum errors are panics otherwise), values inline (the value log stays empty), every version kept.
// Checksums of tables are either verified when they are opened or not at all: verified while reading, Badger reports a
// damaged block as "no such key".
func settings(dir string, verify bool, logf func(string, ...any)) badger.Options {
	o := badger.DefaultOptions(dir)
	o.SyncWrites = false
	o.NumVersionsToKeep = math.MaxInt
	o.DetectConflicts = false
	o.Compression = options.None
	o.BlockCacheSize = 0
	o.IndexCacheSize = 32 << 20 // a bound, should Badger ever use it: without encryption it reads table indexes in the mapped files
	o.ChecksumVerificationMode = options.NoVerification
	if verify {
		o.ChecksumVerificationMode = options.OnTableRead
	}
	o.ValueLogFileSize = 16 << 20
	o.MemTableSize = memTableSize
	o.NumMemtables = 2
	o.NumCompactors = 2
	o.NumLevelZeroTables = 5
	o.MetricsEnabled = false
	o.Logger = badgerLog{logf}
	return o
}

// badgerLog passes on what Badger complains about; its progress reports interest nobody.
type badgerLog struct{ logf func(string, ...any) }

func (l badgerLog) Errorf(f string, a ...any) {
	l.logf("index database: %s", strings.TrimSpace(fmt.Sprintf(f, a...)))
}
func (l badgerLog) Warningf(f string, a ...any) { l.Errorf(f, a...) }
func (l badgerLog) Infof(string, ...any)        {}
func (l badgerLog) Debugf(string, ...any)       {}

// guard turns a panic of Badger (it has some for damaged tables) and a fault in its mapped files (a truncated file, an
// unreadable sector) on this goroutine into an error.
func guard(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: Badger panicked: %v", errDamaged, r)
	}
}

// openDatabase opens a generation, new when its folder does not exist. readOnly leaves the files as they are.
func openDatabase(dir string, verify, readOnly bool, logf func(string, ...any)) (d *database, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer guard(&err)
	o := settings(dir, verify, logf)
	o.ReadOnly = readOnly
	db, err := badger.OpenManaged(o)
	if err != nil && strings.Contains(err.Error(), "Create a new file") {
		// A process that was killed between creating a log file and sizing it leaves it empty. The failed attempt
		// has given it its size, so the second one succeeds.
		db, err = badger.OpenManaged(o)
	}
	if err != nil {
		return nil, err
	}
	return &database{badger: db, read: db.NewTransactionAt(math.MaxUint64, false), readOnly: readOnly}, nil
}

// last returns the highest commit number in the database, also of commits that did not complete.
func (d *database) last() (uint32, error) {
	// A version beyond this was never given out: someone else's bits.
	const most = math.MaxUint32 / 2
	if n := d.badger.MaxVersion(); n <= most {
		return uint32(n), nil
	}
	return 0, fmt.Errorf("%w: commit number %d", errDamaged, d.badger.MaxVersion())
}

// contents reads all records.
func (d *database) contents() (c contents, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer guard(&err)
	c = contents{seals: make(map[uint32]seal), gone: make(map[ID]bool), trusted: make(map[ID]uint64)}
	it := d.read.NewIterator(badger.IteratorOptions{Prefix: []byte{recordPrefix}})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		err := item.Value(func(stored []byte) error { return c.read(item.Key(), item.Version(), stored) })
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

// check counts every entry of the packs after ordinal since against their seals.
func (d *database) check(since uint32, seals map[uint32]seal) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer guard(&err)
	type tally struct {
		count uint32
		xor   ID
	}
	tallies := make(map[uint32]*tally)
	it := d.read.NewIterator(badger.IteratorOptions{
		Prefix: []byte{chunkPrefix}, AllVersions: true, SinceTs: uint64(since),
	})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		item := it.Item()
		key, version := item.Key(), item.Version()
		err := item.Value(func(value []byte) error {
			place, ok := parseEntry(value, key, version)
			if !ok || len(key) != chunkKeys {
				return fmt.Errorf("%w: entry %x", errDamaged, key)
			}
			t := tallies[place.Pack]
			if t == nil {
				t = new(tally)
				tallies[place.Pack] = t
			}
			t.count++
			xorInto(&t.xor, (*ID)(key[1:]))
			return nil
		})
		if err != nil {
			return err
		}
	}
	for n, s := range seals {
		if n <= since {
			continue
		}
		t := tallies[n]
		if t == nil {
			t = new(tally)
		}
		if t.count != s.count || t.xor != s.xor {
			return fmt.Errorf("%w: pack %x was sealed with %d entries, %d are there", errDamaged, s.ID, s.count, t.count)
		}
	}
	return nil
}

// find looks a chunk up among the live packs.
func (d *database) find(id ID, packs map[uint32]*pack) (place Place, found bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			d.damaged(fmt.Sprintf("looking up %x: %v", id, r))
			place, found = Place{}, false
		}
	}()
	key := make([]byte, chunkKeys)
	putChunkKey(key, &id)
	item, err := d.read.Get(key)
	if err != nil {
		if !errors.Is(err, badger.ErrKeyNotFound) {
			d.damaged(fmt.Sprintf("looking up %x: %v", id, err))
		}
		return Place{}, false
	}
	if place, found = d.place(item, key, packs); found && !place.Condemned {
		return place, true
	}
	// The newest version is of a pack that is gone, condemned or not yet sealed: one of the older ones may do.
	it := d.read.NewKeyIterator(key, badger.IteratorOptions{})
	defer it.Close()
	for it.Rewind(); it.Valid(); it.Next() {
		if packs[uint32(it.Item().Version())].better(found, place) {
			if other, ok := d.place(it.Item(), key, packs); ok {
				place, found = other, true
			}
		}
	}
	return place, found
}

// place reads one version of a chunk's entry; false when its pack is not live.
func (d *database) place(item *badger.Item, key []byte, packs map[uint32]*pack) (place Place, live bool) {
	version := item.Version()
	p := packs[uint32(version)]
	if p == nil || p.gone {
		return Place{}, false
	}
	err := item.Value(func(value []byte) error {
		place, live = parseEntry(value, key, version)
		return nil
	})
	if err != nil || !live {
		d.damaged(fmt.Sprintf("entry of chunk %x", key[1:]))
		return Place{}, false
	}
	place.Condemned = p.condemned
	return place, true
}

// add writes the entries of a pack and, when Badger has taken them all, its seal.
func (d *database) add(n uint32, s seal, entries []Entry) error {
	if err := d.putEntries(n, entries); err != nil {
		return err
	}
	return d.put(n, record{sealKey(s.ID), s.encode()})
}

// putEntries writes entries.
func (d *database) putEntries(n uint32, entries []Entry) (err error) {
	defer guard(&err)
	batch := d.badger.NewWriteBatchAt(uint64(n))
	defer batch.Cancel()
	const size = chunkKeys + entrySize
	buf := make([]byte, size*len(entries)) // Badger keeps keys and values until they are written
	for i := range entries {
		b := buf[i*size : (i+1)*size : (i+1)*size]
		key, value := b[:chunkKeys:chunkKeys], b[chunkKeys:]
		putChunkKey(key, &entries[i].ID)
		putEntry(value, key, uint64(n), &entries[i])
		if err := batch.Set(key, value); err != nil {
			return err
		}
	}
	return batch.Flush()
}

// put writes records.
func (d *database) put(n uint32, records ...record) (err error) {
	defer guard(&err)
	batch := d.badger.NewWriteBatchAt(uint64(n))
	defer batch.Cancel()
	for _, r := range records {
		if err := batch.Set(r.key, r.sealed(uint64(n))); err != nil {
			return err
		}
	}
	return batch.Flush()
}

// close writes out what is in memory.
func (d *database) close() (err error) {
	defer guard(&err)
	d.read.Discard()
	return d.badger.Close()
}
