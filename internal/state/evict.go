package state

import (
	"slices"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// Exposed returns the eviction of a node that can still prove itself: it knows a secret in use.
func (s *State) Exposed() (Eviction, bool) {
	for _, id := range s.Secrets() {
		if v, known := s.Evictions.Know(id); known {
			return v, true
		}
	}
	return Eviction{}, false
}

// Refuses reports whether a node was evicted, and is no member any more: nobody talks to it.
func (s *State) Refuses(id string) bool {
	_, evicted := s.Evictions.Of(id)
	return evicted && !slices.Contains(s.Servers, id)
}

// IsShutOut reports whether nothing that an evicted node knows opens anything any more.
func (s *State) IsShutOut(v Eviction) bool {
	return !slices.Contains(s.Servers, v.Node) && s.Seals.Rotation == Rotation{} &&
		!slices.ContainsFunc(s.Secrets(), v.KnowsSecret) &&
		!slices.ContainsFunc(s.Keys.IDs(), func(id seal.KeyID) bool { return slices.Contains(v.Keys, id) }) &&
		len(s.Behind(s.IsClean)) == 0
}

// EvictMember begins the eviction of a node. It does nothing if the node was evicted before.
type EvictMember struct {
	// Node is the node's ID. It need not be a member any more.
	Node string
}

func (EvictMember) requires() uint64 { return 2 }

func (EvictMember) number() byte { return numberEvictMember }

func (c EvictMember) encode(e *codec.Encoder) { e.String(c.Node) }

func decodeEvictMember(d *codec.Decoder) Change { return EvictMember{Node: d.String()} }

func (c EvictMember) apply(s *State, e entry) Code {
	if _, twice := s.Evictions.Of(c.Node); twice || c.Node == "" || s.Keys == nil {
		return CodeChanged
	}
	m, _ := s.Member(c.Node)
	s.Evictions = s.Evictions.with(told(s, Eviction{Index: e.index, Node: c.Node, Name: m.Name}))
	e.fx.seals()
	e.fx.report(News{Kind: event.NodeEvicted, Index: e.index, Node: c.Node, Name: m.Name, Cause: "an operator evicts it"})
	return CodeOK
}

// ShutOut says that nothing an evicted node knows opens anything any more, and makes all session
// tickets worthless. It does nothing unless that is so on every member's disk too.
type ShutOut struct {
	// Node is the node's ID.
	Node string

	// Key is the new next key of session tickets, TicketKeySize random bytes.
	Key []byte
}

func (ShutOut) requires() uint64 { return 2 }

func (ShutOut) number() byte { return numberShutOut }

func (c ShutOut) encode(e *codec.Encoder) {
	e.String(c.Node)
	e.Bytes(c.Key)
}

func decodeShutOut(d *codec.Decoder) Change {
	return ShutOut{Node: d.String(), Key: decodeTicketKey(d)}
}

func (c ShutOut) apply(s *State, e entry) Code {
	v, ok := s.Evictions.Of(c.Node)
	switch {
	case !ok || v.ShutOut != 0 || s.Keys == nil:
		return CodeChanged
	case !s.IsShutOut(v):
		return CodeUnready
	}
	v.ShutOut = e.index
	s.Evictions = s.Evictions.with(v)
	e.fx.seals()
	return DropTickets{Key: c.Key}.apply(s, e)
}

// EndEviction says that nothing of what an evicted node knew is left to be replaced. It does
// nothing before ShutOut.
type EndEviction struct {
	// Node is the node's ID.
	Node string
}

func (EndEviction) requires() uint64 { return 2 }

func (EndEviction) number() byte { return numberEndEviction }

func (c EndEviction) encode(e *codec.Encoder) { e.String(c.Node) }

func decodeEndEviction(d *codec.Decoder) Change { return EndEviction{Node: d.String()} }

func (c EndEviction) apply(s *State, e entry) Code {
	v, ok := s.Evictions.Of(c.Node)
	if !ok || v.ShutOut == 0 || v.Ended != 0 {
		return CodeChanged
	}
	v.Ended = e.index
	s.Evictions = s.Evictions.with(v)
	e.fx.seals()
	e.fx.report(News{Kind: event.NodeEvicted, Index: e.index, Node: c.Node, Name: v.Name, Cause: "nothing that it knew is in use any more"})
	return CodeOK
}
