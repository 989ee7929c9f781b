// Package secrets holds the cluster secrets that a node has, and says how it uses them now.
//
// An operator gives a node its secrets, and may give it others while it runs. The cluster says
// which of them are in use, in which order, and which were dropped (see state.Rotation). A [Set]
// brings both together.
//
// # Guarantees
//
//   - A secret that the cluster uses stays in the set for as long as it does, even if the operator
//     has taken it away too early.
//   - A dropped secret is not accepted from peers, even if the operator still gives it. It opens
//     what was sealed before.
//   - As long as nothing was read from the log, all given secrets are in use, in the given order.
package secrets

import (
	"slices"
	"strings"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// Set holds the secrets of one node. Make one with New. Its methods are safe for concurrent use.
type Set struct {
	Changed notify.Signal // Accepted returns something else

	mu       sync.Mutex
	given    []seal.Secret // by the operator, in their order
	kept     []seal.Secret // not given any more, and in use
	inUse    []seal.KeyID  // by the cluster, in the order of use
	dropped  []seal.KeyID  // by the cluster
	accepted []seal.Secret // follows from the others
}

// New returns a set of the given secrets, at least one.
func New(given []seal.Secret) *Set {
	s := &Set{given: slices.Clone(given)}
	s.accepted = s.order()
	return s
}

// Accepted returns the secrets that this node accepts from peers. It proves itself with the first.
func (s *Set) Accepted() []seal.Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// All returns all secrets that this node has: each of them may open what was sealed before.
func (s *Set) All() []seal.Secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(s.given, s.kept)
}

// Names returns the IDs of Accepted, with spaces between them.
func (s *Set) Names() string {
	var names []string
	for _, a := range s.Accepted() {
		names = append(names, a.ID().String())
	}
	return strings.Join(names, " ")
}

// Find returns the secret with that ID, and whether the node has it.
func (s *Set) Find(id seal.KeyID) (seal.Secret, bool) {
	return find(s.All(), id)
}

// Give replaces what the operator has given, at least one. It returns the IDs of the secrets that
// are in use and are not among them. The set keeps those for as long as they are.
func (s *Set) Give(given []seal.Secret) (missing []seal.KeyID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := slices.Concat(s.given, s.kept)
	s.given, s.kept = slices.Clone(given), nil
	for _, id := range s.inUse {
		old, had := find(before, id)
		if _, has := find(given, id); had && !has {
			s.kept, missing = append(s.kept, old), append(missing, id)
		}
	}
	s.update()
	return missing
}

// Follow takes what the cluster says: the secrets that are in use, in the order of use, and those
// that were dropped.
func (s *Set) Follow(inUse, dropped []seal.KeyID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inUse, s.dropped = inUse, dropped
	s.kept = slices.DeleteFunc(s.kept, func(k seal.Secret) bool { return !slices.Contains(inUse, k.ID()) })
	s.update()
}

// update derives accepted. The caller holds s.mu.
func (s *Set) update() {
	next := s.order()
	if !slices.Equal(next, s.accepted) {
		s.accepted = next
		s.Changed.Notify()
	}
}

// order returns the secrets to accept: those in use come first, then those that the cluster does
// not know yet. The caller holds s.mu.
func (s *Set) order() []seal.Secret {
	all := slices.Concat(s.given, s.kept)
	var out []seal.Secret
	for _, id := range s.inUse {
		if has, ok := find(all, id); ok {
			out = append(out, has)
		}
	}
	for _, has := range all {
		if !slices.Contains(out, has) && !slices.Contains(s.dropped, has.ID()) {
			out = append(out, has)
		}
	}
	if len(out) == 0 {
		return all // all were dropped: the peers refuse this node, and say why
	}
	return out
}

func find(all []seal.Secret, id seal.KeyID) (seal.Secret, bool) {
	i := slices.IndexFunc(all, func(s seal.Secret) bool { return s.ID() == id })
	if i < 0 {
		return seal.Secret{}, false
	}
	return all[i], true
}
