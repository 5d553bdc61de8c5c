package storagetest_test

import (
	"errors"
	"syscall"
	"testing"

	"varve/repo/storage"
	"varve/repo/storage/storagetest"
)

func TestSectorsConform(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Storage { return storagetest.NewSectors(storage.NewMemory()) })
}

func TestLostSectorsAreNotRead(t *testing.T) {
	ctx := t.Context()
	s := storagetest.NewSectors(storage.NewMemory())
	data := make([]byte, 4*4096+10)
	if err := s.Put(ctx, "folder/x", data); err != nil {
		t.Fatal(err)
	}
	s.Lose("folder/x", 1, 4)
	for _, c := range []struct {
		offset, length int64
		fails          bool
	}{
		{0, 4096, false}, {0, 4097, true}, {4095, 1, false}, {5000, 1, true}, {8191, 1, true}, {8192, 8192, false},
		{8192, 8193, true}, {8192, -1, true}, {0, -1, true}, {4096, 0, false},
	} {
		_, err := s.Get(ctx, "folder/x", c.offset, c.length, nil)
		if failed := errors.Is(err, syscall.EIO); failed != c.fails || err != nil && !failed {
			t.Errorf("%d bytes from %d: %v", c.length, c.offset, err)
		}
	}
	if err := s.Put(ctx, "folder/x", data); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "folder/x", 0, -1, nil); err != nil {
		t.Errorf("what was put again: %v", err)
	}
}
