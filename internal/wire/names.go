package wire

import (
	"context"

	"github.com/flotilla-ha/flotilla/internal/wire/datagram"
	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
	"github.com/flotilla-ha/flotilla/internal/wire/rafttransport"
	"github.com/flotilla-ha/flotilla/internal/wire/rpc"
)

// Names of the parts that users of a Port need.
type (
	// Transport is a node's raft.Transport.
	Transport = rafttransport.Transport

	// RPCError says that the peer answered an RPC with an error.
	RPCError = rpc.Error

	// WrongSecretError says that the peer at an address has none of our secrets.
	WrongSecretError = peertls.WrongSecretError

	// WrongNodeError says that another node than the dialled one answers at an address.
	WrongNodeError = peertls.WrongNodeError

	// RefusedError says that the peer knows who we are and refuses the connection.
	RefusedError = peertls.RefusedError
)

// Bounds of messages, in bytes.
const (
	MaxRequest  = rpc.MaxRequest // the body of an RPC
	MaxReply    = rpc.MaxReply   // the body of its answer
	MaxDatagram = datagram.MaxSize
)

// Reasons for which calls are rejected above a Port, as Meters.Rejected counts them.
const (
	RejectedEvicted = peerconn.BadEvicted // the cluster has evicted the caller
	RejectedProcess = peerconn.BadProcess // another process has the place of the caller's node
)

// ErrClosed is wrapped by the errors of a Port or Transport that was closed or stopped. It is a
// net.ErrClosed.
var ErrClosed = peerconn.ErrClosed

// Peer returns the node ID that the caller of Config.Handler has proven; empty outside of it.
func Peer(ctx context.Context) string { return rpc.Caller(ctx) }

// Incarnation returns which incarnation of Peer calls; empty if it did not say.
func Incarnation(ctx context.Context) string { return rpc.Incarnation(ctx) }
