// Package snapshot keeps disks as trees of extents, and reads them back.
//
//	record ─▶ disk ─▶ root ─▶ inner nodes ─▶ leaves, one a segment ─▶ extents ─▶ chunks
//
// A disk is cut into segments of 16 MiB. The leaf of a segment lists its extents: holes of several kinds, and chunks.
// Nodes and chunks are named by their content, so that what did not change since the parent snapshot is not stored
// again, and is not looked at again when two snapshots are compared: equal nodes have equal names.
//
// Create makes the tree of a disk, guided by the one of its parent; Reader reads from a tree as from a disk; Restore
// writes a disk back, Verify compares it, Diff compares two trees. The record is JSON, and the only thing that makes all
// this a snapshot: see Snapshot.
package snapshot

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ID names a chunk or a tree node by its content, and a record by its own.
type ID = [32]byte

// Loader reads a chunk or tree node, in buf where there is room. It may be used concurrently.
type Loader interface {
	Load(ctx context.Context, id ID, buf []byte) ([]byte, error)
}

// EachLoader reads many chunks at once, in the order that suits it: f is called for each i, concurrently, with the bytes
// of ids[i], valid until it returns, or the error that kept them from being read. An error of f ends LoadEach.
type EachLoader interface {
	Loader
	LoadEach(ctx context.Context, ids []ID, workers int, f func(i int, data []byte, err error) error) error
}

// Writer names, finds and saves chunks, or tree nodes. It is used by one goroutine at a time.
type Writer interface {
	ID(data []byte) ID
	Has(id ID) bool
	Save(ctx context.Context, id ID, data []byte) (added bool, err error)
}

// Snapshot is the state of one or more disks at one time.
type Snapshot struct {
	ID       ID        `json:"-"`       // of the record, set by Decode
	Version  int       `json:"version"` // of this record's format: 1
	Time     time.Time `json:"time"`    // when the backup began
	Duration float64   `json:"duration"`
	Host     string    `json:"host"`
	User     string    `json:"user"`
	Program  string    `json:"program"` // and its version
	Tags     []string  `json:"tags,omitempty"`
	Held     bool      `json:"held,omitempty"`     // forget leaves it alone
	Original string    `json:"original,omitempty"` // id of the first record, where tags or hold were changed since
	Disks    []Disk    `json:"disks"`
}

// Disk is one disk of a snapshot.
type Disk struct {
	Name       string    `json:"name"` // "sda", "disk.img"
	Path       string    `json:"path"` // where it was read
	Type       string    `json:"type"` // as image.Info.Type
	Size       int64     `json:"size"`
	SectorSize int       `json:"sector_size,omitempty"`
	Model      string    `json:"model,omitempty"`
	Serial     string    `json:"serial,omitempty"`
	ModTime    time.Time `json:"mtime,omitzero"` // of a regular file, with the next three
	ChangeTime time.Time `json:"ctime,omitzero"`
	Inode      uint64    `json:"inode,omitempty"`
	Device     uint64    `json:"device,omitempty"`
	Root       Root      `json:"root"`             // zero for a disk of no bytes
	Parent     string    `json:"parent,omitempty"` // id of the record of the snapshot that guided the scan
	Bad        []Range   `json:"unreadable,omitempty"`
	LeftOut    LeftOut   `json:"left_out,omitzero"`
	Table      string    `json:"table,omitempty"` // "gpt", "mbr"; "" when there is none, or none that can be read
	Volumes    []Volume  `json:"volumes,omitempty"`
	Stats      DiskStats `json:"stats"`
}

// LeftOut says what a backup of a disk was asked to leave out. It reads as zeros.
type LeftOut struct {
	Free     bool     `json:"free,omitempty"`     // blocks that a filesystem does not use
	Volatile bool     `json:"volatile,omitempty"` // what is in swap areas, and in page and hibernation files
	Exclude  []string `json:"exclude,omitempty"`  // files, by pattern

	Partitions     []int `json:"partitions,omitempty"`      // by number
	OnlyPartitions []int `json:"only_partitions,omitempty"` // when there are any, all other partitions
}

// Equal reports whether both leave the same out.
func (l LeftOut) Equal(other LeftOut) bool {
	return l.Free == other.Free && l.Volatile == other.Volatile && slices.Equal(l.Exclude, other.Exclude) &&
		slices.Equal(l.Partitions, other.Partitions) && slices.Equal(l.OnlyPartitions, other.OnlyPartitions)
}

