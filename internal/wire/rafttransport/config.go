package rafttransport

import (
	"log/slog"
	"time"

	"github.com/flotilla-ha/flotilla/internal/history"
	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// Policy decides which requests of peers reach raft. An error refuses a request; its text is sent
// to the peer.
type Policy interface {
	// Admit is asked for each connection and each request. While replication is held for a peer
	// that is down, it is asked once a second whether to go on.
	Admit(id string) error

	// Fresh is asked for each request. An error says that another incarnation of the node has taken
	// the place of this one.
	Fresh(id, incarnation string) error

	// MayLead is asked for each request for a vote. last is the last entry of the candidate's log.
	MayLead(last uint64) error
}

// History compares the logs of nodes, see package history.
type History interface {
	// Sum returns the checksum of this node's log up to an entry, and whether it is known.
	Sum(index, term uint64) (sum uint64, ok bool)

	// Compare is asked for each request by which the leader of that term replicates its log. An
	// error says that this node's log contradicts it.
	Compare(id string, term uint64, c history.Claim) error
}

// Node is the node that owns the transport.
type Node interface {
	// Term returns raft's current term; false: it is not known, and terms are not checked. It may
	// be called before raft.NewRaft has returned.
	Term() (term uint64, ok bool)

	// Standing returns the leader that raft knows, empty for none, and whether raft is a candidate
	// all the same.
	Standing() (leader string, candidate bool)

	// Stalled reports whether this node's disk hangs.
	Stalled() bool

	// Durable returns nil, nil if the entries up to index are on this node's disk. Otherwise it
	// returns a channel that is closed when that may have changed, or why they never will be.
	Durable(index uint64) (<-chan struct{}, error)

	// Voted is like Durable, for this node's vote in a term.
	Voted(term uint64) (<-chan struct{}, error)

	// Applied waits, for a bounded time, until this node has applied index.
	Applied(index uint64) error

	// Gone is called when the process of a peer is dead.
	Gone(id string)

	// Matched is called when Transport.Match of a peer grew.
	Matched(id string)
}

// Config describes an Endpoint. All fields are needed. The callbacks run on many goroutines at once
// and must not block for long.
type Config struct {
	ID       string             // this node: its raft.ServerID and raft.ServerAddress
	Dialer   *peerconn.Dialer   // makes the outbound connections
	Life     *peerconn.Life     // bounds the search for dead processes
	Peers    *peerconn.Table    // says which peers are down, and learns of answers
	Policy   Policy             // decides which requests reach raft
	History  History            // compares logs
	Node     Node               // what the node knows, and wants to know
	Timeout  time.Duration      // of a request
	Logger   *slog.Logger       // gets what was refused
	Throttle *peerconn.Throttle // bounds the lines about one peer
	Rejected *meter.Counters    // counts what was refused, by the reason
}
