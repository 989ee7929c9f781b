package durable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	retainSnapshots = 2
	stateName       = "state.bin" // raft's names
	metaName        = "meta.json"
	preambleMagic   = "flsn"
	preambleSize    = 45
)

// OpenSnapshots opens the directory of snapshots; log is the open log beside it. The two
// newest snapshots are kept.
//
// raft's own checksum covers a snapshot's content, but neither its index, term and
// configuration nor its length, and raft leaves a snapshot out whose meta.json it cannot read: it then
// falls back to an older one, or to none. Here a preamble before the content repeats
// them, every snapshot is read as a whole, and damage of the newest is a [DamagedError]. A
// damaged older one is deleted: nothing reads it. A log that does not fit the newest
// snapshot is discarded if the snapshot is newer (see [GuardSnapshots]), and
// is a DamagedError if entries are missing between the two.
func (d *Dir) OpenSnapshots(log *Log, logger *slog.Logger) (raft.SnapshotStore, error) {
	logger = discard(logger)
	path := filepath.Join(d.path, snapsName)
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("create snapshot directory: %w", err)
	}
	names, err := d.snapshotNames(path)
	if err != nil {
		return nil, err
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(d.path, retainSnapshots, hclog.NewNullLogger())
	if err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	s := &fileSnapshots{files: files, path: path, places: &d.places}
	newest, err := s.verify(names, logger)
	if err != nil {
		return nil, err
	}
	d.places.setSnapshot(nil)
	if newest != nil {
		if err := s.keep(newest.ID); err != nil {
			return nil, err
		}
	}
	if err := log.Run(func() error { return fitOpened(log, newest, logger) }); err != nil {
		return nil, err
	}
	return GuardSnapshots(s, log), nil
}

// snapshotName is what raft puts into a snapshot's directory name.
type snapshotName struct {
	term, index, ms uint64
	name            string
}

// snapshotNames lists the snapshots, newest first as raft orders them, and removes what was left unfinished.
func (d *Dir) snapshotNames(path string) ([]snapshotName, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var names []snapshotName
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		if strings.HasSuffix(e.Name(), tmpSuffix) {
			if err := os.RemoveAll(filepath.Join(path, e.Name())); err != nil {
				return nil, fmt.Errorf("remove unfinished snapshot: %w", err)
			}
			continue
		}
		n, err := parseSnapshotName(e.Name())
		if err != nil {
			return nil, d.named(filepath.Join(path, e.Name()), err)
		}
		names = append(names, n)
	}
	sortSnapshots(names)
	return names, nil
}

func parseSnapshotName(name string) (snapshotName, error) {
	n := snapshotName{name: name}
	_, err := fmt.Sscanf(name, "%d-%d-%d", &n.term, &n.index, &n.ms)
	if err != nil || name != fmt.Sprintf("%d-%d-%d", n.term, n.index, n.ms) {
		return n, damaged("it is not the name of a snapshot")
	}
	return n, nil
}

// sortSnapshots puts the newest first, as raft orders them.
func sortSnapshots(names []snapshotName) {
	slices.SortFunc(names, func(a, b snapshotName) int {
		for _, p := range [][2]uint64{{b.term, a.term}, {b.index, a.index}, {b.ms, a.ms}} {
			if p[0] != p[1] {
				if p[0] < p[1] {
					return -1
				}
				return 1
			}
		}
		return 0
	})
}

// fitOpened makes the log fit the newest snapshot, nil if there is none. raft is not running yet, so
// a log that does not fit is discarded as a whole.
func fitOpened(log *Log, newest *raft.SnapshotMeta, logger *slog.Logger) error {
	var index, term uint64
	if newest != nil {
		index, term = newest.Index, newest.Term
	}
	if s := log.now(); s.base > index {
		return &DamagedError{Path: log.path, Reason: fmt.Sprintf("it begins behind entry %d, and the newest snapshot ends with entry %d", s.base, index)}
	}
	if newest == nil {
		return nil
	}
	ok, first, last, err := fits(log, index, term)
	if err != nil || ok {
		return err
	}
	logger.Warn("discarding a raft log that conflicts with the newest snapshot", "first", first, "last", last, "snapshot", index)
	return log.DeleteRange(first, last)
}

// fileSnapshots is raft's store of snapshot files with a preamble in each.
type fileSnapshots struct {
	files  *raft.FileSnapshotStore
	path   string
	places *places // nil: of those who only look
}

// keep notes that id is the newest snapshot.
func (s *fileSnapshots) keep(id string) error {
	if runtime.GOOS == "windows" { // which removes no file that is open
		return nil
	}
	dir := filepath.Join(s.path, id)
	meta, err := os.Open(filepath.Join(dir, metaName))
	if err != nil {
		return err
	}
	state, err := os.Open(filepath.Join(dir, stateName))
	if err != nil {
		_ = meta.Close()
		return err
	}
	s.places.setSnapshot(&snapshotFiles{dir: dir, meta: meta, state: state})
	return nil
}

// verify reads every snapshot and returns the newest one's description.
func (s *fileSnapshots) verify(names []snapshotName, logger *slog.Logger) (newest *raft.SnapshotMeta, err error) {
	for i, n := range names {
		m, err := s.check(n)
		if err == nil {
			if i == 0 {
				newest = m
			}
			continue
		}
		dir := filepath.Join(s.path, n.name)
		found, ok := errors.AsType[*damage](err)
		if !ok {
			return nil, fmt.Errorf("check snapshot: %w", err)
		}
		if i == 0 {
			return nil, &DamagedError{Path: dir, Reason: found.reason}
		}
		logger.Warn("removing a damaged snapshot, which is not the newest", "path", dir, "reason", found.reason)
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("remove damaged snapshot: %w", err)
		}
	}
	return newest, nil
}

