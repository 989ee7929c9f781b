package flotilla

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/lease"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/replica"
	"github.com/flotilla-ha/flotilla/internal/self"

	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// Role names something that one node does at a time, and says how much this node wants to be the one: see hold.Role.
type Role = hold.Role

// Tenure is one node's time as the holder of a role: see hold.Tenure.
type Tenure = hold.Tenure

const (
	yieldTime      = 10 * time.Second // for a holder to hand over when it is asked to
	maxWithdrawers = 8                // claims that are taken back at once
	maxLinger      = time.Hour
)

// holderConfig is what a holder needs of the node around it.
type holderConfig struct {
	maxState int64 // see Config of the root package
	timing   timing.Timing
	log      *slog.Logger
	life     *lifecycle.Life
	self     *self.Self
	store    *applied.Store
	book     *peers.Table
	replica  *replica.Replica
	keeper   *lease.Manager
}

// holder holds roles and locks for this node's callers.
type holder struct {
	holderConfig
	tenures  *tenures
	presence presence
}

func newHolder(cfg holderConfig) *holder {
	return &holder{holderConfig: cfg, tenures: newTenures()}
}

// holdRole is Node.Hold.
func (n *holder) holdRole(ctx context.Context, r Role, f func(ctx context.Context, t Tenure) error) error {
	if r.Name == "" || len(r.Name) > keyspace.MaxName || len(r.Group) > keyspace.MaxName {
		return errs.Edge("holding a role", fmt.Errorf("%w: a role's name has 1 to %d bytes, its group at most as many", fs.ErrInvalid, keyspace.MaxName))
	}
	if r.Linger < 0 || r.Linger > maxLinger || r.Linger > 0 && !r.Public {
		return errs.Edge("holding a role", fmt.Errorf("%w: a role's Linger is between 0 and %v, and only a Public one has any", fs.ErrInvalid, maxLinger))
	}
	c := state.ClaimRole{Role: keyspace.RolePrefix + r.Name, Wait: true, Group: r.Group, Priority: int64(r.Priority)}
	if r.Public {
		c.Public = &state.PublicRole{HoldDown: r.Linger, ReleasedOnDeath: r.Bequeathed}
	}
	contest := func(ctx context.Context, ref state.Ref) { n.contest(ctx, c.Role, ref, r.PreemptDelay) }
	if r.NoPreempt {
		contest = nil
	}
	return n.hold(ctx, c, contest, func(ctx context.Context, t Tenure) error {
		if r.Keep {
			n.tenures.keep(t.(*tenure))
		}
		return f(ctx, t)
	})
}

// hold is Hold for any claim.
func (n *holder) hold(ctx context.Context, c state.ClaimRole, contest func(context.Context, state.Ref), f func(context.Context, Tenure) error) error {
	c.MaxState = n.maxState
	t, err := n.enterTenure(ctx, c, contest)
	if err != nil {
		return errs.Edge("waiting for "+c.Role, err)
	}
	defer n.endTenure(t)
	err = f(n.replica.Fenced(t.ctx, t.ref.Session, state.Fence{Role: t.key, Seq: t.ref.Seq}), t)
	if over := t.ctx.Err(); over != nil && (err == nil || errors.Is(err, over)) {
		return errs.Edge("holding "+c.Role, context.Cause(t.ctx))
	}
	return err
}

// tenureContext is the context of a tenure. Whoever asks it for its error asks the clock: in a process that stood still the lease may be over,
// and nothing may have taken note of that yet.
type tenureContext struct {
	context.Context
	t *tenure
}

// Err implements context.Context.
func (c tenureContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	if k := c.t.n.keeper; !k.Usable(c.t.ref.Session) {
		c.t.lose(k.UntilOf(c.t.ref.Session), fmt.Errorf("%w: the node's lease has lapsed", errs.Lost))
	}
	return c.Context.Err()
}

// tenure is a claim that was granted.
type tenure struct {
	n      *holder
	key    string
	public bool
	ref    state.Ref
	at     uint64          // index of the grant
	ctx    context.Context // f's
	stop   context.CancelCauseFunc

	unwatch func() bool // ends what watches for the node's end

	mu    sync.Mutex
	keeps bool      // see hold.Role
	over  time.Time // the deadline when the tenure ended or was lost; zero: it lasts
	bound time.Time // when the time to hand over ends; zero: nobody has asked
	timer *time.Timer
}

// Fence implements Tenure.
func (t *tenure) Fence() uint64 { return t.at }

