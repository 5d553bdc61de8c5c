package repo

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

func TestIDSetAgainstAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	set, model := &idSet{}, map[ID]bool{} // value: claimed
	for range 200_000 {
		var id ID
		binary.LittleEndian.PutUint64(id[:], (2+random.Uint64N(60_000))<<1) // bit 0 is not part of the fingerprint, and 0 means empty
		claimed, there := model[id]
		switch random.IntN(3) {
		case 0:
			if set.add(id) == there {
				t.Fatalf("add %x: it was there: %v", id[:8], there)
			}
			model[id] = claimed
		case 1:
			if set.has(id) != there {
				t.Fatalf("has %x: %v, want %v", id[:8], !there, there)
			}
		case 2:
			if got := set.claim(id); got != (there && !claimed) {
				t.Fatalf("claim %x: %v, there %v, claimed %v", id[:8], got, there, claimed)
			} else if there {
				model[id] = true
			}
		}
	}
	unclaimed := 0
	for _, claimed := range model {
		if !claimed {
			unclaimed++
		}
	}
	if set.unclaimed() != unclaimed {
		t.Errorf("%d unclaimed, want %d", set.unclaimed(), unclaimed)
	}
}
