package repo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"sync"
	"time"

	"varve/repo/storage"
)

// Mode says beside whom the holder of a lease can work.
type Mode string

const (
	Shared      Mode = "shared"      // adds or reads: beside all but Exclusive
	Maintenance Mode = "maintenance" // removes, after telling the others: beside Shared
	Exclusive   Mode = "exclusive"   // alone
)

// beside reports whether two leases can stand beside each other.
func (m Mode) beside(other Mode) bool {
	return m == Shared && (other == Shared || other == Maintenance) || m == Maintenance && other == Shared
}

// A lease says that a process works on the repository. Whoever takes one writes it first and looks for others second: of
// two that collide at least one sees the other, and gives way. A lease ends by itself: after leaseTTL without renewal it
// counts no more, and at once when its process is known to be dead. Who goes on because a lease has ended removes it
// first; its holder, should it run after all, finds it gone before it commits anything.
//
//	leases/<random>   "VARVLEAS" ‖ seal(meta key, "varve lease" ‖ repository id, JSON of Lease)
//
// A storage may refuse to replace and to remove objects. There each renewal is an object beside the first one,
// leases/<random>-<n>, of which the latest counts, and the last one says that the lease has ended.
type Lease struct {
	Name    string    `json:"-"`
	Mode    Mode      `json:"mode"`
	Purpose string    `json:"purpose"` // the command, as "backup"
	Host    string    `json:"host"`
	User    string    `json:"user"`
	PID     int       `json:"pid"`
	Machine string    `json:"machine"` // identifies the boot and process table in which PID means something; empty if unknown
	Started string    `json:"started"` // of the process, as the system tells it; empty if unknown
	Taken   time.Time `json:"taken"`
	Renewed time.Time `json:"renewed"`
	Ended   bool      `json:"ended,omitempty"` // its holder is done, and could not remove it
	Damaged bool      `json:"-"`               // it cannot be read: who holds it is unknown
}

const (
	leaseMagic = "VARVLEAS"
	leaseTTL   = 30 * time.Minute // without renewal a lease counts no more
	leaseRenew = 5 * time.Minute  // how often it is renewed
	leaseFence = 20 * time.Minute // without renewal its own holder stops trusting it
)

// LockedError says which leases stand in the way.
type LockedError struct {
	Mode   Mode // that the caller wanted
	Leases []Lease
}

func (e *LockedError) Error() string {
	var text strings.Builder
	text.WriteString("the repository is in use:")
	for _, l := range e.Leases {
		fmt.Fprintf(&text, "\n  %s", l)
	}
	if e.Mode == Exclusive {
		text.WriteString("\nthis command has to be alone: wait until the other is done")
	} else {
		text.WriteString("\nwait until it is done")
	}
	text.WriteString("; if you are sure that it no longer runs, 'varve unlock' removes what is stale (a lease ends by itself after ")
	text.WriteString(leaseTTL.String() + ")")
	return text.String()
}

func (l Lease) String() string {
	if l.Damaged {
		return fmt.Sprintf("%q, which cannot be read; 'varve unlock --remove-all' removes it", l.Name)
	}
	return fmt.Sprintf("%s by %s on %s, process %d, since %s, last heard of %s ago", l.Purpose, l.User, l.Host, l.PID,
		l.Taken.Local().Format("2006-01-02 15:04:05"), time.Since(l.Renewed).Round(time.Second))
}

// stale reports whether l counts no more.
func (l Lease) stale(now time.Time) bool {
	if l.Damaged {
		return false
	}
	if l.Ended {
		return true
	}
	if now.Sub(l.Renewed) > leaseTTL {
		return true
	}
	return l.Machine != "" && l.Machine == machine() && processGone(l.PID, l.Started)
}

// heldLease is a lease of this process.
type heldLease struct {
	repo *Repository
	name string
	none bool // it is none: see takeReadersLease
	stop chan struct{}
	done sync.WaitGroup

	mu       sync.Mutex
	lease    Lease
	written  bool      // it has been stored
	renewals int       // that were stored beside it
	renewed  time.Time // with its monotonic clock reading, which lease.Renewed loses in JSON
}

// newLease returns a lease that is not stored yet.
func (r *Repository) newLease(mode Mode, purpose string) *heldLease {
	var random [16]byte
	rand.Read(random[:])
	now := time.Now()
	l := Lease{Mode: mode, Purpose: purpose, PID: os.Getpid(), Machine: machine(), Started: processStart(os.Getpid()), Taken: now, Renewed: now}
	l.Host, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		l.User = u.Username
	}
	return &heldLease{repo: r, name: "leases/" + hex.EncodeToString(random[:]), stop: make(chan struct{}), lease: l, renewed: now}
}

