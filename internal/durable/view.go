package durable

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"
)

// View is a data directory for those who only look: nothing in it is changed, not even what a crash has left half-written. A
// View that is not InUse keeps a node from starting on the directory until Close.
type View struct {
	// InUse says that a process has the directory. Small files and snapshots can be read all the same, because they are replaced as a whole; the
	// log cannot, because it changes while it would be read. Where this system has no lock it is false.
	InUse bool

	dir  Dir      // for its paths
	lock *os.File // nil: there is no lock file, or another process has the lock
}

// Look opens a data directory to look at it. The error wraps fs.ErrNotExist if there is none.
func Look(path string) (*View, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.IsDir() {
		return nil, fmt.Errorf("%s is no directory", path)
	}
	v := &View{dir: Dir{path: path}}
	f, err := os.Open(filepath.Join(path, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil // a copy, or no node's directory
	}
	if err != nil {
		return nil, err
	}
	ok, err := lockFile(f)
	if err != nil || !ok {
		v.InUse = err == nil
		return v, errors.Join(err, f.Close())
	}
	v.lock = f
	return v, nil
}

// Close releases the directory.
func (v *View) Close() error {
	if v.lock == nil {
		return nil
	}
	return v.lock.Close()
}

// ReadFile is that of Dir.
func (v *View) ReadFile(name string) ([]byte, error) { return v.dir.ReadFile(name) }

// LogView is what a raft log holds.
type LogView struct {
	Term        uint64 // raft's current term
	First, Last uint64 // indices of the entries; 0: there are none
	Bytes       int64  // size of the file
}

// Log checks the raft log, and hands each entry to f in order, while it is not yet known whether the log is right. The error is
// exactly fs.ErrNotExist if there is no log, an InUseError if it is in use, a DamagedError if it is damaged, or f's.
func (v *View) Log(f func(*raft.Log) error) (LogView, error) {
	path := filepath.Join(v.dir.path, logName)
	if v.InUse {
		return LogView{}, &InUseError{Path: v.dir.path}
	}
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return LogView{}, fs.ErrNotExist
	}
	if err != nil {
		return LogView{}, err
	}
	c, err := inspectEach(path, f)
	if err != nil {
		return LogView{}, v.dir.named(path, err)
	}
	out := LogView{Term: c.vote.term, Bytes: fi.Size()}
	if !c.span.empty() {
		out.First, out.Last = c.span.base+1, c.span.last
	}
	return out, nil
}

// Snapshots returns the descriptions of the snapshots, newest first. Size is that of the content.
func (v *View) Snapshots() ([]*raft.SnapshotMeta, error) {
	dir := filepath.Join(v.dir.path, snapsName)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []snapshotName
	for _, e := range entries {
		if !e.IsDir() || strings.HasSuffix(e.Name(), tmpSuffix) {
			continue
		}
		n, err := parseSnapshotName(e.Name())
		if err != nil {
			return nil, v.dir.named(filepath.Join(dir, e.Name()), err)
		}
		names = append(names, n)
	}
	sortSnapshots(names)
	var out []*raft.SnapshotMeta
	for _, n := range names {
		m, r, err := v.OpenSnapshot(n.name)
		if errors.Is(err, fs.ErrNotExist) && v.InUse {
			continue // its time was over
		}
		if err != nil {
			return nil, err
		}
		out = append(out, m)
		if err := r.Close(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// OpenSnapshot opens the content of a snapshot. Whether it is whole is for whoever reads it to find out, since it is sealed.
func (v *View) OpenSnapshot(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	dir := filepath.Join(v.dir.path, snapsName)
	b, err := os.ReadFile(filepath.Join(dir, id, metaName))
	if err != nil {
		return nil, nil, err
	}
	var meta raft.SnapshotMeta // beside a checksum of the content
	if err := json.Unmarshal(b, &meta); err != nil {
		return nil, nil, &DamagedError{Path: filepath.Join(dir, id), Reason: metaName + " cannot be read"}
	}
	f, err := os.Open(filepath.Join(dir, id, stateName))
	if err != nil {
		return nil, nil, err
	}
	out, err := (&fileSnapshots{path: dir}).strip(id, &meta, f)
	if err != nil {
		return nil, nil, errors.Join(&DamagedError{Path: filepath.Join(dir, id), Reason: err.Error()}, f.Close())
	}
	return out, f, nil
}
