package boltlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/durable/diskfile"
)

// Store is what a Log needs of raftboltdb.BoltStore.
type Store interface {
	StoreLogs(logs []*raft.Log) error
	GetLog(index uint64, log *raft.Log) error
	DeleteRange(min, max uint64) error
	Set(key, value []byte) error
	Close() error
}

// Log is a raft.LogStore and raft.StableStore on raft-boltdb. Its methods may be called by any
// goroutine.
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
	store Store
	born  time.Time    // origin of since; monotonic
	since atomic.Int64 // when the write in progress began, in ns after born, plus 1; 0: none is

	// writing holds a token while a goroutine writes. That goroutine owns what follows. It is a
	// channel because it is held across disk writes.
	writing  chan struct{}
	txid     uint64  // the newest transaction
	tail     uint64  // the transaction of the trailer
	voteTerm *uint64 // the term of the vote that Set will write

	mu     sync.RWMutex
	span   span
	vote   voteRecord
	err    error // the first disk error
	closed bool
	broken bool // bbolt panicked and may hold its locks for ever
}

var (
	_ raft.LogStore    = (*Log)(nil)
	_ raft.StableStore = (*Log)(nil)
)

// Path returns the path of the file.
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
// is none.
func (l *Log) Busy() time.Duration {
	since := l.since.Load()
	if since == 0 {
		return 0
	}
	return max(1, time.Since(l.born)-time.Duration(since-1))
}

