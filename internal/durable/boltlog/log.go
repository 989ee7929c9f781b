package boltlog

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"sync"

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

// Log is an open log file. One goroutine at a time may change it, and no other may close it
// meanwhile. Any goroutine may read.
//
// After an error every later call fails with the same one. fsync is never tried again: after an
// error the kernel may have dropped the data and report success. To go on, close the log and open
// it again. It is then read from the disk as a whole.
type Log struct {
	path  string
	store Store
	txid  uint64 // the newest transaction; belongs to the goroutine that changes the log, as does tail
	tail  uint64 // the transaction of the trailer

	mu     sync.RWMutex
	span   span
	vote   voteRecord
	err    error // the first error, or fs.ErrClosed
	closed bool
	stuck  bool // bbolt panicked and may hold its locks for ever
}

// Close closes the file. It returns the newest state on the disk. stuck says that bbolt has
// panicked: it holds its lock of the file as long as the process lives. Closing again does nothing.
func (l *Log) Close() (s State, stuck bool, err error) {
	l.mu.Lock()
	again := l.closed
	l.closed, l.err = true, cmp.Or(l.err, fs.ErrClosed)
	s, stuck = State{l.txid, l.span, l.vote}, l.stuck
	l.mu.Unlock()
	if !again && !stuck { // else file and mapping live as long as the process
		_, err = guard(l.store.Close)
	}
	return s, stuck, err
}

// failed returns the first error, or fs.ErrClosed.
func (l *Log) failed() error {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.err
}

// try calls f, which reads or writes, unless the log has failed.
func (l *Log) try(f func() error) error {
	if err := l.failed(); err != nil {
		return err
	}
	panicked, err := guard(f)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	l.stuck = l.stuck || panicked
	return err
}

func (l *Log) now() span {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.span
}

func (l *Log) publish(s span) {
	l.mu.Lock()
	l.span = s
	l.mu.Unlock()
}

// Base returns the index before the first entry. It is known even if there are no entries: it is
// then the index of the last one that was deleted.
func (l *Log) Base() uint64 { return l.now().base }

// Last returns the index of the newest entry. It is Base if there is none.
func (l *Log) Last() uint64 { return l.now().last }

// Vote returns term and vote, and which journal is in front of the log.
func (l *Log) Vote() (Vote, Front) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.vote.Vote, l.vote.Front
}

// Get reads the entry at index as it was stored, and checks it. The error is raft.ErrLogNotFound if
// there is none.
func (l *Log) Get(index uint64) (*Sealed, error) {
	if err := l.failed(); err != nil {
		return nil, err
	}
	if !l.now().holds(index) {
		return nil, raft.ErrLogNotFound
	}
	s := new(Sealed)
	err := l.try(func() error {
		if err := l.store.GetLog(index, &s.log); err != nil {
			return err
		}
		if !s.check(index) {
			return diskfile.Named(l.path, diskfile.Damaged("the checksum of entry %d is wrong", index))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Append stores entries in one transaction. They follow one another and the newest entry. If the
// log is empty they may begin anywhere.
func (l *Log) Append(entries []*Sealed) error {
	if len(entries) == 0 {
		return l.failed()
	}
	return l.try(func() error {
		s := l.now()
		batch := make([]*raft.Log, 0, len(entries)+1)
		for _, e := range entries {
			switch {
			case e.Index() == 0 || e.Index() == trailerIndex:
				return fmt.Errorf("an entry cannot have the index %d", e.Index())
			case s.empty() && len(batch) == 0:
				s.base, s.last = e.Index()-1, e.Index()-1
			case e.Index() != s.last+1 || e.prev != s.chain:
				return fmt.Errorf("entry %d does not follow entry %d", e.Index(), s.last)
			}
			s.last, s.chain = e.Index(), e.sum
			batch = append(batch, &e.log)
		}
		if err := l.commit(batch, s, s); err != nil {
			return err
		}
		l.publish(s)
		return nil
	})
}

// commit stores entries and the trailer in one transaction.
func (l *Log) commit(entries []*raft.Log, now, next span) error {
	l.mu.RLock()
	vote := l.vote.txid
	l.mu.RUnlock()
	t := trailer{txid: l.txid + 1, vote: vote, now: now, next: next}
	err := l.store.StoreLogs(append(entries, &raft.Log{Index: trailerIndex, Type: raft.LogNoop, Data: t.encode()}))
	if err != nil {
		return err
	}
	l.txid, l.tail = t.txid, t.txid
	return nil
}

// Cut deletes the entries behind last.
func (l *Log) Cut(last uint64) error {
	s := l.now()
	if last >= s.last {
		return l.failed()
	}
	next := s
	if next.last = max(last, s.base); next.empty() {
		next.chain = 0
	} else {
		e, err := l.Get(next.last)
		if err != nil {
			return err
		}
		next.chain = e.sum
	}
	return l.try(func() error {
		// Deleting is a transaction of its own. The trailer announces it, so that the file is right
		// before it, after it, and when the next trailer is written.
		if err := l.commit(nil, s, next); err != nil {
			return err
		}
		if err := l.store.DeleteRange(next.last+1, s.last); err != nil {
			return err
		}
		l.txid++
		if err := l.commit(nil, next, next); err != nil {
			return err
		}
		l.publish(next)
		return nil
	})
}

// SetVote stores term and vote, and which journal is in front of the log, in one transaction.
func (l *Log) SetVote(v Vote, f Front) error {
	if err := v.check(); err != nil {
		return err
	}
	return l.try(func() error {
		r := voteRecord{txid: l.txid + 1, trailer: l.tail, Vote: v, Front: f}
		if err := l.store.Set([]byte(voteKey), r.encode()); err != nil {
			return err
		}
		l.txid = r.txid
		l.mu.Lock()
		l.vote = r
		l.mu.Unlock()
		return nil
	})
}

// guard runs a call into bbolt. It turns a panic into an error, also the one for a page of the
// mapped file that cannot be read (SIGBUS).
func guard(f func() error) (panicked bool, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			panicked, err = true, fmt.Errorf("bbolt: %v", p)
		}
	}()
	return false, f()
}