// Deadline implements Tenure.
func (t *tenure) Deadline() time.Time {
	end := t.n.keeper.UntilOf(t.ref.Session)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over.IsZero() {
		end = t.over
	}
	if !t.bound.IsZero() && t.bound.Before(end) {
		end = t.bound
	}
	return end
}

// Renewed implements Tenure.
func (t *tenure) Renewed() <-chan struct{} { return t.n.keeper.Renewed.Wait() }

// lose ends the tenure because of the lease, which ends then.
func (t *tenure) lose(end time.Time, cause error) {
	t.mu.Lock()
	if end.IsZero() {
		end = time.Now() // it has ended long ago
	}
	if t.over.IsZero() {
		t.over = end
	}
	t.mu.Unlock()
	t.stop(cause)
}

// yield asks the holder to hand over. When it takes too long the role goes on without it.
func (t *tenure) yield() {
	t.mu.Lock()
	if t.bound.IsZero() && t.over.IsZero() {
		t.bound = time.Now().Add(yieldTime)
		t.timer = time.AfterFunc(yieldTime, func() {
			t.n.log.Error("a role was not handed over in time; it goes on, and its holder must have stopped", "role", t.key)
			t.n.withdraw(t.key, t.ref)
		})
	}
	t.mu.Unlock()
	t.stop(hold.ErrYielded)
	t.n.keeper.Renewed.Notify() // the deadline may be another one
}

// tenures are the claims of this node whose callers wait, and the tenures that they become.
type tenures struct {
	contested notify.Signal // other roles are held, or by others: who contests looks again

	ended notify.Signal // one of held has ended

	mu      sync.Mutex
	waiting map[state.Ref]chan struct{} // told once when the claim is granted or gone; buffered
	held    map[state.Ref]*tenure
	woken   int    // how often a waiter was told something
	kept    uint64 // the newest session that holds, or held, what is kept without a lease

	withdrawn   map[state.Ref]string // claims to be taken back, and to which role
	withdrawers int                  // goroutines at it
}

func newTenures() *tenures {
	return &tenures{waiting: make(map[state.Ref]chan struct{}), held: make(map[state.Ref]*tenure), withdrawn: make(map[state.Ref]string)}
}

// wait registers a claim that waits.
func (ts *tenures) wait(ref state.Ref) <-chan struct{} {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	c := make(chan struct{}, 1)
	ts.waiting[ref] = c
	return c
}

// left takes back wait.
func (ts *tenures) left(ref state.Ref) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	delete(ts.waiting, ref)
}

// tell passes on what has happened to claims. It is called by raft's goroutine.
func (ts *tenures) tell(s *state.State, refs []state.Ref) {
	ts.mu.Lock()
	var yielding []*tenure
	for _, ref := range refs {
		if c := ts.waiting[ref]; c != nil {
			select {
			case c <- struct{}{}:
				ts.woken++
			default:
			}
		}
		if t := ts.held[ref]; t != nil {
			if c, i := s.FindClaim(t.key, ref); i == 0 && c.Yield != 0 {
				yielding = append(yielding, t)
			}
		}
	}
	ts.mu.Unlock()
	for _, t := range yielding {
		t.yield()
	}
}

// lose ends the tenures of a session.
func (ts *tenures) lose(session uint64, end time.Time, cause error) {
	for _, t := range ts.all() {
		if t.ref.Session == session {
			t.lose(end, cause)
		}
	}
}

// keep notes that the tenure's holder does not let go with the lease.
func (ts *tenures) keep(t *tenure) {
	t.mu.Lock()
	t.keeps = true
	t.mu.Unlock()
	ts.mu.Lock()
	defer ts.mu.Unlock()
	ts.kept = max(ts.kept, t.ref.Session)
}

// seen reports whether something Public is held by a session yet, or kept without it.
func (ts *tenures) seen(session uint64) bool {
	ts.mu.Lock()
	kept := ts.kept == session
	ts.mu.Unlock()
	return kept || slices.ContainsFunc(ts.all(), func(t *tenure) bool { return t.public && t.ref.Session == session })
}