// takeLease takes a lease or fails with *LockedError.
func (r *Repository) takeLease(ctx context.Context, mode Mode, purpose string) (*heldLease, error) {
	h := r.newLease(mode, purpose)
	if err := h.write(ctx); err != nil {
		h.remove() // it may be there all the same, and would keep others out
		return nil, fmt.Errorf("taking a lease on the repository: %w", err)
	}
	leases, err := r.Leases(ctx)
	if err != nil {
		h.remove()
		return nil, err
	}
	var others []Lease
	for _, other := range leases {
		if other.Name == h.name || !other.Damaged && mode.beside(other.Mode) {
			continue
		}
		if !other.stale(h.renewed) {
			others = append(others, other)
		} else if err := r.revoke(ctx, other.Name); err != nil && !other.Ended {
			h.remove()
			return nil, err
		}
	}
	if len(others) > 0 {
		h.remove()
		return nil, &LockedError{Mode: mode, Leases: others}
	}
	h.done.Add(1)
	go h.renew()
	return h, nil
}

// takeReadersLease is takeLease for who changes nothing. Where no lease can be stored, because the storage is read-only, full
// or somebody else's, he goes on without, and is told so: what others remove meanwhile he misses, and says so. Whoever is
// alone with the repository keeps him out all the same. A lease that cannot be read does not: it could never be removed where
// nothing can be written, and what it may stand for harms no reader.
func (r *Repository) takeReadersLease(ctx context.Context, mode Mode, purpose string) (*heldLease, error) {
	h, unwritable := r.takeLease(ctx, mode, purpose)
	if !storage.Unwritable(unwritable) {
		return h, unwritable
	}
	h = r.newLease(mode, purpose)
	h.none = true
	leases, err := r.Leases(ctx)
	if err != nil {
		return nil, err
	}
	var others []Lease
	for _, other := range leases {
		switch {
		case other.Damaged:
			r.logf("the lease %s", other)
		case !mode.beside(other.Mode) && !other.stale(h.renewed):
			others = append(others, other)
		}
	}
	if others != nil {
		return nil, &LockedError{Mode: mode, Leases: others}
	}
	r.logf("%v; reading goes on without a lease: what somebody else forgets and prunes meanwhile may be missing here, which would be an error, and nothing wrong would be read", unwritable)
	return h, nil
}

// takeLeaseFor is takeLease or, for a dry run, takeReadersLease.
func (r *Repository) takeLeaseFor(ctx context.Context, mode Mode, purpose string, dryRun bool) (*heldLease, error) {
	if dryRun {
		return r.takeReadersLease(ctx, mode, purpose)
	}
	return r.takeLease(ctx, mode, purpose)
}

