package repo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/user"
	"runtime"
	"sort"
	"strings"
	"time"
	"unicode"

	"github.com/zeebo/blake3"
	"golang.org/x/crypto/argon2"
	"varve/repo/storage"
)

// KDF is how much work a password costs to try: the parameters of Argon2id (RFC 9106).
type KDF struct {
	Time    uint32 `json:"time"`    // passes
	Memory  uint32 `json:"memory"`  // KiB
	Threads uint8  `json:"threads"` // lanes
}

// StandardKDF is the second recommended option of RFC 9106, StrongKDF takes four times the memory.
var (
	StandardKDF = KDF{Time: 3, Memory: 64 << 10, Threads: 4}
	StrongKDF   = KDF{Time: 3, Memory: 256 << 10, Threads: 4}
)

// Bounds on what a key slot may ask for. Whoever can write to the storage can write one, and it is believed before the
// password is known to be right: it must not take more memory than any machine has that makes backups.
const (
	maxKDFTime    = 16
	maxKDFMemory  = 1 << 20 // KiB
	maxKDFThreads = 16
	maxKeyFile    = 64 << 10 // bytes
)

// check reports why these parameters are not used.
func (k KDF) check() error {
	if k.Time < 1 || k.Time > maxKDFTime || k.Memory > maxKDFMemory || k.Threads < 1 || k.Threads > maxKDFThreads {
		return fmt.Errorf("its key derivation parameters are out of bounds (%+v)", k)
	}
	return nil
}

// Key describes one key slot: one password by which the repository opens.
type Key struct {
	ID      ID        `json:"-"`
	Version int       `json:"version"`
	Name    string    `json:"kdf"` // "argon2id"
	KDF     KDF       `json:"parameters"`
	Salt    []byte    `json:"salt"`
	Label   string    `json:"label,omitempty"`
	User    string    `json:"user"`
	Host    string    `json:"host"`
	Created time.Time `json:"created"`
	Current bool      `json:"-"` // it opened the repository this time
}

// A key slot is stored under keys/<id>, and a second time under keys/<id>.copy, where id is the BLAKE3 of its bytes:
//
//	one line of JSON (Key, in clear) ‖ "\n" ‖ seal(argon2id(password), "varve key" ‖ repository id ‖ the line, master key)

// maxKeyTries bounds how many slots a wrong password is tried against.
const maxKeyTries = 64

func keyName(id ID) string { return "keys/" + hex.EncodeToString(id[:]) }

// keyEncryptionKey derives what seals the master key in slot k.
func (k *Key) keyEncryptionKey(password []byte) [32]byte {
	var kek [32]byte
	copy(kek[:], argon2.IDKey(password, k.Salt, k.KDF.Time, k.KDF.Memory, k.KDF.Threads, 32))
	// What Argon2 took is most of the memory of a small run. Collected now, its place is used for what follows, and the
	// collector does not take it for the usual size of the heap.
	runtime.GC()
	return kek
}

// encodeKey makes a new slot for master and sets k.ID.
func encodeKey(k *Key, repository string, master [32]byte, password []byte) ([]byte, error) {
	line, err := json.Marshal(k)
	if err != nil {
		return nil, err
	}
	sealed := seal(k.keyEncryptionKey(password), "varve key"+repository+string(line), master[:])
	data := append(append(line, '\n'), sealed...)
	k.ID = blake3.Sum256(data)
	return data, nil
}

// decodeKey takes a slot apart; nothing in it is trusted yet.
func decodeKey(data []byte) (k Key, line, sealed []byte, err error) {
	line, sealed, found := bytes.Cut(data, []byte{'\n'})
	if !found || len(data) > maxKeyFile {
		return k, nil, nil, errors.New("it is not a key slot")
	}
	if err := json.Unmarshal(line, &k); err != nil {
		return k, nil, nil, fmt.Errorf("it is not a key slot: %w", err)
	}
	switch {
	case k.Version > 1 || k.Name != "argon2id":
		return k, nil, nil, fmt.Errorf("version %d with key derivation %q needs a newer varve", k.Version, k.Name)
	case k.Version < 1 || len(k.Salt) < 8:
		return k, nil, nil, errors.New("its header is not valid")
	}
	if err := k.KDF.check(); err != nil {
		return k, nil, nil, err
	}
	// Nobody has vouched for these, and they are shown to people: they must not drive a terminal.
	k.Label, k.User, k.Host = printable(k.Label), printable(k.User), printable(k.Host)
	k.ID = blake3.Sum256(data)
	return k, line, sealed, nil
}

// printable returns text without what is not a letter, digit, mark or space.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, text)
}

// loadKey reads a slot from its first copy or, where that is damaged, its second.
func loadKey(ctx context.Context, st storage.Storage, id ID) (data []byte, err error) {
	for _, name := range []string{keyName(id), keyName(id) + ".copy"} {
		var copyErr error
		data, copyErr = st.Get(ctx, name, 0, -1, nil)
		if copyErr == nil && blake3.Sum256(data) != id {
			copyErr = &DamagedError{Object: name, Reason: "its bytes do not have the hash that is its name"}
		}
		if copyErr == nil {
			return data, nil
		}
		err = errors.Join(err, copyErr)
	}
	return nil, err
}

