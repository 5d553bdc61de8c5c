package image

import "sort"

// Mask returns src with runs that need not be read: they become holes of the kinds that runs have, where src has Data. runs are
// in order, do not overlap, and begin and end on blocks or at the end of the disk.
func Mask(src Source, runs []Extent) Source {
	if len(runs) == 0 {
		return src
	}
	return &masked{src, runs}
}

type masked struct {
	Source
	runs []Extent
}

func (m *masked) Map(off, length int64) ([]Extent, error) {
	inner, err := m.Source.Map(off, length)
	if err != nil {
		return nil, err
	}
	var list []Extent
	k := sort.Search(len(m.runs), func(i int) bool { return m.runs[i].Offset+m.runs[i].Length > off })
	for _, e := range inner {
		at, end := e.Offset, e.Offset+e.Length
		for at < end {
			for k < len(m.runs) && m.runs[k].Offset+m.runs[k].Length <= at {
				k++
			}
			switch {
			case e.Kind != Data || k == len(m.runs) || m.runs[k].Offset >= end:
				list = cover(list, at, end, e.Kind)
				at = end
			case m.runs[k].Offset > at:
				list = cover(list, at, m.runs[k].Offset, Data)
				at = m.runs[k].Offset
			default:
				next := min(end, m.runs[k].Offset+m.runs[k].Length)
				list = cover(list, at, next, m.runs[k].Kind)
				at = next
			}
		}
	}
	return list, nil
}
