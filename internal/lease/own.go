package lease

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// own is the lease of this node's session. Its methods are safe for concurrent use.
type own struct {
	timing  timing.Timing
	store   *applied.Store
	started time.Time // the times in renewals and in the atomic fields count from it

	// useBy is until when the lease may be relied on, in nanoseconds. It is some time before the
	// lease ends, so that everything that depends on the lease can end in time. 0: there is none.
	useBy atomic.Int64

	// idle is since when there is no lease, in nanoseconds. 0: since the start.
	idle atomic.Int64

	mu       sync.Mutex
	held     held
	leaseEnd time.Time     // of the session leased; kept when the lease is lost
	leased   uint64        // the newest session that has or had a lease
	lost     chan struct{} // closed when the lease is lost; nil: no session has begun
}

func newOwn(cfg *Config, now time.Time) *own {
	o := &own{timing: cfg.Timing, store: cfg.Store, started: now, held: held{length: cfg.Timing.Held()}}
	o.held.begin(0)
	return o
}

// margin is how long before its end a lease is given up.
func (o *own) margin() time.Duration { return o.timing.Margin() }

// begin makes session the one that wants a lease. The channel is closed when that is lost.
func (o *own) begin(session uint64) <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held.begin(session)
	o.lost, o.leaseEnd, o.leased = make(chan struct{}), time.Time{}, session
	return o.lost
}

// lose gives the lease up. It returns which session it was for, when it ends, and what is to be
// closed once all that depends on the lease has been told. The session is 0 if none has a lease or
// wants one.
func (o *own) lose() (session uint64, end time.Time, lost chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	session = o.held.session
	if session != 0 {
		o.useBy.Store(0)
		o.idle.Store(int64(time.Since(o.started)))
		o.held.begin(0)
	}
	return session, o.leaseEnd, o.lost
}

// granted counts a voter's grant. It reports whether the lease has grown, how long after the
// request that a majority has granted by now, and whether it is there for the first time. It looks
// at the voters under the lock, so that no grant that came after a change of the voters is counted
// for those before it.
func (o *own) granted(voter string, session uint64, sent time.Time) (took time.Duration, longer, first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.held.observe(voter, session, sent)
	end := o.held.end(o.store.State().Voters)
	if o.held.session == 0 || !end.After(o.leaseEnd) {
		return 0, false, false
	}
	first = o.leaseEnd.IsZero()
	o.leaseEnd = end
	o.useBy.Store(int64(end.Add(-o.margin()).Sub(o.started)))
	return time.Since(end) + o.held.length, true, first
}

// due returns the session that has or wants a lease, and when the lease must be given up unless it
// is renewed. That time is zero if there is no lease yet.
func (o *own) due() (session uint64, loss time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.held.session == 0 || o.leaseEnd.IsZero() {
		return o.held.session, time.Time{}
	}
	return o.held.session, o.leaseEnd.Add(-o.margin())
}

// valid reports whether the lease may be relied on. The clock decides, at the moment of the call.
func (o *own) valid() bool { return o.left() > 0 }

// left returns how long the lease may be relied on if nobody renews it.
func (o *own) left() time.Duration {
	return time.Duration(o.useBy.Load()) - time.Since(o.started)
}

// without returns since when there is no lease.
func (o *own) without() time.Time {
	if o.useBy.Load() != 0 {
		return time.Now()
	}
	return o.started.Add(time.Duration(o.idle.Load()))
}

// usable reports whether the lease of that session may be relied on.
func (o *own) usable(session uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.held.session == session && o.valid()
}

// holds reports whether the lease is that session's, or is asked for it.
func (o *own) holds(session uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return session != 0 && o.held.session == session
}

// until returns when the newest lease ends or ended, and of which session it is.
func (o *own) until() (session uint64, end time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.leased, o.leaseEnd
}

// urgent reports whether so little of the lease is left that its node needs answers at once.
func (o *own) urgent(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.leaseEnd.Sub(now) < o.timing.Urgent()
}
