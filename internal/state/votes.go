package state

import (
	"slices"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

// IsDemoted reports whether an operator has demoted a member: it is not to vote.
func (s *State) IsDemoted(id string) bool {
	_, ok := s.Demoted.Get([]byte(id))
	return ok
}

// CanLead reports whether a member may lead, if it votes. A witness and a demoted member may not.
func (s *State) CanLead(id string) bool {
	m, _ := s.Member(id)
	return !m.Witness && !s.IsDemoted(id)
}

// SetVote says whether a member may vote. The vote itself is part of raft's configuration, which
// the leader changes: this command outlasts the leader. It does nothing if the node is no member,
// if too few others would vote, or if none of those could lead. Two operators may ask at the same
// moment.
type SetVote struct {
	// Node is the member's ID.
	Node string

	// Demotion says that it may not vote. Nil: it may.
	Demotion *Demotion
}

// Demotion is what only the demotion of a member needs.
type Demotion struct {
	// Least is how many other members must vote that are not demoted, if the member votes.
	Least uint64
}

func (SetVote) number() byte { return numberSetVote }

func (c SetVote) encode(e *codec.Encoder) {
	e.String(c.Node)
	e.Bool(c.Demotion != nil)
	if c.Demotion != nil {
		e.Uint(c.Demotion.Least)
	}
}

func decodeSetVote(d *codec.Decoder) Change {
	c := SetVote{Node: d.String()}
	if d.Bool() {
		c.Demotion = &Demotion{Least: d.Uint()}
	}
	return c
}

func (c SetVote) apply(s *State, e entry) Code {
	if !slices.Contains(s.Servers, c.Node) {
		return CodeChanged
	}
	if c.Demotion == nil {
		s.Demoted, _, _ = s.Demoted.Delete([]byte(c.Node))
		return CodeOK
	}
	left, leads := uint64(0), false
	for _, id := range s.Voters {
		if id != c.Node && !s.IsDemoted(id) {
			left, leads = left+1, leads || s.CanLead(id)
		}
	}
	if slices.Contains(s.Voters, c.Node) && (left < c.Demotion.Least || !leads) {
		return CodeChanged
	}
	if !s.IsDemoted(c.Node) {
		s.Demoted, _, _ = s.Demoted.Insert([]byte(c.Node), e.index)
	}
	return CodeOK
}