// DiskStats says what a backup of one disk found and cost, in bytes.
type DiskStats struct {
	Used    int64 `json:"used"`    // in chunks; the rest of the disk is holes
	Read    int64 `json:"read"`    // from the disk
	Changed int64 `json:"changed"` // against the parent; all that is used where there was none
	Added   int64 `json:"added"`   // in chunks that the repository did not have
	Stored  int64 `json:"stored"`  // that the repository grew by
	Parts   int64 `json:"parts"`   // referred to inside of chunks that are not used as a whole
	Chunks  int64 `json:"chunks"`  // that the disk consists of

	Free     int64 `json:"free,omitempty"`     // not read, since its filesystem does not use it
	Excluded int64 `json:"excluded,omitempty"` // not read, since it was not wanted
}

// Range is a run of bytes of a disk.
type Range struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// End is the offset after the last byte.
func (r Range) End() int64 { return r.Offset + r.Length }

// within returns the part of r that lies in other.
func (r Range) within(other Range) Range {
	start := max(r.Offset, other.Offset)
	return Range{start, max(0, min(r.End(), other.End())-start)}
}

// orAll returns r, or all of size bytes when it is the zero value.
func (r Range) orAll(size int64) Range {
	if r == (Range{}) {
		return Range{0, size}
	}
	return r.within(Range{0, size})
}

// Root is the id of a tree's root as text in JSON.
type Root ID

// MarshalText writes 64 hexadecimal digits.
func (r Root) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%x", r[:]), nil }

// UnmarshalText is the inverse of MarshalText.
func (r *Root) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(r) {
		return fmt.Errorf("%q is not an id of 64 hexadecimal digits", text)
	}
	copy(r[:], raw)
	return nil
}

// Encode returns the record of s.
func (s *Snapshot) Encode() ([]byte, error) { return json.Marshal(s) }

// ErrNewer says that a record was written by a varve that knows more.
var ErrNewer = errors.New("a newer varve is needed")

// Decode is the inverse of Encode. What it returns can be read without further checks: sizes are not negative,
// no two disks have one name, and volumes lie on their disks.
func Decode(id ID, record []byte) (*Snapshot, error) {
	s := &Snapshot{}
	if err := json.Unmarshal(record, s); err != nil {
		return nil, fmt.Errorf("snapshot %s: the record is damaged: %w", short(id), err)
	}
	if s.Version > 1 {
		return nil, fmt.Errorf("snapshot %s: its record has version %d: %w", short(id), s.Version, ErrNewer)
	}
	if s.Version < 1 {
		return nil, fmt.Errorf("snapshot %s: the record is damaged: version %d", short(id), s.Version)
	}
	names := map[string]bool{}
	for _, d := range s.Disks {
		if names[d.Name] {
			return nil, fmt.Errorf("snapshot %s: the record is damaged: two disks have the name %q", short(id), d.Name)
		}
		names[d.Name] = true
		if d.Size < 0 || (d.Size > 0) != (d.Root != Root{}) {
			return nil, fmt.Errorf("snapshot %s: the record is damaged: disk %q of %d bytes", short(id), d.Name, d.Size)
		}
		for i := range d.Volumes {
			if err := d.Volumes[i].check(d.Size); err != nil {
				return nil, fmt.Errorf("snapshot %s: the record is damaged: disk %q: %w", short(id), d.Name, err)
			}
		}
	}
	s.ID = id
	return s, nil
}

// ErrNoDisk says that a snapshot does not have the disk that was asked for.
var ErrNoDisk = errors.New("no such disk in the snapshot")

// Disk returns the disk of that name, or the only one when name is empty.
func (s *Snapshot) Disk(name string) (*Disk, error) {
	if name == "" && len(s.Disks) == 1 {
		return &s.Disks[0], nil
	}
	names := ""
	for i := range s.Disks {
		if s.Disks[i].Name == name {
			return &s.Disks[i], nil
		}
		names += " " + s.Disks[i].Name
	}
	if name == "" {
		return nil, fmt.Errorf("%w: snapshot %s has several, name one as %s:DISK:%s", ErrNoDisk, short(s.ID), short(s.ID), names)
	}
	return nil, fmt.Errorf("%w: snapshot %s has no disk %q, it has:%s", ErrNoDisk, short(s.ID), name, names)
}
