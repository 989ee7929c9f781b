package vip

import (
	"context"
	"log/slog"
	"net/netip"
	"time"
)

// Binder puts addresses in place and takes them away. Run has one for the kernel of this machine; Func, Exec and Memory are
// others. A Place may do more than it must: see Guarded, Prober, Checker and Contested.
type Binder interface {
	// Attach makes ready for a unit of addresses: what a former life of the program has left of it is taken away. It is called once by
	// each Run. An error ends Run.
	Attach(ctx context.Context, u Unit) (Place, error)
}

// Unit is one or more addresses that are always on the same node.
type Unit struct {
	Name      string // of the role
	Addrs     []netip.Prefix
	Interface string // empty: the one that has an address in the same subnet
	NoGuard   bool
	Log       *slog.Logger // never nil
}

// Place is where a unit can be put, for one Run. Linger, Usable and Changed may be called at any time, and Extend and Unbind while Quiesce or Release
// is under way: Unbind is then called because the lease ends, and must not wait for them. Otherwise one method is called at a time.
type Place interface {
	// Linger is how much longer than the lease the addresses may be seen here when everything stands still: see hold.Role.
	Linger() time.Duration

	// Usable returns nil if the addresses could be put in place now, else why not, such as an interface that is not there.
	Usable() error

	// Changed returns a channel that is closed when Usable may have something else to say, or there is something to mend; nil: never.
	Changed() <-chan struct{}

	// Bind puts the addresses in place, to be seen until the time given and no longer, unless Extend comes, and announces them. It may be called again
	// while they are there.
	Bind(ctx context.Context, g Grant) error

	// Extend says that the lease lasts longer, or shorter. The place wants to hear of it again after that time at the latest; 0: as soon as there is news.
	Extend(until time.Time) (again time.Duration, err error)

	// Announce tells the neighbours again where the addresses are.
	Announce() error

	// Mend puts right what others have changed of the addresses that are in place, and reports whether there was anything.
	Mend(ctx context.Context) (bool, error)

	// Quiesce holds new connections back, for a moment. What is under way goes on.
	Quiesce(ctx context.Context) error

	// Release gives the addresses up to the next owner, who comes after it has returned: nobody asking for them is answered from here any more. What is under way
	// may still be taken until the next owner is there, and is ended then.
	Release(ctx context.Context) error

	// Unbind takes the addresses away at once, whatever state they are in.
	Unbind() error

	// Close ends what Attach began, and takes the addresses away if they are there. It waits for the next owner after a Release, for a second at most.
	Close() error
}

// Grant is what a Bind is based on.
type Grant struct {
	Fence uint64        // see hold.Tenure
	Until time.Time     // see hold.Tenure
	Will  func() []byte // see hold.Tenure
}

// Guarded is a Place whose addresses whoever has Grant.Will takes away before he shows it, if the program dies.
type Guarded interface {
	// Guarded reports whether that is so.
	Guarded() bool
}

// Prober is a Place that can find out whether somebody else uses the addresses.
type Prober interface {
	// Probe returns who answers for one of the addresses, empty if nobody does.
	Probe(ctx context.Context) (owner string, err error)
}
