package snapshot

import (
	"context"
	"slices"

	"varve/chunker"
)

// Comparer compares blocks of a disk with those of chunks that were stored. It is for one goroutine at a time.
type Comparer interface {
	// Compare notes in same, for each block of data, whether it is the one that chunk id has there, from the chunk's block first on;
	// a block beyond the chunk's end is not. It returns the length of the chunk in bytes, or 0 when it does not know: same is of no
	// use then. An error says why the chunk cannot be relied on.
	Compare(ctx context.Context, id ID, first int, data []byte, same []bool) (length int, err error)

	// Holds reports whether data is what chunk id has from its block first on, where that can be told sooner than by hashing data. It
	// returns the length of the chunk in bytes, or 0 when it does not know.
	Holds(ctx context.Context, id ID, first int, data []byte) (holds bool, length int)
}

// A scan with CreateOptions.Parts stores of an extent of the parent's that has changed only the blocks that have:
//
//	parent   ├────────── chunk A ──────────┼─ chunk B ─┤          block     of the disk
//	disk     ├─ same ──┼─ new ─┼── same ───┼── same ───┤
//	extents  ├─ A 0-3 ─┼─  C  ─┼─ A 6-12 ──┼─────B─────┤          A 0-3     a part of chunk A, its blocks 0 to 3
//
// What is the same is found by comparing with chunk A, its blocks or digests of them that nobody can make collide, so nothing is
// taken for unchanged that is not. Rules keep the disk from falling to pieces; docs/decisions/parts.md has their figures:
//
//  1. An extent of which more than maxChanged blocks are others is new content, and cut by content.
//  2. So is one of a chunk of which the segment would use less than minUsed of its blocks afterwards: the rest of the chunk
//     cannot be pruned.
//  3. A MiB of the disk that would have more than maxExtents extents is cut afresh from there on.
//
// What is cut by content ends where an extent of the parent's begins that is still there, so that it stores nothing twice.
const (
	maxChanged = 0.75
	minUsed    = 0.25
	maxExtents = 160
)

// guide is what a scanner knows of the parent's extents of the segment.
type guide struct {
	extents []Extent
	marks   []mark     // one for each extent, and one for the end of the last
	at      int        // index of the extent at or after the position of the scan
	inUse   map[ID]int // blocks of each chunk that the segment uses; nil until something has changed
	afresh  int        // the parent's extents before are not used any more
	leftOut int        // where the last hole ended that was left out; -1 when there was none
}

// mark is what the scan notes beside an extent.
type mark struct {
	start   int // of the extent, in bytes
	verdict verdict
}

// verdict is whether the disk still holds what an extent of the parent's refers to.
type verdict byte

const (
	unknown verdict = iota
	changed
	same
)

func (g *guide) reset(parent []Extent) {
	g.extents, g.marks, g.at, g.inUse, g.afresh, g.leftOut = parent, g.marks[:0], 0, nil, 0, -1
	start := 0
	for i := range parent {
		g.marks = append(g.marks, mark{start: start})
		start += parent[i].Blocks * Block
	}
	g.marks = append(g.marks, mark{start: start})
}

// seek goes on to the extent at pos or the first one after it, and returns the one that starts at pos, nil when none does
// that is of use.
func (g *guide) seek(pos int) *Extent {
	for g.at < len(g.extents) && g.marks[g.at].start < pos {
		g.at++
	}
	if g.at == len(g.extents) || g.marks[g.at].start > pos || pos < g.afresh || g.extents[g.at].Kind.hole() {
		return nil
	}
	return &g.extents[g.at]
}

// rest returns what the parent has from pos on up to limit: an extent that begins there, or, right behind something that is left out,
// the end of one; whole reports whether it is all of one. Without one of use it has no blocks.
func (g *guide) rest(pos, limit int) (rest Extent, whole bool) {
	k := g.at
	if k == len(g.extents) || g.marks[k].start > pos {
		k--
	}
	if k < 0 || pos < g.afresh || g.extents[k].Kind.hole() || g.marks[k+1].start <= pos {
		return Extent{}, false
	}
	start, end := g.marks[k].start, min(g.marks[k+1].start, (limit+Block-1)/Block*Block)
	if start < pos && pos != g.leftOut {
		return Extent{}, false
	}
	rest = g.extents[k]
	if start == pos && end == g.marks[k+1].start {
		return rest, true
	}
	if rest.Kind == Chunk {
		rest.First = 0
	}
	rest.Kind, rest.Digest = Part, ID{}
	rest.First += (pos - start) / Block
	rest.Blocks = (end - pos) / Block
	return rest, false
}

// ends reports whether extent k of the parent ends before what is left out now, and, where something was left out behind it then, right
// there: a chunk that was cut off there says nothing of one that goes on.
func (s *scanner) ends(k int) bool {
	g := &s.guide
	end := min(g.marks[k+1].start, s.length)
	return end == s.limit || end < s.limit && (k+1 == len(g.extents) || !leftOut(g.extents[k+1].Kind))
}

// use changes how many blocks of a chunk the segment uses, as far as the scan has come, and returns the new number.
func (g *guide) use(id ID, change int) int {
	if g.inUse == nil {
		g.inUse = map[ID]int{}
		for i := range g.extents {
			if e := &g.extents[i]; !e.Kind.hole() {
				g.inUse[e.ID] += e.Blocks
			}
		}
	}
	g.inUse[id] += change
	return g.inUse[id]
}

