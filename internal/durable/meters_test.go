package durable

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// The syncs of the log are counted, and go on to be when the log is opened again.
func TestLogSync(t *testing.T) {
	d := lock(t, t.TempDir())
	store := func(l *Log, index uint64) {
		t.Helper()
		before := d.Meters.LogSync.Load().Count
		must(t, l.Run(func() error { return l.StoreLog(&raft.Log{Index: index, Term: 1}) }))
		if got := d.Meters.LogSync.Load().Count; got != before+1 {
			t.Errorf("entry %d: %d syncs are counted, want %d", index, got, before+1)
		}
	}
	l := openTestLog(t, d, true)
	store(l, 1)
	store(l, 2)
	must(t, l.Close())
	store(openTestLog(t, d, false), 3)
}

// The time of the newest snapshot survives the process.
func TestSnapshotTaken(t *testing.T) {
	path := t.TempDir()
	var want time.Time
	for _, index := range []uint64{1, 2} {
		d, err := Lock(path)
		must(t, err)
		if got := d.SnapshotTaken(); !got.IsZero() {
			t.Errorf("no snapshots are open, and one was taken at %v", got)
		}
		l := openTestLog(t, d, index == 1)
		s, err := d.OpenSnapshots(l, nil)
		must(t, err)
		if got := d.SnapshotTaken(); !got.Equal(want) {
			t.Errorf("before snapshot %d: taken at %v, want %v", index, got, want)
		}
		before := time.Now().Truncate(time.Millisecond)
		must(t, l.Run(func() error { return l.StoreLog(&raft.Log{Index: index, Term: 1}) }))
		sink, err := s.Create(raft.SnapshotVersionMax, index, 1, raft.Configuration{}, 1, nil)
		must(t, err)
		if got := d.SnapshotTaken(); !got.Equal(want) {
			t.Errorf("snapshot %d counts before it is finished", index)
		}
		must(t, sink.Close())
		if want = d.SnapshotTaken(); want.Before(before) || want.After(time.Now()) {
			t.Errorf("snapshot %d was taken at %v, want %v or soon after", index, want, before)
		}
		must(t, l.Close())
		must(t, d.Close())
	}
}
