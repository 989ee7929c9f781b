package snapstore

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
	"github.com/flotilla-ha/flotilla/internal/meter"
)

const retain = 2 // snapshots

// Store is raft's store of snapshot files, with a preamble in each.
type Store struct {
	files   *raft.FileSnapshotStore
	dir     string
	places  *diskfile.Places // learns which snapshot is the newest
	readers readers
	taken   meter.Moment // see Taken
}

// Open opens the snapshots of a data directory, and reads each as a whole. It returns the
// description of the newest, nil if there is none. places learns which files belong to the newest.
func Open(data string, places *diskfile.Places, logger *slog.Logger) (s *Store, newest *raft.SnapshotMeta, err error) {
	dir := filepath.Join(data, DirName)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, nil, fmt.Errorf("create snapshot directory: %w", err)
	}
	names, unfinished, err := list(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, id := range unfinished {
		err := diskfile.EraseAt(filepath.Join(dir, id, StateName), nil) // Purge was interrupted
		if err := errors.Join(err, os.RemoveAll(filepath.Join(dir, id))); err != nil {
			return nil, nil, fmt.Errorf("remove unfinished snapshot: %w", err)
		}
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(data, retain, hclog.NewNullLogger())
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshots: %w", err)
	}
	s = &Store{files: files, dir: dir, places: places}
	if newest, err = s.verify(names, logger); err != nil {
		return nil, nil, err
	}
	places.SetSnapshot(nil)
	if newest != nil {
		if err := s.keep(newest.ID); err != nil {
			return nil, nil, err
		}
	}
	return s, newest, nil
}

// Taken returns when the newest snapshot was begun, by the wall clock of this node. It is zero if
// there is none. Taken does not look at the disk.
func (s *Store) Taken() time.Time { return s.taken.Load() }

// keep records that id is the newest snapshot.
func (s *Store) keep(id string) error {
	n, err := parseName(id)
	if err != nil {
		return diskfile.Named(filepath.Join(s.dir, id), err)
	}
	s.taken.Set(time.UnixMilli(int64(n.ms)))
	if runtime.GOOS == "windows" { // which removes no file that is open
		return nil
	}
	dir := filepath.Join(s.dir, id)
	meta, err := os.Open(filepath.Join(dir, MetaName))
	if err != nil {
		return err
	}
	state, err := os.Open(filepath.Join(dir, StateName))
	if err != nil {
		_ = meta.Close()
		return err
	}
	s.places.SetSnapshot(&diskfile.Snapshot{Dir: dir, Meta: meta, State: state})
	return nil
}

// verify reads every snapshot and returns the description of the newest.
func (s *Store) verify(names []name, logger *slog.Logger) (newest *raft.SnapshotMeta, err error) {
	for i, n := range names {
		m, err := s.check(n)
		if err == nil {
			if i == 0 {
				newest = m
			}
			continue
		}
		dir := filepath.Join(s.dir, n.id)
		found, ok := errors.AsType[*diskfile.Finding](err)
		if !ok {
			return nil, fmt.Errorf("check snapshot: %w", err)
		}
		if i == 0 {
			return nil, diskfile.Named(dir, found)
		}
		logger.Warn("removing a damaged snapshot, which is not the newest", "path", dir, "reason", found.Reason)
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("remove damaged snapshot: %w", err)
		}
	}
	return newest, nil
}

