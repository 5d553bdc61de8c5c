package repo

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/blake3"
	"varve/repo/pack"
	"varve/repo/storage"
)

// What is in a storage may have been written by anybody. The targets here give it to whatever reads it. They take the
// golden repository, because its secrets are the same in every process that fuzzes.

// object reads what the storage has under name.
func object(t testing.TB, st storage.Storage, name string) []byte {
	t.Helper()
	data, err := st.Get(t.Context(), name, 0, -1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzOpen opens a repository of one config and one key slot. It must open only where both are what Init has written.
func FuzzOpen(f *testing.F) {
	r, st := goldenRepository(f)
	config, key := object(f, st, "config"), object(f, st, keyName(r.slot))
	f.Add(config, key)
	f.Add(config[:len(config)-1], key)
	f.Add(config, key[:len(key)-1])
	f.Add([]byte(`{"format":"varve repository","version":1,"id":"../../../../../../etc/passwd/00"}`+"\n"), key)
	f.Add([]byte(`{"format":"varve repository","version":-1,"id":"00000000000000000000000000000000"}`+"\n"), []byte("{}\n"))
	f.Add([]byte("null\n"), []byte("null\n"))
	f.Add([]byte("\n"), []byte("\n"))
	f.Fuzz(func(t *testing.T, config2, key2 []byte) {
		if k, _, _, err := decodeKey(key2); err == nil && (k.KDF.Memory > 1<<10 || k.KDF.Time > 2) {
			return // within bounds, and too slow for a fuzz target
		}
		st := storage.NewMemory()
		id := ID(blake3.Sum256(key2))
		for name, data := range map[string][]byte{"config": config2, keyName(id): key2} {
			if err := st.Put(t.Context(), name, data); err != nil {
				t.Fatal(err)
			}
		}
		opened, err := Open(t.Context(), st, Options{Password: []byte("secret")})
		if err != nil {
			return
		}
		if !bytes.Equal(config, config2) || !bytes.Equal(key, key2) {
			t.Error("a repository was opened that nobody has made")
		}
		if opened.ID() != r.ID() || opened.slot != r.slot {
			t.Error("it opened as another one")
		}
	})
}

// FuzzDecodeKey: a slot that is accepted asks for no more than the bounds allow.
func FuzzDecodeKey(f *testing.F) {
	r, st := goldenRepository(f)
	f.Add(object(f, st, keyName(r.slot)))
	f.Add(hostileKey(f, KDF{Time: 3, Memory: 4 << 20, Threads: 4}))
	f.Add([]byte(`{"version":1,"kdf":"argon2id","parameters":{"time":1,"memory":4294967296,"threads":1},"salt":"AAAAAAAAAAAAAAAA"}` + "\n"))
	f.Add([]byte(strings.Repeat("[", 5000) + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		k, line, sealed, err := decodeKey(data)
		if err != nil {
			return
		}
		if k.KDF.check() != nil || k.KDF.Memory > 1<<20 || len(k.Salt) < 8 || len(data) > maxKeyFile || k.Version != 1 {
			t.Errorf("accepted: %+v", k)
		}
		if len(line)+1+len(sealed) != len(data) {
			t.Errorf("%d and %d bytes of %d", len(line), len(sealed), len(data))
		}
	})
}

// FuzzLease reads a lease whose bytes are data, and one that is sealed as it should be around them.
func FuzzLease(f *testing.F) {
	r, _ := goldenRepository(f)
	sealed := func(plain []byte) []byte {
		return append([]byte(leaseMagic), seal(r.secrets.meta, "varve lease"+r.id, plain)...)
	}
	whole, err := json.Marshal(Lease{Purpose: "backup", Host: "h", PID: 1, Machine: machine(), Started: "1", Taken: time.Now(), Renewed: time.Now()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(sealed(whole))
	f.Add([]byte(leaseMagic))
	f.Add([]byte(`{"pid":-9223372036854775808,"renewed":"0001-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"renewed":"9999-12-31T23:59:59Z","purpose":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		st := storage.NewMemory()
		r := &Repository{storage: st, id: r.id, secrets: r.secrets}
		for name, object := range map[string][]byte{"leases/raw": data, "leases/sealed": sealed(data)} {
			if err := st.Put(t.Context(), name, object); err != nil {
				t.Fatal(err)
			}
		}
		leases, err := r.Leases(t.Context())
		if err != nil || len(leases) != 2 {
			t.Fatalf("%d leases, %v", len(leases), err)
		}
		for _, l := range leases {
			if l.String() == "" || l.Damaged && l.stale(time.Now()) {
				t.Errorf("%+v", l)
			}
			l.stale(time.Now())
			var want Lease
			if damaged := json.Unmarshal(data, &want) != nil; l.Name == "leases/sealed" && l.Damaged != damaged {
				t.Errorf("damaged: %v, want %v", l.Damaged, damaged)
			}
		}
	})
}

// FuzzCondemned: a list is what was sealed or none at all, and takes part in a prune either way.
func FuzzCondemned(f *testing.F) {
	r, st := goldenRepository(f)
	whole := object(f, st, "condemned/00000000000000000000000000000000")
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte(condemnedMagic))
	f.Add([]byte(`{"packs":["00"],"noted":"2026-01-02T03:04:05Z","waiting":null}`))
	f.Add([]byte(`{"packs":["` + strings.Repeat("07", 32) + `"],"waiting":["leases/../config"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		st := storage.NewMemory()
		r := &Repository{storage: st, id: r.id, secrets: r.secrets}
		sealed := append([]byte(condemnedMagic), seal(r.secrets.meta, "varve condemned"+r.id, data)...)
		for name, object := range map[string][]byte{"condemned/raw": data, "condemned/sealed": sealed} {
			if err := st.Put(t.Context(), name, object); err != nil {
				t.Fatal(err)
			}
		}
		lists, damaged, _, err := r.condemnedLists(t.Context())
		if err != nil || len(lists)+len(damaged) != 2 {
			t.Fatalf("%d lists, %d damaged, %v", len(lists), len(damaged), err)
		}
		for _, c := range lists {
			if c.name == "condemned/raw" && !bytes.Equal(data, whole) {
				t.Error("a list was read that nobody has sealed")
			}
			if others, err := r.waitingFor(t.Context(), c, "", true); err != nil || len(others) > 0 {
				t.Errorf("it waits where there are no leases: %v, %v", others, err)
			}
		}
	})
}

// FuzzSnapshotRecord reads a record whose bytes are data, under the name that fits.
func FuzzSnapshotRecord(f *testing.F) {
	r, st := goldenRepository(f)
	records, err := r.Records(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	whole := object(f, st, recordName(records[0]))
	said, err := r.Record(f.Context(), records[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:len(whole)-1])
	f.Add([]byte(recordMagic))
	f.Add([]byte(recordMagic[:5]))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		st := storage.NewMemory()
		r := &Repository{storage: st, id: r.id, secrets: r.secrets}
		id := ID(blake3.Sum256(data))
		if err := st.Put(t.Context(), recordName(id), data); err != nil {
			t.Fatal(err)
		}
		got, err := r.Record(t.Context(), id)
		var damaged *DamagedError
		switch {
		case err != nil && !errors.As(err, &damaged):
			t.Error(err)
		case err == nil && (!bytes.Equal(data, whole) || !bytes.Equal(got, said)):
			t.Error("a record was read that nobody has written")
		}
	})
}

// FuzzDecodeFrame: whatever is in an authenticated frame, no more comes of it than a frame may hold.
func FuzzDecodeFrame(f *testing.F) {
	c, err := newCompressor(CompressionDefault)
	if err != nil {
		f.Fatal(err)
	}
	for _, plain := range [][]byte{{}, []byte("a"), bytes.Repeat([]byte("varve "), 1000), noise(1, 5000)} {
		codec, payload := c.encode(plain)
		f.Add(byte(codec), bytes.Clone(payload))
		f.Add(byte(pack.Zstd), bytes.Clone(payload[:len(payload)/2]))
	}
	f.Add(byte(9), []byte{1})
	f.Fuzz(func(t *testing.T, codec byte, payload []byte) {
		plain, err := decodeFrame(pack.Codec(codec), payload, nil)
		switch {
		case err != nil:
		case pack.Codec(codec) == pack.Raw && !bytes.Equal(plain, payload):
			t.Error("what is not compressed was changed")
		case pack.Codec(codec) == pack.Zstd && len(plain) > pack.MaxFrame:
			t.Errorf("%d bytes of a frame", len(plain))
		case pack.Codec(codec) != pack.Raw && pack.Codec(codec) != pack.Zstd:
			t.Errorf("codec %d is known", codec)
		}
	})
}

// hostileKey is a slot that is right in all but what it costs.
func hostileKey(t testing.TB, kdf KDF) []byte {
	t.Helper()
	line, err := json.Marshal(Key{Version: 1, Name: "argon2id", KDF: kdf, Salt: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	return append(append(line, '\n'), make([]byte, 72)...)
}

// A slot that somebody has put there to make us work is refused before any work is done, and the others still open.
func TestHostileKeys(t *testing.T) {
	_, st := newRepository(t)
	hostile := []KDF{
		{Time: 3, Memory: 4 << 20, Threads: 4}, {Time: 1, Memory: 1<<20 + 1, Threads: 1}, {Time: 1, Memory: 1<<32 - 1, Threads: 1},
		{Time: 1<<32 - 1, Memory: 64, Threads: 1}, {Time: 0, Memory: 64, Threads: 1}, {Time: 1, Memory: 64, Threads: 0}, {Time: 1, Memory: 64, Threads: 255},
	}
	for _, kdf := range hostile {
		data := hostileKey(t, kdf)
		if _, _, _, err := decodeKey(data); err == nil {
			t.Errorf("accepted: %+v", kdf)
		}
		if err := st.Put(t.Context(), keyName(blake3.Sum256(data)), data); err != nil {
			t.Fatal(err)
		}
		if _, err := addKey(t.Context(), st, "repository", [32]byte{}, []byte("secret"), kdf, ""); err == nil {
			t.Errorf("a key was made that would be refused: %+v", kdf)
		}
	}
	r := reopen(t, st)
	refused := 0
	if _, err := r.Keys(t.Context(), func(error) { refused++ }); err != nil || refused != len(hostile) {
		t.Errorf("%d of %d were refused, %v", refused, len(hostile), err)
	}
	for _, kdf := range []KDF{StandardKDF, StrongKDF} {
		if err := kdf.check(); err != nil {
			t.Error(err)
		}
	}
}
