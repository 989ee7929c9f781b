package raftlog

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
	"github.com/flotilla-ha/flotilla/internal/durable/journal"
)

// Open checks a log as a whole and opens it. The error wraps a diskfile.DamagedError if a file is
// damaged or missing, and ErrLocked or a diskfile.MovedError if another process has it or it was
// moved.
func Open(o Options) (*Log, error) {
	var r replay
	back, err := boltlog.Open(boltlog.Options{
		Path: o.Path, File: o.File, Known: o.Known.back, Each: r.inBack, Wrap: o.Wrap,
	})
	if err != nil {
		return nil, err
	}
	o.MoveAfter = cmp.Or(o.MoveAfter, moveAfter)
	l, err := join(o, back, &r)
	if err != nil {
		_, _, cerr := back.Close()
		return nil, fmt.Errorf("open raft log: %w", errors.Join(err, cerr))
	}
	return l, nil
}

// Start begins the upkeep of the log's files. Close ends it.
func (l *Log) Start() {
	l.upkeep.running.Go(l.keepUp)
	l.tend()
}

// join opens the journal in front of raft-boltdb, and finds out what the two hold together.
func join(o Options, back *boltlog.Log, r *replay) (*Log, error) {
	vote, front := back.Vote()
	if front.ID == 0 { // written before there were journals
		var err error
		if front, err = newFront(o); err != nil {
			return nil, err
		}
		if err := back.SetVote(vote, front); err != nil {
			return nil, err
		}
	}
	r.begin(back.Base(), back.Last(), vote)
	stop := make(chan struct{})
	j, err := journal.Open(journal.Options{
		Dir: o.dir(), ID: front.ID, From: front.From, Known: o.Known.front, Sys: o.Sys, Stop: stop,
		Synced: o.Synced, Added: o.Files.Added, Removed: o.Files.Removing,
	}, r.batch)
	if err != nil {
		return nil, err
	}
	err = r.end(o.Path)
	if first, current := j.Segments(); err == nil && first != current && j.Fresh() {
		// A crash came before the first batch of the newest segment. Without it the log would be
		// unknown once the segments before are gone.
		_, err = j.Append(appendState(nil, r.now))
	}
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return &Log{
		opts:     o,
		id:       front.ID,
		front:    j,
		back:     back,
		born:     time.Now(),
		changing: make(chan struct{}, 1),
		writing:  make(chan struct{}, 1),
		ended:    make(chan struct{}),
		upkeep:   upkeep{wake: make(chan struct{}, 1), stop: stop, purge: make(chan chan error)},
		entries:  newEntries(r.now.span, r.slots),
		now:      r.now.vote,
		durable:  r.now,
	}, nil
}

// newFront makes an empty journal.
func newFront(o Options) (boltlog.Front, error) {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	f := boltlog.Front{ID: binary.BigEndian.Uint64(b[:]) | 1, From: 1}
	return f, journal.Create(o.dir(), f.ID, f.From, o.Sys)
}

// Create makes the files of an empty log: raft-boltdb's under the name tmp, and the journal beside
// path. The log is there once tmp has its name.
func Create(tmp, path string, sys journal.System) error {
	f, err := newFront(Options{Path: path, Sys: sys})
	if err != nil {
		return err
	}
	return boltlog.Create(tmp, boltlog.Vote{}, f)
}
