package boltlog

import (
	"fmt"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// What raft keeps in its stable store: these three keys and no others.
const (
	keyTerm      = "CurrentTerm"
	keyVoteTerm  = "LastVoteTerm"
	keyCandidate = "LastVoteCand"
)

// SetUint64 stores CurrentTerm. LastVoteTerm is only remembered until Set stores the candidate.
// raft writes the two one after the other. A crash between them would leave the new term with the
// candidate of an older vote: a vote that was never given (hashicorp/raft issue 661). Other keys
// are an error.
func (l *Log) SetUint64(key []byte, value uint64) error {
	switch string(key) {
	case keyTerm:
		l.writeVote("store the term", func(v *voteRecord) bool {
			if v.hasTerm && v.term == value {
				return false // raft writes it again at every start
			}
			v.hasTerm, v.term = true, value
			return true
		})
		return nil
	case keyVoteTerm:
		l.write("remember the vote's term", func() error {
			l.voteTerm = &value
			return nil
		})
		return nil
	}
	return unknownKey(key)
}

// Set stores LastVoteCand, together with the LastVoteTerm that was set before. Other keys are an
// error, and so is a candidate of more than 1 KiB.
func (l *Log) Set(key, value []byte) error {
	if string(key) != keyCandidate {
		return unknownKey(key)
	}
	if len(value) > maxCandidate {
		return fmt.Errorf("a candidate's address of %d bytes is too long", len(value))
	}
	l.writeVote("store the vote", func(v *voteRecord) bool {
		if l.voteTerm != nil {
			v.voteTerm, l.voteTerm = *l.voteTerm, nil
		}
		v.hasVote, v.candidate = true, append([]byte{}, value...)
		return true
	})
	return nil
}

// GetUint64 returns CurrentTerm or LastVoteTerm as they are on disk. If it was never set, the text
// of the error is "not found", which raft compares.
func (l *Log) GetUint64(key []byte) (uint64, error) {
	v := l.readVote()
	switch string(key) {
	case keyTerm:
		if !v.hasTerm {
			return 0, raftboltdb.ErrKeyNotFound
		}
		return v.term, nil
	case keyVoteTerm:
		if !v.hasVote {
			return 0, raftboltdb.ErrKeyNotFound
		}
		return v.voteTerm, nil
	}
	return 0, unknownKey(key)
}

// Get returns LastVoteCand. If it was never set, the text of the error is "not found", which raft
// compares.
func (l *Log) Get(key []byte) ([]byte, error) {
	v := l.readVote()
	if string(key) != keyCandidate {
		return nil, unknownKey(key)
	}
	if !v.hasVote {
		return nil, raftboltdb.ErrKeyNotFound
	}
	return append([]byte{}, v.candidate...), nil
}

func unknownKey(key []byte) error { return fmt.Errorf("unknown key %q in raft's stable store", key) }

func (l *Log) readVote() voteRecord {
	l.alive()
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.vote
}

// writeVote stores the record as change leaves it, unless change returns false.
func (l *Log) writeVote(op string, change func(*voteRecord) bool) {
	l.write(op, func() error {
		l.mu.RLock()
		v := l.vote
		l.mu.RUnlock()
		if !change(&v) {
			return nil
		}
		v.opening, v.txid, v.trailer = false, l.txid+1, l.tail
		if err := l.store.Set([]byte(voteKey), v.encode()); err != nil {
			return err
		}
		l.txid = v.txid
		l.mu.Lock()
		l.vote = v
		l.mu.Unlock()
		return nil
	})
}
