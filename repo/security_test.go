package repo

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"
	"varve/repo/pack"
	"varve/repo/storage"
)

// TestNoObjectStandsInForOneOfAnotherKind: each kind of small object under the names, and behind the magic, of each other;
// and those of another repository with the same keys.
func TestNoObjectStandsInForOneOfAnotherKind(t *testing.T) {
	ctx := context.Background()
	r, _ := newRepository(t)
	content := []byte(`{}`) // valid as any of them
	contexts := map[string]string{
		"record": r.recordContext(), "lease": "varve lease" + r.id, "condemned": "varve condemned" + r.id, "ledger": "varve ledger" + r.id,
		"config": `varve config{"format":"varve repository","version":1,"id":"` + r.id + `"}`,
	}
	elsewhere := strings.Repeat("00", 16)
	for kind, c := range contexts {
		contexts[kind+" of another repository"] = strings.ReplaceAll(c, r.id, elsewhere)
	}
	opens := map[string]func(sealed []byte) error{
		"record": func(sealed []byte) error {
			object := append([]byte(recordMagic), sealed...)
			id := blake3.Sum256(object)
			if err := r.storage.Put(ctx, recordName(id), object); err != nil {
				t.Fatal(err)
			}
			_, err := r.Record(ctx, id)
			return err
		},
		"lease": func(sealed []byte) error {
			if err := r.storage.Put(ctx, "leases/00", append([]byte(leaseMagic), sealed...)); err != nil {
				t.Fatal(err)
			}
			leases, err := r.Leases(ctx)
			if err == nil && leases[0].Damaged {
				err = errors.New("damaged")
			}
			return err
		},
		"condemned": func(sealed []byte) error {
			_, err := r.parseCondemned("condemned/00", append([]byte(condemnedMagic), sealed...))
			return err
		},
		"ledger": func(sealed []byte) error {
			_, err := r.parseLedger("verified/00", append([]byte(ledgerMagic), sealed...))
			return err
		},
	}
	for kind, open := range opens {
		for from, c := range contexts {
			data := content
			if kind == "ledger" {
				data = ledger{}.encode()
			}
			if err := open(seal(r.secrets.meta, c, data)); (err == nil) != (from == kind) {
				t.Errorf("a %s as a %s: %v", from, kind, err)
			}
		}
	}
}

// TestARepositoryInThePlaceOfAnother: whoever controls the storage cannot make a program use a repository that its password
// does not open: not one without a password, not one whose config is that of another.
func TestARepositoryInThePlaceOfAnother(t *testing.T) {
	ctx := context.Background()
	_, st := newRepository(t)
	other := storage.NewMemory()
	if _, err := Init(ctx, other, Options{}, testKDF, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, other, options(t)); !errors.Is(err, ErrWrongPassword) {
		t.Errorf("one without a password: %v", err)
	}
	// The keys of this one beside the config of the other, and the other way round.
	move := func(from, to *storage.Memory, prefix string) *storage.Memory {
		mixed := storage.NewMemory()
		for _, copied := range []struct {
			st   *storage.Memory
			keep bool
		}{{to, false}, {from, true}} {
			for _, name := range objects(t, copied.st) {
				if strings.HasPrefix(name, prefix) != copied.keep {
					continue
				}
				data, err := copied.st.Get(ctx, name, 0, -1, nil)
				if err == nil {
					err = mixed.Put(ctx, name, data)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		return mixed
	}
	for what, mixed := range map[string]*storage.Memory{"config": move(other, st, "config"), "keys": move(other, st, "keys/")} {
		for _, password := range []string{"secret", ""} {
			if _, err := Open(ctx, mixed, Options{Password: []byte(password)}); err == nil {
				t.Errorf("it opens with %q with the %s of another", password, what)
			}
		}
	}
}

// TestBombsAreBounded: a frame whose content claims or yields more than a frame may hold is refused, and takes no more
// memory than one that is good.
func TestBombsAreBounded(t *testing.T) {
	r, _ := newRepository(t)
	encoder, err := zstd.NewWriter(nil, zstd.WithWindowSize(8<<20))
	if err != nil {
		t.Fatal(err)
	}
	grows := encoder.EncodeAll(make([]byte, 64<<20), nil)
	bombs := map[string][]byte{
		"64 MiB of zeros":      grows,
		"a window of 512 MiB":  {0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x98, 0x01, 0x00, 0x00},
		"a content of 2^63":    append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0}, bytes.Repeat([]byte{0x7f}, 40)...),
		"frames one by one":    bytes.Repeat(encoder.EncodeAll(make([]byte, 1<<19), nil), 100),
		"a skippable of 4 GiB": {0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff},
	}
	for what, payload := range bombs {
		b := pack.NewBuilder(r.secrets.pack, pack.Data, 0, [16]byte{}, nil)
		b.Append(pack.Zstd, payload, pack.MaxFrame, []pack.Chunk{{ID: ID{1}, Length: pack.MaxFrame}})
		data, _, dir := b.Finish()
		scratch := newFrameScratch(r.secrets.id)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		f := dir.Frames[0]
		err := scratch.verify(dir.Opener(r.secrets.pack), f, data[f.Offset:f.Offset+f.Stored])
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s is a good frame", what)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 32<<20 {
			t.Errorf("%s takes %d MiB", what, took>>20)
		}
	}
}

