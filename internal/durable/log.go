package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// LogOptions say how to open a raft log.
type LogOptions struct {
	// Create makes a new log; there must be none. Otherwise there must be one: a log that
	// is missing beside a known identity is refused, since a voter that forgot its vote may vote twice.
	Create bool
	// Failed is called once, on a goroutine of its own, at the first disk error, or with
	// [ErrRestart]; nil: nobody is told.
	Failed func(error)
	// Fault is asked before each write, and its error is taken for the disk's: for tests. Nil: there is none.
	Fault func(op string) error
	// Logger; nil: nothing is logged.
	Logger *slog.Logger
}

// boltStore is what Log needs of raftboltdb.BoltStore.
type boltStore interface {
	StoreLogs(logs []*raft.Log) error
	GetLog(index uint64, log *raft.Log) error
	DeleteRange(min, max uint64) error
	Set(key, value []byte) error
	Close() error
}

// Log is a raft.LogStore and raft.StableStore on raft-boltdb. Its methods may be called by any goroutine.
//
// A disk error never reaches raft, which answers it with a panic of the host program
// (setCurrentTerm, processLogs, NewRaft). Instead the call does not return: it ends
// its goroutine by runtime.Goexit, and so does every later call, reads included; fsync is
// never tried again, because after an error the kernel may have dropped the data and report success. Whoever wants to go on closes the log
// and opens it again: it is then read from the disk as a whole, and must hold all that was ever reported as written.
// Ending the goroutine is safe: raft runs each of its goroutines with a deferred release of its
// WaitGroup, so that Shutdown does not hang; the deferred answers to an RPC in hand say
// "not granted" and "no success", since these are set only after the write; and a leader's
// deferred clean-up stops its heartbeats, so that others elect. The owner hears of it by
// LogOptions.Failed and then shuts raft down.
//
// What calls the log outside raft's goroutines must use [Log.Run]: raft.NewRaft, raft.HasExistingState,
// raft.BootstrapCluster and raft.RecoverCluster run on their caller's.
type Log struct {
	path   string
	dir    *Dir
	store  boltStore
	onFail func(error)
	fault  func(op string) error // nil: none
	logger *slog.Logger
	born   time.Time    // origin of since; monotonic
	since  atomic.Int64 // when the write under way began, in ns after born, plus 1; 0: none is

	// writing holds a token while a goroutine writes; that goroutine owns what follows.
	// It is a channel since it is held across disk writes.
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

// OpenLog opens the raft log or makes a new one. Before bbolt maps the file, the file
// is checked as a whole; a [DamagedError] says what is wrong. One log at a time may be open.
func (d *Dir) OpenLog(o LogOptions) (*Log, error) {
	path := filepath.Join(d.path, logName)
	if o.Create {
		if err := d.createLog(path); err != nil {
			return nil, fmt.Errorf("create raft log: %w", err)
		}
	}
	if o.Fault != nil {
		if err := o.Fault("open"); err != nil {
			return nil, fmt.Errorf("open raft log: %w", err)
		}
	}
	if d.stuck {
		if err := d.restoreFile(path); err != nil {
			return nil, fmt.Errorf("open raft log: %w", err)
		}
	}
	f, err := openKept(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &DamagedError{Path: d.path, Reason: "the raft log " + logName + " is missing"}
	}
	if err != nil {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	l, err := d.openFile(path, f)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	d.places.only(path, nil)
	d.places.keep(path, f)
	l.dir, l.onFail, l.fault, l.logger = d, o.Failed, o.Fault, discard(o.Logger)
	return l, nil
}

// openFile opens the log in f, which is at path.
func (d *Dir) openFile(path string, f *os.File) (*Log, error) {
	if err := d.inPlace(path); err != nil {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	err := readFromDisk(f)
	var c *contents
	if err == nil {
		c, err = inspectFile(f, nil)
	}
	if err == nil {
		err = d.mark.check(c)
	}
	if err != nil {
		return nil, fmt.Errorf("check raft log: %w", d.named(path, err))
	}
	l, err := openLog(path, c)
	if errors.Is(err, bbolterrors.ErrTimeout) {
		err = &InUseError{Path: d.path}
	}
	if err == nil {
		if err = leads(path, f); err != nil {
			_, _ = guard(l.store.Close)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open raft log: %w", err)
	}
	return l, nil
}

// createLog makes the file under another name, so that a crash leaves no half-made log.
func (d *Dir) createLog(path string) error {
	if d.HasLog() {
		return &os.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	snaps := filepath.Join(d.path, snapsName)
	if left, err := os.ReadDir(snaps); err == nil && len(left) > 0 {
		return &DamagedError{Path: snaps, Reason: "there are snapshots, but no raft log"}
	}
	tmp := path + tmpSuffix
	_ = os.Remove(tmp)
	if err := markOpening(tmp, nil); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return syncDir(d.path)
}

// inspect checks a log file with plain reads.
func inspect(path string) (*contents, error) { return inspectEach(path, nil) }

// inspectEach is inspect by checkEach.
func inspectEach(path string, each func(*raft.Log) error) (*contents, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return inspectFile(f, each)
}

// inspectFile is inspectEach of an open file.
func inspectFile(f *os.File, each func(*raft.Log) error) (*contents, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return checkEach(f, fi.Size(), each)
}

// guard runs a call into bbolt. It turns a panic into an error, also that of a page of the mapped
// file that cannot be read (SIGBUS).
func guard(f func() error) (panicked bool, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			panicked, err = true, fmt.Errorf("bbolt: %v", p)
		}
	}()
	return false, f()
}

// Run calls f on a goroutine of its own and returns its error, or the log's when f did
// not return because the log has failed or was closed.
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

// Busy returns for how long the disk write under way has been under way, by the
// monotonic clock; 0 if none is.
func (l *Log) Busy() time.Duration {
	since := l.since.Load()
	if since == 0 {
		return 0
	}
	return max(1, time.Since(l.born)-time.Duration(since-1))
}

// Size returns the size of the log's file in bytes, 0 if it cannot be told. The file
// never shrinks.
func (l *Log) Size() int64 {
	fi, err := os.Stat(l.path)
	if err != nil {
		return 0
	}
	return fi.Size()
}

// Close ends the log: later calls end their goroutine. It waits for the write under
// way, however long the disk takes. Closing again does nothing.
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
	broken := l.broken
	l.dir.mark, l.dir.stuck = mark{l.txid, l.span, l.vote}, broken
	l.mu.RUnlock()
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
		l.logger.Debug("raft log failed", "path", l.path, "error", err) // the owner says it, and knows whether it is news
		if l.onFail != nil {
			go l.onFail(err)
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
	if l.fault != nil {
		if err := l.fault(op); err != nil {
			l.fail(op, false, err)
		}
	}
	if panicked, err := guard(f); err != nil {
		l.fail(op, panicked, err)
	}
	// What is written to a file without a name is gone with the process.
	if err := l.dir.inPlace(l.path); err != nil {
		l.fail(op, false, err)
	}
}

func (l *Log) now() span {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.span
}

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

// GetLog reads the entry at index. The error is raft.ErrLogNotFound or nil. AppendedAt
// is zero.
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
			err = &DamagedError{Path: l.path, Reason: fmt.Sprintf("the checksum of entry %d is wrong", index)}
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

// StoreLogs stores entries, in one transaction. They must follow one another and the
// newest entry, or replace entries; what follows replaced ones is kept. A gap
// ends the log like a disk error: raft leaves one only behind a snapshot that
// [GuardSnapshots] has not seen.
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

// replace returns what must be written so that entries replace others in the middle of
// the log: also the entries behind them, whose chain changes. s becomes the span before all of these.
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

// deleteAtOnce is how many entries one transaction deletes when the log is shortened at its beginning.
const deleteAtOnce = 64

// DeleteRange deletes the entries from lo to hi, both included, at either end of
// the log. Entries that are not there are ignored.
func (l *Log) DeleteRange(lo, hi uint64) error {
	if s := l.now(); lo <= s.base+1 && hi < s.last {
		// Writers wait for one part at a time. Each leaves a log that is right.
		for lo = s.base + 1; lo+deleteAtOnce < hi; lo += deleteAtOnce {
			start := time.Now()
			l.deleteRange(lo, lo+deleteAtOnce-1)
			time.Sleep(time.Since(start)) // the disk is theirs for as long
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
			// If all go, base stays: whether a snapshot or another leader's entries replace them is not known.
			if err := l.cut(&next, lo-1); err != nil {
				return err
			}
		}
		// Deleting is a transaction of its own. The trailer announces it, so that the file
		// is right before it, after it, and when the next trailer is written.
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
