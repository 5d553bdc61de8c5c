package snapshot

import "slices"

// Spare returns the kept snapshots of outcomes that may go all the same where there is no room, in the order in which they
// go: the oldest first. The newest that is kept of each group stays, and so does what is held.
func Spare(outcomes []Outcome) []*Snapshot {
	var spare []*Snapshot
	for _, o := range outcomes {
		for i, k := range o.Keep {
			if i > 0 && !k.Held {
				spare = append(spare, k.Snapshot)
			}
		}
	}
	slices.SortStableFunc(spare, func(a, b *Snapshot) int { return newer(b, a) })
	return spare
}

// Give moves the snapshots in list from those that outcomes keep to those that they remove.
func Give(outcomes []Outcome, list []*Snapshot) {
	for i := range outcomes {
		o := &outcomes[i]
		o.Keep = slices.DeleteFunc(o.Keep, func(k Kept) bool {
			gone := slices.Contains(list, k.Snapshot)
			if gone {
				o.Remove = append(o.Remove, k.Snapshot)
			}
			return gone
		})
		slices.SortStableFunc(o.Remove, newer)
	}
}
