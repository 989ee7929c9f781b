package state

import (
	"fmt"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/codec"
)

// Version is the newest cluster version that this program supports.
const Version = 2

// formed is the index of raft's configuration in a cluster whose members are those that formed it.
const formed = 1

// VersionError is the error of a command that the cluster cannot have in its log yet.
type VersionError struct {
	// Needs is the cluster version that the command needs, and Has that of the cluster.
	Needs, Has uint64
}

// Error says what to do about it.
func (e *VersionError) Error() string {
	return fmt.Sprintf("this needs cluster version %d, and the cluster has version %d; "+
		"upgrade all nodes (flotilla status says which are left), then raise the version (flotilla upgrade)", e.Needs, e.Has)
}

// Admits returns nil if the change may enter the log: every member knows it. Else the error is a
// *VersionError. The change that raises the version is admitted one version early.
func (s *State) Admits(change Change) error {
	needs := requires(change)
	if _, raises := change.(RaiseVersion); raises {
		needs--
	}
	if needs > s.Version {
		return &VersionError{needs, s.Version}
	}
	return nil
}

// IsAsFormed reports whether the members are those that formed the cluster, and all of them are in
// the first process of their directory. No other program has been in the cluster then.
func (s *State) IsAsFormed() bool {
	for _, id := range s.Servers {
		if p, ok := s.Process(id); !ok || StartOf(p.Incarnation) != 0 {
			return false
		}
	}
	return s.Elected == formed
}

// MayBecomeAsFormed reports whether IsAsFormed is true, or may be true when all members have had a
// session.
func MayBecomeAsFormed(s *State) bool {
	for _, id := range s.Servers {
		if p, ok := s.Process(id); ok && StartOf(p.Incarnation) != 0 {
			return false
		}
	}
	return s.Elected <= formed
}

// RaiseVersion raises the cluster version by one. It does nothing unless it names the present
// session of every member. The proposer knows that the processes of those sessions support the
// version. It does not know of a process that has come since: that may be an older program.
type RaiseVersion struct {
	// To is the new version.
	To uint64

	// Sessions are those of the members.
	Sessions []SessionOf
}

// SessionOf names a session.
type SessionOf struct {
	// Node is the ID of the node that has it.
	Node string

	// Number is its number.
	Number uint64
}

func (RaiseVersion) number() byte       { return numberRaiseVersion }
func (c RaiseVersion) requires() uint64 { return c.To }

func (c RaiseVersion) encode(e *codec.Encoder) {
	e.Uint(c.To)
	e.Uint(uint64(len(c.Sessions)))
	for _, ses := range c.Sessions {
		e.String(ses.Node)
		e.Uint(ses.Number)
	}
}

func decodeRaiseVersion(d *codec.Decoder) Change {
	c := RaiseVersion{To: d.Uint()}
	for range d.Count() {
		c.Sessions = append(c.Sessions, SessionOf{d.String(), d.Uint()})
	}
	return c
}

func (c RaiseVersion) apply(s *State, e entry) Code {
	if c.To != s.Version+1 {
		return CodeChanged
	}
	named := make(map[SessionOf]bool)
	for _, ses := range c.Sessions {
		named[ses] = true
	}
	for _, id := range s.Servers {
		number := s.Number(id)
		if number == 0 || !named[SessionOf{id, number}] {
			return CodeUnready
		}
	}
	s.Version = c.To
	e.fx.report(News{Kind: event.VersionRaised, Index: e.index})
	return CodeOK
}
