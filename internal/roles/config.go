package roles

import (
	"log/slog"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/lease"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

const (
	// YieldTime is how long a holder may take to hand over when it is asked to.
	YieldTime = 10 * time.Second

	// MaxHoldDown is the longest hold-down time that a public role may ask for.
	MaxHoldDown = time.Hour
)

// Config is what a Holder needs of the node around it. All fields are required.
type Config struct {
	MaxState int64            // limit of the replicated state's size, in bytes
	Timing   timing.Timing    // how long a request to preempt or to release may take
	Log      *slog.Logger     // receives what goes wrong with roles
	Life     *lifecycle.Life  // tells whether this node drains, leaves or ends
	Self     *self.Self       // names this node
	Store    *applied.Store   // the state that this node has applied
	Peers    *peers.Table     // the names and addresses of the other nodes
	Replica  *replica.Replica // proposes commands
	Lease    *lease.Manager   // tells until when this node has a lease
}
