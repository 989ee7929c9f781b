package raftlog

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
)

// Log is a raft.LogStore and raft.StableStore. Its methods may be called by any goroutine.
//
// A disk error never reaches raft, which would answer it with a panic of the host program
// (setCurrentTerm, processLogs, NewRaft). Instead the call does not return. It ends its goroutine
// by runtime.Goexit, and so does every later call, reads included. fsync is never tried again:
// after an error the kernel may have dropped the data and report success. To go on, close the log
// and open it again. It is then read from the disk as a whole, and must hold all that was ever
// reported as written.
//
// Ending the goroutine is safe. raft runs each of its goroutines with a deferred release of its
// WaitGroup, so that Shutdown does not hang. The deferred answers to a request in progress say "not
// granted" and "no success", because these are set only after the write. A leader's deferred
// clean-up stops its heartbeats, so that others elect. The owner learns of it by Options.OnFail and
// then shuts raft down.
//
// Code outside raft's goroutines must use [Log.Run]. raft.NewRaft, raft.HasExistingState,
// raft.BootstrapCluster and raft.RecoverCluster run on the goroutine of their caller.
type Log struct {
	opts  Options
	id    uint64           // of the journal
	front *journal.Journal // appended to by the goroutine that has the token of writing
	born  time.Time        // origin of since; monotonic
	since atomic.Int64     // when the write in progress began, in ns after born, plus 1; 0: none is

	changing chan struct{} // holds a token while a goroutine changes what the log is
	writing  chan struct{} // holds a token while a goroutine writes the journal
	ended    chan struct{} // closed when Close is done

	upkeep upkeep

	mu       sync.RWMutex
	back     *boltlog.Log
	replaced bool     // the file of back was replaced, or perhaps, and the new one is not open
	entries  *entries // with everything that is queued, as is now
	now      boltlog.Vote
	voteTerm *uint64       // the term of the vote that Set will write
	queue    queue         // what is not written yet
	spare    []byte        // a buffer for the body of the next queue
	queued   uint64        // number of changes so far
	written  uint64        // how many of them are on the disk
	durable  state         // the log without what is queued
	progress chan struct{} // closed when written grows and when the log ends; nil: nobody waits
	flushing bool          // a goroutine of its own writes the queue
	err      error         // the first disk error
	closing  bool          // Close was called: errors concern nobody any more
	closed   bool
}

var (
	_ raft.LogStore    = (*Log)(nil)
	_ raft.StableStore = (*Log)(nil)
)

// upkeep frees space, and moves entries from the journal to raft-boltdb. Only Close waits for it.
// After it has moved some entries, it leaves the disk to others for as long.
type upkeep struct {
	wake    chan struct{}   // holds an element if there is something to do; buffered
	stop    chan struct{}   // closed when the log is closed
	purge   chan chan error // takes requests of Purge
	running sync.WaitGroup  // the goroutines of the log
	full    time.Time       // when the next segment could not be made; belongs to keepUp
}

// tend wakes upkeep. It does not block.
func (l *Log) tend() {
	select {
	case l.upkeep.wake <- struct{}{}:
	default:
	}
}

// Path returns the path of raft-boltdb's file.
func (l *Log) Path() string { return l.opts.Path }

// Run calls f on a goroutine of its own and returns its error. If f did not return, because the log
// has failed or was closed, it returns the error of the log.
func (l *Log) Run(f func() error) error {
	done := make(chan error, 1)
	go func() {
		defer close(done)
		done <- f()
	}()
	if err, ok := <-done; ok {
		return err
	}
	if err := l.Err(); err != nil {
		return err
	}
	return fs.ErrClosed
}

// Err returns the disk error that ended this log, or nil.
func (l *Log) Err() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.err
}

// Busy returns how long the current disk write has taken so far, by the monotonic clock; 0 if there
// is none. What upkeep writes does not count: nobody waits for it.
func (l *Log) Busy() time.Duration {
	since := l.since.Load()
	if since == 0 {
		return 0
	}
	return max(1, time.Since(l.born)-time.Duration(since-1))
}

// Close ends the log: later calls end their goroutine. What is queued is written first. Close waits
// for the current write, however long the disk takes. Closing again only waits for that too.
func (l *Log) Close() error {
	l.mu.Lock()
	again, late := l.closing, l.now != l.durable.vote
	l.closing = true
	if late {
		l.queued++
		l.queue.op = cmp.Or(l.queue.op, "store the term")
	}
	ticket := l.queued
	l.mu.Unlock()
	if again {
		<-l.ended
		return nil
	}
	defer close(l.ended)
	_ = l.Run(func() error { l.flush(ticket); return nil }) // nobody relies on it
	l.mu.Lock()
	l.closed = true
	l.move()
	l.mu.Unlock()
	close(l.upkeep.stop)
	l.upkeep.running.Wait()
	l.writing <- struct{}{}
	defer func() { <-l.writing }()
	s, stuck, err := l.back.Close()
	if l.replaced {
		s = boltlog.State{} // its file is not there any more
	}
	if l.opts.OnClose != nil {
		l.opts.OnClose(State{s, l.front.End()}, stuck)
	}
	return errors.Join(err, l.front.Close())
}

// move tells those who wait that the log has moved on. The caller holds l.mu.
func (l *Log) move() {
	if l.progress != nil {
		close(l.progress)
		l.progress = nil
	}
}

// alive ends the goroutine if the log has failed or is closed.
func (l *Log) alive() {
	l.mu.RLock()
	dead := l.err != nil || l.closed
	l.mu.RUnlock()
	if dead {
		runtime.Goexit()
	}
}

// Fail ends the log as a disk error does, and with it the goroutine of its caller.
func (l *Log) Fail(op string, err error) {
	err = fmt.Errorf("raft log: %s: %w", op, err)
	l.mu.Lock()
	first := l.err == nil && !l.closing
	if l.err == nil {
		l.err = err
		l.move()
	}
	l.mu.Unlock()
	if first {
		// the owner logs it for the operator
		l.opts.Logger.Debug("raft log failed", "path", l.opts.Path, "error", err)
		if l.opts.OnFail != nil {
			go l.opts.OnFail(err)
		}
	}
	runtime.Goexit()
}

// Size returns the size of the log's files in bytes.
func (l *Log) Size() int64 { return l.front.Size() + fileSize(l.opts.Path) }

// Durable returns nil, nil if the entries up to index are on the disk. Otherwise it returns a
// channel that is closed when that may have changed, or the error that has ended the log.
func (l *Log) Durable(index uint64) (<-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.await(l.entries.isWritten(index))
}

// Voted is like Durable, for the vote of a term or of a later one.
func (l *Log) Voted(term uint64) (<-chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.await(l.durable.vote.HasVote && l.durable.vote.VoteTerm >= term)
}

// await returns what Durable does. The caller holds l.mu.
func (l *Log) await(done bool) (<-chan struct{}, error) {
	switch {
	case done:
		return nil, nil
	case l.err != nil:
		return nil, l.err
	case l.closed:
		return nil, fs.ErrClosed
	}
	if l.progress == nil {
		l.progress = make(chan struct{})
	}
	return l.progress, nil
}

// fileSize returns the size of a file in bytes, 0 if it is not known.
func fileSize(path string) int64 {
	fi, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return fi.Size()
}
