package durable

import (
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
)

func lock(t testing.TB, path string) *Dir {
	t.Helper()
	d, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func openTestLog(t testing.TB, d *Dir, create bool) *Log {
	t.Helper()
	l, err := d.OpenLog(LogOptions{Create: create, Failed: func(err error) { t.Errorf("log failed: %v", err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// all reads everything that raft could read from a log.
func all(t testing.TB, l *Log) state {
	t.Helper()
	var s state
	must(t, l.Run(func() error { return s.Read(l, l) }))
	return s
}

// state is what a data directory holds.
type state struct {
	disktest.Log
	Small    map[string]string
	Snapshot raft.SnapshotMeta
	Content  string
}
