package lease

import (
	"context"
	"log/slog"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// second is the least time between two calls of Life.Second.Notify.
const second = time.Second

// Config is what a Manager needs of the node around it. All fields but Delay are required.
type Config struct {
	Timing  timing.Timing   // the same on all nodes of a cluster
	Log     *slog.Logger    // gets what operators should know
	Life    *lifecycle.Life // of the node; its Tasks run what the Manager does in the background
	Self    *self.Self      // this node's ID and process incarnation
	Store   *applied.Store  // the state that this node has applied
	Peers   *peers.Table    // learns which peers are shutting down
	Clocks  *clocks.Clocks  // learns the wall clocks of the voters
	Replica Replica         // this node's part in the raft group

	// Term returns the present term of this node as leader, nil if it does not lead.
	Term func() Term

	// OnLost is called when the lease of a session was lost, before the next session can begin. The
	// lease ends, or ended, at the given time. Everything that depends on it must end with that
	// cause. OnLost must not block.
	OnLost func(session uint64, end time.Time, cause error)

	// Delay is called before Run looks at the clock. A test can block here to play a process that
	// stands still. Nil: nothing is called.
	Delay func()
}

// Replica is this node's part in the raft group, as far as leases need it. All methods are safe for
// concurrent use.
type Replica interface {
	// Leader returns the node ID of the leader, empty if none is known.
	Leader() string

	// Others returns the node IDs of the other members.
	Others() []string

	// Stalled reports whether this node's disk hangs.
	Stalled() bool

	// Send sends datagrams to a node. It does not wait, and they may be lost.
	Send(node string, datagrams []byte)

	// Answered is called when a node has granted what was asked of it by a datagram.
	Answered(node string)

	// Call asks a node a question and waits for the answer until ctx ends.
	Call(ctx context.Context, node, path string, body []byte) ([]byte, error)

	// StandFor makes this voter stand for election in the place of a leader, as long as reason
	// returns true and ctx lasts.
	StandFor(ctx context.Context, leader string, reason func() bool)
}

// Term is one term of this node as leader.
type Term interface {
	// Since returns when the term began.
	Since() time.Time

	// Beat is called when this node's requests for its lease were sent. The leader's heartbeats can
	// go along with them. It does not wait.
	Beat()

	// Late reports whether a member keeps writers waiting for too long.
	Late(node string, now time.Time) bool

	// Expels reports whether a member is being removed, so that its session is to end although the
	// member is present.
	Expels(node string) bool

	// Stored returns a committed entry that the node is known to have had on its disk when that
	// process ran, 0 if none is known.
	Stored(node, incarnation string) uint64

	// Propose proposes a change and returns when it is applied here. After an error the outcome is
	// not known.
	Propose(change state.Change) error
}
