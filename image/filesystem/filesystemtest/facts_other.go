//go:build !linux

package filesystemtest

import (
	"io/fs"

	"varve/image/filesystem"
)

// Elsewhere nothing can be mounted, so there is nothing to compare.

func compareFacts(filesystem.File, fs.FileInfo, Abilities, map[filesystem.Number]uint64) error {
	return nil
}

func attributesOf(string) (map[string]string, error) { return nil, nil }

func (f *filler) attributes(Abilities) {}

func (f *filler) special() {}
