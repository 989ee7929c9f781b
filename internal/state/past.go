package state

import (
	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/history"
)

// past stands for the entries that led to a state. Of two states of one cluster, one is in the past
// of the other, unless a voter has forgotten entries: see package history.
type past struct {
	Sum   history.Sum // of all entries so far
	term  uint64      // of the newest
	terms []termStart // the newest terms, in order; never written to
}

// termStart is the first entry of a term that the state machine has seen.
type termStart struct {
	term, index uint64
	sum         history.Sum // of all entries up to it
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

// at returns the start of the term of the entry at index, and false if that is forgotten.
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
