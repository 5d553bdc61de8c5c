package btrfs

import "varve/image/filesystem"

// An emitter joins runs of bytes of the partition that come in order, and leaves out what is never free.
type emitter struct {
	free     func(filesystem.Range) error
	reserved []filesystem.Range // in order
	pending  filesystem.Range   // not told yet: the next run may go on where it ends
}

func newEmitter(size int64, free func(filesystem.Range) error) *emitter {
	e := &emitter{free: free, reserved: []filesystem.Range{{Offset: 0, Length: startRoom}}}
	for _, off := range superblockOffsets[1:] {
		if off < size {
			e.reserved = append(e.reserved, filesystem.Range{Offset: off, Length: superblockRoom})
		}
	}
	return e
}

// add notes that what lies from one offset to another is free.
func (e *emitter) add(from, to int64) error {
	for _, r := range e.reserved {
		if r.Offset < to && r.End() > from {
			if err := e.tell(from, r.Offset); err != nil {
				return err
			}
			from = r.End()
		}
	}
	return e.tell(from, to)
}

// tell is add without a look at what is reserved.
func (e *emitter) tell(from, to int64) error {
	if from >= to {
		return nil
	}
	if e.pending.End() == from && e.pending.Length > 0 {
		e.pending.Length += to - from
		return nil
	}
	err := e.flush()
	e.pending = filesystem.Range{Offset: from, Length: to - from}
	return err
}

// flush tells the last run.
func (e *emitter) flush() error {
	if e.pending.Length == 0 {
		return nil
	}
	return e.free(e.pending)
}
