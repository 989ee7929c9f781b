package replica

import (
	"context"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/durable"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/secrets"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

// Config is what a replica needs of the node around it.
type Config struct {
	Timing  timing.Timing  // the cluster's
	Secrets *secrets.Set   // seal the keyring of a new cluster
	Faults  durable.Faults // of the disk, for tests
	Log     *slog.Logger
	Life    *lifecycle.Life
	Self    *self.Self
	Store   *applied.Store // where FSM publishes what it has applied
	FSM     Machine
	Opener  *Opener // the one that FSM uses
	Peers   *peers.Table
	Dir     *durable.Dir // nil: the replica keeps everything in memory
	Member  *Disk        // the open disk of a node that is a member already; nil: it is not one yet
	Port    *wire.Port
	Up      Up
}

// Machine is raft's state machine. It publishes the states that it applies in a store.
type Machine interface {
	raft.BatchingFSM
	raft.ConfigurationStore

	// ApplyOne returns the state after an entry, and publishes nothing. fx may be nil.
	ApplyOne(s *state.State, l *raft.Log, fx *state.Effects) (*state.State, error)

	// Adopt publishes a state that is not the last one plus some entries.
	Adopt(s *state.State)

	// Written returns a channel that is closed when raft is done with a snapshot, whether it was
	// written or not.
	Written() <-chan struct{}
}

// Up is what a replica asks of the parts above it, and tells them. All functions must be safe for
// concurrent use. They are not called before the replica was started or has work to do, so they may
// refer to parts that are made later.
type Up struct {
	ClusterID func() string             // the cluster's identity; empty: none yet
	IsMember  func() bool               // whether this node is a member, by its identity
	IsCurrent func() bool               // whether it has caught up with a leader since its start
	Rewrite   func() error              // writes the node's identity file again
	Excuse    func(ctx context.Context) // tells the peers that this node's session is over
	FlushOwn  func()                    // the disk works: write what it refused before
	Lead      func(l *Leadership)       // does a leader's duties until the end of its term
	LoseLease func(cause error) uint64  // gives up the lease, and returns the number of its session
	WakeLease func()                    // has the lease manager evaluate everything now

	// LeaderChanged takes the ID of a leader that this node has just learned of, and for how long it
	// knew of none before. It must not block.
	LeaderChanged func(id string, without time.Duration)
}
