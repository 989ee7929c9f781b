package ops

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/events"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/membership"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/roles"
	"github.com/flotilla-ha/flotilla/internal/rotation"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
	"github.com/flotilla-ha/flotilla/internal/upgrade"
)

// Config is what an Operator needs of the node around it. All fields are required.
type Config struct {
	Timing   timing.Timing          // how soon a request is tried again
	Log      *slog.Logger           // receives what operators do
	Life     *lifecycle.Life        // tells when the node ends; draining by an operator sets Cordoned
	Self     *self.Self             // names this node
	Store    *applied.Store         // the state that this node has applied
	Peers    *peers.Table           // the names and addresses of the other nodes
	Replica  *replica.Replica       // finds the leader and calls other nodes
	Members  *membership.Membership // removes members
	Roles    *roles.Holder          // moves roles, and gives up those of this node
	Rotation *rotation.Driver       // replaces secrets and data keys
	Version  *upgrade.Raiser        // raises the cluster version
	Up       Up                     // what only the node as a whole can do
}

// Up is what an Operator asks of the node that it belongs to.
type Up struct {
	// Status returns the node's status as JSON. explained reports that the status itself says
	// whether the node is ready, or why it is not.
	Status func() (text []byte, explained bool, err error)

	// Journal returns the newest part of the node's log.
	Journal func() string

	// Events are those of this node.
	Events *events.Log

	// Backup writes a sealed backup of the cluster.
	Backup func(ctx context.Context, w io.Writer) error

	// Records reads what the cluster stores.
	Records Records

	// StoreAll stores all records or none.
	StoreAll func(ctx context.Context, records []state.Record) error

	// DropTickets makes all session tickets worthless.
	DropTickets func(ctx context.Context) error
}

// Records reads what the cluster stores, with the semantics of certmagic.Storage.
type Records interface {
	List(ctx context.Context, dir string, recursive bool) ([]string, error)
	Load(ctx context.Context, key string) ([]byte, error)
}

// Operator answers the requests of operators. Its methods are safe for concurrent use.
type Operator struct {
	cfg   Config
	since time.Time // when the node was opened, for people
}

// New returns an Operator.
func New(cfg Config) *Operator { return &Operator{cfg, time.Now()} }
