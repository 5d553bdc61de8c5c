package ntfs

import (
	"fmt"
	"io/fs"
	"strings"
	"time"

	"varve/image/filesystem"
)

// Stat tells what is known of a file. There are no owners and permissions as Linux has them: folders are 0755, all others 0644, and
// all belong to 0:0, unless Linux in Windows (WSL) has noted something else in attributes ($LXUID, $LXGID, $LXMOD).
func (f *FS) Stat(n filesystem.Number) (filesystem.File, error) {
	x, err := f.load(n)
	if err != nil {
		return filesystem.File{}, err
	}
	s := filesystem.File{Number: n}
	info, err := x.standard()
	if err != nil {
		return s, err
	}
	s.Created, s.Modified, s.Changed, s.Accessed = moment(info), moment(info[8:]), moment(info[16:]), moment(info[24:])
	for i := range x.attributes {
		if x.attributes[i].kind != typeName {
			continue
		}
		name, err := parseName(x.attributes[i].value)
		if err != nil {
			return s, fmt.Errorf("file %d: %w", n&numberMask, err)
		}
		if name.namespace != namespaceDOS {
			s.Links++
		}
	}
	attributes, err := f.extended(x)
	if err != nil {
		return s, err
	}
	linux := linuxFacts(attributes)
	form, err := f.form(x, linux)
	if err != nil {
		return s, err
	}
	s.UID, s.GID, s.Device = linux.uid, linux.gid, form.device
	s.Mode = form.kind | linux.permissions(form.kind)
	switch {
	case form.kind == fs.ModeSymlink:
		s.Size = int64(len(form.target))
	case form.kind.IsRegular():
		content, err := f.content(x, typeData, "")
		if err != nil {
			return s, err
		}
		if content != nil {
			s.Size = content.Size()
		}
	}
	return s, nil
}

// standard returns $STANDARD_INFORMATION: times of creation, modification, change of the record, access 4 × 8, flags 4, and more.
func (x *file) standard() ([]byte, error) {
	for i := range x.attributes {
		if a := &x.attributes[i]; a.kind == typeStandard && len(a.value) >= 48 {
			return a.value, nil
		}
	}
	return nil, filesystem.Corrupt("file %d has no times", x.number&numberMask)
}

// moment is a time in units of 100 ns since 1601.
func moment(b []byte) time.Time {
	const (
		perSecond = 10_000_000
		to1970    = 11_644_473_600 // seconds
	)
	n := int64(le.Uint64(b))
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(n/perSecond-to1970, n%perSecond*100).UTC()
}

// Readlink returns where a symbolic link leads to. Targets of Windows get slashes, and lose what means "of all devices"
// (\??\): C:/Users, Volume{…}/, //server/share.
func (f *FS) Readlink(n filesystem.Number) (string, error) {
	x, err := f.load(n)
	if err != nil {
		return "", err
	}
	form, err := f.form(x, linux{})
	if err != nil {
		return "", err
	}
	if form.kind != fs.ModeSymlink {
		return "", fmt.Errorf("file %d is not a symbolic link", n&numberMask)
	}
	return form.target, nil
}

// Attributes returns the extended attributes ($EA), but for those of Linux in Windows that Stat tells of. Their names are bytes.
func (f *FS) Attributes(n filesystem.Number) ([]filesystem.Attribute, error) {
	x, err := f.load(n)
	if err != nil {
		return nil, err
	}
	all, err := f.extended(x)
	if err != nil {
		return nil, err
	}
	var list []filesystem.Attribute
	for _, a := range all {
		if !isLinuxFact(a.Name) {
			list = append(list, a)
		}
	}
	return list, nil
}

// Streams names the other streams ($DATA with a name) of a file or folder.
func (f *FS) Streams(n filesystem.Number) ([]filesystem.Stream, error) {
	x, err := f.load(n)
	if err != nil {
		return nil, err
	}
	var list []filesystem.Stream
	for i := range x.attributes {
		a := &x.attributes[i]
		if a.kind != typeData || a.name == "" || a.first > 0 {
			continue
		}
		if strings.ContainsAny(a.name, "/\x00") {
			return nil, filesystem.Corrupt("a stream of file %d is named %q", n&numberMask, a.name)
		}
		size := a.size
		if !a.elsewhere {
			size = int64(len(a.value))
		}
		list = append(list, filesystem.Stream{Name: a.name, Size: size})
	}
	return list, nil
}

// Open opens the content of a regular file, or a stream of any file. Of what is encrypted (EFS) one can tell where it is, and reading
// is an UnsupportedError. So is opening a file whose content is kept elsewhere, by what Windows calls a reparse point.
func (f *FS) Open(n filesystem.Number, stream string) (filesystem.Content, error) {
	x, err := f.load(n)
	if err != nil {
		return nil, err
	}
	content, err := f.content(x, typeData, stream)
	if err != nil {
		return nil, err
	}
	if stream != "" {
		if content == nil {
			return nil, fmt.Errorf("file %d has no stream %q: %w", n&numberMask, stream, fs.ErrNotExist)
		}
		return content, nil
	}
	form, err := f.form(x, linux{})
	if err != nil {
		return nil, err
	}
	if !form.kind.IsRegular() {
		return nil, fmt.Errorf("file %d is not a regular file", n&numberMask)
	}
	if content == nil {
		return &resident{f, &attribute{}}, nil
	}
	if form.tag != 0 {
		// Whoever made the reparse point gives the content. All leave holes in place of what they keep elsewhere.
		extents, err := content.Extents()
		if err != nil {
			return nil, err
		}
		for _, e := range extents {
			if e.Kind == filesystem.Hole {
				return nil, filesystem.Unsupported("the content is %s", keeper(form.tag))
			}
		}
	}
	return content, nil
}
