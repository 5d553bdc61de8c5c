package storage

import (
	"context"
	"errors"
	"fmt"
)

// ErrAppendOnly is what AppendOnly answers to who would take away what is stored.
var ErrAppendOnly = errors.New("nothing may be replaced or removed here")

// AppendOnly is a storage to which objects are only ever added: nothing is replaced, nothing is removed. It keeps its own
// program from trying, no more: that others cannot either is for the storage itself to see to.
type AppendOnly struct{ Storage }

// Put implements Storage. A name that is taken is refused.
func (a AppendOnly) Put(ctx context.Context, name string, data []byte) error {
	err := a.Storage.PutNew(ctx, name, data)
	if errors.Is(err, ErrExist) {
		return fmt.Errorf("writing %s: %w", name, ErrAppendOnly)
	}
	return err
}

// Delete implements Storage. It always refuses.
func (a AppendOnly) Delete(_ context.Context, name string) error {
	return fmt.Errorf("deleting %s: %w", name, ErrAppendOnly)
}

// Drop implements Cached.
func (a AppendOnly) Drop(name string) {
	if c, ok := a.Storage.(Cached); ok {
		c.Drop(name)
	}
}

// Free implements Sized.
func (a AppendOnly) Free(ctx context.Context) (int64, error) {
	if s, ok := a.Storage.(Sized); ok {
		return s.Free(ctx)
	}
	return 0, errors.ErrUnsupported
}
