package pack

import (
	"encoding/binary"

	"github.com/klauspost/reedsolomon"
	"github.com/zeebo/blake3"
)

const (
	sectorSize  = 4096
	checkSize   = 8    // of a sector: the start of its BLAKE3
	tableStart  = 24   // bytes of a table sector before its checks
	tableChecks = 508  // checks of a table sector
	tableEnd    = 4088 // where its own check is

	maxShards  = 256     // sectors of a group: a code over bytes has no more
	maxSectors = 1 << 16 // of a pack: 256 MiB
	minParity  = 2       // parity sectors of a group that is made here

	tableMagic = "VARVHEAL"
)

// MaxParity is the most parity that a Builder makes, in percent of the data.
const MaxParity = 100

// layout says where the sectors of a pack with parity lie. See the package comment.
type layout struct {
	front, back int // data sectors before and behind what protects them
	groups      int
	parity      int // parity sectors of each group
}

func sectorsFor(bytes int) int { return (bytes + sectorSize - 1) / sectorSize }

// planLayout returns the layout for so many data sectors, with at least percent of them as parity: in as few groups as
// can be, because a group makes up for its parity's number of bad sectors wherever they are in it.
func planLayout(front, back, percent int) layout {
	l := layout{front: front, back: back}
	for l.groups = 1 + l.data()/maxShards; ; l.groups++ {
		l.parity = max(minParity, (l.shards()*percent+99)/100)
		if l.shards()+l.parity <= maxShards {
			return l
		}
	}
}

// valid reports whether l can be the layout of a pack. Everything else here relies on it.
func (l layout) valid() bool {
	for _, n := range []int{l.front, l.back, l.groups, l.parity} {
		if n < 1 || n > maxSectors {
			return false
		}
	}
	return l.groups <= l.data() && l.shards()+l.parity <= maxShards && l.sectors() <= maxSectors
}

// data is the number of data sectors, shards that of each group, the last one of some being all zeros and not stored.
func (l layout) data() int   { return l.front + l.back }
func (l layout) shards() int { return (l.data() + l.groups - 1) / l.groups }

// checked is the number of sectors of which the table has the checks: data sectors first, then parity sectors.
func (l layout) checked() int { return l.data() + l.groups*l.parity }

// tables returns the number of table sectors that hold checks, and that of the parity sectors of these.
func (l layout) tables() (checks, spare int) {
	checks = (l.checked() + tableChecks - 1) / tableChecks
	return checks, min(max(checks, l.parity), maxShards-checks)
}

func (l layout) sectors() int {
	checks, spare := l.tables()
	return l.checked() + checks + spare
}

// place returns the number in the file of data or parity sector i, as they are numbered in the table.
func (l layout) place(i int) int {
	checks, spare := l.tables()
	switch {
	case i < l.front:
		return i
	case i < l.data():
		return i - l.front + l.sectors() - l.back
	}
	return i - l.data() + l.front + (checks+spare+1)/2
}

// tablePlace returns the number in the file of table sector i: half of them lie before the parity, half behind it.
func (l layout) tablePlace(i int) int {
	checks, spare := l.tables()
	if first := (checks + spare + 1) / 2; i >= first {
		return i - first + l.sectors() - l.back - (checks + spare - first)
	}
	return l.front + i
}

func sector(data []byte, n int) []byte {
	return data[n*sectorSize : (n+1)*sectorSize : (n+1)*sectorSize]
}

var zeroSector [sectorSize]byte

// members lists the sectors of group g by their numbers in the table, data before parity; -1 is the one of zeros.
func (l layout) members(g int) []int {
	list := make([]int, 0, l.shards()+l.parity)
	for i := g; len(list) < l.shards(); i += l.groups {
		if i >= l.data() {
			i = -1 // the last one, if any
		}
		list = append(list, i)
	}
	for i := l.data() + g; i < l.checked(); i += l.groups {
		list = append(list, i)
	}
	return list
}

