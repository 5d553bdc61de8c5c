package repo

import (
	"flag"
	"fmt"
	"hash/maphash"
	"math/bits"
	"strings"
	"testing"
)

// This is the protocol of prune and sessions as a small model, of which every state is visited: two writers and two prunes
// that work at the same time, a snapshot that is forgotten, and leases that get lost, because their holder was suspended or
// somebody removed them. A step is one operation on the storage, and any actor may take any time between two steps.
//
// There are two chunks. Pack 0 holds chunk x, pack 1 both; the snapshot that is there at first refers to x. Writer 0 wants x,
// writer 1 wants both. In every state, whatever a snapshot refers to that was promised and not forgotten must lie in a pack.
//
// A model that cannot fail shows nothing: with any one of the protocol's precautions taken away it must find a loss.
func TestProtocol(t *testing.T) {
	start := model{losses: uint8(*lostLeases)}
	start.packs[0], start.packs[1] = chunkX, chunkX|chunkY
	start.records[0] = chunkX
	start.promised = 1
	n, trace := explore(start, rules{})
	t.Logf("%d states", n)
	if trace != nil {
		t.Fatalf("a loss:\n%s", strings.Join(trace, "\n"))
	}
	if n < 100_000 {
		t.Errorf("only %d states were visited", n)
	}
	for what, without := range map[string]rules{
		"waiting for who began before":         {noWaiting: true},
		"looking at condemned lists":           {noLooking: true},
		"looking at them before the packs":     {packsFirst: true},
		"marking again":                        {noSecondMark: true},
		"copying what is in condemned packs":   {noRescue: true},
		"a list before packs are removed":      {noList: true},
		"looking for the lease before commit":  {noCheck: true, noLook: true},
		"looking for the lease after commit":   {noLook: true},
		"looking for the lease before removal": {noFence: true},
	} {
		start.losses = 1
		n, trace := explore(start, without)
		if trace == nil {
			t.Errorf("without %s nothing is lost in %d states", what, n)
		} else if testing.Verbose() {
			t.Logf("without %s, after %d states:\n%s", what, n, strings.Join(trace, "\n"))
		}
	}
}

var lostLeases = flag.Int("lost-leases", 0, "how many `leases` get lost in the model of the protocol")

// rules are precautions that are left out.
type rules struct {
	noWaiting, noLooking, packsFirst, noSecondMark, noRescue, noList, noCheck, noLook, noFence bool
}

const (
	chunkX = 1
	chunkY = 2
	ended  = 99
)

// model is one state. Sets are bits: of chunks, of packs, of actors (writers 0 and 1, prunes 2 and 3).
type model struct {
	packs    [8]uint8 // chunks of each; 0: it is not there. Writers make 2 and 3, prunes 4 and 5, 6 and 7
	records  [3]uint8 // chunks of each: the first one, and those of the writers
	promised uint8    // records that somebody was told of
	leases   uint8
	losses   uint8 // leases that may still get lost
	lists    [2]modelList
	writers  [2]modelWriter
	prunes   [2]modelPrune
}

type modelList struct {
	there, noted   bool
	packs, waiting uint8
}

type modelWriter struct {
	at, condemned, relied uint8
}

type modelPrune struct {
	at                    uint8
	due                   uint8 // lists that are carried out
	ripe, waiting         uint8 // packs
	marked                uint8 // chunks
	condemn, copy, remove uint8 // packs, chunks, packs
}

func (m *model) there() (set uint8) {
	for i, chunks := range m.packs {
		if chunks != 0 {
			set |= 1 << i
		}
	}
	return set
}

func (m *model) lost() bool {
	var held uint8
	for _, chunks := range m.packs {
		held |= chunks
	}
	for i, chunks := range m.records {
		if m.promised>>i&1 == 1 && chunks&^held != 0 {
			return true
		}
	}
	return false
}

// explore visits every state and returns their number, and the steps that lead to a loss if there is one.
func explore(start model, r rules) (int, []string) {
	type visit struct {
		state model
		step  string
		depth int
	}
	hash := maphash.MakeSeed()
	seen := map[uint64]struct{}{} // 64 bits of each state: that two collide among ten millions happens once in 10^5 runs
	var path []string             // of steps, to the state that is visited
	todo := []visit{{state: start}}
	for len(todo) > 0 {
		v := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		key := maphash.Comparable(hash, v.state)
		if _, visited := seen[key]; visited {
			continue
		}
		seen[key] = struct{}{}
		path = append(path[:max(0, v.depth-1)], v.step)
		if v.state.lost() {
			return len(seen), path
		}
		v.state.next(r, func(step string, next model) { todo = append(todo, visit{next, step, v.depth + 1}) })
	}
	return len(seen), nil
}

