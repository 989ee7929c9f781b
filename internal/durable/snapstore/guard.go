package snapstore

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// ErrRestart says that raft must be started again, with a log and a snapshot store that are opened
// again. Nothing is wrong with the disk. See [Guard].
var ErrRestart = errors.New(
	"the log conflicts with an installed snapshot at its last entry: raft must be started again",
)

// failer is a log that can end as after a disk error. Its Fail does not return.
type failer interface {
	Fail(op string, err error)
}

// Guard returns a store that makes the log fit each snapshot that is finished in it.
//
// When raft installs a snapshot over a conflicting log, it keeps the log (hashicorp/raft issue 697,
// raft.go installSnapshot). The Raft paper discards it (figure 13, rule 7). Two faults follow. The
// entry at the snapshot's index has another term, so the follower refuses every AppendEntries
// behind the snapshot and gets the snapshot again, for ever. And entries below the snapshot that
// were never committed stay in the log: once that follower leads, it sends them to followers that
// are further behind, over committed ones.
//
// So Guard looks at the log's entry at the snapshot's index. If it has another term, or if the log
// ends before that index, everything up to the index is deleted, and a no-op of the snapshot's term
// is put there. raft then finds the term that it looks for, and truncates what follows as for any
// conflict. The no-op is never sent: with nothing before it, a leader sends its snapshot instead.
// It is never applied either, because the snapshot covers that index. (The entries behind it cannot
// be deleted here: raft remembers the last index and would look for them.)
//
// One case cannot be repaired while raft runs: the log ends with a conflicting entry at exactly the
// snapshot's index. raft then compares with the term that it remembers, and asks no store. A log
// with a method Fail ends with [ErrRestart]. With another log Close returns ErrRestart, and the
// follower gets snapshots until there is a newer one.
//
// A crash between the snapshot and the log leaves a log that does not fit, see [Fits].
func Guard(s raft.SnapshotStore, logs raft.LogStore) raft.SnapshotStore {
	return &guarded{SnapshotStore: s, logs: logs}
}

type guarded struct {
	raft.SnapshotStore
	logs raft.LogStore
}

// Create begins a snapshot.
func (g *guarded) Create(
	version raft.SnapshotVersion,
	index, term uint64,
	conf raft.Configuration,
	confIndex uint64,
	trans raft.Transport,
) (raft.SnapshotSink, error) {
	sink, err := g.SnapshotStore.Create(version, index, term, conf, confIndex, trans)
	if err != nil {
		return nil, err
	}
	return &guardedSink{SnapshotSink: sink, logs: g.logs, index: index, term: term}, nil
}

// guardedSink belongs to one goroutine at a time, as raft uses it.
type guardedSink struct {
	raft.SnapshotSink
	logs        raft.LogStore
	index, term uint64
	done        bool  // closed or cancelled
	err         error // of Close
}

// Close finishes the snapshot, then makes the log fit. In this order a crash between the two leaves
// a log that is known not to fit. In the other order it would leave a no-op without a snapshot
// behind it.
func (s *guardedSink) Close() error {
	if s.done {
		return s.err
	}
	s.done = true
	if s.err = s.SnapshotSink.Close(); s.err != nil {
		return s.err
	}
	if err := s.fit(); err != nil {
		s.err = fmt.Errorf("make the log fit the snapshot: %w", err)
	}
	return s.err
}

// Cancel gives the snapshot up.
func (s *guardedSink) Cancel() error {
	s.done = true
	return s.SnapshotSink.Cancel()
}

func (s *guardedSink) fit() error {
	ok, first, last, err := Fits(s.logs, s.index, s.term)
	if err != nil || ok {
		return err
	}
	if last == s.index {
		if l, ok := s.logs.(failer); ok {
			l.Fail("fit the snapshot", ErrRestart)
		}
		return ErrRestart
	}
	// The no-op goes last: without it a crash leaves a log that still does not fit.
	if hi := min(last, s.index-1); first <= hi {
		if err := s.logs.DeleteRange(first, hi); err != nil {
			return err
		}
	}
	return s.logs.StoreLog(&raft.Log{Index: s.index, Term: s.term, Type: raft.LogNoop})
}

// Fits reports whether a log may stay beside a snapshot: it is empty, or begins behind the
// snapshot, or has the snapshot's last entry. It also returns the log's first and last index.
func Fits(logs raft.LogStore, index, term uint64) (ok bool, first, last uint64, err error) {
	if first, err = logs.FirstIndex(); err != nil {
		return false, 0, 0, err
	}
	if last, err = logs.LastIndex(); err != nil {
		return false, 0, 0, err
	}
	if last == 0 || first > index {
		return true, first, last, nil
	}
	if last < index {
		return false, first, last, nil
	}
	var e raft.Log
	switch err := logs.GetLog(index, &e); {
	case errors.Is(err, raft.ErrLogNotFound):
		return true, first, last, nil // compacted since
	case err != nil:
		return false, 0, 0, err
	}
	return e.Term == term, first, last, nil
}