// group returns the bytes of the sectors of group g in the pack data.
func (l layout) group(data []byte, g int) [][]byte {
	members := l.members(g)
	shards := make([][]byte, len(members))
	for k, i := range members {
		if shards[k] = zeroSector[:]; i >= 0 {
			shards[k] = sector(data, l.place(i))
		}
	}
	return shards
}

// table returns the checks of all table sectors, parity last, in the pack data.
func (l layout) table(data []byte) [][]byte {
	checks, spare := l.tables()
	shards := make([][]byte, checks+spare)
	for i := range shards {
		shards[i] = sector(data, l.tablePlace(i))[tableStart:tableEnd:tableEnd]
	}
	return shards
}

// newCode returns the Reed-Solomon code over GF(2^8) whose matrix docs/format.md describes. It uses no other goroutines:
// several packs are made at once.
func newCode(shards, parity int) reedsolomon.Encoder {
	code, err := reedsolomon.New(shards, parity, reedsolomon.WithCauchyMatrix(), reedsolomon.WithMaxGoroutines(1))
	if err != nil {
		panic(err) // only for numbers that no valid layout has
	}
	return code
}

func must(err error) {
	if err != nil {
		panic(err) // only for shards of other numbers or lengths than the code's
	}
}

func checkOf(data []byte) [checkSize]byte {
	sum := blake3.Sum256(data)
	return [checkSize]byte(sum[:])
}

// protect fills parity and table of a pack of l.sectors() sectors whose data is there.
func (l layout) protect(data []byte) {
	code := newCode(l.shards(), l.parity)
	for g := range l.groups {
		must(code.Encode(l.group(data, g)))
	}
	table := l.table(data)
	for i := range table {
		clear(table[i])
	}
	for i := range l.checked() {
		sum := checkOf(sector(data, l.place(i)))
		copy(table[i/tableChecks][i%tableChecks*checkSize:], sum[:])
	}
	must(newCode(l.tables()).Encode(table))
	for i := range table {
		l.seal(sector(data, l.tablePlace(i)), i)
	}
}

// seal fills header and check of table sector i.
func (l layout) seal(s []byte, i int) {
	copy(s, tableMagic)
	binary.BigEndian.PutUint32(s[8:], uint32(i))
	binary.BigEndian.PutUint32(s[12:], uint32(l.front))
	binary.BigEndian.PutUint32(s[16:], uint32(l.back))
	binary.BigEndian.PutUint16(s[20:], uint16(l.groups))
	binary.BigEndian.PutUint16(s[22:], uint16(l.parity))
	sum := checkOf(s[:tableEnd])
	copy(s[tableEnd:], sum[:])
}

// parseTable is the inverse of seal: false when s is no whole table sector.
func parseTable(s []byte) (l layout, i int, ok bool) {
	if string(s[:8]) != tableMagic {
		return l, 0, false
	}
	if sum := checkOf(s[:tableEnd]); string(sum[:]) != string(s[tableEnd:]) {
		return l, 0, false
	}
	number := binary.BigEndian.Uint32(s[8:])
	l = layout{
		front: int(binary.BigEndian.Uint32(s[12:])), back: int(binary.BigEndian.Uint32(s[16:])),
		groups: int(binary.BigEndian.Uint16(s[20:])), parity: int(binary.BigEndian.Uint16(s[22:])),
	}
	if !l.valid() {
		return l, 0, false
	}
	checks, spare := l.tables()
	return l, int(number), int64(number) < int64(checks+spare)
}

// findLayout returns what the first whole table sector says that lies where it says it would.
func findLayout(data []byte) (layout, bool) {
	for n := range len(data) / sectorSize {
		if l, i, ok := parseTable(sector(data, n)); ok && l.tablePlace(i) == n {
			return l, true
		}
	}
	return layout{}, false
}

