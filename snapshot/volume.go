package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"varve/image/filesystem"
	"varve/snapshot/catalogue"
)

// Volume is a partition of a disk, or the disk itself when it has no partitions, as it was when the snapshot was made.
type Volume struct {
	Number     int    `json:"number"` // as the system counts partitions; 1 of a disk without
	Offset     int64  `json:"offset"` // bytes of the disk
	Length     int64  `json:"length"`
	Type       string `json:"type,omitempty"` // of the partition: a GUID, or "0x83"
	TypeName   string `json:"type_name,omitempty"`
	ID         string `json:"id,omitempty"`   // PARTUUID
	Name       string `json:"name,omitempty"` // in a GPT
	Filesystem string `json:"filesystem,omitempty"`
	Label      string `json:"label,omitempty"`
	UUID       string `json:"uuid,omitempty"`
	Used       int64  `json:"used,omitempty"`    // bytes, as the filesystem counts; 0 where it is not known
	InFull     string `json:"in_full,omitempty"` // why nothing was left out of it
	// Catalogue is where its files are listed; nil when they are not.
	Catalogue *catalogue.Root `json:"catalogue,omitempty"`
}

// Range is where the volume lies on its disk.
func (v *Volume) Range() Range { return Range{v.Offset, v.Length} }

// check reports why v cannot be a volume of a disk of size bytes.
func (v *Volume) check(size int64) error {
	if v.Number < 1 || v.Offset < 0 || v.Length < 0 || v.Offset > size-v.Length {
		return fmt.Errorf("partition %d of %d bytes at %d", v.Number, v.Length, v.Offset)
	}
	return nil
}

// ErrNoVolume says that a disk does not have the partition that was asked for.
var ErrNoVolume = errors.New("no such partition")

// Volume returns the volume of that number.
func (d *Disk) Volume(number int) (*Volume, error) {
	known := ""
	for i := range d.Volumes {
		if d.Volumes[i].Number == number {
			return &d.Volumes[i], nil
		}
		known += fmt.Sprintf(" p%d", d.Volumes[i].Number)
	}
	if known == "" {
		return nil, fmt.Errorf("%w: the snapshot does not know the partitions of disk %s", ErrNoVolume, d.Name)
	}
	return nil, fmt.Errorf("%w: disk %s has no p%d, it has:%s", ErrNoVolume, d.Name, number, known)
}

// ErrNoCatalogue says that a volume's files are not listed.
var ErrNoCatalogue = errors.New("its files are not listed in the snapshot")

// Files returns the catalogue of a volume: ErrNoCatalogue.
func (v *Volume) Files(load Loader) (*catalogue.Catalogue, error) {
	if v.Catalogue == nil {
		return nil, fmt.Errorf("p%d: %w", v.Number, ErrNoCatalogue)
	}
	c := catalogue.Open(load, *v.Catalogue)
	c.IgnoreCase = filesystem.IgnoresCase(v.Filesystem)
	return c, nil
}

// walkCatalogue goes through the pages of the catalogue of v.
func walkCatalogue(ctx context.Context, load Loader, v *Volume, w Walker) error {
	if v.Catalogue == nil {
		return nil
	}
	var walk func(id ID, depth int) error
	walk = func(id ID, depth int) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !w.Node(id) {
			return nil
		}
		page, err := load.Load(ctx, id, nil)
		var below []ID
		if err == nil {
			below, err = catalogue.Children(page)
		}
		if err == nil && depth > maxPageDepth {
			err = fs.ErrInvalid
		}
		if err != nil {
			err = fmt.Errorf("the list of the files of p%d: page %s: %w", v.Number, short(id), err)
			if w.Broken == nil || ctx.Err() != nil {
				return err
			}
			return w.Broken(err)
		}
		for _, next := range below {
			if err := walk(next, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(ID(v.Catalogue.ID), 0)
}

// maxPageDepth bounds how deep pages lie below each other: folders in each other, and the levels of long listings.
const maxPageDepth = 8 * catalogue.MaxDepth
