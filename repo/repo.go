// Package repo keeps objects: chunks and tree nodes, sealed in packs and found by the hash of their bytes, and records,
// small sealed objects that are the only points of commit. It does not know what they mean.
//
//	config, config.copy         format version, repository id, settings of the program (sealed)
//	keys/<id>, keys/<id>.copy   the master key, sealed under a password
//	packs/<2>/<id>              frames of chunks and the directory that finds them: see package pack
//	snapshots/<id>              a record
//	snapshots/<id>.copy         the same bytes, where packs have parity
//	leases/<id>                 who is working on the repository now
//	condemned/<id>              which packs a prune is about to remove
//
// Every name with an <id> is the BLAKE3 of the object's bytes in hexadecimal; a lease's and a condemned list's are random.
// Anybody can check packs, keys and records with b3sum, without a key.
//
// # What is written when
//
// A session takes a lease, makes its packs durable, and then writes its record. What is not named by a record does not
// exist for readers, so a crash at any time leaves the old state and some packs that prune will remove. Prune makes the
// packs that replace others durable, condemns those, and deletes them when nobody works who began before: see Prune.
//
// # Chunks and frames
//
// A chunk's id is the BLAKE3 of its bytes, keyed with a key of the repository: storage cannot tell from it whether a
// known file is in the repository. Chunks are put into frames of up to 1 MiB, which are compressed and sealed as one.
package repo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"varve/index"
	"varve/repo/blocks"
	"varve/repo/pack"
	"varve/repo/storage"
)

// Errors that callers decide by.
var (
	ErrNoRepository  = errors.New("there is no repository")
	ErrWrongPassword = errors.New("wrong password, or no key for it")
	ErrNewerFormat   = errors.New("the repository has a newer format than this program knows")
	ErrExists        = errors.New("there is a repository already")
	ErrNotFound      = error(notFound{})
)

// notFound is also fs.ErrNotExist, for callers that do not know this package.
type notFound struct{}

func (notFound) Error() string        { return "not found in the repository" }
func (notFound) Is(target error) bool { return target == fs.ErrNotExist }

// DamagedError says that an object in the repository is not what was written there.
type DamagedError struct {
	Object string // its name in the storage, or what it is
	Reason string
}

func (e *DamagedError) Error() string { return e.Object + " is damaged: " + e.Reason }

// formatVersion is the newest version of the repository format that this package reads, and the one that it writes.
const formatVersion = 1

// header is the line in clear at the start of config.
type header struct {
	Format  string `json:"format"` // always "varve repository"
	Version int    `json:"version"`
	ID      string `json:"id"` // 32 hexadecimal digits, random
}

// Options says how a repository is opened.
type Options struct {
	Password []byte
	CacheDir string                        // folder of caches; the index lives in <CacheDir>/<repository id>/index. Empty: none is kept
	Logf     func(format string, a ...any) // for what a user may want to know but need not act on
	Progress func(what string, done, total int)
}

// Repository is an open repository. Its methods may be used concurrently.
type Repository struct {
	storage  storage.Storage
	id       string
	slot     ID // the key that opened it
	master   [32]byte
	secrets  secrets
	settings json.RawMessage
	own      Settings // of them
	options  Options

	frames      *cache[frameKey, []byte]
	digestFiles *cache[ID, *blocks.File] // by pack; nil: there is none of use
	openers     sync.Map                 // pack id → *pack.Opener

	hashers   sync.Pool // of *hasher
	scratches sync.Pool // of *frameScratch

	mu      sync.Mutex
	index   *index.Index
	rebuilt bool            // the index was made anew in this process: no need to try that again
	broken  map[ID]struct{} // packs whose directory cannot be read
	unclear error           // why it is not known which packs are condemned; nil when it is

	healer healer

	copiesMu sync.Mutex
	copiesOf map[ID]map[ID][]copyPlace // by damaged pack, by chunk
}

// Settings are those of the repository's settings that this package itself uses. Whoever gives settings to Init embeds them.
type Settings struct {
	// Parity is how much of it new packs get, in percent of their data, up to pack.MaxParity; 0 is none.
	Parity int `json:"parity,omitempty"`
}