// Size returns the size of the log's file in bytes, 0 if it is not known. The file never shrinks.
func (l *Log) Size() int64 {
	fi, err := os.Stat(l.opts.Path)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// Close ends the log: later calls end their goroutine. It waits for the current write, however long
// the disk takes. Closing again does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	again := l.closed
	l.closed = true
	l.mu.Unlock()
	if again {
		return nil
	}
	l.writing <- struct{}{}
	defer func() { <-l.writing }()
	l.mu.RLock()
	broken, state := l.broken, State{l.txid, l.span, l.vote}
	l.mu.RUnlock()
	if l.opts.OnClose != nil {
		l.opts.OnClose(state, broken)
	}
	if broken {
		return nil // its locks may be held; file and mapping live as long as the process
	}
	_, err := guard(l.store.Close)
	return err
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
func (l *Log) Fail(op string, err error) { l.fail(op, false, err) }

// fail marks the log as failed and ends the goroutine.
func (l *Log) fail(op string, panicked bool, err error) {
	err = fmt.Errorf("raft log: %s: %w", op, err)
	l.mu.Lock()
	first := l.err == nil && !l.closed
	if l.err == nil {
		l.err = err
	}
	l.broken = l.broken || panicked
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

// write runs f while no other goroutine writes, and returns if it succeeded.
func (l *Log) write(op string, f func() error) {
	l.alive()
	l.writing <- struct{}{}
	defer func() { <-l.writing }()
	l.alive()
	l.since.Store(int64(time.Since(l.born)) + 1)
	defer l.since.Store(0)
	if l.opts.Fault != nil {
		if err := l.opts.Fault(op); err != nil {
			l.fail(op, false, err)
		}
	}
	if panicked, err := guard(f); err != nil {
		l.fail(op, panicked, err)
	}
	// What is written to a file without a name is gone with the process.
	if l.opts.InPlace != nil {
		if err := l.opts.InPlace(); err != nil {
			l.fail(op, false, err)
		}
	}
}

func (l *Log) now() span {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.span
}

// Base returns the index before the first entry. It is known even if the log is empty: it is then
// the index of the last entry that was deleted.
func (l *Log) Base() uint64 { return l.now().base }

// FirstIndex returns the index of the oldest entry, 0 if there is none.
func (l *Log) FirstIndex() (uint64, error) {
	l.alive()
	if s := l.now(); !s.empty() {
		return s.base + 1, nil
	}
	return 0, nil
}

// LastIndex returns the index of the newest entry, 0 if there is none.
func (l *Log) LastIndex() (uint64, error) {
	l.alive()
	if s := l.now(); !s.empty() {
		return s.last, nil
	}
	return 0, nil
}

// GetLog reads the entry at index. The error is raft.ErrLogNotFound or nil. AppendedAt is zero.
func (l *Log) GetLog(index uint64, out *raft.Log) error {
	l.alive()
	if !l.now().holds(index) {
		return raft.ErrLogNotFound
	}
	e, _, err := l.read(index)
	if err != nil {
		return err
	}
	*out = *e
	return nil
}

// read gets an entry and checks it. The error is raft.ErrLogNotFound or nil.
func (l *Log) read(index uint64) (e *raft.Log, sum uint32, err error) {
	e = new(raft.Log)
	panicked, err := guard(func() error { return l.store.GetLog(index, e) })
	if errors.Is(err, raft.ErrLogNotFound) {
		return nil, 0, raft.ErrLogNotFound
	}
	if err == nil {
		var ok bool
		if _, sum, ok = unseal(e, index); !ok {
			err = &diskfile.DamagedError{
				Path:   l.opts.Path,
				Reason: fmt.Sprintf("the checksum of entry %d is wrong", index),
			}
		}
	}
	if err != nil {
		l.fail(fmt.Sprintf("read entry %d", index), panicked, err)
	}
	e.AppendedAt = time.Time{}
	return e, sum, nil
}

// StoreLog stores one entry.
func (l *Log) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs stores entries in one transaction. They must follow one another and the newest entry,
// or replace entries; the entries behind replaced ones are kept. A gap ends the log like a disk
// error: raft leaves one only behind a snapshot that package snapstore has not seen.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	l.alive()
	if len(entries) == 0 {
		return nil
	}
	l.write("store entries", func() error {
		s := l.now()
		first := entries[0].Index
		for i, e := range entries {
			if e.Index != first+uint64(i) || e.Index == 0 || e.Index == trailerIndex {
				return fmt.Errorf("entry %d is stored behind entry %d", e.Index, first)
			}
		}
		batch := entries
		switch {
		case s.empty():
			s = span{base: first - 1, last: first - 1}
		case first > s.last+1 || first <= s.base:
			return fmt.Errorf("entry %d is stored beside the entries %d to %d", first, s.base+1, s.last)
		case first <= s.last:
			var err error
			if batch, err = l.replace(&s, entries); err != nil {
				return err
			}
		}
		sealed := make([]*raft.Log, 0, len(batch)+1)
		for _, e := range batch {
			var one *raft.Log
			one, s.chain = seal(e, s.chain)
			s.last = e.Index
			sealed = append(sealed, one)
		}
		if err := l.commit(sealed, s, s); err != nil {
			return err
		}
		l.publish(s)
		return nil
	})
	return nil
}

// replace returns what must be written so that entries replace others in the middle of the log.
// That includes the entries behind them, because their chain changes. s becomes the span before all
// of these.
func (l *Log) replace(s *span, entries []*raft.Log) ([]*raft.Log, error) {
	first := entries[0].Index
	batch := append([]*raft.Log(nil), entries...)
	for i := entries[len(entries)-1].Index + 1; i <= s.last; i++ {
		e, _, err := l.read(i)
		if err != nil {
			return nil, err
		}
		batch = append(batch, e)
	}
	return batch, l.cut(s, first-1)
}

// cut makes last the newest entry of s.
func (l *Log) cut(s *span, last uint64) error {
	s.last, s.chain = last, 0
	if s.empty() {
		return nil
	}
	_, sum, err := l.read(last)
	s.chain = sum
	return err
}

// commit stores sealed entries and the trailer in one transaction.
func (l *Log) commit(sealed []*raft.Log, now, next span) error {
	l.mu.RLock()
	vote := l.vote.txid
	l.mu.RUnlock()
	t := trailer{txid: l.txid + 1, vote: vote, now: now, next: next}
	err := l.store.StoreLogs(append(sealed, &raft.Log{Index: trailerIndex, Type: raft.LogNoop, Data: t.encode()}))
	if err != nil {
		return err
	}
	l.txid, l.tail = t.txid, t.txid
	return nil
}

func (l *Log) publish(s span) {
	l.mu.Lock()
	l.span = s
	l.mu.Unlock()
}

// deleteAtOnce is how many entries one transaction deletes when the log is shortened at its
// beginning.
const deleteAtOnce = 64

// DeleteRange deletes the entries from lo to hi, both included, at either end of the log. Entries
// that are not there are ignored.
func (l *Log) DeleteRange(lo, hi uint64) error {
	if s := l.now(); lo <= s.base+1 && hi < s.last {
		// Writers wait for one part at a time. Each part leaves a log that is right.
		for lo = s.base + 1; lo+deleteAtOnce < hi; lo += deleteAtOnce {
			start := time.Now()
			l.deleteRange(lo, lo+deleteAtOnce-1)
			time.Sleep(time.Since(start)) // leave the disk to writers for as long
		}
	}
	return l.deleteRange(lo, hi)
}

func (l *Log) deleteRange(lo, hi uint64) error {
	l.write("delete entries", func() error {
		s := l.now()
		lo, hi := max(lo, s.base+1), min(hi, s.last)
		if lo > hi {
			return nil
		}
		next := s
		switch {
		case hi < s.last && lo > s.base+1:
			return fmt.Errorf("the entries %d to %d are in the middle of the log", lo, hi)
		case hi < s.last:
			next.base = hi
		default:
			// If all entries go, base stays: a snapshot or another leader's entries may replace
			// them.
			if err := l.cut(&next, lo-1); err != nil {
				return err
			}
		}
		// Deleting is a transaction of its own. The trailer announces it, so that the file is right
		// before it, after it, and when the next trailer is written.
		if err := l.commit(nil, s, next); err != nil {
			return err
		}
		if err := l.store.DeleteRange(lo, hi); err != nil {
			return err
		}
		l.txid++
		if err := l.commit(nil, next, next); err != nil {
			return err
		}
		l.publish(next)
		return nil
	})
	return nil
}
