// Package hold has the words that a cluster shares with those who hold something by it. Package flotilla gives them their
// meaning, as Node.Hold; package vip, which knows nothing of clusters, builds on them.
package hold

import (
	"errors"
	"time"
)

// ErrYielded is the cause of the end of the context that a holder gets when it is to hand over. With any other cause but the end of the
// caller's own context the role is lost, or about to be.
var ErrYielded = errors.New("the role is to be handed over")

// Role names something that one node does at a time, and says how much this node wants to be the one. Contenders for a
// role are compared by Priority, then by how few roles of the Group each node holds, then by who came first.
type Role struct {
	// Name is the role's, the same on all nodes: at most MaxName bytes.
	Name string

	// Group spreads roles: of contenders with the same priority that one gets the role whose node holds fewest of the group. Empty: it
	// does not matter what else a node holds. Contenders should agree on it.
	Group string

	// Priority is higher for nodes that should rather have the role. Zero is usual.
	Priority int

	// NoPreempt makes this contender wait until the role is free, even if it is better than the holder.
	NoPreempt bool

	// PreemptDelay is how long this contender must have been better than the holder, without a break, before the holder is asked to
	// hand over. Zero: not at all. A node that has just come back may want some time to see whether it stays.
	PreemptDelay time.Duration

	// Public says that the role is seen from outside of the process, as an address in the kernel is, and may outlast the process. When
	// the process dies without a word nobody else gets the role before the lease is over, even if the node's next process is there earlier.
	// And the role is handed over when the node begins to drain, before it stops to take connections.
	Public bool

	// Linger is how much longer than the lease a Public role may be seen when its node dies or stands still: so long nobody else gets it
	// then. Zero: something, such as a timer of the kernel, ends it with the lease, whatever happens to the process.
	Linger time.Duration

	// Bequeathed says that whoever has the tenure's Will ends what is to be seen of this role before he shows it. A will is its whole process's, and its
	// bearer may know nothing of other Public roles: without Bequeathed they wait for the lease's end, and Linger, though a will says that
	// the process is dead.
	Bequeathed bool

	// Keep says that the holder of a Public role does not let go when the lease is lost, until somebody else is known to hold it. When its node has the
	// cluster back, nobody gets the role for the time of a lease, in which that node claims it again, as one of those who wait.
	Keep bool
}

// Tenure is one node's time as the holder of a role. Its methods are safe for concurrent use.
type Tenure interface {
	// Fence is the number of this tenure: higher than that of any earlier one of the role. Whoever is told what to do by holders of a
	// role, and remembers the highest fence that he has seen, can refuse one who does not know yet that he is not the holder any more.
	Fence() uint64

	// Deadline is until when the role is held for certain, as known now, on this machine's monotonic clock. It moves on as the lease
	// is renewed. From then on somebody else may be the holder.
	Deadline() time.Time

	// Renewed returns a channel that is closed when Deadline moves, in either direction, for the next time.
	Renewed() <-chan struct{}

	// Will returns what another process on this machine can show to the cluster when this one is dead, to have all that it held passed on
	// without waiting for the lease's end. It is a credential for just that, good for this one session, and should be kept from others. Whoever
	// shows it says that the process is dead, and that nothing of its Bequeathed roles is to be seen any more. Nil: the cluster takes none.
	Will() []byte
}