// check reads one snapshot. The error is a *damage, or the disk's.
func (s *fileSnapshots) check(n snapshotName) (*raft.SnapshotMeta, error) {
	for _, f := range []string{metaName, stateName} {
		fi, err := os.Stat(filepath.Join(s.path, n.name, f))
		if errors.Is(err, os.ErrNotExist) || err == nil && !fi.Mode().IsRegular() {
			return nil, damaged("%s is missing", f)
		}
		if err != nil {
			return nil, err
		}
	}
	m, r, err := s.Open(n.name)
	if err != nil {
		if _, ok := errors.AsType[*os.PathError](err); ok {
			return nil, err
		}
		return nil, damaged("%v", err)
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	if m.Term != n.term || m.Index != n.index {
		return nil, damaged("its name is of another snapshot")
	}
	return m, nil
}

// Create begins a snapshot.
func (s *fileSnapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	if err := os.Mkdir(s.path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err // raft would make it with another mode
	}
	sink, err := s.files.Create(version, index, term, conf, confIndex, trans)
	if err != nil {
		return nil, err
	}
	if err := s.makePrivate(sink.ID() + tmpSuffix); err != nil {
		_ = sink.Cancel()
		return nil, err
	}
	p := preamble(&raft.SnapshotMeta{Version: version, Index: index, Term: term, Configuration: conf, ConfigurationIndex: confIndex})
	if _, err := sink.Write(p); err != nil {
		_ = sink.Cancel()
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.path, sink.ID()+tmpSuffix, stateName), os.O_WRONLY, 0)
	if err != nil {
		_ = sink.Cancel()
		return nil, err
	}
	return &syncingSink{SnapshotSink: sink, file: f, snaps: s}, nil
}

// makePrivate takes back the rights that raft gives to everybody: it makes directories with mode 0755 and files with 0666, less the umask.
func (s *fileSnapshots) makePrivate(name string) error {
	for part, mode := range map[string]os.FileMode{"": 0o700, metaName: 0o600, stateName: 0o600} {
		if err := os.Chmod(filepath.Join(s.path, name, part), mode); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("make a snapshot private: %w", err)
		}
	}
	return nil
}

// syncEvery is how many bytes of a snapshot may wait for the disk.
const syncEvery = 512 << 10

// syncingSink writes a snapshot to the disk as it comes. Left to the end, its hundreds of megabytes stand before the log's
// next write, and hold up every writer of the cluster.
type syncingSink struct {
	raft.SnapshotSink
	file  *os.File
	snaps *fileSnapshots
	dirty int
	done  bool // closed or cancelled
}

func (s *syncingSink) Write(p []byte) (int, error) {
	n, err := s.SnapshotSink.Write(p)
	if s.dirty += n; err == nil && s.dirty >= syncEvery {
		start := time.Now()
		s.dirty, err = 0, s.file.Sync()
		time.Sleep(time.Since(start)) // the disk is the writers' for as long
	}
	return n, err
}

func (s *syncingSink) Close() error {
	s.file.Close()
	err := s.SnapshotSink.Close()
	if err == nil && !s.done {
		err = s.snaps.keep(s.ID())
	}
	s.done = true
	return err
}

func (s *syncingSink) Cancel() error {
	s.file.Close()
	s.done = true
	return s.SnapshotSink.Cancel()
}

// List returns the snapshots, newest first. It fails if one of them is damaged.
func (s *fileSnapshots) List() ([]*raft.SnapshotMeta, error) {
	found, err := s.files.List()
	if err != nil {
		return nil, err
	}
	list := make([]*raft.SnapshotMeta, 0, len(found))
	for _, m := range found {
		f, err := os.Open(filepath.Join(s.path, m.ID, stateName))
		if err != nil {
			return nil, err
		}
		out, err := s.strip(m.ID, m, f)
		_ = f.Close()
		if err != nil {
			return nil, err
		}
		list = append(list, out)
	}
	return list, nil
}

// Open returns a snapshot's content, after it has read it once and found it right.
func (s *fileSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	m, r, err := s.files.Open(id)
	if err != nil {
		return nil, nil, err
	}
	out, err := s.strip(id, m, r)
	if err != nil {
		_ = r.Close()
		return nil, nil, err
	}
	return out, r, nil
}

// strip reads the preamble off r, compares it with the description, and returns the
// description that raft may see: Size is that of the rest, since it announces the bytes that follow an
// InstallSnapshot. Peers is empty: only snapshots of version 0 need it, and no checksum covers it.
func (s *fileSnapshots) strip(id string, m *raft.SnapshotMeta, r io.Reader) (*raft.SnapshotMeta, error) {
	var p [preambleSize]byte
	if _, err := io.ReadFull(r, p[:]); err != nil {
		return nil, fmt.Errorf("snapshot %s: it is too short", id)
	}
	fi, err := os.Stat(filepath.Join(s.path, id, stateName))
	if err != nil {
		return nil, err
	}
	if m.ID != id || m.Size != fi.Size() || string(p[:]) != string(preamble(m)) {
		return nil, fmt.Errorf("snapshot %s: %s does not describe its content", id, metaName)
	}
	out := *m
	out.Size -= preambleSize
	out.Peers = nil
	return &out, nil
}

// preamble is what stands before a snapshot's content.
func preamble(m *raft.SnapshotMeta) []byte {
	b := make([]byte, 0, preambleSize)
	b = append(b, preambleMagic...)
	b = append(b, recordVersion)
	for _, v := range []uint64{uint64(m.Version), m.Index, m.Term, m.ConfigurationIndex} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(raft.EncodeConfiguration(m.Configuration), castagnoli()))
	return appendSum(b)
}
