package vip

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"
)

// Binder puts addresses in place and removes them. Run has one for the kernel of this machine.
// Func, Exec and Memory are others.
type Binder interface {
	// Attach prepares for a unit of addresses. It removes what a former process of the program has
	// left of them. Each Run calls it once. An error ends Run.
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

// Place is where a unit can be put, for one Run. It may also implement Guarded, Prober, Checker and
// Contested.
//
// HoldDown, Usable and Changed may be called at any time. Extend and Unbind may be called during
// Quiesce or Release. Unbind is then called because the lease ends, and must not wait for them.
// Apart from that, one method is called at a time.
type Place interface {
	// HoldDown is the hold-down time: for how long after the lease the addresses may still be seen
	// here if everything stands still. See hold.Public.
	HoldDown() time.Duration

	// Usable returns nil if the addresses could be put in place now. Otherwise it returns the
	// reason, such as an interface that is not there.
	Usable() error

	// Changed returns a channel that is closed when the result of Usable may have changed, or when
	// there may be something to mend. A nil channel means never.
	Changed() <-chan struct{}

	// Bind puts the addresses in place and announces them. They may be seen until the time that g
	// names, and no longer unless Extend is called. Bind may be called again while they are there.
	Bind(ctx context.Context, g Grant) error

	// Extend says that the lease now ends at until, which may be later or earlier than before. The
	// place wants to be called again after the returned time at the latest. Zero means as soon as
	// the lease is renewed.
	Extend(until time.Time) (again time.Duration, err error)

	// Announce tells the neighbours again where the addresses are.
	Announce() error

	// Mend repairs what others have changed about the addresses in place. It reports whether there
	// was anything to repair.
	Mend(ctx context.Context) (bool, error)

	// Quiesce holds new connections back, for a moment. Existing ones go on.
	Quiesce(ctx context.Context) error

	// Release gives the addresses up to the next owner, who gets them after it has returned. From
	// then on nobody who asks for them is answered from here. Packets that are under way may still
	// be accepted until the next owner is there.
	Release(ctx context.Context) error

	// Unbind removes the addresses at once, in any state.
	Unbind() error

	// Close ends what Attach began, and removes the addresses if they are there. After a Release it
	// waits for the next owner, for a second at most.
	Close() error
}

// Grant is what a Bind is based on.
type Grant struct {
	Fence       uint64        // see hold.Tenure
	Until       time.Time     // the tenure's deadline
	DeathNotice func() []byte // returns the death notice of this process; see hold.Tenure
}

// Guarded is a Place whose addresses are removed when the program dies, before the death notice of
// the Grant is sent. A Place of your own must not say so in a program with flotilla's Config.Guard:
// that guard sends the notice too, and does not know of your Place.
type Guarded interface {
	// Guarded reports whether that is so.
	Guarded() bool
}

// Prober is a Place that can find out whether another machine uses the addresses.
type Prober interface {
	// Probe returns who answers for one of the addresses. Empty means nobody.
	Probe(ctx context.Context) (owner string, err error)
}

// Checker is a Place that can find out whether Bind would succeed, without a visible effect.
type Checker interface {
	// Check returns why Bind would fail. It returns nil if there is no such reason, and an error
	// that wraps errors.ErrUnsupported if it cannot tell.
	Check(ctx context.Context) error
}

// Contested is a Place that notices other machines that claim its addresses while they are in
// place.
type Contested interface {
	// Claims returns a channel of what other machines say about the addresses. It is always the
	// same channel.
	Claims() <-chan *ConflictError
}

// movable is a Place that notices that neighbours may look for the addresses in the wrong place.
type movable interface {
	// stale reports whether that has happened since the last call.
	stale() bool
}

// noticed is a Place that keeps the death notice of the Grant.
type noticed interface {
	// setDeathNotice replaces the notice.
	setDeathNotice(notice []byte)
}

// shared is a Place that shares its lease with other places of this process.
type shared interface {
	// keep is Extend for addresses that stay without a lease. If other places have a lease, the
	// addresses stay for as long as that.
	keep(until time.Time) error
}

// errExpired is the outcome of a tenure that was lost.
var errExpired = errors.New("the lease is over")
