package roles

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Tenure is the time in which a claim holds its role or lock. It implements hold.Tenure. Its
// methods are safe for concurrent use.
type Tenure struct {
	of     *tenures
	key    string // of the role or lock, with its prefix
	public bool
	ref    state.Ref
	index  uint64          // of the grant
	ctx    context.Context // of the holder's function
	cancel context.CancelCauseFunc

	unwatch func() bool // stops watching for the end of the node

	mu    sync.Mutex
	keeps bool      // see hold.Public
	ended time.Time // the deadline when the tenure ended or was lost; zero: it lasts
	bound time.Time // when the time to hand over ends; zero: nobody has asked
	timer *time.Timer
}

// tenureContext is the context of a tenure. Err consults the clock: in a process that stood still
// the lease may have ended before anything has noticed.
type tenureContext struct {
	context.Context
	t *Tenure
}

// Err implements context.Context.
func (c tenureContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	if lease, session := c.t.of.cfg.Lease, c.t.ref.Session; !lease.Usable(session) {
		c.t.lose(lease.UntilOf(session), fmt.Errorf("%w: the node's lease has expired", errs.ErrLost))
	}
	return c.Context.Err()
}

// Fence implements hold.Tenure.
func (t *Tenure) Fence() uint64 { return t.index }

// Deadline implements hold.Tenure.
func (t *Tenure) Deadline() time.Time {
	end := t.of.cfg.Lease.UntilOf(t.ref.Session)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended.IsZero() {
		end = t.ended
	}
	if !t.bound.IsZero() && t.bound.Before(end) {
		end = t.bound
	}
	return end
}

// Renewed implements hold.Tenure.
func (t *Tenure) Renewed() <-chan struct{} { return t.of.cfg.Lease.Renewed.Wait() }

// DeathNotice implements hold.Tenure. It returns nil if no notice can be made.
func (t *Tenure) DeathNotice() []byte {
	return t.of.cfg.deathNotice(t.ref.Session, t.of.cfg.others())
}

// NoticeChanged returns a channel that is closed when the cluster may refuse what DeathNotice has
// returned, because it replaces its secret. Package vip asks for it.
func (t *Tenure) NoticeChanged() <-chan struct{} { return t.of.cfg.Replica.Port.SecretsChanged() }

// Returned returns a channel that is closed when a node that was absent or suspected is present
// again, as after a partition. Package vip asks for it: machines on that node's side may not know
// which node has an address.
func (t *Tenure) Returned() <-chan struct{} { return t.of.presence.returned.Wait() }

// Any returns true: it selects all tenures.
func (t *Tenure) Any() bool { return true }

// IsPublic reports whether the tenure is that of a public role.
func (t *Tenure) IsPublic() bool { return t.public }

// IsRole reports whether the tenure is that of a role, and not that of a lock or of a task of the
// node itself.
func (t *Tenure) IsRole() bool { return strings.HasPrefix(t.key, keyspace.RolePrefix) }

// lose ends the tenure because its lease ends at the given time. A zero time means that it ended
// long ago.
func (t *Tenure) lose(end time.Time, cause error) {
	t.mu.Lock()
	if end.IsZero() {
		end = time.Now()
	}
	if t.ended.IsZero() {
		t.ended = end
	}
	t.mu.Unlock()
	t.cancel(cause)
}

// yield asks the holder to hand over. After YieldTime the role goes on without it.
func (t *Tenure) yield() {
	t.mu.Lock()
	if t.bound.IsZero() && t.ended.IsZero() {
		t.bound = time.Now().Add(YieldTime)
		t.timer = time.AfterFunc(YieldTime, func() {
			t.of.cfg.Log.Error("a role was not handed over in time; it goes on, and its holder must have stopped", "role", t.key)
			t.of.withdrawals.add(t.key, t.ref)
		})
	}
	t.mu.Unlock()
	t.cancel(hold.ErrYielded)
	t.of.cfg.Lease.Renewed.Notify() // the deadline may have moved
}

// End gives the role up. The claim of a holder that keeps what it has after the loss of the lease
// stays in its queue until the session ends.
func (t *Tenure) End() {
	t.unwatch()
	t.cancel(nil)
	end := t.Deadline()
	t.mu.Lock()
	lost := !t.ended.IsZero()
	withdraw := lost && !t.keeps
	if !lost {
		t.ended = end
	}
	if t.timer != nil {
		t.timer.Stop()
	}
	t.mu.Unlock()
	if !lost {
		err := t.release()
		withdraw = err != nil && !errors.Is(err, errs.ErrLost)
	}
	if withdraw {
		t.of.withdrawals.add(t.key, t.ref)
	}
	t.of.remove(t)
}

// release gives the claim up and waits for that, so that the caller of Hold finds the role given
// up. It does not wait for a leader that may not come.
func (t *Tenure) release() error {
	cfg := t.of.cfg
	ctx, cancel := context.WithTimeout(cfg.Life.Works, cfg.Timing.Lease)
	defer cancel()
	if cfg.Life.Leaving.Load() {
		var stop func()
		ctx, stop = cfg.Replica.WhileSomebodyStays(ctx, cfg.Timing.Retry())
		defer stop()
	}
	return t.of.withdrawals.release(ctx, t.key, t.ref)
}