// next calls f with every state that one step leads to.
func (m model) next(r rules, f func(string, model)) {
	if m.promised&1 == 1 { // somebody forgets the first snapshot
		n := m
		n.promised &^= 1
		n.records[0] = 0
		f("forget", n)
	}
	for actor := range 4 {
		if m.losses > 0 && m.leases>>actor&1 == 1 {
			n := m
			n.losses--
			n.leases &^= 1 << actor
			f(fmt.Sprintf("actor %d loses its lease", actor), n)
		}
	}
	for i := range m.writers {
		if m.writers[i].at != ended {
			n := m
			step := n.write(i, r)
			f(fmt.Sprintf("writer %d %s", i, step), n)
		}
	}
	for i := range m.prunes {
		if m.prunes[i].at != ended {
			n := m
			f(fmt.Sprintf("prune %d %s", i, n.prune(i, r, false)), n)
			if m.prunes[i].at == 4 {
				n := m
				f(fmt.Sprintf("prune %d %s and rewrites", i, n.prune(i, r, true)), n)
			}
		}
	}
}

// write is the next step of writer i.
func (m *model) write(i int, r rules) string {
	w := &m.writers[i]
	own := uint8(1) << i
	wanted := []uint8{chunkX, chunkX | chunkY}[i]
	end := func(how string) string {
		m.leases &^= own
		m.writers[i] = modelWriter{at: ended}
		return how
	}
	w.at++
	switch w.at {
	case 1:
		m.leases |= own
		return "takes a lease"
	case 2, 3:
		if (w.at == 2) != r.packsFirst {
			for _, l := range m.lists {
				if l.there && !r.noLooking {
					w.condemned |= l.packs
				}
			}
			return fmt.Sprintf("sees condemned packs %08b", w.condemned)
		}
		w.relied |= m.there() // for now: what it knows of
		return fmt.Sprintf("sees packs %08b", w.relied)
	case 4:
		known := w.relied &^ w.condemned
		// The snapshot that is there at first, and that it may have read before it took its lease, is the trusted parent of
		// writer 0 as long as all packs are there that were: what it takes over is not looked up, nor looked for later.
		trusted := i == 0 && known&3 == 3
		w.relied, w.condemned = 0, 0
		for _, chunk := range []uint8{chunkX, chunkY} {
			if wanted&chunk == 0 || trusted && chunk == chunkX {
				continue
			}
			found := false
			for k := range m.packs {
				if known>>k&1 == 1 && initialOrNow(m, k)&chunk != 0 && !found {
					found = true
					w.relied |= 1 << k
				}
			}
			if !found {
				m.packs[2+i] |= chunk
				w.relied |= 1 << (2 + i)
			}
		}
		return fmt.Sprintf("relies on packs %08b", w.relied)
	case 5:
		if w.relied&^m.there() != 0 && !r.noCheck {
			return end("misses a pack")
		}
		w.relied = 0
		return "finds its packs"
	case 6:
		if m.leases&own == 0 && !r.noCheck {
			return end("misses its lease before it commits")
		}
		return "finds its lease"
	case 7:
		m.records[1+i] = wanted
		return "stores its record"
	case 8:
		if m.leases&own == 0 && !r.noLook {
			w.at = 20
			return "misses its lease after it has committed"
		}
		m.promised |= 1 << (1 + i)
		return "has committed"
	case 21:
		m.records[1+i] = 0
		return end("takes its record back")
	}
	return end("ends")
}

// initialOrNow returns the chunks of a pack that a writer has seen: what was in it, also when it has gone since.
func initialOrNow(m *model, k int) uint8 {
	if m.packs[k] == 0 && k < 2 {
		return []uint8{chunkX, chunkX | chunkY}[k]
	}
	return m.packs[k]
}

