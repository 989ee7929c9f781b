package snapstore

import (
	"os"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// syncingSink writes a snapshot to the disk as it comes, see diskfile.Pace.
type syncingSink struct {
	raft.SnapshotSink
	file     *os.File
	finished func(id string) error // called once the snapshot is complete
	pace     diskfile.Pace
	done     bool // closed or cancelled
}

// Write implements raft.SnapshotSink.
func (s *syncingSink) Write(p []byte) (int, error) {
	n, err := s.SnapshotSink.Write(p)
	if err == nil {
		err = s.pace.Wrote(s.file, n)
	}
	return n, err
}

// Close implements raft.SnapshotSink.
func (s *syncingSink) Close() error {
	s.file.Close()
	err := s.SnapshotSink.Close()
	if err == nil && !s.done {
		err = s.finished(s.ID())
	}
	s.done = true
	return err
}

// Cancel implements raft.SnapshotSink.
func (s *syncingSink) Cancel() error {
	s.file.Close()
	s.done = true
	return s.SnapshotSink.Cancel()
}