// check reads one snapshot. The error is a diskfile.Finding, or the disk's.
func (s *Store) check(n name) (*raft.SnapshotMeta, error) {
	for _, f := range []string{MetaName, StateName} {
		fi, err := os.Stat(filepath.Join(s.dir, n.id, f))
		if errors.Is(err, os.ErrNotExist) || err == nil && !fi.Mode().IsRegular() {
			return nil, diskfile.Damaged("%s is missing", f)
		}
		if err != nil {
			return nil, err
		}
	}
	m, r, err := s.Open(n.id)
	if err != nil {
		if _, ok := errors.AsType[*os.PathError](err); ok {
			return nil, err
		}
		return nil, diskfile.Damaged("%v", err)
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	if m.Term != n.term || m.Index != n.index {
		return nil, diskfile.Damaged("its name is of another snapshot")
	}
	return m, nil
}

// Create begins a snapshot. It implements raft.SnapshotStore.
func (s *Store) Create(
	version raft.SnapshotVersion,
	index, term uint64,
	conf raft.Configuration,
	confIndex uint64,
	trans raft.Transport,
) (raft.SnapshotSink, error) {
	if err := os.Mkdir(s.dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err // raft would make it with another mode
	}
	sink, err := s.files.Create(version, index, term, conf, confIndex, trans)
	if err != nil {
		return nil, err
	}
	if err := s.makePrivate(sink.ID() + diskfile.TmpSuffix); err != nil {
		_ = sink.Cancel()
		return nil, err
	}
	p := preamble(&raft.SnapshotMeta{
		Version: version, Index: index, Term: term, Configuration: conf, ConfigurationIndex: confIndex,
	})
	if _, err := sink.Write(p); err != nil {
		_ = sink.Cancel()
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.dir, sink.ID()+diskfile.TmpSuffix, StateName), os.O_WRONLY, 0)
	if err != nil {
		_ = sink.Cancel()
		return nil, err
	}
	return &syncingSink{SnapshotSink: sink, file: f, finished: s.keep}, nil
}

// makePrivate takes back the rights that raft gives to everybody: it makes directories with mode
// 0755 and files with 0666, less the umask.
func (s *Store) makePrivate(id string) error {
	for part, mode := range map[string]os.FileMode{"": 0o700, MetaName: 0o600, StateName: 0o600} {
		if err := os.Chmod(filepath.Join(s.dir, id, part), mode); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("make a snapshot private: %w", err)
		}
	}
	return nil
}

// List returns the snapshots, newest first. It fails if one of them is damaged, and leaves out one
// that was removed in part. It implements raft.SnapshotStore.
func (s *Store) List() ([]*raft.SnapshotMeta, error) {
	for {
		found, err := s.files.List()
		if err != nil {
			return nil, err
		}
		all, err := s.describe(found)
		// See View. A lock would be held while a snapshot is written to a disk that may hang.
		again, againErr := s.files.List()
		if againErr != nil {
			return nil, againErr
		}
		if newestOf(found) == newestOf(again) {
			return all, err
		}
	}
}

func newestOf(all []*raft.SnapshotMeta) (id string) {
	if len(all) > 0 {
		id = all[0].ID
	}
	return id
}

// describe returns the descriptions of the snapshots that raft has found.
func (s *Store) describe(found []*raft.SnapshotMeta) (all []*raft.SnapshotMeta, err error) {
	for i, m := range found {
		f, err := os.Open(filepath.Join(s.dir, m.ID, StateName))
		if i > 0 && errors.Is(err, os.ErrNotExist) {
			continue // it was removed in part, and nothing needs it
		}
		if err != nil {
			return nil, err
		}
		out, err := stripFile(m.ID, m, f)
		_ = f.Close()
		if err != nil {
			return nil, err
		}
		all = append(all, out)
	}
	return all, nil
}

// Open returns a snapshot's content, after it has read the content once and found it right. It
// implements raft.SnapshotStore.
func (s *Store) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.readers.add(id, 1)
	m, r, err := s.open(id)
	if err != nil {
		s.readers.add(id, -1)
		return nil, nil, err
	}
	return m, &counted{ReadCloser: r, done: func() { s.readers.add(id, -1) }}, nil
}

func (s *Store) open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m, r, err := s.files.Open(id)
	if err != nil {
		return nil, nil, err
	}
	fi, err := os.Stat(filepath.Join(s.dir, id, StateName))
	if err != nil {
		_ = r.Close()
		return nil, nil, err
	}
	out, err := strip(id, m, r, fi.Size())
	if err != nil {
		_ = r.Close()
		return nil, nil, err
	}
	return out, r, nil
}
