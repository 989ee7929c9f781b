package raftlog

import (
	"fmt"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/flotilla-ha/flotilla/internal/durable/boltlog"
)

// What raft keeps in its stable store: these three keys and no others.
const (
	keyTerm      = "CurrentTerm"
	keyVoteTerm  = "LastVoteTerm"
	keyCandidate = "LastVoteCand"

	maxCandidate = 1 << 10
)

// SetUint64 stores CurrentTerm, or remembers LastVoteTerm until Set stores the candidate. raft
// writes the two one after the other. A crash between them would leave the new term with the
// candidate of an older vote: a vote that was never given (hashicorp/raft issue 661). Other keys
// are an error.
//
// A new term alone is not written to the disk, but together with the first vote or entries of that
// term; see the package comment. When SetUint64 returns, all entries are on the disk.
func (l *Log) SetUint64(key []byte, value uint64) error {
	l.alive()
	switch string(key) {
	case keyTerm:
		l.flush(l.tickets())
		l.mu.Lock()
		defer l.mu.Unlock()
		l.now.HasTerm, l.now.Term = true, value
		return nil
	case keyVoteTerm:
		l.mu.Lock()
		defer l.mu.Unlock()
		l.voteTerm = &value
		return nil
	}
	return unknownKey(key)
}

// Set stores LastVoteCand, together with the LastVoteTerm that was set before. Other keys are an
// error, and so is a candidate of more than 1 KiB.
func (l *Log) Set(key, value []byte) error {
	l.alive()
	if string(key) != keyCandidate {
		return unknownKey(key)
	}
	if len(value) > maxCandidate {
		return fmt.Errorf("a candidate's address of %d bytes is too long", len(value))
	}
	l.changing <- struct{}{}
	defer func() { <-l.changing }()
	ticket, _ := l.change("store the vote", func() {
		if l.voteTerm != nil {
			l.now.VoteTerm, l.voteTerm = *l.voteTerm, nil
		}
		l.now.HasVote, l.now.Candidate = true, string(value)
	})
	l.flush(ticket)
	return nil
}

// GetUint64 returns CurrentTerm or LastVoteTerm. If it was never set, the text of the error is "not
// found", which raft compares.
func (l *Log) GetUint64(key []byte) (uint64, error) {
	v := l.vote()
	switch string(key) {
	case keyTerm:
		if !v.HasTerm {
			return 0, raftboltdb.ErrKeyNotFound
		}
		return v.Term, nil
	case keyVoteTerm:
		if !v.HasVote {
			return 0, raftboltdb.ErrKeyNotFound
		}
		return v.VoteTerm, nil
	}
	return 0, unknownKey(key)
}

// Get returns LastVoteCand. If it was never set, the text of the error is "not found", which raft
// compares.
func (l *Log) Get(key []byte) ([]byte, error) {
	v := l.vote()
	if string(key) != keyCandidate {
		return nil, unknownKey(key)
	}
	if !v.HasVote {
		return nil, raftboltdb.ErrKeyNotFound
	}
	return []byte(v.Candidate), nil
}

func unknownKey(key []byte) error { return fmt.Errorf("unknown key %q in raft's stable store", key) }

func (l *Log) vote() boltlog.Vote {
	l.alive()
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.now
}
