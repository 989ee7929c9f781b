package state

import (
	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// State is what the cluster agrees on after the entry Index. It is immutable.
type State struct {
	// Index is the index of the newest entry.
	Index uint64

	// Version is the cluster version. Every member supports it. RaiseVersion raises it.
	Version uint64

	// Cluster is the identity of the cluster. It is empty before the keyring's entry.
	Cluster string

	// Incarnation is that of the cluster. Each restore from a backup begins another one.
	Incarnation uint64

	// Past stands for all entries up to Index.
	Past past

	// Keys is the keyring. It is nil before the keyring's entry.
	Keys *seal.Keyring

	// Wrapped is the keyring in the form that the log and snapshots have.
	Wrapped []byte

	// Seals is what is remembered of secrets and data keys that are being replaced, or were.
	Seals Seals

	// Records are the stored values by the tree form of their keys.
	Records *iradix.Tree[*Value]

	// Items are the entries of programs' buckets.
	Items Items

	// Used is how many bytes count against each budget.
	Used [keyspace.Budgets]int64

	// Roles are the queues of roles and locks by name. A role without claims is not there.
	Roles *iradix.Tree[*Role]

	// Tickets are the keys of session tickets. Nil: there are none yet, or they were dropped.
	Tickets *TicketKeys

	// Members is what members say of themselves, by node ID.
	Members *iradix.Tree[Member]

	// Demoted are the members that an operator has demoted, by node ID, with the index of the entry
	// that did it.
	Demoted *iradix.Tree[uint64]

	// Evictions are those of nodes whose machines were taken over.
	Evictions Evictions

	// Sessions are the open sessions by node ID.
	Sessions *iradix.Tree[*Session]

	// processes are the last processes of members that have had a session. They outlast the session.
	processes *iradix.Tree[Process]

	// Servers are the node IDs of raft's configuration, sorted.
	Servers []string

	// Voters are those Servers that vote, sorted.
	Voters []string

	// Elected is the index of that configuration.
	Elected uint64
}

// New returns the state before the first entry.
func New() *State {
	return &State{
		Version:   1,
		Records:   iradix.New[*Value](),
		Items:     newItems(),
		Roles:     iradix.New[*Role](),
		Members:   iradix.New[Member](),
		Demoted:   iradix.New[uint64](),
		Sessions:  iradix.New[*Session](),
		processes: iradix.New[Process](),
	}
}
