package snapstore

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// Purge overwrites and removes the snapshots in a data directory that end before an index. The
// newest one stays in any case. Raft may write or remove snapshots meanwhile.
func Purge(data string, before uint64) error {
	dir := filepath.Join(data, DirName)
	names, _, err := list(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for i, n := range names {
		if i == 0 || n.index >= before {
			continue
		}
		if err := diskfile.EraseAt(filepath.Join(dir, n.id, StateName)); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(dir, n.id)); err != nil {
			return err
		}
	}
	return nil
}