// keeping is a storage that keeps a copy of all that was ever put, and notes what is read in ranges.
type keeping struct {
	storage.Storage
	mu     sync.Mutex
	puts   [][]byte
	names  []string
	ranges map[string][][2]int64
}

func (k *keeping) Put(ctx context.Context, name string, data []byte) error {
	k.mu.Lock()
	k.puts, k.names = append(k.puts, bytes.Clone(data)), append(k.names, name)
	k.mu.Unlock()
	return k.Storage.Put(ctx, name, data)
}

func (k *keeping) Get(ctx context.Context, name string, offset, length int64, buf []byte) ([]byte, error) {
	if length >= 0 {
		k.mu.Lock()
		k.ranges[name] = append(k.ranges[name], [2]int64{offset, offset + length})
		k.mu.Unlock()
	}
	return k.Storage.Get(ctx, name, offset, length, buf)
}

func newKeeping(t *testing.T) (*Repository, *keeping) {
	k := &keeping{Storage: storage.NewMemory(), ranges: map[string][][2]int64{}}
	if _, err := Init(context.Background(), k, options(t), testKDF, nil); err != nil {
		t.Fatal(err)
	}
	return reopen(t, k), k
}

// TestNoKeyMeetsANonceTwice: over sessions at the same time, interrupted ones, and prunes that write packs anew, all that is
// ever sealed under one key has nonces of its own. Salts stand for the keys of packs; offsets are the nonces in them.
func TestNoKeyMeetsANonceTwice(t *testing.T) {
	ctx := context.Background()
	r, k := newKeeping(t)
	var work sync.WaitGroup
	for i := range 3 {
		work.Go(func() {
			other := reopen(t, k)
			for round := range 6 {
				s, err := other.Begin(ctx, SessionOptions{Purpose: "test", PackSize: 64 << 10})
				if err != nil {
					t.Error(err)
					return
				}
				w, err := s.DataWriter()
				if err != nil {
					t.Error(err)
					return
				}
				var list refs
				for _, c := range someChunks(uint64(10*i+round), 80) { // the same ones again in every run: content makes no nonce
					if _, err := w.Save(ctx, w.ID(c), c); err != nil {
						t.Error(err)
					}
					list = append(list, w.ID(c))
				}
				if round != 2 { // one is broken off
					if _, err := s.Commit(ctx, list.encode()); err != nil {
						t.Error(err)
					}
				}
				s.Close()
			}
		})
	}
	work.Wait()
	records, err := r.Records(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range records[:4] {
		if err := r.DeleteRecord(ctx, record); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Prune(ctx, PruneOptions{MaxUnused: func(int64) int64 { return 0 }}, marker(r)); err != nil {
		t.Fatal(err)
	}
	packs, sealed, salts, nonces := 0, 0, map[[32]byte]bool{}, map[[24]byte]bool{}
	for i, data := range k.puts {
		name := k.names[i]
		var nonce []byte
		switch folder, _, _ := strings.Cut(name, "/"); folder {
		case "packs":
			dir, err := pack.ReadDirectory(r.secrets.pack, bytes.NewReader(data), int64(len(data)))
			if err != nil {
				t.Fatal(err)
			}
			if salts[dir.Salt] {
				t.Errorf("two packs have one key: %s", name)
			}
			salts[dir.Salt] = true
			packs++
			offsets := map[uint32]bool{}
			for _, f := range dir.Frames {
				if offsets[f.Offset] {
					t.Errorf("two frames of %s are sealed with one nonce", name)
				}
				offsets[f.Offset] = true
			}
			continue
		case "config", "config.copy", "keys":
			if strings.HasSuffix(name, ".copy") {
				continue // the same bytes
			}
			_, nonce, _ = bytes.Cut(data, []byte{'\n'})
		default:
			nonce = data[8:] // behind the magic
		}
		if n := [24]byte(nonce[:24]); nonces[n] {
			t.Errorf("a nonce comes twice, the second time in %s", name)
		} else {
			nonces[n] = true
		}
		sealed++
	}
	if packs < 30 || sealed < 20 {
		t.Errorf("only %d packs and %d small objects", packs, sealed)
	}
	t.Logf("%d packs, %d small objects", packs, sealed)
}

// TestStorageSeesFramesAndNoChunks: neither in what is stored nor in what is read is there a chunk's id or length. What is
// read in ranges are ends of packs and frames, whatever chunk is wanted of them.
func TestStorageSeesFramesAndNoChunks(t *testing.T) {
	ctx := context.Background()
	r, k := newKeeping(t)
	chunks := someChunks(3, 100)
	save(t, r, chunks...)
	fresh := reopen(t, k)
	for i := range chunks {
		if i%7 == 0 {
			if _, err := fresh.Load(ctx, r.Hasher()(chunks[i]), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	whole := 0
	for id, size := range sizes(t, r) {
		dir, err := r.readDirectory(ctx, id, size)
		if err != nil {
			t.Fatal(err)
		}
		edges := map[int64]bool{0: true, 80: true, size: true, max(0, size-tailBytes): true}
		for _, f := range dir.Frames {
			edges[int64(f.Offset)] = true
			edges[int64(f.Offset)+int64(f.Stored)] = true
			if len(f.Chunks) > 1 {
				whole++
			}
		}
		for _, read := range k.ranges[packName(id)] {
			if !edges[read[0]] || !edges[read[1]] {
				t.Errorf("bytes %d to %d of a pack of %d were read, which are no frames", read[0], read[1], size)
			}
		}
	}
	if whole == 0 || len(k.ranges) == 0 {
		t.Fatal("there is no frame of several chunks, or nothing was read")
	}
	for _, data := range k.puts {
		for _, c := range chunks {
			id := r.Hasher()(c)
			plain := blake3.Sum256(c)
			if bytes.Contains(data, id[:16]) || bytes.Contains(data, plain[:16]) || len(c) >= 16 && bytes.Contains(data, c[:16]) {
				t.Fatal("something of a chunk is stored in clear")
			}
		}
	}
	for _, name := range k.names {
		for _, c := range chunks {
			if id := r.Hasher()(c); strings.Contains(name, hex.EncodeToString(id[:8])) {
				t.Fatalf("%s has the name of a chunk", name)
			}
		}
	}
}

// TestErrorsHoldNoSecrets: what goes wrong is told without keys and passwords, however it is printed.
func TestErrorsHoldNoSecrets(t *testing.T) {
	ctx := context.Background()
	r, st := newRepository(t)
	var told strings.Builder
	tell := func(err error) { fmt.Fprintf(&told, "%v %+v %#v\n", err, err, err) }
	o := options(t)
	o.Password = []byte("not the secret password")
	_, err := Open(ctx, st, o)
	tell(err)
	for _, name := range objects(t, st) {
		data, err := st.Get(ctx, name, 0, -1, nil)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)-1] ^= 1
		if err := st.Put(ctx, name, data); err != nil {
			t.Fatal(err)
		}
		_, err = Open(ctx, st, options(t))
		tell(err)
	}
	_, err = unseal(r.secrets.meta, "nothing", make([]byte, 100))
	tell(err)
	line, err := json.Marshal([]any{r})
	if err != nil {
		t.Fatal(err)
	}
	told.Write(line)
	for what, secret := range map[string][]byte{"password": o.Password, "master key": r.master[:], "id key": r.secrets.id[:], "pack key": r.secrets.pack[:], "meta key": r.secrets.meta[:]} {
		for _, form := range []string{string(secret), hex.EncodeToString(secret), fmt.Sprint(secret)} {
			if strings.Contains(told.String(), form) {
				t.Errorf("the %s is in\n%s", what, &told)
			}
		}
	}
}
