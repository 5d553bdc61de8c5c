package storagetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"varve/repo/storage"
)

// ErrFault is what an operation fails with when its Fault names no error.
var ErrFault = errors.New("a fault on purpose")

// Op is a class of operations. Several are joined by |.
type Op uint8

const (
	Put Op = 1 << iota
	PutNew
	Get
	List
	Delete

	Writes = Put | PutNew | Delete
	Any    = Writes | Get | List
)

var opNames = map[Op]string{Put: "put", PutNew: "putnew", Get: "get", List: "list", Delete: "delete"}

// How says in which way an operation fails.
type How uint8

const (
	// Before: nothing was done.
	Before How = iota
	// After: all of it was done, and then an error came. Get returns nothing all the same.
	After
	// Torn: half of it was done. Half of the object lies under its name, as on a storage that does not put whole objects;
	// a list ends half way. Get and Delete know no half: for them it is After.
	Torn
	// Flipped: one bit in the middle is wrong, and no error says so. For Put and PutNew the bit is wrong in the storage,
	// for Get only in what this reader is given. It does not concern List and Delete.
	Flipped
	// Late: it fails now, and is done all the same, after other operations that came later, as by a server that was too slow
	// for who asked. Get and List are not done late: for them it is Before.
	Late
)

// Fault says which operations fail, and how.
type Fault struct {
	Ops    Op     // 0: Any
	Prefix string // of the names concerned: of objects, for List of what is listed
	Nth    int    // the first that fails, of those concerned, from when the fault was given on; 0 is 1
	Times  int    // how many fail from there on; 0 is 1, negative for ever
	How    How
	Later  int   // how many other operations are done before one that is Late; 0: all until Settle
	Err    error // nil: ErrFault. syscall.ENOSPC is a full disk
}

// Faulty is a storage that stands before another one. It fails when it is told to, and keeps a log.
type Faulty struct {
	storage.Storage

	mu     sync.Mutex
	faults []*pending
	fired  int
	log    []string
	late   []lateWrite
}

// lateWrite is a write that is still on its way.
type lateWrite struct {
	after int // entries of the log; 0: all until Settle
	do    func(context.Context) error
}

// pending is a Fault and how many operations it has concerned.
type pending struct {
	Fault
	seen int
}

// NewFaulty returns a storage that does what st does until Fail is called.
func NewFaulty(st storage.Storage) *Faulty { return &Faulty{Storage: st} }

// Fail adds faults. The first that applies decides.
func (f *Faulty) Fail(faults ...Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fault := range faults {
		if fault.Ops == 0 {
			fault.Ops = Any
		}
		fault.Nth, fault.Times = max(fault.Nth, 1), cmp.Or(fault.Times, 1)
		if fault.Err == nil {
			fault.Err = ErrFault
		}
		f.faults = append(f.faults, &pending{Fault: fault})
	}
}

// Heal takes all faults away.
func (f *Faulty) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = nil
}

// Fired returns how many operations have failed on purpose: 0 tells a test that its scenario has fewer operations.
func (f *Faulty) Fired() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fired
}

// Settle does what is late, that which began last first, and returns what went wrong. Nothing is late afterwards.
func (f *Faulty) Settle(ctx context.Context) error {
	return f.land(ctx, func(lateWrite) bool { return true })
}

// land does those late writes that are due, the last first.
func (f *Faulty) land(ctx context.Context, due func(lateWrite) bool) error {
	f.mu.Lock()
	var now, later []lateWrite
	for _, w := range f.late {
		if due(w) {
			now = append(now, w)
		} else {
			later = append(later, w)
		}
	}
	f.late = later
	f.mu.Unlock()
	var errs []error
	for _, w := range slices.Backward(now) {
		errs = append(errs, w.do(ctx))
	}
	return errors.Join(errs...)
}

// landDue does the late writes that have waited for enough operations. What becomes of them nobody is there to be told.
func (f *Faulty) landDue(ctx context.Context) {
	_ = f.land(ctx, func(w lateWrite) bool { return w.after > 0 && len(f.log) >= w.after })
}

