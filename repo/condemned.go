package repo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"varve/index"
	"varve/repo/storage"
)

// A condemned list names packs that a prune is about to remove. Who begins to write after the list is there does not rely
// on them; for those who began before, the prune waits. A pack that is condemned never comes back.
//
//	condemned/<random>   "VARVCOND" ‖ seal(meta key, "varve condemned" ‖ repository id, JSON of condemned)
type condemned struct {
	name    string
	Packs   []packID  `json:"packs"`
	Noted   time.Time `json:"noted"`   // when Waiting was; zero: whom to wait for has not been looked at yet
	Waiting []string  `json:"waiting"` // names of the leases that may have been there before this list
}

// packID is an ID as hexadecimal text in JSON.
type packID ID

func (id packID) MarshalText() ([]byte, error) {
	return hex.AppendEncode(nil, id[:]), nil
}

func (id *packID) UnmarshalText(text []byte) error {
	parsed, err := ParseID(string(text))
	*id = packID(parsed)
	return err
}

const (
	condemnedMagic = "VARVCOND"
	maxCondemned   = 64 << 20 // bytes of a list that is read: about a million packs
)

// condemn stores a new list of packs.
func (r *Repository) condemn(ctx context.Context, packs []*candidate) (*condemned, error) {
	var random [16]byte
	rand.Read(random[:])
	c := &condemned{name: "condemned/" + hex.EncodeToString(random[:])}
	for _, p := range packs {
		c.Packs = append(c.Packs, packID(p.id))
	}
	return c, r.putCondemned(ctx, c)
}

func (r *Repository) putCondemned(ctx context.Context, c *condemned) error {
	data, err := json.Marshal(c)
	if err == nil {
		err = r.storage.Put(ctx, c.name, append([]byte(condemnedMagic), seal(r.secrets.meta, "varve condemned"+r.id, data)...))
	}
	if err != nil {
		return fmt.Errorf("storing the list of packs that are to go: %w", err)
	}
	return nil
}

// parseCondemned reads what is stored of a list.
func (r *Repository) parseCondemned(name string, sealed []byte) (*condemned, error) {
	rest, found := strings.CutPrefix(string(sealed), condemnedMagic)
	if !found || len(sealed) > maxCondemned {
		return nil, &DamagedError{Object: name, Reason: "it does not start as a list of condemned packs does"}
	}
	data, err := unseal(r.secrets.meta, "varve condemned"+r.id, []byte(rest))
	c := &condemned{name: name}
	if err == nil {
		err = json.Unmarshal(data, c)
	}
	if err != nil {
		return nil, &DamagedError{Object: name, Reason: err.Error()}
	}
	return c, nil
}

// condemnedLists reads all lists. Of those that cannot be read it returns the names and, joined, the reasons.
func (r *Repository) condemnedLists(ctx context.Context) (lists []*condemned, damaged []string, reasons, err error) {
	var names []string
	err = r.storage.List(ctx, "condemned/", func(name string, _ int64) error {
		names = append(names, name)
		return nil
	})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("listing condemned packs: %w", err)
	}
	for _, name := range names {
		var c *condemned
		for range 3 { // one bad reading is no damage yet
			var sealed []byte
			if sealed, err = r.storage.Get(ctx, name, 0, -1, nil); err == nil {
				c, err = r.parseCondemned(name, sealed)
			}
			if err == nil || errors.Is(err, storage.ErrNotExist) || ctx.Err() != nil {
				break
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil, nil, nil, ctx.Err()
		case err == nil:
			lists = append(lists, c)
		case !errors.Is(err, storage.ErrNotExist): // else its packs are gone by now
			damaged = append(damaged, name)
			reasons = errors.Join(reasons, fmt.Errorf("reading which packs are about to go: %w", err))
		}
	}
	return lists, damaged, reasons, nil
}

// readCondemned tells x which packs are condemned. r.mu is held.
func (r *Repository) readCondemned(ctx context.Context, x *index.Index) error {
	lists, _, unclear, err := r.condemnedLists(ctx)
	if err != nil {
		return err
	}
	packs := map[ID]struct{}{}
	for _, c := range lists {
		for _, id := range c.Packs {
			packs[ID(id)] = struct{}{}
		}
	}
	x.SetCondemned(packs)
	r.unclear = unclear
	return nil
}

// condemnedKnown reports an error when it could not be found out which packs are condemned: reading can go on then, but
// nothing new may rely on any pack.
func (r *Repository) condemnedKnown() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unclear != nil {
		return fmt.Errorf("%w; 'varve prune' clears that up", r.unclear)
	}
	return nil
}

// waitingFor returns the leases of those who may rely on the packs of c: that were there when the list was new, and count. When
// there are none, the list is ripe. Leases that have ended by themselves are removed, so that their holders, should they run
// after all, commit nothing. own is the name of the caller's lease. With look nothing is changed.
func (r *Repository) waitingFor(ctx context.Context, c *condemned, own string, look bool) (waiting []Lease, err error) {
	leases, err := r.Leases(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for _, l := range leases {
		if l.Name == own || !c.Noted.IsZero() && !slices.Contains(c.Waiting, l.Name) {
			continue
		}
		// One that cannot be read would have been written anew by now if anybody held it.
		if l.stale(now) || l.Damaged && !c.Noted.IsZero() && now.Sub(c.Noted) > leaseTTL {
			if !look {
				if err := r.revoke(ctx, l.Name); err != nil && !l.Ended {
					return nil, err
				}
			}
			continue
		}
		waiting = append(waiting, l)
	}
	if len(waiting) > 0 && !look && c.Noted.IsZero() {
		c.Noted = now
		for _, l := range waiting {
			c.Waiting = append(c.Waiting, l.Name)
		}
		err = r.putCondemned(ctx, c)
	}
	return waiting, err
}

// makerOf returns what the salts of packs begin with that are made under the lease of that name: a prune tells by it what
// running sessions have made, to which no record refers yet.
func makerOf(lease string) (maker [16]byte) {
	random, _ := hex.DecodeString(strings.TrimPrefix(lease, "leases/"))
	copy(maker[:], random)
	return maker
}
