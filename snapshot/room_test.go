package snapshot

import (
	"slices"
	"testing"
)

func TestWhatGoesForWantOfSpace(t *testing.T) {
	day := func(n int, held bool) *Snapshot {
		return &Snapshot{ID: ID{byte(n)}, Time: at("2026-05-01 12:00").AddDate(0, 0, n), Held: held}
	}
	outcomes := []Outcome{
		{Keep: []Kept{{day(9, false), nil}, {day(7, false), nil}, {day(3, true), nil}, {day(2, false), nil}}, Remove: []*Snapshot{day(5, false)}},
		{Keep: []Kept{{day(1, false), nil}}}, // its newest, though older than all others
		{Keep: []Kept{{day(8, true), nil}, {day(4, false), nil}}},
		{Remove: []*Snapshot{day(0, false)}},
	}
	spare := Spare(outcomes)
	var got []byte
	for _, s := range spare {
		got = append(got, s.ID[0])
	}
	if !slices.Equal(got, []byte{2, 4, 7}) {
		t.Fatalf("%v go, in this order, not 2, 4, 7", got)
	}
	Give(outcomes, spare[:2])
	if o := outcomes[0]; len(o.Keep) != 3 || len(o.Remove) != 2 || o.Remove[0].ID != (ID{5}) || o.Remove[1] != spare[0] {
		t.Errorf("%+v", o)
	}
	if o := outcomes[2]; len(o.Keep) != 1 || len(o.Remove) != 1 || o.Remove[0] != spare[1] {
		t.Errorf("%+v", o)
	}
}