// delay has do done later, as fault says.
func (f *Faulty) delay(fault *Fault, do func(context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := lateWrite{do: do}
	if fault.Later > 0 {
		w.after = len(f.log) + fault.Later
	}
	f.late = append(f.late, w)
}

// Log returns the operations so far, in order: "put packs/ab/ab12 4096", "get config", "list packs/", "delete leases/7",
// with the size of what is put. What failed on purpose has " failed" behind it, or " flipped". What is late is there once.
func (f *Faulty) Log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

// decide logs an operation and returns the fault that it is to suffer, if any.
func (f *Faulty) decide(op Op, name, more string) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	var fault *Fault
	for _, p := range f.faults {
		if p.Ops&op == 0 || !strings.HasPrefix(name, p.Prefix) || p.How == Flipped && op&(List|Delete) != 0 {
			continue
		}
		p.seen++
		if fault == nil && p.seen >= p.Nth && (p.Times < 0 || p.seen < p.Nth+p.Times) {
			fault = &p.Fault
		}
	}
	line := opNames[op] + " " + name + more
	switch {
	case fault == nil:
	case fault.How == Flipped:
		line += " flipped"
	default:
		line += " failed"
	}
	if fault != nil {
		f.fired++
	}
	f.log = append(f.log, line)
	return fault
}

// failure is what the operation returns in the end.
func (fault *Fault) failure(op Op, name string) error {
	if fault.How == Flipped {
		return nil
	}
	return fmt.Errorf("%s %s: %w", opNames[op], name, fault.Err)
}

// Put implements storage.Storage.
func (f *Faulty) Put(ctx context.Context, name string, data []byte) error {
	return f.put(Put, f.Storage.Put, ctx, name, data)
}

// PutNew implements storage.Storage.
func (f *Faulty) PutNew(ctx context.Context, name string, data []byte) error {
	return f.put(PutNew, f.Storage.PutNew, ctx, name, data)
}

func (f *Faulty) put(op Op, put func(context.Context, string, []byte) error, ctx context.Context, name string, data []byte) error {
	f.landDue(ctx)
	fault := f.decide(op, name, fmt.Sprintf(" %d", len(data)))
	if fault == nil {
		return put(ctx, name, data)
	}
	switch fault.How {
	case Before:
		return fault.failure(op, name)
	case Late:
		data = bytes.Clone(data) // it is the caller's again
		f.delay(fault, func(ctx context.Context) error { return put(ctx, name, data) })
		return fault.failure(op, name)
	case Torn:
		data = data[:len(data)/2]
	case Flipped:
		data = flip(data)
	}
	if err := put(ctx, name, data); err != nil {
		return err
	}
	return fault.failure(op, name)
}

// flip returns a copy of data with one wrong bit.
func flip(data []byte) []byte {
	data = bytes.Clone(data)
	if len(data) > 0 {
		data[len(data)/2] ^= 0x10
	}
	return data
}

// Get implements storage.Storage.
func (f *Faulty) Get(ctx context.Context, name string, offset, length int64, buf []byte) ([]byte, error) {
	f.landDue(ctx)
	fault := f.decide(Get, name, "")
	if fault == nil {
		return f.Storage.Get(ctx, name, offset, length, buf)
	}
	if fault.How == Before || fault.How == Late {
		return nil, fault.failure(Get, name)
	}
	data, err := f.Storage.Get(ctx, name, offset, length, buf)
	if err != nil {
		return nil, err
	}
	if fault.How == Flipped {
		return flip(data), nil
	}
	return nil, fault.failure(Get, name)
}

// List implements storage.Storage.
func (f *Faulty) List(ctx context.Context, prefix string, each func(name string, size int64) error) error {
	f.landDue(ctx)
	fault := f.decide(List, prefix, "")
	if fault == nil {
		return f.Storage.List(ctx, prefix, each)
	}
	if fault.How == Before || fault.How == Late {
		return fault.failure(List, prefix)
	}
	type object struct {
		name string
		size int64
	}
	var all []object
	err := f.Storage.List(ctx, prefix, func(name string, size int64) error {
		all = append(all, object{name, size})
		return nil
	})
	if err != nil {
		return err
	}
	if fault.How == Torn {
		all = all[:len(all)/2]
	}
	for _, o := range all {
		if err := each(o.name, o.size); err != nil {
			return err
		}
	}
	return fault.failure(List, prefix)
}

// Delete implements storage.Storage.
func (f *Faulty) Delete(ctx context.Context, name string) error {
	f.landDue(ctx)
	fault := f.decide(Delete, name, "")
	switch {
	case fault == nil:
	case fault.How == Late:
		f.delay(fault, func(ctx context.Context) error { return f.Storage.Delete(ctx, name) })
		fallthrough
	case fault.How == Before:
		return fault.failure(Delete, name)
	}
	if err := f.Storage.Delete(ctx, name); err != nil || fault == nil {
		return err
	}
	return fault.failure(Delete, name)
}
