package roles

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// errWitness is why a witness holds nothing.
var errWitness = errors.New("this node is a witness, which holds no roles and no locks")

// Contest is a function that runs while a claim waits behind another node's. It may try to get
// the role earlier. It ends when ctx does.
type Contest func(ctx context.Context, ref state.Ref)

// claimer proposes claims and waits until they are granted.
type claimer struct {
	cfg         *Config
	waiters     *waiters
	withdrawals *withdrawals

	rolesChanged notify.Signal // the holder of some role has changed
}

// await proposes a claim and waits until it is granted, under a lease that this node can rely on.
// It returns the claim and the index of its grant. The index is 0 if the claim is not granted and
// does not wait. contest, if not nil, runs while the claim waits.
func (c *claimer) await(ctx context.Context, claim state.ClaimRole, contest Contest) (ref state.Ref, index uint64, err error) {
	if c.cfg.Self.Witness {
		return state.Ref{}, 0, errWitness
	}
	life := c.cfg.Life
	ctx, stop := life.WhileOpen(ctx)
	defer stop()
	public := claim.Public != nil
	for {
		// A node without a lease would only keep others from the role.
		if err := c.cfg.Lease.AwaitReady(ctx); err != nil {
			return state.Ref{}, 0, err
		}
		if c.declines(claim.Role, public) {
			if err := life.AwaitChanged(ctx, func() bool { return !c.declines(claim.Role, public) }); err != nil {
				return state.Ref{}, 0, life.Explain(err)
			}
			continue
		}
		session, a, err := c.cfg.Replica.Writes.DoIn(ctx, state.Command{Change: claim})
		ref := state.Ref{Node: c.cfg.Self.ID, Session: session, Seq: a.Seq}
		if errors.Is(err, errs.ErrLost) && ctx.Err() == nil {
			continue // the claim ended with its session; the next claim belongs to a new one
		}
		if err != nil {
			if session != 0 {
				c.withdrawals.add(claim.Role, ref)
			}
			return state.Ref{}, 0, err
		}
		if a.Code == state.CodeHeld {
			return state.Ref{}, 0, nil
		}
		if err := a.Code.Err(); err != nil {
			return state.Ref{}, 0, err
		}
		index, err := c.awaitGrant(ctx, claim, ref, contest)
		if err != nil {
			c.withdrawals.add(claim.Role, ref)
			return state.Ref{}, 0, life.Explain(err)
		}
		if index != 0 {
			return ref, index, nil
		}
	}
}

// awaitGrant waits until a claim is granted and returns the index of the grant. It returns 0 if
// the claim has ended.
func (c *claimer) awaitGrant(ctx context.Context, claim state.ClaimRole, ref state.Ref, contest Contest) (uint64, error) {
	woken := c.waiters.add(ref)
	defer c.waiters.remove(ref)
	public := claim.Public != nil
	contesting := false
	for {
		var drains <-chan struct{}
		if public {
			drains = c.cfg.Life.Changed.Wait()
		}
		if c.declines(claim.Role, public) {
			c.withdrawals.add(claim.Role, ref)
			return 0, nil
		}
		mine, place := c.cfg.Store.State().FindClaim(claim.Role, ref)
		if place < 0 || mine.HoldDown != 0 {
			return 0, nil
		}
		if place == 0 && c.cfg.Lease.Usable(ref.Session) {
			return mine.Index, nil
		}
		if place > 0 && contest != nil && !contesting {
			stop := notify.Beside(ctx, func(ctx context.Context) { contest(ctx, ref) })
			defer stop()
			contesting = true
		}
		var renewed <-chan struct{}
		if place == 0 {
			// The session is so new that it has no lease yet, or the lease has ended.
			renewed = c.cfg.Lease.Renewed.Wait()
			if c.cfg.Lease.Usable(ref.Session) {
				continue
			}
		}
		select {
		case <-woken:
		case <-renewed:
		case <-drains:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// declines reports whether this node must not hold the given key. While the node drains it holds
// nothing public. While an operator has drained it, it holds no roles. When it is about to end it
// holds nothing at all.
func (c *claimer) declines(key string, public bool) bool {
	life := c.cfg.Life
	return life.Leaving.Load() || public && life.Drained.Load() ||
		life.Cordoned.Load() && strings.HasPrefix(key, keyspace.RolePrefix)
}

// preempt asks for a role to be handed over each time its claim has been better than the holder's
// for the delay.
func (c *claimer) preempt(ctx context.Context, key string, ref state.Ref, delay time.Duration) {
	var since time.Time // the claim has been better from then on
	for {
		changed := c.rolesChanged.Wait()
		s := c.cfg.Store.State()
		better := s.Better(key, ref)
		if claim, _ := s.FindClaim(key, ref); !better && claim.Group == "" {
			return // the next holder is the best of those who wait, so this claim never gets better
		}
		switch {
		case !better:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		var due <-chan time.Time
		if better {
			wait := time.Until(since.Add(delay))
			if wait <= 0 {
				change := state.YieldRole{Role: key, Claim: ref.Seq}
				_, _, err := c.cfg.Replica.Writes.DoIn(ctx, state.Command{Session: ref.Session, Change: change})
				if errors.Is(err, errs.ErrLost) {
					return
				}
				wait = c.cfg.Timing.Lease // if the hand-over has not begun by then, ask again
			}
			due = time.After(wait)
		}
		select {
		case <-changed:
		case <-due:
		case <-ctx.Done():
			return
		}
	}
}
