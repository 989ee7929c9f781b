package snapstore

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// View returns the descriptions of the snapshots in a data directory, newest first, and changes
// nothing. Size is that of the content. changing says that a node uses the directory: a snapshot
// that it removes meanwhile is left out.
func View(data string, changing bool) ([]*raft.SnapshotMeta, error) {
	for {
		names, err := namesIn(data)
		if err != nil {
			return nil, err
		}
		all, err := view(data, names, changing)
		if !changing {
			return all, err
		}
		// A directory that changes meanwhile is not read as it was at any time. The node removes the
		// newest snapshot only after it has finished newer ones.
		again, againErr := namesIn(data)
		if againErr != nil {
			return nil, againErr
		}
		if slices.Equal(names[:min(1, len(names))], again[:min(1, len(again))]) {
			return all, err
		}
	}
}

// namesIn returns the names of the snapshots in a data directory, newest first.
func namesIn(data string) ([]name, error) {
	names, _, err := list(filepath.Join(data, DirName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}

// view returns the descriptions of the snapshots with the given names. It leaves out one behind the
// first that is removed meanwhile.
func view(data string, names []name, changing bool) (all []*raft.SnapshotMeta, err error) {
	for i, n := range names {
		m, r, err := ViewOne(data, n.id)
		if errors.Is(err, fs.ErrNotExist) && changing && i > 0 {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, m)
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ViewOne opens the content of a snapshot, and changes nothing. The reader must find out whether
// the content is whole, because it is sealed.
func ViewOne(data, id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	dir := filepath.Join(data, DirName)
	b, err := os.ReadFile(filepath.Join(dir, id, MetaName))
	if err != nil {
		return nil, nil, err
	}
	var meta raft.SnapshotMeta // beside a checksum of the content
	if err := json.Unmarshal(b, &meta); err != nil {
		return nil, nil, &diskfile.DamagedError{Path: filepath.Join(dir, id), Reason: MetaName + " cannot be read"}
	}
	f, err := os.Open(filepath.Join(dir, id, StateName))
	if err != nil {
		return nil, nil, err
	}
	out, err := stripFile(id, &meta, f)
	if err != nil {
		return nil, nil, errors.Join(
			&diskfile.DamagedError{Path: filepath.Join(dir, id), Reason: err.Error()},
			f.Close(),
		)
	}
	return out, f, nil
}
