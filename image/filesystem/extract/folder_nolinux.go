//go:build !linux

package extract

import (
	"errors"
	"os"

	"varve/image/filesystem"
)

func setAttribute(*os.File, filesystem.Attribute) error {
	return errors.New("this system has none that varve can set")
}
