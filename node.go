package flotilla

import (
	"log/slog"
	"sync"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/certs"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/frontend"
	"github.com/flotilla-ha/flotilla/internal/frontend/tickets"
	"github.com/flotilla-ha/flotilla/internal/lease"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/metrics"
	"github.com/flotilla-ha/flotilla/internal/ops"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/roles"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// Node is one running member of a cluster, or a program that is about to become one. It is open
// from Open until Close, Shutdown or Leave. Its methods are safe for concurrent use. A context
// bounds only the call that gets it; no method keeps it.
type Node struct {
	cfg    Config
	timing timing.Timing
	log    *slog.Logger
	life   *lifecycle.Life

	// These parts do not depend on the directory. open makes them.
	store    *applied.Store
	fsm      *fsm
	peers    *peers.Table
	clocks   *clocks.Clocks
	storage  *Storage
	own      *ownStorage // the node's own certificates, see TLS.PerNode
	certs    *certs.Certs
	tickets  *tickets.Sealer
	upkeep   upkeep
	observer *metrics.Observer // what the node has seen, for people
	remarks  remarks
	records  records // the entries of programs

	frontend *frontend.Server // listeners for clients: those of Serve and those of the program

	// These parts depend on the directory. attach makes them, and makes them again for a node that
	// starts as a new one.
	self    *self.Self
	replica *replica.Replica
	leases  *lease.Manager
	members *membership.Membership
	roles   *roles.Holder
	ops     *ops.Operator
	beneath *storageNode // the parts that storage uses

	closeOnce sync.Once
}

// Storage returns the cluster's storage for certmagic. For records of your own see KV.
func (n *Node) Storage() *Storage { return n.storage }
