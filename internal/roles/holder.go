package roles

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Holder holds roles and locks for this node's callers. Its methods are safe for concurrent use.
type Holder struct {
	cfg         Config
	waiters     *waiters
	withdrawals *withdrawals
	claimer     *claimer
	presence    *presence
	tenures     *tenures
}

// New returns a Holder that holds nothing.
func New(cfg Config) *Holder {
	h := &Holder{cfg: cfg, waiters: newWaiters(), withdrawals: newWithdrawals(&cfg), presence: new(presence)}
	h.claimer = &claimer{cfg: &h.cfg, waiters: h.waiters, withdrawals: h.withdrawals}
	h.tenures = newTenures(&h.cfg, h.withdrawals, h.presence)
	return h
}

// Hold waits until this node holds the role and calls f, as Node.Hold describes. An error wraps
// fs.ErrInvalid if the role is malformed.
func (h *Holder) Hold(ctx context.Context, r hold.Role, f func(context.Context, hold.Tenure) error) error {
	return h.hold(ctx, r, nil, f)
}

// HoldPublic is Hold for a role that can be seen outside the process. An error wraps
// fs.ErrInvalid if r or p is malformed.
func (h *Holder) HoldPublic(ctx context.Context, r hold.Role, p hold.Public, f func(context.Context, hold.Tenure) error) error {
	if p.HoldDown < 0 || p.HoldDown > MaxHoldDown {
		return errs.Edge("holding a role", fmt.Errorf("%w: the hold-down time of a public role is between 0 and %v",
			fs.ErrInvalid, MaxHoldDown))
	}
	return h.hold(ctx, r, &p, f)
}

// hold is Hold. p is nil for a role that is not public.
func (h *Holder) hold(ctx context.Context, r hold.Role, p *hold.Public, f func(context.Context, hold.Tenure) error) error {
	if r.Name == "" || len(r.Name) > keyspace.MaxName || len(r.Group) > keyspace.MaxName {
		return errs.Edge("holding a role", fmt.Errorf("%w: a role's name has 1 to %d bytes, and its group has no more",
			fs.ErrInvalid, keyspace.MaxName))
	}
	claim := state.ClaimRole{
		Role: keyspace.RolePrefix + r.Name, Wait: true, Group: r.Group, Priority: int64(r.Priority),
	}
	keeps := false
	if p != nil {
		claim.Public, keeps = &state.PublicRole{HoldDown: p.HoldDown, ReleasedOnDeath: p.ReleasedOnDeath}, p.Keep
	}
	var contest Contest
	if !r.NoPreempt {
		contest = func(ctx context.Context, ref state.Ref) { h.claimer.preempt(ctx, claim.Role, ref, r.PreemptDelay) }
	}
	return h.holdClaim(ctx, claim, contest, func(ctx context.Context, t *Tenure) error {
		if keeps {
			h.tenures.keep(t)
		}
		return f(ctx, t)
	})
}

// HoldClaim is Hold for a claim that need not be that of a role. It does not preempt another
// holder.
func (h *Holder) HoldClaim(ctx context.Context, claim state.ClaimRole, f func(context.Context) error) error {
	return h.holdClaim(ctx, claim, nil, func(ctx context.Context, _ *Tenure) error { return f(ctx) })
}

func (h *Holder) holdClaim(ctx context.Context, claim state.ClaimRole, contest Contest, f func(context.Context, *Tenure) error) error {
	claim.MaxState = h.cfg.MaxState
	t, err := h.enter(ctx, claim, contest)
	if err != nil {
		return errs.Edge("waiting for "+claim.Role, err)
	}
	defer t.End()
	err = f(h.cfg.Replica.Fenced(t.ctx, t.ref.Session, state.Fence{Role: t.key, Seq: t.ref.Seq}), t)
	if over := t.ctx.Err(); over != nil && (err == nil || errors.Is(err, over)) {
		return errs.Edge("holding "+claim.Role, context.Cause(t.ctx))
	}
	return err
}

// enter waits for a grant and begins a tenure.
func (h *Holder) enter(ctx context.Context, claim state.ClaimRole, contest Contest) (*Tenure, error) {
	for {
		ref, index, err := h.claimer.await(ctx, claim, contest)
		if err != nil {
			return nil, err
		}
		if t, begun := h.Begin(ctx, claim, ref, index); begun {
			return t, nil
		}
	}
}

