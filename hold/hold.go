// Package hold declares the types that are shared by a cluster and the programs that hold roles
// in it. Package flotilla implements them: see Node.Hold. Package vip builds on them and knows
// nothing else of a cluster.
package hold

import (
	"errors"
	"time"
)

// ErrYielded is the cause with which a holder's context ends when the holder is asked to hand the
// role over. If the context ends with another cause, and not because the caller's own context has
// ended, the role is lost or about to be lost.
var ErrYielded = errors.New("the role is to be handed over")

// Role names a task that one node performs at a time, and says how much this node wants it. The
// cluster compares contenders by Priority, then by how few roles of the Group their nodes hold,
// then by the order in which they came.
type Role struct {
	// Name is the name of the role. It is the same on all nodes and has 1 to 1024 bytes.
	Name string

	// Group spreads roles over nodes. Among contenders with the same priority, the one whose node
	// holds the fewest roles of the group gets the role. Empty means that other roles do not
	// matter. All contenders should name the same group. It has at most 1024 bytes.
	Group string

	// Priority is the rank of this contender. A higher one wins. Zero is usual.
	Priority int

	// NoPreempt makes this contender wait until the role is free, even if it is better than the
	// holder.
	NoPreempt bool

	// PreemptDelay is how long this contender must have been better than the holder, without a
	// break, before the holder is asked to hand over. Zero means at once. A longer delay shows
	// whether a node that has just returned stays.
	PreemptDelay time.Duration
}

// Public describes a role that can be seen outside the holder's process, as an address in a
// kernel can. Its effect may outlast the process. The zero value is such a role whose effect ends
// with the lease at the latest.
//
// If the holder's process dies without a death notice, nobody else gets a public role before the
// lease has ended, even if the node's next process starts earlier. A node that begins to drain
// hands its public roles over before it stops accepting connections.
type Public struct {
	// HoldDown is the hold-down time: for how long after the end of the lease the effect may
	// still be seen when the node dies or stands still. Nobody else gets the role in that time.
	// Zero means that something independent of the process, such as a timer of the kernel, ends
	// the effect with the lease. It is at most an hour.
	HoldDown time.Duration

	// ReleasedOnDeath says that the bearer of the tenure's death notice removes the effect of
	// this role before it sends the notice. The notice then frees the role at once. A death
	// notice covers the whole process, and its bearer may not know about other public roles.
	// Those stay in hold-down after a death notice too. With flotilla's Config.Guard every node has
	// such a bearer, which removes nothing but the addresses of package vip: ReleasedOnDeath must not
	// be set then for any other effect.
	ReleasedOnDeath bool

	// Keep says that the holder does not let go when the lease is lost, until it knows that
	// another node holds the role. When the node has reached the cluster again, nobody gets the
	// role for the length of a lease. In that time the node can claim it again.
	Keep bool
}

// Holder says who holds a role. The zero Holder means that nobody does.
type Holder struct {
	// ID is the node's ID: 32 hexadecimal digits.
	ID string

	// Name is the node's name for people. It is empty if it is not known.
	Name string

	// Addr is the address at which the other nodes dial it, host:port. It is empty if it is not
	// known. Clients of the program use another one.
	Addr string

	// Fence is the number of its tenure; see Tenure.
	Fence uint64

	// Own says that it is the node that was asked.
	Own bool
}

// Tenure is one node's time as the holder of a role. Its methods are safe for concurrent use.
type Tenure interface {
	// Fence returns the number of this tenure. It is higher than that of every earlier tenure of
	// the role. A service that remembers the highest fence it has seen can refuse a former holder
	// that does not know yet that it has lost the role.
	Fence() uint64

	// Deadline returns the time until which the role is certainly held, on this machine's
	// monotonic clock, as known now. It moves when the lease is renewed. Another node may hold
	// the role from then on.
	Deadline() time.Time

	// Renewed returns a channel that is closed the next time Deadline moves, in either direction.
	Renewed() <-chan struct{}

	// DeathNotice returns a message that another process on this machine can send to the cluster
	// when this process is dead. All roles of the process are then passed on without waiting for
	// the end of the lease. Public roles without ReleasedOnDeath still wait. The sender states
	// that the process is dead, and that the effects of its roles with ReleasedOnDeath are gone.
	//
	// The notice is a credential for this one session and for nothing else. It should be kept
	// secret. Nil means that the cluster accepts none.
	DeathNotice() []byte
}
