package blocks

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Folder has the files: DIR/<2>/<pack id>, by the first two digits. They are a cache, so nothing waits for the medium and nothing is
// written in another place first: a file that is not whole has no checksum. Several processes may use a folder at once.
type Folder struct {
	Dir    string
	Secret [32]byte
}

func (f Folder) name(pack ID) string {
	text := hex.EncodeToString(pack[:])
	return filepath.Join(f.Dir, text[:2], text)
}

// Save writes the file of a pack.
func (f Folder) Save(pack ID, file []byte) error {
	name := f.name(pack)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(name, file, 0o600); err != nil {
		_ = os.Remove(name) // it may be there in part, and of no use
		return err
	}
	return nil
}

// Load reads the file of a pack: fs.ErrNotExist, or what is wrong with it.
func (f Folder) Load(pack ID) (*File, error) {
	name := f.name(pack)
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	data := make([]byte, min(info.Size(), maxFile+1))
	if _, err := io.ReadFull(file, data); err != nil {
		return nil, fmt.Errorf("%s is not used: %w", name, err)
	}
	parsed, err := Parse(f.Secret, pack, data)
	if err != nil {
		return nil, fmt.Errorf("%s is not used: %w", name, err)
	}
	return parsed, nil
}

// Keep removes the files of all packs but those that exist, and whatever else is in the folder.
func (f Folder) Keep(exists func(ID) bool) error {
	err := filepath.WalkDir(f.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if raw, err := hex.DecodeString(entry.Name()); err == nil && len(raw) == len(ID{}) && path == f.name(ID(raw)) && exists(ID(raw)) {
			return nil
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // another process may be faster
			return err
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) { // there is no folder yet
		return nil
	}
	return err
}