// Begin begins the tenure of a claim that was granted at index. ctx bounds the tenure. Begin
// reports false, and gives the claim up, if the lease was lost after the grant or if this node
// must not hold the role any more. Otherwise the caller must call End.
func (h *Holder) Begin(ctx context.Context, claim state.ClaimRole, ref state.Ref, index uint64) (*Tenure, bool) {
	t := h.tenures.add(ctx, claim, ref, index)
	// From here on the tenure is told when it is lost. What happened before must be looked up.
	if !h.cfg.Lease.Usable(ref.Session) || h.claimer.declines(t.key, t.public) {
		t.End()
		return nil, false
	}
	h.OnClaims(h.cfg.Store.State(), []state.Ref{ref})
	if role, ok := strings.CutPrefix(t.key, keyspace.RolePrefix); ok {
		h.cfg.Log.Info("this node holds a role", "role", role, "entry", index)
	} else {
		h.cfg.Log.Debug("this node holds a lock", "what", t.key, "entry", index)
	}
	return t, true
}

// Await proposes a claim and waits until it is granted, under a lease that this node can rely on.
// It returns the claim and the index of its grant. The index is 0 if the claim is not granted and
// does not wait. contest, if not nil, runs while the claim waits behind another one.
func (h *Holder) Await(ctx context.Context, claim state.ClaimRole, contest Contest) (ref state.Ref, index uint64, err error) {
	return h.claimer.await(ctx, claim, contest)
}

// AwaitGrant waits until a claim that was proposed is granted. It returns the index of the grant,
// or 0 if the claim has ended.
func (h *Holder) AwaitGrant(ctx context.Context, claim state.ClaimRole, ref state.Ref) (uint64, error) {
	return h.claimer.awaitGrant(ctx, claim, ref, nil)
}

// Withdraw gives up a claim whose caller has left, and does not wait for it. key is the name of
// the role or lock with its prefix.
func (h *Holder) Withdraw(key string, ref state.Ref) { h.withdrawals.add(key, ref) }

// OnClaims passes on that the given claims have changed in s. Raft's goroutine may call it.
func (h *Holder) OnClaims(s *state.State, refs []state.Ref) {
	h.waiters.wake(refs)
	h.tenures.onClaims(s, refs)
}

// OnRoles passes on that the holder of some role has changed. Raft's goroutine may call it.
func (h *Holder) OnRoles() { h.claimer.rolesChanged.Notify() }

// OnSessions passes on that the sessions in s have changed. Only raft's goroutine calls it.
func (h *Holder) OnSessions(s *state.State) { h.presence.onSessions(s) }

// OnLost passes on that a session has lost its lease, which ends at the given time.
func (h *Holder) OnLost(session uint64, end time.Time, cause error) {
	h.tenures.lose(session, end, cause)
}

// Recheck makes every waiting claim consider again whether this node may hold its role.
func (h *Holder) Recheck() { h.waiters.wakeAll() }

// Claims returns all claims of this node: those that wait and those that hold.
func (h *Holder) Claims() []state.Ref { return append(h.waiters.refs(), h.tenures.refs()...) }

// Held returns the sorted keys of the chosen tenures, each with its prefix.
func (h *Holder) Held(chosen func(*Tenure) bool) []string {
	var keys []string
	for _, t := range h.tenures.all() {
		if chosen(t) {
			keys = append(keys, t.key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Wakeups returns how often a waiting claim was woken because it had changed. It is for
// measurements.
func (h *Holder) Wakeups() int { return h.waiters.woken() }

// IsVisible reports whether something of a session's public roles may still be seen: it holds
// one, or keeps one without holding it.
func (h *Holder) IsVisible(session uint64) bool { return h.tenures.visible(session) }

// YieldAll asks the holders of the chosen tenures to hand over. It waits until each has ended or
// its deadline has passed. It returns an error if ctx ends first.
func (h *Holder) YieldAll(ctx context.Context, chosen func(*Tenure) bool) error {
	return h.tenures.yieldAll(ctx, chosen)
}

// AwaitEnd waits until every tenure has ended, or until the given time.
func (h *Holder) AwaitEnd(end time.Time) { h.tenures.awaitEnd(end) }
