package membership

import (
	"encoding/json"
	"errors"
	"slices"

	"github.com/flotilla-ha/flotilla/internal/codec"
)

// How nodes that belong to no cluster become one.
//
// A node proposes a cluster of a group of nodes, itself among them, and asks each of the others for
// its promise. When all have promised, it accepts its own proposal. The others accept when they see
// that any node has accepted. The cluster lives once a majority of its group has accepted, and only
// then does a node start raft. Each step is on disk before any other node hears of it.
//
// A proposal must also be able to end, for its proposer may never come back.
//
//   - The proposer withdraws it. It may do that until it accepts.
//   - A node voids it: it says, for good, that it takes no part. It may do that until it accepts.
//     When so many have voided it that the others are no majority, the proposal is dead.
//
// A node leaves a proposal only when that was withdrawn or is dead. So two clusters never come of
// it:
//
//  1. A node accepts or voids a proposal, never both, with one exception: a node that has voided a
//     living proposal may accept it, and one that has accepted a dead one may leave it. So the
//     nodes that accepted before the proposal lived, and the nodes that voided it before it was
//     dead, are different ones. They cannot both be enough. A proposal lives, or is dead, or is
//     neither yet, and what it is it stays.
//  2. A proposal that was withdrawn was accepted by nobody, for its proposer accepts first.
//  3. So each node of the group of a living cluster has promised itself to it and has not left it.
//     Two groups that share a node cannot both have its promise.
//
// A node without a directory forgets all this with its process. When another process answers at its
// address, the first one takes part in nothing any more. It counts as a node that has voided the
// proposal.
//
// What a node says that it has accepted or voided does not become untrue in a way that matters (1),
// so an old answer is as good as a new one. That a proposal was withdrawn is different: only the
// answer to a question that was asked after the promise was on disk can tell.

// Proposal is a cluster that one node proposes to form with others. It is also the body of the
// calls Promise and Void.
type Proposal struct {
	Cluster  string   // the identity that the cluster would have
	Proposer string   // node ID
	Group    []string // node IDs, the proposer's among them
	Number   uint64   // of the proposer's proposals; it has withdrawn all earlier ones
}

// Encode returns a proposal as JSON.
func (p Proposal) Encode() []byte { return encodeJSON(p) }

// DecodeProposal is the inverse of Encode. It skips fields that it does not know.
func DecodeProposal(b []byte) (Proposal, error) { return decodeJSON[Proposal](b) }

// majority is how many nodes of the group have to accept.
func (p *Proposal) majority() int { return len(p.Group)/2 + 1 }

// tally counts how many nodes of the group have accepted the proposal, and how many have voided
// it. standing returns what is known of a node, and gone whether its process has ended and has
// taken its promise with it.
func (p *Proposal) tally(standing func(id string) (Standing, bool), gone func(id string) bool) (accepts, voids int) {
	for _, id := range p.Group {
		s, ok := standing(id)
		switch {
		case ok && s.accepts(p):
			accepts++
		case ok && s.voids(p), gone(id):
			voids++
		}
	}
	return accepts, voids
}

// Step is how far a node has gone with a proposal.
type Step string

// The steps. A node without a proposal has none.
const (
	proposes Step = "proposes" // it is this node's own, which may withdraw it
	promised Step = "promised" // this node promises itself to no other cluster
	voided   Step = "voided"   // it was promised, and this node takes no part unless the cluster lives
	accepted Step = "accepted" // this node takes part
)

// Stand is a proposal that a node stands by, and how far it has gone with it.
type Stand struct {
	Proposal
	Step Step // none of the steps is empty
}

// Standing is what a node says of clusters and proposals. It is part of a greeting.
type Standing struct {
	Cluster   string   // the cluster that it belongs to; empty: none yet
	InRaft    bool     // it has a log, and votes if its configuration says so
	Formation *Stand   `json:",omitempty"` // the proposal that it stands by
	Void      []string `json:",omitempty"` // the proposed clusters that it takes no part in
}

// standsBy reports whether the node stands by a proposal, or is in the cluster that came of it.
func (s *Standing) standsBy(p *Proposal) bool {
	return s.Cluster == p.Cluster || s.Formation != nil && s.Formation.Cluster == p.Cluster
}

// accepts reports whether the node has accepted a proposal.
func (s *Standing) accepts(p *Proposal) bool {
	if s.InRaft && s.Cluster == p.Cluster {
		return true
	}
	return s.standsBy(p) && s.Formation != nil && s.Formation.Step == accepted
}

// voids reports whether the node has voided a proposal, or belongs to another cluster, which is as
// good.
func (s *Standing) voids(p *Proposal) bool {
	if s.InRaft && s.Cluster != p.Cluster || slices.Contains(s.Void, p.Cluster) {
		return true
	}
	return s.standsBy(p) && s.Formation != nil && s.Formation.Step == voided
}