// stir has every claim that waits looked at again.
func (ts *tenures) stir() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for _, c := range ts.waiting {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// refs returns all claims.
func (ts *tenures) refs() []state.Ref {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	refs := slices.Collect(maps.Keys(ts.waiting))
	return slices.AppendSeq(refs, maps.Keys(ts.held))
}

func (ts *tenures) all() []*tenure {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	all := make([]*tenure, 0, len(ts.held))
	for _, t := range ts.held {
		all = append(all, t)
	}
	return all
}

// await proposes a claim and waits until it is granted, under a lease that can be relied on. It returns the claim, and 0 for index if it is not
// granted and does not wait. contest, if not nil, is run beside the waiting.
func (n *holder) await(ctx context.Context, c state.ClaimRole, contest func(context.Context, state.Ref)) (ref state.Ref, index uint64, err error) {
	ctx, stop := n.life.WhileOpen(ctx)
	defer stop()
	for {
		// A claim of a node without a lease would only keep others from the role.
		if err := n.keeper.AwaitReady(ctx); err != nil {
			return state.Ref{}, 0, err
		}
		if n.shuns(c.Role, c.Public != nil) {
			if err := n.life.AwaitChanged(ctx, func() bool { return !n.shuns(c.Role, c.Public != nil) }); err != nil {
				return state.Ref{}, 0, n.life.Explain(err)
			}
			continue
		}
		session, a, err := n.replica.Writes.DoIn(ctx, state.Command{Change: c})
		ref := state.Ref{Node: n.self.ID, Session: session, Seq: a.Seq}
		if errors.Is(err, errs.Lost) && ctx.Err() == nil {
			continue // the claim went with the session, and the next one belongs to a new one
		}
		if err != nil {
			if session != 0 {
				n.withdraw(c.Role, ref)
			}
			return state.Ref{}, 0, err
		}
		if a.Code == state.CodeHeld {
			return state.Ref{}, 0, nil
		}
		if err := a.Code.Err(); err != nil {
			return state.Ref{}, 0, err
		}
		index, err := n.granted(ctx, c, ref, contest)
		if err != nil {
			n.withdraw(c.Role, ref)
			return state.Ref{}, 0, n.life.Explain(err)
		}
		if index != 0 {
			return ref, index, nil
		}
	}
}

// granted waits until a claim, made by c, is granted, and returns the index of that, 0 if the claim is gone.
func (n *holder) granted(ctx context.Context, c state.ClaimRole, ref state.Ref, contest func(context.Context, state.Ref)) (uint64, error) {
	told := n.tenures.wait(ref)
	defer n.tenures.left(ref)
	contesting := false
	for {
		var drains <-chan struct{}
		if c.Public != nil {
			drains = n.life.Changed.Wait()
		}
		if n.shuns(c.Role, c.Public != nil) {
			n.withdraw(c.Role, ref)
			return 0, nil
		}
		mine, i := n.store.State().FindClaim(c.Role, ref)
		if i < 0 || mine.HoldDown != 0 {
			return 0, nil
		}
		if i == 0 && n.keeper.Usable(ref.Session) {
			return mine.Index, nil
		}
		if i > 0 && contest != nil && !contesting {
			stop := notify.Beside(ctx, func(ctx context.Context) { contest(ctx, ref) })
			defer stop()
			contesting = true
		}
		var renewed <-chan struct{}
		if i == 0 {
			renewed = n.keeper.Renewed.Wait() // the session is so new that there is no lease yet, or it is over
			if n.keeper.Usable(ref.Session) {
				continue
			}
		}
		select {
		case <-told:
		case <-renewed:
		case <-drains:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// shuns reports whether this node should not hold what has that key: nothing Public while it drains, no role at all while an operator
// has drained it, and nothing at all on its way out.
func (n *holder) shuns(key string, public bool) bool {
	return n.life.Leaving.Load() || public && n.life.Drained.Load() || n.life.Cordoned.Load() && strings.HasPrefix(key, keyspace.RolePrefix)
}

// contest asks for a role to be handed over, as often as its claim has become better than the holder's and stayed so for the delay.
func (n *holder) contest(ctx context.Context, key string, ref state.Ref, delay time.Duration) {
	var since time.Time
	for {
		changed := n.tenures.contested.Wait()
		s := n.store.State()
		better := s.Better(key, ref)
		if c, _ := s.FindClaim(key, ref); !better && c.Group == "" {
			return // nor will it be: whoever is granted the role next is the best of those who wait
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
				if _, _, err := n.replica.Writes.DoIn(ctx, state.Command{Session: ref.Session, Change: state.YieldRole{Role: key, Claim: ref.Seq}}); err != nil && errors.Is(err, errs.Lost) {
					return
				}
				wait = n.timing.Lease // it should be under way; else once more
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

// enterTenure waits for a role and begins a tenure.
func (n *holder) enterTenure(ctx context.Context, c state.ClaimRole, contest func(context.Context, state.Ref)) (*tenure, error) {
	for {
		ref, index, err := n.await(ctx, c, contest)
		if err != nil {
			return nil, err
		}
		t := &tenure{n: n, key: c.Role, public: c.Public != nil, ref: ref, at: index}
		ending, stop := context.WithCancelCause(ctx)
		t.ctx, t.stop = tenureContext{ending, t}, stop
		t.unwatch = context.AfterFunc(n.life.Works, func() { t.stop(context.Cause(n.life.Works)) })
		if n.beginTenure(t) {
			return t, nil
		}
		n.endTenure(t)
	}
}

// beginTenure puts a tenure among those that hear of it when they are over, and reports whether it may begin: of what happened before it has
// not heard.
func (n *holder) beginTenure(t *tenure) bool {
	n.tenures.mu.Lock()
	n.tenures.held[t.ref] = t
	n.tenures.mu.Unlock()
	if !n.keeper.Usable(t.ref.Session) || n.shuns(t.key, t.public) {
		return false
	}
	n.tenures.tell(n.store.State(), []state.Ref{t.ref})
	return true
}

// endTenure gives the role up. Only what is kept when the lease is lost stays in its queue, until the session ends.
func (n *holder) endTenure(t *tenure) {
	t.unwatch()
	t.stop(nil)
	end := t.Deadline()
	t.mu.Lock()
	lost := !t.over.IsZero()
	stays := lost && !t.keeps // the claim, unless it is withdrawn
	if t.over.IsZero() {
		t.over = end
	}
	if t.timer != nil {
		t.timer.Stop()
	}
	t.mu.Unlock()
	if !lost {
		// Whoever has called Hold should find the role given up, but not wait for a leader that may not come.
		ctx, cancel := context.WithTimeout(n.life.Works, n.timing.Lease)
		if n.life.Leaving.Load() {
			var stop func()
			ctx, stop = n.replica.WhileSomebodyStays(ctx, n.timing.Retry())
			defer stop()
		}
		_, _, err := n.replica.Writes.DoIn(ctx, state.Command{Session: t.ref.Session, Change: state.ReleaseRole{Role: t.key, Claim: t.ref.Seq}})
		cancel()
		stays = err != nil && !errors.Is(err, errs.Lost)
	}
	if stays {
		n.withdraw(t.key, t.ref)
	}
	n.tenures.mu.Lock()
	delete(n.tenures.held, t.ref)
	n.tenures.mu.Unlock()
	n.tenures.ended.Notify()
}

// withdraw takes a claim back whose caller is gone. It is not waited for. As long as the session lives, so does the claim.
func (n *holder) withdraw(key string, ref state.Ref) {
	n.tenures.mu.Lock()
	n.tenures.withdrawn[ref] = key
	more := n.tenures.withdrawers < maxWithdrawers
	if more {
		n.tenures.withdrawers++
	}
	n.tenures.mu.Unlock()
	if more {
		n.life.Tasks.Go(n.withdrawAll)
	}
}

// withdrawAll withdraws one claim after another until none is left, or the node ends.
func (n *holder) withdrawAll() {
	for {
		key, ref, ok := n.tenures.nextWithdrawn(n.life.Works.Err() != nil)
		if !ok {
			return
		}
		for n.life.Works.Err() == nil {
			_, _, err := n.replica.Writes.DoIn(n.life.Works, state.Command{Session: ref.Session, Change: state.ReleaseRole{Role: key, Claim: ref.Seq}})
			if err == nil || errors.Is(err, errs.Lost) {
				break
			}
		}
	}
}

// nextWithdrawn takes out one claim that is to be withdrawn. When there is none, or the node has ended, the caller's work is over.
func (ts *tenures) nextWithdrawn(ended bool) (key string, ref state.Ref, ok bool) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if !ended {
		for ref, key := range ts.withdrawn {
			delete(ts.withdrawn, ref)
			return key, ref, true
		}
	}
	ts.withdrawers--
	return "", state.Ref{}, false
}

// awaitEnd waits until every tenure has ended, or that time has come.
func (ts *tenures) awaitEnd(end time.Time) {
	timer := time.NewTimer(time.Until(end))
	defer timer.Stop()
	for {
		ended := ts.ended.Wait()
		if len(ts.all()) == 0 {
			return
		}
		select {
		case <-ended:
		case <-timer.C:
			return
		}
	}
}
