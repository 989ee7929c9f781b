package replica

import (
	"errors"
	"io"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// vettedSnapshots refuses a snapshot that contradicts what this node has applied, before the
// snapshot replaces anything.
type vettedSnapshots struct {
	raft.SnapshotStore
	store   *applied.Store
	failed  func(error) // called on its own goroutine when a snapshot is refused
	secrets *secrets.Set
}

// Create begins a snapshot. It is a leader's if it is ahead of what this node has applied.
func (v *vettedSnapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration, confIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	sink, err := v.SnapshotStore.Create(version, index, term, conf, confIndex, trans)
	have := v.store.State()
	if err != nil || have.Index == 0 || index <= have.Index {
		return sink, err
	}
	r, w := io.Pipe()
	out := &vettedSink{SnapshotSink: sink, copy: w, found: make(chan error, 1), failed: v.failed}
	go func() {
		s, err := state.ReadSnapshot(r, v.secrets.All())
		if err == nil {
			err = s.Extends(have)
		} else {
			err = nil // the state machine reports it
		}
		out.found <- err
		io.Copy(io.Discard, r)
	}()
	return out, nil
}

// vettedSink belongs to one goroutine at a time, as raft uses it.
type vettedSink struct {
	raft.SnapshotSink
	copy   *io.PipeWriter
	found  chan error // what is wrong with the snapshot
	failed func(error)
	done   bool
	err    error // of Close
}

func (s *vettedSink) Write(p []byte) (int, error) {
	n, err := s.SnapshotSink.Write(p)
	s.copy.Write(p[:n])
	return n, err
}

// Close finishes the snapshot, unless it is refused.
func (s *vettedSink) Close() error {
	if s.done {
		return s.err
	}
	s.done = true
	s.copy.Close()
	if err := <-s.found; err != nil {
		go s.failed(err)
		s.err = errors.Join(err, s.SnapshotSink.Cancel())
		return s.err
	}
	s.err = s.SnapshotSink.Close()
	return s.err
}

// Cancel gives up the snapshot.
func (s *vettedSink) Cancel() error {
	s.done = true
	s.copy.CloseWithError(errors.New("the snapshot is given up"))
	return s.SnapshotSink.Cancel()
}