// prune is the next step of prune i. rewrite decides whether it rewrites packs that are partly in use.
func (m *model) prune(i int, r rules, rewrite bool) string {
	p := &m.prunes[i]
	own := uint8(4) << i
	end := func(how string) string {
		m.leases &^= own
		m.prunes[i] = modelPrune{at: ended}
		return how
	}
	p.at++
	switch p.at {
	case 1:
		m.leases |= own
		return "takes a lease"
	case 2:
		if m.leases&(4|8)&^own != 0 {
			return end("gives way")
		}
		return "is alone"
	case 3:
		for k := range m.lists {
			l := &m.lists[k]
			if !l.there {
				continue
			}
			if !l.noted {
				l.noted, l.waiting = true, m.leases&^own
			}
			if l.waiting&m.leases == 0 || r.noWaiting {
				p.due |= 1 << k
				p.ripe |= l.packs
			} else {
				p.waiting |= l.packs
			}
		}
		return fmt.Sprintf("sees condemned packs: ripe %08b, waiting %08b", p.ripe, p.waiting)
	case 4:
		p.marked = m.marks()
		return fmt.Sprintf("marks chunks %02b", p.marked)
	case 5:
		ok := m.weigh(i, r, rewrite)
		if !ok {
			return end("misses a chunk and removes nothing")
		}
		return fmt.Sprintf("condemns %08b, copies chunks %02b", p.condemn, p.copy)
	case 6:
		m.packs[4+2*i] = p.copy
		p.copy = 0
		return "stores copies"
	case 7:
		if !m.guarded(i, own, p.due) && !r.noFence {
			return end("misses its lease or a list")
		}
		p.remove = p.ripe
		return "finds its lease and the lists"
	case 8:
		if m.removeOne(p) {
			p.at--
			return "removes a pack"
		}
		for k := range m.lists {
			if p.due>>k&1 == 1 {
				m.lists[k] = modelList{}
			}
		}
		p.due, p.ripe = 0, 0
		return "removes lists"
	case 9:
		if m.leases&own == 0 && !r.noFence || p.condemn == 0 {
			return end("ends")
		}
		return "finds its lease"
	case 10:
		m.lists[i] = modelList{there: true, packs: p.condemn}
		if r.noList {
			m.lists[i].packs = 0
		}
		return fmt.Sprintf("stores the list %08b", p.condemn)
	case 11:
		if others := m.leases &^ own; others != 0 && !r.noWaiting {
			m.lists[i].noted, m.lists[i].waiting = true, others
			return end(fmt.Sprintf("leaves its list to others, waiting for %04b", others))
		}
		return "sees nobody else"
	case 12:
		before := p.marked
		if !r.noSecondMark {
			p.marked |= m.marks()
		}
		p.ripe, p.remove = p.condemn, p.condemn
		p.condemn = 0
		if p.marked == before {
			p.at = 14
		}
		return fmt.Sprintf("marks again, chunks %02b", p.marked)
	case 13:
		if !m.weigh(i, r, false) {
			return end("misses a chunk and removes no more")
		}
		p.condemn = 0
		return fmt.Sprintf("copies chunks %02b", p.copy)
	case 14:
		m.packs[5+2*i] = p.copy
		p.copy = 0
		return "stores copies"
	case 15:
		if !m.guarded(i, own, 1<<i) && !r.noFence {
			return end("misses its lease or its list")
		}
		return "finds its lease and its list"
	case 16:
		if m.removeOne(p) {
			p.at--
			return "removes a pack"
		}
		m.lists[i] = modelList{}
		return end("removes its list")
	}
	panic(p.at)
}

// marks returns the chunks that records refer to.
func (m *model) marks() (chunks uint8) {
	for _, r := range m.records {
		chunks |= r
	}
	return chunks
}

// weigh finds a pack for every marked chunk, where it can one that is not condemned, else one that this prune removes, and
// plans. It reports false when a
// chunk is in none. The two prunes prefer different packs.
func (m *model) weigh(i int, r rules, rewrite bool) bool {
	p := &m.prunes[i]
	there := m.there()
	var claimed [8]uint8
	for _, chunk := range []uint8{chunkX, chunkY} {
		if p.marked&chunk == 0 {
			continue
		}
		found := false
		for _, class := range []uint8{there &^ p.ripe &^ p.waiting, there & p.ripe, there & p.waiting} {
			for k := range 8 {
				if i == 1 {
					k = 7 - k
				}
				if !found && class>>k&1 == 1 && m.packs[k]&chunk != 0 {
					found = true
					claimed[k] |= chunk
				}
			}
		}
		if !found {
			return false
		}
	}
	p.condemn, p.copy = 0, 0
	for k := range 8 {
		pack := uint8(1) << k
		switch {
		case there&pack == 0 || p.waiting&pack != 0:
		case p.ripe&pack != 0:
			if !r.noRescue {
				p.copy |= claimed[k]
			}
		case claimed[k] == 0:
			p.condemn |= pack
		case rewrite && claimed[k] != m.packs[k]:
			p.condemn |= pack
			p.copy |= claimed[k]
		}
	}
	return true
}

// guarded reports whether the lease and the lists of a prune are there.
func (m *model) guarded(i int, own, lists uint8) bool {
	for k := range m.lists {
		if lists>>k&1 == 1 && !m.lists[k].there {
			return false
		}
	}
	return m.leases&own != 0
}

// removeOne removes one of the packs that are to go, if there is one.
func (m *model) removeOne(p *modelPrune) bool {
	if p.remove == 0 {
		return false
	}
	k := bits.TrailingZeros8(p.remove)
	m.packs[k] = 0
	p.remove &^= 1 << k
	return true
}