// Leases reads all leases, stale ones too. One that cannot be read is returned as Damaged.
func (r *Repository) Leases(ctx context.Context) ([]Lease, error) {
	var names []string
	err := r.storage.List(ctx, "leases/", func(name string, _ int64) error {
		names = append(names, name)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing leases: %w", err)
	}
	var leases []Lease
	at := map[string]int{}
	for _, name := range names {
		sealed, err := r.storage.Get(ctx, name, 0, -1, nil)
		if errors.Is(err, storage.ErrNotExist) {
			continue // released between the listing and now
		}
		if err != nil {
			return nil, fmt.Errorf("reading lease: %w", err)
		}
		var l Lease
		data, err := unseal(r.secrets.meta, "varve lease"+r.id, []byte(strings.TrimPrefix(string(sealed), leaseMagic)))
		if err != nil || json.Unmarshal(data, &l) != nil {
			l = Lease{Damaged: true}
		}
		l.Name, _, _ = strings.Cut(name, "-")
		i, found := at[l.Name]
		if !found {
			at[l.Name] = len(leases)
			leases = append(leases, l)
		} else if l.after(leases[i]) {
			leases[i] = l
		}
	}
	return leases, nil
}

// after reports whether l says more than an earlier or later form of itself: that it has ended or, next to that, that it
// cannot be told what it says.
func (l Lease) after(other Lease) bool {
	switch {
	case l.Ended || other.Ended:
		return l.Ended
	case l.Damaged || other.Damaged:
		return l.Damaged
	}
	return l.Renewed.After(other.Renewed)
}

// Unlock removes stale leases, or all of them, and returns those that it removed.
func (r *Repository) Unlock(ctx context.Context, all bool) ([]Lease, error) {
	leases, err := r.Leases(ctx)
	if err != nil {
		return nil, err
	}
	var removed []Lease
	for _, l := range leases {
		if !all && !l.stale(time.Now()) {
			continue
		}
		if err := r.revoke(ctx, l.Name); err != nil {
			return removed, err
		}
		removed = append(removed, l)
	}
	return removed, nil
}

// revoke removes a lease that has ended, or is to end. Once it is gone, whoever holds it commits nothing.
func (r *Repository) revoke(ctx context.Context, name string) error {
	if err := r.storage.Delete(ctx, name); err != nil && !errors.Is(err, storage.ErrNotExist) {
		return fmt.Errorf("removing a lease that has ended: %w", err)
	}
	var renewals []string
	err := r.storage.List(ctx, "leases/", func(other string, _ int64) error {
		if strings.HasPrefix(other, name+"-") {
			renewals = append(renewals, other)
		}
		return nil
	})
	for _, renewal := range renewals {
		if err := r.storage.Delete(ctx, renewal); err != nil && !errors.Is(err, storage.ErrNotExist) {
			return fmt.Errorf("removing a lease that has ended: %w", err)
		}
	}
	return err
}

// write stores the lease as it is now: in place of what it was or, where the storage refuses that, beside it.
func (h *heldLease) write(ctx context.Context) error {
	data, err := json.Marshal(h.lease)
	if err != nil {
		return err
	}
	sealed := append([]byte(leaseMagic), seal(h.repo.secrets.meta, "varve lease"+h.repo.id, data)...)
	if err = h.repo.storage.Put(ctx, h.name, sealed); err != nil && h.written {
		h.renewals++
		err = h.repo.storage.Put(ctx, fmt.Sprintf("%s-%d", h.name, h.renewals), sealed)
	}
	h.written = h.written || err == nil
	return err
}

// renew keeps the lease alive until release.
func (h *heldLease) renew() {
	defer h.done.Done()
	tick := time.NewTicker(leaseRenew)
	defer tick.Stop()
	for {
		select {
		case <-h.stop:
			return
		case <-tick.C:
			h.mu.Lock()
			// One that has expired, or was taken away, must not come to life again.
			err := h.holds(context.Background())
			if err == nil {
				now := time.Now()
				h.lease.Renewed = now
				if err = h.write(context.Background()); err == nil {
					h.renewed = now
				}
			}
			if err != nil {
				h.repo.logf("renewing the lease on the repository: %v", err)
			}
			h.mu.Unlock()
		}
	}
}

// valid reports whether the lease was renewed recently by both clocks: a machine that was suspended sees it on the
// wall clock, one whose wall clock was set back on the monotonic one. h.mu is held.
func (h *heldLease) valid() error {
	age, wall := time.Since(h.renewed), time.Now().Round(0).Sub(h.renewed.Round(0))
	if age > leaseFence || wall > leaseFence || wall < -leaseFence {
		return fmt.Errorf("the lease on the repository has expired (not renewed for %v; was this machine suspended, or its clock set?): nothing was committed; run the command again", max(age, wall).Round(time.Second))
	}
	return nil
}

// check reports whether the lease still protects its holder. It is asked right before what cannot be taken back.
func (h *heldLease) check(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.holds(ctx)
}

// holds is check; h.mu is held.
func (h *heldLease) holds(ctx context.Context) error {
	if err := h.valid(); err != nil {
		return err
	}
	if _, err := h.repo.storage.Get(ctx, h.name, 0, -1, nil); err != nil {
		return fmt.Errorf("the lease on the repository is gone: nothing was committed; run the command again (%w)", err)
	}
	return nil
}

// release ends the lease. That it cannot be removed is no error: it ends by itself.
func (h *heldLease) release() {
	if h.none {
		return
	}
	close(h.stop)
	h.done.Wait()
	h.remove()
}

func (h *heldLease) remove() {
	ctx := context.Background()
	err := h.repo.storage.Delete(ctx, h.name)
	if err == nil && h.renewals > 0 {
		err = h.repo.revoke(ctx, h.name)
	}
	if err == nil || errors.Is(err, storage.ErrNotExist) {
		return
	}
	h.lease.Ended = true
	if !h.written || h.write(ctx) == nil { // it most likely is not there
		return
	}
	h.repo.logf("removing the lease on the repository: %v", err)
}

// Alone runs f while nobody else uses the repository: *LockedError, and f is not called, when somebody does.
func (r *Repository) Alone(ctx context.Context, purpose string, f func() error) error {
	return r.under(ctx, Exclusive, purpose, f)
}

// Maintain runs f while nobody else removes anything from the repository: *LockedError, and f is not called, when somebody
// does that now. Others may read and add.
func (r *Repository) Maintain(ctx context.Context, purpose string, f func() error) error {
	return r.under(ctx, Maintenance, purpose, f)
}

// Beside runs f, which only reads, while what was in the repository when it began is kept in it: *LockedError, and f is not
// called, when somebody is alone with it. Others may read, add, and remove what f does not see. Where the storage cannot be
// written to, nobody knows of f, and it may miss what others remove.
func (r *Repository) Beside(ctx context.Context, purpose string, f func() error) error {
	lease, err := r.takeReadersLease(ctx, Shared, purpose)
	if err != nil {
		return err
	}
	defer lease.release()
	return f()
}

func (r *Repository) under(ctx context.Context, mode Mode, purpose string, f func() error) error {
	lease, err := r.takeLease(ctx, mode, purpose)
	if err != nil {
		return err
	}
	defer lease.release()
	return f()
}
