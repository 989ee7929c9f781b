package state

import (
	"cmp"
	"slices"
	"strings"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// mostEvictions is how many evictions that have ended a state remembers.
const mostEvictions = 64

// Eviction is how far the cluster has gone with the eviction of a node whose machine was taken
// over.
//
// There are three steps, each a command. EvictMember has every node refuse that node, and notes
// what it knows. ShutOut says that nothing the node knows opens anything any more, and drops the
// session tickets. EndEviction says that the certificates are others. Between them the secret, the
// data key and the certificates are replaced, as they are without an eviction.
type Eviction struct {
	// Index is that of the entry that began it. It names the eviction.
	Index uint64

	// Node is the node's ID, and Name its name for people.
	Node, Name string

	// Secrets are the IDs of the secrets that the node knows, with spaces between them.
	Secrets string

	// Keys are the IDs of the data keys that the node knows.
	Keys []seal.KeyID

	// ShutOut is the index of the entry since which nothing of that opens anything. 0: it may yet.
	ShutOut uint64

	// Ended is the index of the entry that ended the eviction. 0: it has not ended.
	Ended uint64
}

// KnowsSecret reports whether the node knows the secret id.
func (v Eviction) KnowsSecret(id seal.KeyID) bool {
	return slices.Contains(strings.Fields(v.Secrets), id.String())
}

// String returns the node's name, or its ID if it has none.
func (v Eviction) String() string { return cmp.Or(v.Name, v.Node) }

func (v Eviction) encode(e *codec.Encoder) {
	e.Uint(v.Index)
	e.String(v.Node)
	e.String(v.Name)
	e.String(v.Secrets)
	e.Uint(uint64(len(v.Keys)))
	for _, id := range v.Keys {
		encodeKeyID(e, id)
	}
	e.Uint(v.ShutOut)
	e.Uint(v.Ended)
}

func decodeEviction(d *codec.Decoder) Eviction {
	v := Eviction{Index: d.Uint(), Node: d.String(), Name: d.String(), Secrets: d.String()}
	for range d.Count() {
		v.Keys = append(v.Keys, decodeKeyID(d))
	}
	v.ShutOut, v.Ended = d.Uint(), d.Uint()
	return v
}

// Eviction returns the eviction of a node. A node that was evicted stays so.
func (s *State) Eviction(id string) (Eviction, bool) {
	i := slices.IndexFunc(s.Evictions, func(v Eviction) bool { return v.Node == id })
	if i < 0 {
		return Eviction{}, false
	}
	return s.Evictions[i], true
}

// Knows returns the eviction of a node that knows the secret id.
func (s *State) Knows(id seal.KeyID) (Eviction, bool) {
	i := slices.IndexFunc(s.Evictions, func(v Eviction) bool { return v.KnowsSecret(id) })
	if i < 0 {
		return Eviction{}, false
	}
	return s.Evictions[i], true
}

// Exposed returns the eviction of a node that can still prove itself: it knows a secret in use.
func (s *State) Exposed() (Eviction, bool) {
	for _, id := range s.Secrets() {
		if v, known := s.Knows(id); known {
			return v, true
		}
	}
	return Eviction{}, false
}

// Refuses reports whether a node was evicted, and is no member any more: nobody talks to it.
func (s *State) Refuses(id string) bool {
	_, evicted := s.Eviction(id)
	return evicted && !slices.Contains(s.Servers, id)
}

// IsShutOut reports whether nothing that an evicted node knows opens anything any more.
func (s *State) IsShutOut(v Eviction) bool {
	return !slices.Contains(s.Servers, v.Node) && s.Seals.Rotation == Rotation{} &&
		!slices.ContainsFunc(s.Secrets(), v.KnowsSecret) &&
		!slices.ContainsFunc(s.Keys.IDs(), func(id seal.KeyID) bool { return slices.Contains(v.Keys, id) }) &&
		len(s.Behind(s.IsClean)) == 0
}

// learns returns an eviction whose node knows what the members know now.
func (s *State) learns(v Eviction) Eviction {
	// The operator may have given it the next secret before anybody knew.
	m, _ := s.Member(v.Node)
	secrets := slices.Concat(strings.Fields(v.Secrets), strings.Fields(m.Secrets))
	for _, id := range s.Secrets() {
		secrets = append(secrets, id.String())
	}
	slices.Sort(secrets)
	v.Secrets = strings.Join(slices.Compact(secrets), " ")
	v.Keys = slices.Clone(v.Keys)
	for _, id := range s.Keys.IDs() {
		if !slices.Contains(v.Keys, id) {
			v.Keys = append(v.Keys, id)
		}
	}
	return v
}

// setEviction replaces an eviction, or adds one. It forgets the oldest of too many that have ended.
func (s *State) setEviction(v Eviction) {
	all := slices.DeleteFunc(slices.Clone(s.Evictions), func(other Eviction) bool { return other.Node == v.Node })
	all = append(all, v)
	if len(all) > mostEvictions {
		if i := slices.IndexFunc(all, func(v Eviction) bool { return v.Ended != 0 }); i >= 0 {
			all = slices.Delete(all, i, i+1)
		}
	}
	s.Evictions = all
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
	if _, twice := s.Eviction(c.Node); twice || c.Node == "" || s.Keys == nil {
		return CodeChanged
	}
	m, _ := s.Member(c.Node)
	s.setEviction(s.learns(Eviction{Index: e.index, Node: c.Node, Name: m.Name}))
	e.fx.seals()
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
	v, ok := s.Eviction(c.Node)
	switch {
	case !ok || v.ShutOut != 0 || s.Keys == nil:
		return CodeChanged
	case !s.IsShutOut(v):
		return CodeUnready
	}
	v.ShutOut = e.index
	s.setEviction(v)
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
	v, ok := s.Eviction(c.Node)
	if !ok || v.ShutOut == 0 || v.Ended != 0 {
		return CodeChanged
	}
	v.Ended = e.index
	s.setEviction(v)
	e.fx.seals()
	return CodeOK
}