// holds reports whether the disk holds extent k of the parent's. pos is where the scan is.
func (s *scanner) holds(k, pos int) (bool, error) {
	m := &s.guide.marks[k]
	if m.verdict == unknown {
		data, err := s.bytes(pos, min(s.guide.marks[k+1].start, s.length))
		if err != nil {
			return false, err
		}
		m.verdict = changed
		if s.recognised(&s.guide.extents[k], data[m.start-pos:]) {
			m.verdict = same
		}
	}
	return m.verdict == same, nil
}

// recognised reports whether data is what the parent's extent e refers to, and e can be used again: a chunk that the repository has
// lost can, as here are its bytes, and a part of one cannot.
func (s *scanner) recognised(e *Extent, data []byte) bool {
	if s.before != nil && s.o.ParentComplete {
		if holds, length := s.before.Holds(s.ctx, e.ID, e.First, data); length > 0 && e.fits(length, len(data)) == nil {
			return holds
		}
	}
	id := s.data.ID(data)
	if e.Kind == Chunk {
		return id == e.ID
	}
	return id == e.Digest && (s.o.ParentComplete || s.data.Has(e.ID))
}

// meeting returns where cutting by content from pos has to end: at the next extent of the parent's that the disk still
// holds, as far as one chunk can reach.
func (s *scanner) meeting(pos int) (int, error) {
	g := &s.guide
	if s.before == nil {
		return s.limit, nil
	}
	for k := g.at; k < len(g.extents) && g.marks[k].start < pos+s.o.Chunker.Max; k++ {
		start, end := g.marks[k].start, min(g.marks[k+1].start, s.length)
		if start > pos && start >= g.afresh && start < s.limit && !g.extents[k].Kind.hole() && end <= pos+window && s.ends(k) {
			if held, err := s.holds(k, pos); held || err != nil {
				return start, err
			}
		}
	}
	return s.limit, nil
}

// split emits data, which is what the disk has in place of e, as parts of e's chunk and new chunks. e is a whole extent of the parent's,
// or what is not left out of one. It reports false when e has to be cut by content, and has emitted nothing then.
func (s *scanner) split(e *Extent, whole bool, data []byte) (bool, error) {
	gone, err := s.trySplit(e, whole, data)
	s.guide.use(e.ID, -gone)
	return gone < e.Blocks, err
}

// trySplit is split; it returns how many blocks of e are not used any more, all of them when e has to be cut by content.
func (s *scanner) trySplit(e *Extent, whole bool, data []byte) (gone int, err error) {
	if whole && e.Blocks == 1 || !(s.o.ParentComplete || s.data.Has(e.ID)) {
		return e.Blocks, nil
	}
	s.same = slices.Grow(s.same[:0], e.Blocks)[:blocksOf(len(data))]
	length, err := s.before.Compare(s.ctx, e.ID, e.First, data, s.same)
	if err == nil && length > 0 {
		err = e.fits(length, len(data))
	}
	if err != nil {
		if s.ctx.Err() != nil {
			return e.Blocks, s.ctx.Err()
		}
		s.parentLost(err)
	}
	if err != nil || length == 0 {
		return e.Blocks, nil
	}
	s.runs = appendRuns(s.runs[:0], s.same, data)
	for _, r := range s.runs {
		if r.kind != Part {
			gone += r.blocks
		}
	}
	rest := s.guide.use(e.ID, 0) - gone // blocks of the chunk that the segment would use
	if float64(gone) > maxChanged*float64(e.Blocks) || float64(rest) < minUsed*float64(blocksOf(length)) || !s.hasRoom(len(s.runs)) {
		return e.Blocks, nil
	}
	at := 0 // blocks of e that are emitted
	for _, r := range s.runs {
		part := data[at*Block : min((at+r.blocks)*Block, len(data))]
		switch r.kind {
		case Chunk:
			if err := s.save(part, s.data.ID(part)); err != nil {
				return e.Blocks, err
			}
		case Part:
			s.emit(Extent{Kind: Part, Blocks: r.blocks, ID: e.ID, First: e.First + at, Digest: s.data.ID(part)})
		default:
			s.emit(Extent{Kind: Zero, Blocks: r.blocks})
		}
		at += r.blocks
	}
	return gone, nil
}

// blockRun is a run of blocks with one fate: Part for those that are the same as before, Chunk for new ones, Zero.
type blockRun struct {
	kind   Kind
	blocks int
}

// appendRuns makes runs of the blocks of now, of which some are the same as before. Neither a part nor a chunk starts with a zero block, as none does that
// is cut by content: there the next scan will find zeros first.
func appendRuns(runs []blockRun, same []bool, now []byte) []blockRun {
	for i := range same {
		kind := Chunk
		if same[i] {
			kind = Part
		}
		last := len(runs) - 1
		if last >= 0 && runs[last].kind == kind {
			runs[last].blocks++
			continue
		}
		if chunker.IsZero(now[i*Block : min((i+1)*Block, len(now))]) {
			if last >= 0 && runs[last].kind == Zero {
				runs[last].blocks++
				continue
			}
			kind = Zero
		}
		runs = append(runs, blockRun{kind, 1})
	}
	return runs
}

// hasRoom applies rule 3 to an extent that is to become n. When there is no room, the parent's extents in the rest of this
// MiB are not used any more.
func (s *scanner) hasRoom(n int) bool {
	g := &s.guide
	const mib = 1 << 20
	from := s.end / mib * mib
	for i, start := len(s.extents)-1, s.end; i >= 0; i-- { // that are there already
		if start -= s.extents[i].Blocks * Block; start < from {
			break
		}
		n++
	}
	k := g.at + 1
	for ; k < len(g.extents) && g.marks[k].start < from+mib; k++ { // that may still come
		n++
	}
	if n <= maxExtents {
		return true
	}
	g.afresh = g.marks[k].start
	return false
}