// listKeys returns the ids of all slots of which at least one copy is there, in the order of their names.
func listKeys(ctx context.Context, st storage.Storage) ([]ID, error) {
	seen := map[ID]bool{}
	err := st.List(ctx, "keys/", func(name string, _ int64) error {
		id, err := ParseID(strings.TrimSuffix(strings.TrimPrefix(name, "keys/"), ".copy"))
		if err == nil {
			seen[id] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing keys: %w", err)
	}
	ids := make([]ID, 0, len(seen))
	for id := range seen {
		ids = append(ids, id)
	}
	sort.Slice(ids, func(i, j int) bool { return bytes.Compare(ids[i][:], ids[j][:]) < 0 })
	return ids, nil
}

// unlockMaster finds the slot that password opens. It fails with ErrWrongPassword when there are slots but none opens.
func unlockMaster(ctx context.Context, st storage.Storage, repository string, password []byte) (master [32]byte, slot ID, err error) {
	ids, err := listKeys(ctx, st)
	if err != nil {
		return master, slot, err
	}
	if len(ids) == 0 {
		return master, slot, &DamagedError{Object: "keys/", Reason: "there is no key: without one the repository cannot be opened"}
	}
	var damage error
	for i, id := range ids {
		if i == maxKeyTries {
			break
		}
		data, err := loadKey(ctx, st, id)
		if err != nil {
			damage = errors.Join(damage, err)
			continue
		}
		k, line, sealed, err := decodeKey(data)
		if err != nil {
			damage = errors.Join(damage, &DamagedError{Object: keyName(id), Reason: err.Error()})
			continue
		}
		plain, err := unseal(k.keyEncryptionKey(password), "varve key"+repository+string(line), sealed)
		if err == nil && len(plain) == len(master) {
			copy(master[:], plain)
			return master, id, nil
		}
	}
	if damage != nil {
		return master, slot, fmt.Errorf("%w (but some keys could not be read: %w)", ErrWrongPassword, damage)
	}
	return master, slot, ErrWrongPassword
}

// addKey makes and stores a slot, both copies. When it fails it leaves none, as far as it can: the password would open the
// repository.
func addKey(ctx context.Context, st storage.Storage, repository string, master [32]byte, password []byte, kdf KDF, label string) (ID, error) {
	if err := kdf.check(); err != nil {
		return ID{}, fmt.Errorf("making a key: %w", err)
	}
	k := Key{Version: 1, Name: "argon2id", KDF: kdf, Label: label, Salt: make([]byte, 32), Created: time.Now().Round(time.Second)}
	rand.Read(k.Salt)
	k.Host, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		k.User = u.Username
	}
	data, err := encodeKey(&k, repository, master, password)
	if err != nil {
		return ID{}, err
	}
	for _, name := range []string{keyName(k.ID), keyName(k.ID) + ".copy"} {
		if err := st.Put(ctx, name, data); err != nil {
			_ = removeKey(context.WithoutCancel(ctx), st, k.ID)
			return ID{}, fmt.Errorf("storing key: %w", err)
		}
	}
	return k.ID, nil
}

// Keys lists the key slots. A slot that cannot be read is reported to damaged and left out.
func (r *Repository) Keys(ctx context.Context, damaged func(error)) ([]Key, error) {
	ids, err := listKeys(ctx, r.storage)
	if err != nil {
		return nil, err
	}
	var keys []Key
	for _, id := range ids {
		data, err := loadKey(ctx, r.storage, id)
		if err != nil {
			damaged(err)
			continue
		}
		k, _, _, err := decodeKey(data)
		if err != nil {
			damaged(&DamagedError{Object: keyName(id), Reason: err.Error()})
			continue
		}
		k.Current = id == r.slot
		keys = append(keys, k)
	}
	return keys, nil
}

// AddKey makes another password open the repository.
func (r *Repository) AddKey(ctx context.Context, password []byte, kdf KDF, label string) (ID, error) {
	ids, err := listKeys(ctx, r.storage)
	if err != nil {
		return ID{}, err
	}
	if len(ids) >= maxKeyTries {
		return ID{}, fmt.Errorf("there are %d keys, and no more are tried when a password is given: remove one first", len(ids))
	}
	return addKey(ctx, r.storage, r.id, r.master, password, kdf, label)
}

// RemoveKey takes away the slot id. It refuses the one that opened the repository, so that one is always left.
func (r *Repository) RemoveKey(ctx context.Context, id ID) error {
	if id == r.slot {
		return errors.New("this key is the one in use: open the repository with another password to remove it")
	}
	return removeKey(ctx, r.storage, id)
}

func removeKey(ctx context.Context, st storage.Storage, id ID) error {
	first := st.Delete(ctx, keyName(id))
	second := st.Delete(ctx, keyName(id)+".copy")
	if errors.Is(first, storage.ErrNotExist) && errors.Is(second, storage.ErrNotExist) {
		return fmt.Errorf("there is no key %s: see 'varve key list'", short(id))
	}
	for _, err := range []error{first, second} {
		if err != nil && !errors.Is(err, storage.ErrNotExist) {
			return fmt.Errorf("removing key %s: %w", short(id), err)
		}
	}
	return nil
}

// ChangePassword replaces the slot that opened the repository by one for the new password. The new one is durable
// before the old one goes.
func (r *Repository) ChangePassword(ctx context.Context, password []byte, kdf KDF, label string) (ID, error) {
	id, err := r.AddKey(ctx, password, kdf, label)
	if err != nil {
		return ID{}, err
	}
	old := r.slot
	r.slot = id
	return id, removeKey(ctx, r.storage, old)
}
