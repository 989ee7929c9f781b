package state

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/history"
)

// past stands for the entries that led to a state. Two states of one cluster are one the past of the
// other, unless a voter has forgotten entries: see package history.
type past struct {
	Sum   history.Sum // of all entries so far
	term  uint64      // of the newest
	terms []termStart // the newest terms, in order; never written to
}

// termStart is the first entry of a term that the state machine has seen.
type termStart struct {
	term, index uint64
	sum         history.Sum // of all up to it
}

const maxTerms = 128 // that are remembered

// After returns the past of the state after l.
func (p past) After(l *raft.Log) past {
	p.Sum = p.Sum.Next(l)
	if l.Term != p.term {
		p.term = l.Term
		kept := p.terms[max(0, len(p.terms)+1-maxTerms):]
		p.terms = append(kept[:len(kept):len(kept)], termStart{l.Term, l.Index, p.Sum})
	}
	return p
}

// at returns the start of the term that the entry at index is of, and false if that is forgotten.
func (p past) at(index uint64) (termStart, bool) {
	for i := len(p.terms) - 1; i >= 0; i-- {
		if p.terms[i].index <= index {
			return p.terms[i], true
		}
	}
	return termStart{}, false
}

func (p past) encode(e *codec.Encoder) {
	e.Uint(uint64(p.Sum))
	e.Uint(p.term)
	e.Uint(uint64(len(p.terms)))
	for _, t := range p.terms {
		e.Uint(t.term)
		e.Uint(t.index)
		e.Uint(uint64(t.sum))
	}
}

func decodePast(d *codec.Decoder) past {
	p := past{Sum: history.Sum(d.Uint()), term: d.Uint()}
	for range d.Count() {
		p.terms = append(p.terms, termStart{d.Uint(), d.Uint(), history.Sum(d.Uint())})
	}
	return p
}

// divergedError says that a node's past is not that of its cluster.
type divergedError struct{ detail string }

func (e *divergedError) Error() string {
	return "this node has applied entries that its cluster does not have: " + e.detail +
		". A data directory of another node was restored from an older copy, and so the cluster has lost what was acknowledged here." +
		" This node's directory is left as it is. To go on with what the cluster has, move the directory away and start the node again: it joins as a new one"
}

func Diverged(format string, args ...any) error {
	return &divergedError{fmt.Sprintf(format, args...)}
}

// Extends returns an error unless old can be the past of s. Everything that has not changed in s
// since old must be in old. It is a sure sign of two pasts when it is not; that it is, is no proof of
// one: what both have in their logs tells that.
func (s *State) Extends(old *State) error {
	if s.Index == old.Index && s.Past.Sum != old.Past.Sum {
		return Diverged("what leads to entry %d differs", s.Index)
	}
	if t, ok := s.Past.at(old.Index); ok && t.term != old.Past.term {
		return Diverged("entry %d has the term %d here and %d there", old.Index, old.Past.term, t.term)
	}
	for _, t := range s.Past.terms {
		if was, ok := old.Past.at(t.index); ok && t.index <= old.Index && was != t {
			return Diverged("what leads to entry %d differs", t.index)
		}
	}
	sessions := s.Sessions.Root().Iterator()
	for node, ses, ok := sessions.Next(); ok; node, ses, ok = sessions.Next() {
		if was := old.Session(string(node)); ses.Number <= old.Index && (was == nil || was.Number != ses.Number || was.Incarnation != ses.Incarnation) {
			return Diverged("the session of entry %d is not known here", ses.Number)
		}
	}
	processes := s.processes.Root().Iterator()
	for node, p, ok := processes.Next(); ok; node, p, ok = processes.Next() {
		was, _ := old.processes.Get(node)
		if p.Opened <= old.Index && (was.Opened != p.Opened || was.Incarnation != p.Incarnation) {
			return Diverged("the session of entry %d is not known here", p.Opened)
		}
		if p.ended != 0 && p.ended <= old.Index && was.Opened == p.Opened && was.ended != p.ended {
			return Diverged("the session of entry %d did not end here by entry %d", p.Opened, p.ended)
		}
	}
	records := s.Records.Root().Iterator()
	for k, r, ok := records.Next(); ok; k, r, ok = records.Next() {
		if was, _ := old.Records.Get(k); r.Index <= old.Index && (was == nil || was.Index != r.Index) {
			return Diverged("the record of entry %d is not known here", r.Index)
		}
	}
	return nil
}
