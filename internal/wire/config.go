package wire

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/flotilla-ha/flotilla/internal/history"
	"github.com/flotilla-ha/flotilla/internal/seal"
)

const rpcTimeout = 2 * time.Second // Config.Timeout when zero

// Config describes a Port. The callbacks are called from many goroutines at once. They must not
// block for long, and must not call Port.Close.
type Config struct {
	// ID is this node: 32 lower-case hexadecimal digits. It is also its raft.ServerID and its
	// raft.ServerAddress, so that a new IP address never touches raft's configuration.
	ID string

	// Incarnation is the incarnation of the node: it tells this run of the node's process from others.
	// Peers see it in the certificate. Empty: they see none.
	Incarnation string

	// Secrets are the cluster's secrets, at least one. A peer that does not say which one it wants
	// sees the first. All are accepted. Dialling tries them in order. Port.SetSecrets replaces them.
	Secrets []seal.Secret

	// Listener accepts the connections of peers. The Port owns it.
	Listener net.Listener

	// Dial makes connections to peers. Nil: a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	// Resolve returns the address of a node. Nil: no address is known.
	Resolve func(id string) (addr string, ok bool)

	// Fresh is asked for each connection and each raft request of an incarnation of a node, also
	// after dialling it. It is not asked for connections from peers for RPCs. An error says that
	// another incarnation has taken its place. Nil: none has.
	Fresh func(id, process string) error

	// Admit is asked for each raft connection and each raft request of an authenticated peer. An
	// error refuses it, and the peer gets its text. While AppendEntries are held for a peer that is
	// down, it is also asked once a second whether to go on. Nil: every peer is admitted.
	Admit func(id string) error

	// MayLead is asked for each request for a vote, by a node whose log ends with the entry last.
	// An error refuses it. Nil: raft decides.
	MayLead func(last uint64) error

	// Sum returns the checksum of this node's log up to the entry of that index and term, and
	// whether it is known. It goes with what is replicated to peers. Nil: none is known.
	Sum func(index, term uint64) (uint64, bool)

	// Compare is asked for each request by which the leader of that term replicates its log. An
	// error says that this node's log contradicts it, and keeps the request from raft. Nil: nothing
	// is compared.
	Compare func(id string, term uint64, c history.Claim) error

	// Term is raft's current term. Terms of others that exceed it by more than 2^20 are refused. It
	// is asked from the first call of Transport on, so possibly before raft.NewRaft has returned.
	// Nil: terms are not checked.
	Term func() uint64

	// Standing returns the leader that raft knows, empty for none, and whether raft is a candidate
	// all the same. Nil: raft knows none.
	Standing func() (leader string, candidate bool)

	// Stalled reports whether this node's disk hangs. While it does, no AppendEntries and no
	// snapshot is sent. Nil: it never does.
	Stalled func() bool

	// Durable returns nil, nil if the entries up to index are on this node's disk. Otherwise it
	// returns a channel that is closed when that may have changed, or why they never will be. As
	// leader this node counts a peer's success only then. Nil: they always are.
	Durable func(index uint64) (<-chan struct{}, error)

	// Voted is like Durable, for this node's vote in a term. It asks for votes only then. Nil: it
	// always is.
	Voted func(term uint64) (<-chan struct{}, error)

	// Applied waits, for a bounded time, until this node has applied index. A peer that calls
	// Transport.Tell gets its answer after that. Nil: at once.
	Applied func(index uint64) error

	// Gone is called when the process of a peer is dead: all its raft connections to us have ended,
	// and its port refuses. Nil: it is not called.
	Gone func(id string)

	// Matched is called when Transport.Match of a peer grew. Nil: it is not called.
	Matched func(id string)

	// Handler answers RPCs of nodes. Peer returns the caller. Nil: every RPC is answered with 404.
	Handler http.Handler

	// DeathNotice is called for the bearer of a death notice: the process of that session is dead.
	// Nil: death notices are refused.
	DeathNotice func(ctx context.Context, node string, session uint64) error

	// OnDatagram gets each datagram of an authenticated peer. It is valid during the call only. For
	// one peer there is one call at a time, on the goroutine of its connection, so it must not block.
	// Nil: connections for datagrams are refused.
	OnDatagram func(id string, note []byte)

	// Timeout bounds a raft request and the writing of datagrams, and is the interval of the pings
	// on connections for RPCs to nodes that answer no datagrams. The answer that a receiver of
	// datagrams is there may take a quarter of it. 0: 2 s.
	Timeout time.Duration

	// Logger receives what happens. Nil: nothing is logged.
	Logger *slog.Logger
}
