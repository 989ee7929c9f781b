package state

import (
	"iter"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

// Version is the newest cluster version that this program supports.
const Version = 1

// State is what the cluster agrees on after the entry Index. It is immutable.
type State struct {
	Index       uint64        // of the newest entry
	Version     uint64        // the cluster version: every member supports it
	Cluster     string        // identity of the cluster; empty before the keyring's entry
	Incarnation uint64        // of the cluster: each restore from a backup begins another one
	Past        past          // stands for all entries up to Index
	Keys        *seal.Keyring // nil before the keyring's entry
	Wrapped     []byte        // the keyring as the log and snapshots have it

	Records *iradix.Tree[*Value]    // by the tree form of their keys
	Used    [keyspace.Budgets]int64 // bytes that count against each budget
	Roles   *iradix.Tree[*Role]     // by name; a role without claims is not there
	Tickets *TicketKeys             // nil: there are none yet, or they were dropped

	Members  *iradix.Tree[Member]   // by node ID
	Sessions *iradix.Tree[*Session] // by node ID
	// processes are the last ones of the members that have had a session, kept beyond it.
	processes *iradix.Tree[Process]

	Servers []string // node IDs of raft's configuration, sorted
	Voters  []string // those of them that vote, sorted
	Elected uint64   // index of that configuration
}

// New returns the state before the first entry.
func New() *State {
	return &State{
		Version:   1, // a command raises it
		Records:   iradix.New[*Value](),
		Roles:     iradix.New[*Role](),
		Members:   iradix.New[Member](),
		Sessions:  iradix.New[*Session](),
		processes: iradix.New[Process](),
	}
}

// Each iterates over the part of a tree whose keys begin with prefix, in the order of the keys. The
// keys must not be written to.
func Each[T any](tree *iradix.Tree[T], prefix []byte) iter.Seq2[[]byte, T] {
	return func(yield func([]byte, T) bool) {
		it := tree.Root().Iterator()
		it.SeekPrefix(prefix)
		for k, v, ok := it.Next(); ok; k, v, ok = it.Next() {
			if !yield(k, v) {
				return
			}
		}
	}
}