// isFree reports whether the node could promise itself to a proposal of that proposer.
func (s *Standing) isFree(proposer string) bool {
	return !s.InRaft && s.Cluster == "" && (s.Formation == nil || s.Formation.Proposer == proposer)
}

// Pledges is what a node has written down of clusters and proposals. It is part of an identity. Its
// methods decide what a node may do, and change nothing else.
type Pledges struct {
	Cluster   string   // the identity of the node's cluster; empty: none yet
	Proposals uint64   // how many clusters this node has proposed
	Formation *Stand   `json:",omitempty"` // the proposal that this node stands by
	Void      []string `json:",omitempty"` // proposed clusters that it takes no part in, for good
}

// propose has the node stand by a proposal of its own, and numbers it. It reports false, and does
// nothing, if the node is bound already.
func (l *Pledges) propose(p *Proposal) bool {
	if l.Formation != nil || l.Cluster != "" {
		return false
	}
	l.Proposals++
	p.Number = l.Proposals
	l.Formation = &Stand{*p, proposes}
	return true
}

// promise has the node promise itself to a proposal, or returns why it cannot.
func (l *Pledges) promise(p *Proposal, withdrawn *Stand) error {
	if err := l.refuses(p, withdrawn); err != nil {
		return err
	}
	if l.Formation == nil || l.Formation.Cluster != p.Cluster {
		l.Formation = &Stand{*p, promised}
	}
	return nil
}

// refuses returns why the node cannot promise itself to a proposal, nil if it can. withdrawn is
// another node's proposal that is known to be withdrawn.
func (l *Pledges) refuses(p *Proposal, withdrawn *Stand) error {
	f := l.Formation
	switch {
	case l.Cluster != "":
		return errors.New("this node belongs to a cluster already")
	case l.hasVoided(p.Cluster):
		return errors.New("this node takes no part in that cluster any more")
	case f == nil, f.Cluster == p.Cluster:
		return nil
	case f.Step == proposes:
		return errors.New("this node proposes a cluster itself")
	case f.Proposer == p.Proposer && f.Number < p.Number:
		return nil
	case f.Proposer != p.Proposer && withdrawn != nil && withdrawn.Cluster == f.Cluster:
		return nil
	}
	return errors.New("this node has promised itself to another cluster")
}

// void has the node take no part in a proposal, and reports whether it takes none. It takes part if
// it has accepted the proposal, and as long as its proposer is not silent.
func (l *Pledges) void(p *Proposal, silent bool) bool {
	f := l.Formation
	switch {
	case l.hasVoided(p.Cluster):
		return true
	case l.Cluster == p.Cluster:
		return false
	case f == nil || f.Cluster != p.Cluster:
		l.Void = append(slices.Clone(l.Void), p.Cluster)
		return true
	case f.Step == promised && silent:
		l.Formation = &Stand{f.Proposal, voided}
		return true
	}
	return false
}

// hasVoided reports whether the node has voided the proposal of a cluster.
func (l *Pledges) hasVoided(cluster string) bool {
	f := l.Formation
	return slices.Contains(l.Void, cluster) || f != nil && f.Cluster == cluster && f.Step == voided
}

// advance has the node go on from s to another step. It reports false, and does nothing, if the
// node does not stand there any more.
func (l *Pledges) advance(s Stand, to Step) bool {
	if f := l.Formation; f == nil || f.Cluster != s.Cluster || f.Step != s.Step {
		return false
	}
	l.Formation = &Stand{s.Proposal, to}
	return true
}

// leave has the node stand by the proposal of a cluster no more. If the proposal is dead, the node
// goes on to say that it takes no part.
func (l *Pledges) leave(cluster string, dead bool) {
	if l.Formation == nil || l.Formation.Cluster != cluster {
		return
	}
	if l.Formation = nil; dead {
		l.Void = append(slices.Clone(l.Void), cluster)
	}
}

// Voiding is the answer to the call Void.
type Voiding struct {
	Voided bool // the node takes no part in the proposal, for good
}

// Encode returns an answer as JSON.
func (v Voiding) Encode() []byte { return encodeJSON(v) }

// DecodeVoiding is the inverse of Encode. It skips fields that it does not know.
func DecodeVoiding(b []byte) (Voiding, error) { return decodeJSON[Voiding](b) }

// encodeJSON encodes a message of this package. It panics for a value that JSON cannot express, and
// no message has one.
func encodeJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("membership: " + err.Error())
	}
	return b
}

// decodeJSON decodes a message of this package.
func decodeJSON[T any](b []byte) (T, error) {
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		var none T
		return none, codec.ErrMalformed
	}
	return v, nil
}