// VerifyParity reports whether Heal could rely on the parity of an undamaged pack, by computing it again. The checks of
// sectors are not: they take longer than all the rest, and one that is wrong makes of a good sector one bad sector.
func VerifyParity(data []byte) error {
	l, found := findLayout(data)
	if !found || l.sectors()*sectorSize != len(data) {
		return corrupt("it has no table of its sectors")
	}
	if bad := l.badTable(data); len(bad) > 0 {
		return corrupt("sector %d of its table is wrong", bad[0])
	}
	if right, err := newCode(l.tables()).Verify(l.table(data)); err != nil || !right {
		return corrupt("the parity of its table is wrong")
	}
	code := newCode(l.shards(), l.parity)
	for g := range l.groups {
		if right, err := code.Verify(l.group(data, g)); err != nil || !right {
			return corrupt("the parity of group %d is wrong", g)
		}
	}
	return nil
}

// badTable returns the numbers of the table sectors that are not what l.seal made.
func (l layout) badTable(data []byte) (bad []int) {
	for i := range l.table(data) {
		if m, n, ok := parseTable(sector(data, l.tablePlace(i))); !ok || m != l || n != i {
			bad = append(bad, i)
		}
	}
	return bad
}

// healTable makes the table whole in data and returns how many of its sectors were not.
func (l layout) healTable(data []byte) (int, error) {
	bad := l.badTable(data)
	checks, spare := l.tables()
	switch {
	case len(bad) == 0:
		return 0, nil
	case len(bad) > spare:
		return 0, corrupt("%d of the %d sectors of its table are bad, and %d may be", len(bad), checks+spare, spare)
	}
	table := l.table(data)
	for _, i := range bad {
		table[i] = table[i][:0] // its memory is filled
	}
	must(newCode(checks, spare).Reconstruct(table))
	for _, i := range bad {
		l.seal(sector(data, l.tablePlace(i)), i)
	}
	return len(bad), nil
}

// badSectors returns the numbers, in the whole table of data, of the sectors that are not what it says.
func (l layout) badSectors(data []byte) (bad []int) {
	table := l.table(data)
	for i := range l.checked() {
		sum := checkOf(sector(data, l.place(i)))
		if string(sum[:]) != string(table[i/tableChecks][i%tableChecks*checkSize:][:checkSize]) {
			bad = append(bad, i)
		}
	}
	return bad
}

// ErrNoParity is what Heal fails with where no whole table sector is found.
var ErrNoParity error = &CorruptError{"no parity is found in it"}

// Heal makes the pack id whole from what was read of it, by its parity: sectors of data that could not be read have any
// other bytes, and the end may be missing. It returns the pack, in data's memory where there is room, which is the one that
// was stored: its bytes have been compared with its name. Sectors is how many were bad. It fails with
// ErrNoParity, and with *CorruptError where there is not enough of it.
func Heal(data []byte, id ID) (healed []byte, sectors int, err error) {
	l, found := findLayout(data)
	if !found {
		return nil, 0, ErrNoParity
	}
	size := l.sectors() * sectorSize
	if size > 2*len(data) {
		return nil, 0, corrupt("it has %d of %d bytes", len(data), size)
	}
	data = append(data[:min(len(data), size)], make([]byte, max(0, size-len(data)))...)
	if sectors, err = l.healTable(data); err != nil {
		return nil, 0, err
	}
	lost := map[int]bool{}
	for _, i := range l.badSectors(data) {
		lost[i] = true
	}
	sectors += len(lost)
	code := newCode(l.shards(), l.parity)
	for g := range l.groups {
		if err := l.healGroup(data, g, code, lost); err != nil {
			return nil, 0, err
		}
	}
	if blake3.Sum256(data) != id {
		return nil, 0, corrupt("what its parity makes of it does not have the hash that is its name")
	}
	return data, sectors, nil
}

// healGroup makes the lost sectors of a group from the others.
func (l layout) healGroup(data []byte, g int, code reedsolomon.Encoder, lost map[int]bool) error {
	shards, bad := l.group(data, g), 0
	for k, i := range l.members(g) {
		if lost[i] {
			shards[k] = shards[k][:0] // its memory is filled
			bad++
		}
	}
	switch {
	case bad == 0:
		return nil
	case bad > l.parity:
		return corrupt("%d sectors of group %d of %d are bad, and its parity makes up for %d", bad, g, l.groups, l.parity)
	}
	must(code.Reconstruct(shards))
	return nil
}