// take decodes the settings of a repository.
func (r *Repository) take(settings json.RawMessage) error {
	r.settings = settings
	if err := r.Settings(&r.own); err != nil {
		return err
	}
	if r.own.Parity < 0 || r.own.Parity > pack.MaxParity {
		return &DamagedError{Object: "config", Reason: fmt.Sprintf("it wants %d %% of parity", r.own.Parity)}
	}
	return nil
}

// unopened returns a repository in st of which nothing is known yet.
func unopened(st storage.Storage, o Options) *Repository {
	return &Repository{
		storage:     st,
		options:     o,
		frames:      newCache[frameKey](frameCacheBytes, func(frame []byte) int { return len(frame) }),
		digestFiles: newCache[ID](digestCacheBytes, (*blocks.File).Memory),
	}
}

// Init makes a repository in st, which must not hold one (ErrExists). settings is kept for the caller, sealed, as JSON.
func Init(ctx context.Context, st storage.Storage, o Options, kdf KDF, settings any) (*Repository, error) {
	for _, name := range []string{"config", "config.copy"} {
		_, err := st.Get(ctx, name, 0, -1, nil)
		if err == nil {
			return nil, fmt.Errorf("%w at %s", ErrExists, st.Location())
		}
		if !errors.Is(err, storage.ErrNotExist) {
			return nil, fmt.Errorf("looking for a repository at %s: %w", st.Location(), err)
		}
	}
	left, err := leftKeys(ctx, st)
	if err != nil {
		return nil, err
	}
	var random [16]byte
	rand.Read(random[:])
	r := unopened(st, o)
	r.id = hex.EncodeToString(random[:])
	rand.Read(r.master[:])
	r.secrets = deriveSecrets(r.master, r.id)
	encoded, err := json.Marshal(settings)
	if err == nil {
		err = r.take(encoded)
	}
	if err != nil {
		return nil, err
	}
	if r.slot, err = addKey(ctx, st, r.id, r.master, o.Password, kdf, ""); err != nil {
		return nil, err
	}
	line, err := json.Marshal(header{"varve repository", formatVersion, r.id})
	if err != nil {
		return nil, err
	}
	data := append(append(line, '\n'), seal(r.secrets.meta, "varve config"+string(line), r.settings)...)
	// The key is there before the config that makes this a repository, and PutNew lets one of two inits win.
	err = st.PutNew(ctx, "config", data)
	if errors.Is(err, storage.ErrExist) {
		_ = removeKey(ctx, st, r.slot)
		return nil, fmt.Errorf("%w at %s", ErrExists, st.Location())
	}
	if err != nil { // the config may be there all the same: without its key nobody could open it
		return nil, fmt.Errorf("storing config: %w", err)
	}
	if err := st.Put(ctx, "config.copy", data); err != nil {
		r.undoInit(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("storing config: %w", err)
	}
	for _, id := range left {
		if err := removeKey(ctx, st, id); err != nil {
			r.logf("a key that an unfinished init has left: %v", err)
		}
	}
	return r, nil
}

// leftKeys returns the keys that an init has left which did not come as far as its config. It fails with ErrExists where
// more than keys is there: that is a repository which has lost its config.
func leftKeys(ctx context.Context, st storage.Storage) ([]ID, error) {
	for _, folder := range []string{"packs/", "snapshots/"} {
		err := st.List(ctx, folder, func(name string, _ int64) error {
			return fmt.Errorf("%w at %s: it has no config, but there is %s; use another place, or remove the old repository if you are sure that it holds nothing", ErrExists, st.Location(), name)
		})
		if err != nil {
			return nil, err
		}
	}
	return listKeys(ctx, st)
}

// undoInit takes back a repository that was not finished, as far as it can. Whatever is left when it stops can be opened,
// or made again. The key stays, and is removed by the next init: a server that was only slow may still store the config, which
// nobody could open without it, and over which no init would go.
func (r *Repository) undoInit(ctx context.Context) {
	for _, name := range []string{"config.copy", "config"} {
		if err := r.storage.Delete(ctx, name); err != nil && !errors.Is(err, storage.ErrNotExist) {
			return
		}
	}
}

// Open opens the repository in st: ErrNoRepository, ErrNewerFormat, ErrWrongPassword.
func Open(ctx context.Context, st storage.Storage, o Options) (*Repository, error) {
	r := unopened(st, o)
	var failures error
	var first []byte
	missing := 0
	for _, name := range []string{"config", "config.copy"} {
		data, err := st.Get(ctx, name, 0, -1, nil)
		if errors.Is(err, storage.ErrNotExist) {
			missing++
			continue
		}
		if err == nil && failures != nil && bytes.Equal(data, first) {
			break // a password that is wrong is not tried twice
		}
		if err == nil {
			first = data
			err = r.unlock(ctx, name, data)
		}
		if err == nil {
			if failures != nil {
				r.logf("the first copy of the repository's config cannot be used, the second was: %v", failures)
			}
			return r, nil
		}
		// Whatever the reason is: a wrong bit in its clear line makes a config one of a newer format, or of a repository
		// for which no password is right.
		failures = errors.Join(failures, err)
	}
	if missing == 2 {
		return nil, fmt.Errorf("%w at %s: is the location right? 'varve init' makes a new one", ErrNoRepository, st.Location())
	}
	return nil, failures
}

// unlock takes one copy of config, the object name, and, with the password, all keys from it.
func (r *Repository) unlock(ctx context.Context, name string, config []byte) error {
	line, sealed, found := bytes.Cut(config, []byte{'\n'})
	var h header
	if !found || json.Unmarshal(line, &h) != nil || h.Format != "varve repository" {
		return &DamagedError{Object: name, Reason: "it does not start as the config of a repository does; is this a varve repository?"}
	}
	if h.Version > formatVersion {
		return fmt.Errorf("%w: version %d, where this program knows %d; use a newer varve", ErrNewerFormat, h.Version, formatVersion)
	}
	if _, err := hex.DecodeString(h.ID); err != nil || len(h.ID) != 32 || h.Version < 1 {
		return &DamagedError{Object: name, Reason: "its header is not valid"}
	}
	master, slot, err := unlockMaster(ctx, r.storage, h.ID, r.options.Password)
	if err != nil {
		return err
	}
	s := deriveSecrets(master, h.ID)
	settings, err := unseal(s.meta, "varve config"+string(line), sealed)
	if err != nil {
		return &DamagedError{Object: name, Reason: err.Error()}
	}
	r.id, r.master, r.slot, r.secrets = h.ID, master, slot, s
	return r.take(settings)
}

// ID returns the repository's own id, 32 hexadecimal digits.
func (r *Repository) ID() string { return r.id }

// Location says where the repository is, for messages.
func (r *Repository) Location() string { return r.storage.Location() }

// Settings decodes what Init was given.
func (r *Repository) Settings(into any) error {
	if err := json.Unmarshal(r.settings, into); err != nil {
		return &DamagedError{Object: "config", Reason: err.Error()}
	}
	return nil
}

// Close releases the index. Sessions have to be closed before.
func (r *Repository) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.index == nil {
		return nil
	}
	err := r.index.Close()
	r.index = nil
	return err
}

func (r *Repository) logf(format string, a ...any) {
	if r.options.Logf != nil {
		r.options.Logf(format, a...)
	}
}

func (r *Repository) progress(what string, done, total int) {
	if r.options.Progress != nil {
		r.options.Progress(what, done, total)
	}
}

func (r *Repository) indexDir() string {
	return filepath.Join(r.options.CacheDir, r.id, "index")
}

func packName(id ID) string {
	text := hex.EncodeToString(id[:])
	return "packs/" + text[:2] + "/" + text
}

// opener returns what opens the frames of a pack.
func (r *Repository) opener(p index.Pack) *pack.Opener {
	if o, ok := r.openers.Load(p.ID); ok {
		return o.(*pack.Opener)
	}
	o, _ := r.openers.LoadOrStore(p.ID, directoryOf(p).Opener(r.secrets.pack))
	return o.(*pack.Opener)
}

// directoryOf returns the head of the directory of a pack that the index knows: see indexPack.
func directoryOf(p index.Pack) pack.Directory {
	return pack.Directory{Version: 1 + p.Kind>>4, Kind: pack.Kind(p.Kind & 0xf), Salt: p.Salt}
}
