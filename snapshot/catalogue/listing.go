package catalogue

import (
	"encoding/binary"

	"github.com/zeebo/blake3"
)

// Where the pages of a long listing end is chosen by the hashes of names, each on its own: a name that is added or removed
// changes the page that it is in, and whether that one ends with it; all others stay as they are. So do all that are not
// changed themselves when a file changes, however its entry's encoding grows. The same hash ends the index pages.
//
// A reader does not rely on any of this.
const (
	// entryWeight is what an entry counts beside the length of its name. Most are encoded in less.
	entryWeight = 48
	// onePage is the weight of the entries of a folder up to which its listing is one page.
	onePage = 32 << 10
	// meanPage is the weight at which a page of a longer listing ends on average.
	meanPage = 16 << 10
	// meanChildren is the number of children after which an index page ends on average.
	meanChildren = 256
	// fullPage is the length in bytes from which on a page ends in any case. What comes last is less than half of maxPage: a
	// name and a target.
	fullPage = maxPage / 2
)

// weight is what a name counts in the size of a listing.
func weight(name string) int { return entryWeight + len(name) }

// nameHash decides where pages end.
func nameHash(name string) uint64 {
	h := blake3.Sum256([]byte(name))
	return binary.LittleEndian.Uint64(h[:])
}

// endsPage reports whether a name with that hash ends its page of entries in a long listing, which one in meanPage/weight does.
func endsPage(hash uint64, name string) bool { return int(uint32(hash)%meanPage) < weight(name) }

// endsIndex reports whether a child with a last name of that hash ends its index page of that level.
func endsIndex(hash uint64, level int) bool {
	return level <= 4 && (hash>>(24+8*level))%meanChildren == 0
}

// listing makes the pages of one folder's listing.
type listing struct {
	save   func(page []byte) (ID, error)
	long   bool // it weighs more than onePage
	page   []byte
	before before
	levels []*index // [k]: the index page of level k+1 that is not finished
}

type index struct {
	page   []byte
	before []byte
	first  child
	count  int // children in page
	saved  int // finished pages of this level
}

// reset makes l ready for a folder whose names have that weight together. It keeps its buffers.
func (l *listing) reset(weight int) {
	l.long = weight > onePage
	l.page = l.page[:0]
	l.levels = l.levels[:0]
}

// add appends an entry, whose name comes after those before.
func (l *listing) add(e *Entry) error {
	if len(l.page) == 0 {
		l.page = append(l.page, entryPage)
		l.before = before{name: l.before.name[:0]}
	}
	l.page = appendEntry(l.page, &l.before, e)
	var hash uint64
	if l.long {
		hash = nameHash(e.Name)
	}
	if len(l.page) >= fullPage || l.long && endsPage(hash, e.Name) {
		return l.endPage(hash)
	}
	return nil
}

// endPage saves the page of entries, whose last name has that hash.
func (l *listing) endPage(hash uint64) error {
	id, err := l.save(l.page)
	if err != nil {
		return err
	}
	l.page = l.page[:0]
	return l.addChild(1, child{string(l.before.name), id}, hash)
}

// addChild appends a child to the index page of a level.
func (l *listing) addChild(level int, c child, hash uint64) error {
	if len(l.levels) < level {
		l.levels = append(l.levels, &index{})
	}
	x := l.levels[level-1]
	if x.count == 0 {
		x.page = append(x.page[:0], indexPage, byte(level))
		x.before = x.before[:0]
		x.first = c
	}
	x.page = appendChild(x.page, &x.before, c)
	x.count++
	if len(x.page) >= fullPage || endsIndex(hash, level) {
		return l.endIndex(level, hash)
	}
	return nil
}

// endIndex saves the index page of a level, whose last name has that hash.
func (l *listing) endIndex(level int, hash uint64) error {
	x := l.levels[level-1]
	id, err := l.save(x.page)
	if err != nil {
		return err
	}
	x.count = 0
	x.saved++
	return l.addChild(level+1, child{string(x.before), id}, hash)
}

// finish saves what is left and returns the id of the listing: zero when nothing was added.
func (l *listing) finish() (ID, error) {
	if len(l.page) > 0 {
		if len(l.levels) == 0 {
			return l.save(l.page)
		}
		if err := l.endPage(nameHash(string(l.before.name))); err != nil {
			return ID{}, err
		}
	}
	for level := 1; level <= len(l.levels); level++ {
		x := l.levels[level-1]
		if level == len(l.levels) && x.saved == 0 && x.count == 1 {
			return x.first.id, nil // all is below one page already
		}
		if x.count > 0 {
			if err := l.endIndex(level, nameHash(string(x.before))); err != nil {
				return ID{}, err
			}
		}
	}
	return ID{}, nil
}
