package status

import "time"

// Member is one node of the cluster.
type Member struct {
	ID   string // 32 random hexadecimal digits, made once
	Name string // for people
	Addr string // what peers dial
	// false while it is new, if the others are enough, and if it is Demoted; it serves clients all the
	// same
	Voter bool `json:",omitempty"`

	// Zone is its failure domain, and Witness says that it votes and does nothing else: see the fields
	// of flotilla.Config of these names. Demoted says that an operator does not want it to vote.
	Zone             string `json:",omitempty"`
	Witness, Demoted bool   `json:",omitempty"`

	// Present says that the cluster considers it alive: it has a session, to which its locks and roles
	// belong. Suspect says that the leader has not heard from it. Its session ends unless the leader
	// hears from it again.
	Present, Suspect bool `json:",omitempty"`

	// ClockAhead is how far its wall clock is ahead of this node's, or negative if it is behind. 0:
	// the difference is below a minute or not known.
	ClockAhead time.Duration `json:",omitempty"`

	// InMemory says that it has no directory. It cannot come back once its process has ended. Former
	// is the ID of the node that it was before it set its directory aside. That node cannot come back
	// either.
	InMemory bool   `json:",omitempty"`
	Former   string `json:",omitempty"`

	// Why says why it does not vote, or what to do about a voter that is gone. Empty: it votes and is
	// present.
	Why string `json:",omitempty"`

	// Supports is the newest cluster version that its program supports. 0: it is away, or has not
	// said so to this node. If that is a later one than Status.Version, Since is when the leader has
	// first seen its present process. Zero: this node does not lead.
	Supports uint64    `json:",omitempty"`
	Since    time.Time `json:",omitzero"`
}
