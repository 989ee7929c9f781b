package snapstore

import (
	"os"
	"time"

	"github.com/hashicorp/raft"
)

// syncEvery is how many bytes of a snapshot may wait for the disk.
const syncEvery = 512 << 10

// syncingSink writes a snapshot to the disk as it comes. If all of it was synced at the end, its
// hundreds of megabytes would delay the log's next write, and with it every writer of the cluster.
type syncingSink struct {
	raft.SnapshotSink
	file     *os.File
	finished func(id string) error // called once the snapshot is complete
	dirty    int
	done     bool // closed or cancelled
}

// Write implements raft.SnapshotSink.
func (s *syncingSink) Write(p []byte) (int, error) {
	n, err := s.SnapshotSink.Write(p)
	if s.dirty += n; err == nil && s.dirty >= syncEvery {
		start := time.Now()
		s.dirty, err = 0, s.file.Sync()
		time.Sleep(time.Since(start)) // leave the disk to writers for as long
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
