package repo

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/zeebo/blake3"
	"golang.org/x/crypto/chacha20poly1305"
)

// ID names an object by its content: the BLAKE3-256 of its bytes, keyed for chunks and tree nodes.
type ID = [32]byte

// ParseID is the inverse of hex encoding an ID.
func ParseID(text string) (ID, error) {
	var id ID
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(id) {
		return ID{}, fmt.Errorf("%q is not an id of 64 hexadecimal digits", text)
	}
	copy(id[:], raw)
	return id, nil
}

// short is the form of an id for messages.
func short(id ID) string { return hex.EncodeToString(id[:6]) }

// secrets are the keys of one repository, all derived from its master key, which is random and never derived from a
// password. Each has one purpose.
type secrets struct {
	id     [32]byte // of chunks and tree nodes: keyed BLAKE3
	pack   [32]byte // from which the key of each pack is derived
	meta   [32]byte // of small objects: XChaCha20-Poly1305
	blocks [32]byte // of the digests of blocks in the cache: see package blocks
}

func deriveSecrets(master [32]byte, repository string) secrets {
	material := append(master[:], repository...)
	var s secrets
	blake3.DeriveKey("varve v1 chunk id", material, s.id[:])
	blake3.DeriveKey("varve v1 pack", material, s.pack[:])
	blake3.DeriveKey("varve v1 meta", material, s.meta[:])
	blake3.DeriveKey("varve v1 blocks", material, s.blocks[:])
	return s
}

// seal encrypts and authenticates data: nonce (24 bytes, random) ‖ ciphertext ‖ tag (16 bytes). context is
// authenticated and has to be the same to unseal: it says what kind of object this is, and of which repository, so that
// the storage cannot pass one for another.
func seal(key [32]byte, context string, data []byte) []byte {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err) // only for a key that is not 32 bytes long
	}
	sealed := make([]byte, aead.NonceSize(), aead.NonceSize()+len(data)+aead.Overhead())
	rand.Read(sealed) // never fails (crypto/rand, Go 1.24)
	return aead.Seal(sealed, sealed, data, []byte(context))
}

// unseal is the inverse of seal. Its error means that data is not what was sealed, or not with this key and context.
func unseal(key [32]byte, context string, sealed []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err)
	}
	if len(sealed) < aead.NonceSize()+aead.Overhead() {
		return nil, fmt.Errorf("%d bytes are too few for a sealed object", len(sealed))
	}
	nonce, body := sealed[:aead.NonceSize()], sealed[aead.NonceSize():]
	data, err := aead.Open(nil, nonce, body, []byte(context))
	if err != nil {
		return nil, fmt.Errorf("its authentication failed: it is damaged, or was made with another key")
	}
	return data, nil
}
