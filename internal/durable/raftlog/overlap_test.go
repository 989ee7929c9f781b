package raftlog

import (
	"errors"
	"flag"
	"os"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/disktest"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// long makes the tests go through all cases.
var long = flag.Bool("long", false, "go through all cases")

// slow is a System whose syncs wait until they are told their outcome.
type slow struct {
	journal.OS
	outcome chan error // nil: syncs do not wait
}

// Sync implements journal.System.
func (s *slow) Sync(f *os.File) error {
	if err := <-s.outcome; err != nil {
		return err
	}
	return s.OS.Sync(f)
}

// pending reports whether a wait is not over.
func pending(t *testing.T, wait <-chan struct{}, err error) bool {
	t.Helper()
	must(t, err)
	return wait != nil
}

// Queue returns before entries are on the disk, Durable says when they are, and they can be read
// meanwhile.
func TestQueue(t *testing.T) {
	sys := &slow{outcome: make(chan error, 10)}
	l := newDir(t).mustOpen(t, Options{Sys: sys})
	t.Cleanup(func() { close(sys.outcome) })
	l.Queue(disktest.Entries(1, 3, 1, 10))
	wait, err := l.Durable(3)
	if !pending(t, wait, err) {
		t.Fatal("an entry is on the disk before its sync")
	}
	var e raft.Log
	if err := l.GetLog(2, &e); err != nil || e.Index != 2 {
		t.Errorf("a queued entry: %+v, %v", e, err)
	}
	sys.outcome <- nil
	<-wait
	if wait, err := l.Durable(3); pending(t, wait, err) {
		t.Error("an entry is not on the disk after its sync")
	}
	if wait, err := l.Durable(4); !pending(t, wait, err) {
		t.Error("an entry that is not there is on the disk")
	}
}

// A new term waits for all entries: a node that learns of a later leader answers for none that it
// may lose.
func TestTermWaitsForEntries(t *testing.T) {
	d := newDir(t)
	synctest.Test(t, func(t *testing.T) {
		sys := &slow{outcome: make(chan error)}
		l := d.mustOpen(t, Options{Sys: sys})
		l.Queue(disktest.Entries(1, 3, 1, 10))
		stored := make(chan error, 1)
		go func() { stored <- l.SetUint64([]byte(keyTerm), 2) }()
		synctest.Wait()
		if len(stored) > 0 {
			t.Error("the term was stored before the entries")
		}
		close(sys.outcome)
		must(t, <-stored)
		if wait, err := l.Durable(3); pending(t, wait, err) {
			t.Error("the entries are not on the disk")
		}
		must(t, l.Close())
	})
}

// What waits for the disk learns that it has failed.
func TestQueueFails(t *testing.T) {
	sys := &slow{outcome: make(chan error, 1)}
	failed := make(chan error, 1)
	l := newDir(t).mustOpen(t, Options{Sys: sys, OnFail: func(err error) { failed <- err }})
	t.Cleanup(func() { close(sys.outcome) })
	l.Queue(disktest.Entries(1, 3, 1, 10))
	entries, err := l.Durable(3)
	if !pending(t, entries, err) {
		t.Fatal("an entry is on the disk before its sync")
	}
	sys.outcome <- syscall.EIO
	<-entries
	for _, wait := range []func(uint64) (<-chan struct{}, error){l.Durable, l.Voted} {
		if _, err := wait(3); !errors.Is(err, syscall.EIO) {
			t.Errorf("got %v", err)
		}
	}
	if err := <-failed; !errors.Is(err, syscall.EIO) {
		t.Errorf("OnFail was told %v", err)
	}
	if err := l.Run(func() error { l.Queue(disktest.Entries(4, 4, 1, 1)); return nil }); !errors.Is(err, syscall.EIO) {
		t.Errorf("Queue after the error: %v", err)
	}
}

// A term is written with the first vote or entries of it, and not before.
func TestTermAlone(t *testing.T) {
	for _, test := range []struct {
		name   string
		do     func(l *Log) error
		writes int
		want   disktest.Log
	}{
		{"term", func(l *Log) error { return l.SetUint64([]byte(keyTerm), 5) }, 0, disktest.Log{}},
		{"vote", func(l *Log) error { return vote(l, 5, "c") }, 1, disktest.Log{Term: 5, VoteTerm: 5, Candidate: "c"}},
		{"entry", func(l *Log) error {
			return errors.Join(l.SetUint64([]byte(keyTerm), 5), l.StoreLog(disktest.Entry(1, 5, 0)))
		}, 1, disktest.Log{Term: 5, First: 1, Last: 1, Entries: []raft.Log{*disktest.Entry(1, 5, 0)}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, writes := newDir(t), 0
			l, err := d.open(Options{Fault: func(string) error { writes++; return nil }})
			must(t, err)
			must(t, test.do(l))
			if writes != test.writes {
				t.Errorf("%d writes, want %d", writes, test.writes)
			}
			if wait, err := l.Voted(5); pending(t, wait, err) == (test.name == "vote") {
				t.Errorf("whether the vote is on the disk is wrong")
			}
			// A crash: nothing more is written.
			_ = l.Run(func() error { l.Fail("crash", errors.New("crash")); return nil })
			_ = l.Close()
			disktest.Diff(t, test.want, all(t, d.mustOpen(t, Options{})))
		})
	}
}

// One sync makes durable what several goroutines wait for.
func TestGroupCommit(t *testing.T) {
	sys := &slow{outcome: make(chan error)}
	l := newDir(t).mustOpen(t, Options{Sys: sys})
	t.Cleanup(func() { close(sys.outcome) })
	l.Queue(disktest.Entries(1, 1, 1, 10))
	for i := uint64(2); i <= 50; i++ { // while the first sync waits
		l.Queue(disktest.Entries(i, i, 1, 10))
	}
	done := make(chan error, 1)
	go func() { done <- l.StoreLogs(disktest.Entries(51, 51, 1, 10)) }()
	syncs := 0
	for waiting := true; waiting; {
		select {
		case sys.outcome <- nil:
			syncs++
		case err := <-done:
			must(t, err)
			waiting = false
		}
	}
	if syncs > 4 {
		t.Errorf("%d syncs for 51 entries", syncs)
	}
}

// Each Close returns when the files are closed, also one that is called during another.
func TestCloseAgain(t *testing.T) {
	d := newDir(t)
	synctest.Test(t, func(t *testing.T) {
		sys := &slow{outcome: make(chan error)}
		l := d.mustOpen(t, Options{Sys: sys})
		l.Queue(disktest.Entries(1, 3, 1, 10))
		closed := make(chan error, 2)
		for range 2 {
			go func() { closed <- l.Close() }()
			synctest.Wait()
		}
		if len(closed) > 0 {
			t.Error("it is closed while it writes")
		}
		close(sys.outcome)
		must(t, errors.Join(<-closed, <-closed))
	})
}
