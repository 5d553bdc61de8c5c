package snapshot

import "strings"

// Paired are the disks of two snapshots that belong together.
type Paired struct {
	Before, After  *Snapshot
	Disks          [][2]*Disk // the same disk before and after
	Removed, Added []*Disk    // that only one of them has
}

// Pairs finds the disks that two addresses mean, SNAPSHOT or SNAPSHOT:DISK. Where no disk is named, disks of one name
// belong together, and so do the only disks of two snapshots.
func Pairs(list []*Snapshot, before, after string, f Filter) (Paired, error) {
	var p Paired
	if strings.Contains(before, ":") || strings.Contains(after, ":") {
		var pair [2]*Disk
		var err error
		if p.Before, pair[0], err = FindDisk(list, before, f); err != nil {
			return p, err
		}
		if p.After, pair[1], err = FindDisk(list, after, f); err != nil {
			return p, err
		}
		p.Disks = [][2]*Disk{pair}
		return p, nil
	}
	var err error
	if p.Before, err = Find(list, before, f); err != nil {
		return p, err
	}
	if p.After, err = Find(list, after, f); err != nil {
		return p, err
	}
	if len(p.Before.Disks) == 1 && len(p.After.Disks) == 1 {
		p.Disks = [][2]*Disk{{&p.Before.Disks[0], &p.After.Disks[0]}}
		return p, nil
	}
	for i := range p.Before.Disks {
		d := &p.Before.Disks[i]
		if other, err := p.After.Disk(d.Name); err == nil {
			p.Disks = append(p.Disks, [2]*Disk{d, other})
		} else {
			p.Removed = append(p.Removed, d)
		}
	}
	for i := range p.After.Disks {
		if _, err := p.Before.Disk(p.After.Disks[i].Name); err != nil {
			p.Added = append(p.Added, &p.After.Disks[i])
		}
	}
	return p, nil
}
