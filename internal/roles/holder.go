package roles

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

const (
	YieldTime      = 10 * time.Second // for a holder to hand over when it is asked to
	maxWithdrawers = 8                // claims that are taken back at once
	MaxLinger      = time.Hour
)

// Config is what a holder needs of the node around it.
type Config struct {
	MaxState int64 // see Config of the root package
	Timing   timing.Timing
	Log      *slog.Logger
	Life     *lifecycle.Life
	Self     *self.Self
	Store    *applied.Store
	Book     *peers.Table
	Replica  *replica.Replica
	Keeper   *lease.Manager
}

// Holder holds roles and locks for this node's callers.
type Holder struct {
	Config
	Tenures  *Tenures
	Presence presence
}

func New(cfg Config) *Holder {
	return &Holder{Config: cfg, Tenures: NewTenures()}
}

// Hold is Node.Hold.
func (n *Holder) Hold(ctx context.Context, r hold.Role, f func(ctx context.Context, t hold.Tenure) error) error {
	if r.Name == "" || len(r.Name) > keyspace.MaxName || len(r.Group) > keyspace.MaxName {
		return errs.Edge("holding a role", fmt.Errorf("%w: a role's name has 1 to %d bytes, its group at most as many", fs.ErrInvalid, keyspace.MaxName))
	}
	if r.Linger < 0 || r.Linger > MaxLinger || r.Linger > 0 && !r.Public {
		return errs.Edge("holding a role", fmt.Errorf("%w: a role's Linger is between 0 and %v, and only a Public one has any", fs.ErrInvalid, MaxLinger))
	}
	c := state.ClaimRole{Role: keyspace.RolePrefix + r.Name, Wait: true, Group: r.Group, Priority: int64(r.Priority)}
	if r.Public {
		c.Public = &state.PublicRole{HoldDown: r.Linger, ReleasedOnDeath: r.Bequeathed}
	}
	contest := func(ctx context.Context, ref state.Ref) { n.contest(ctx, c.Role, ref, r.PreemptDelay) }
	if r.NoPreempt {
		contest = nil
	}
	return n.HoldClaim(ctx, c, contest, func(ctx context.Context, t hold.Tenure) error {
		if r.Keep {
			n.Tenures.Keep(t.(*Tenure))
		}
		return f(ctx, t)
	})
}

// HoldClaim is Hold for any claim.
func (n *Holder) HoldClaim(ctx context.Context, c state.ClaimRole, contest func(context.Context, state.Ref), f func(context.Context, hold.Tenure) error) error {
	c.MaxState = n.MaxState
	t, err := n.enterTenure(ctx, c, contest)
	if err != nil {
		return errs.Edge("waiting for "+c.Role, err)
	}
	defer n.EndTenure(t)
	err = f(n.Replica.Fenced(t.Ctx, t.Ref.Session, state.Fence{Role: t.Key, Seq: t.Ref.Seq}), t)
	if over := t.Ctx.Err(); over != nil && (err == nil || errors.Is(err, over)) {
		return errs.Edge("holding "+c.Role, context.Cause(t.Ctx))
	}
	return err
}

// tenureContext is the context of a tenure. Whoever asks it for its error asks the clock: in a process that stood still the lease may be over,
// and nothing may have taken note of that yet.
type tenureContext struct {
	context.Context
	t *Tenure
}

// Err implements context.Context.
func (c tenureContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	if k := c.t.N.Keeper; !k.Usable(c.t.Ref.Session) {
		c.t.lose(k.UntilOf(c.t.Ref.Session), fmt.Errorf("%w: the node's lease has lapsed", errs.Lost))
	}
	return c.Context.Err()
}

// Tenure is a claim that was granted.
type Tenure struct {
	N      *Holder
	Key    string
	public bool
	Ref    state.Ref
	At     uint64          // index of the grant
	Ctx    context.Context // f's
	Stop   context.CancelCauseFunc

	Unwatch func() bool // ends what watches for the node's end

	mu    sync.Mutex
	keeps bool      // see hold.Role
	over  time.Time // the deadline when the tenure ended or was lost; zero: it lasts
	bound time.Time // when the time to hand over ends; zero: nobody has asked
	timer *time.Timer
}

// Fence implements Tenure.
func (t *Tenure) Fence() uint64 { return t.At }

// Deadline implements Tenure.
func (t *Tenure) Deadline() time.Time {
	end := t.N.Keeper.UntilOf(t.Ref.Session)
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
func (t *Tenure) Renewed() <-chan struct{} { return t.N.Keeper.Renewed.Wait() }

// lose ends the tenure because of the lease, which ends then.
func (t *Tenure) lose(end time.Time, cause error) {
	t.mu.Lock()
	if end.IsZero() {
		end = time.Now() // it has ended long ago
	}
	if t.over.IsZero() {
		t.over = end
	}
	t.mu.Unlock()
	t.Stop(cause)
}

// yield asks the holder to hand over. When it takes too long the role goes on without it.
func (t *Tenure) yield() {
	t.mu.Lock()
	if t.bound.IsZero() && t.over.IsZero() {
		t.bound = time.Now().Add(YieldTime)
		t.timer = time.AfterFunc(YieldTime, func() {
			t.N.Log.Error("a role was not handed over in time; it goes on, and its holder must have stopped", "role", t.Key)
			t.N.Withdraw(t.Key, t.Ref)
		})
	}
	t.mu.Unlock()
	t.Stop(hold.ErrYielded)
	t.N.Keeper.Renewed.Notify() // the deadline may be another one
}

// Tenures are the claims of this node whose callers wait, and the tenures that they become.
type Tenures struct {
	Contested notify.Signal // other roles are held, or by others: who contests looks again

	ended notify.Signal // one of held has ended

	Mu      sync.Mutex
	waiting map[state.Ref]chan struct{} // told once when the claim is granted or gone; buffered
	held    map[state.Ref]*Tenure
	Woken   int    // how often a waiter was told something
	kept    uint64 // the newest session that holds, or held, what is kept without a lease

	withdrawn   map[state.Ref]string // claims to be taken back, and to which role
	withdrawers int                  // goroutines at it
}

func NewTenures() *Tenures {
	return &Tenures{waiting: make(map[state.Ref]chan struct{}), held: make(map[state.Ref]*Tenure), withdrawn: make(map[state.Ref]string)}
}

// wait registers a claim that waits.
func (ts *Tenures) wait(ref state.Ref) <-chan struct{} {
	ts.Mu.Lock()
	defer ts.Mu.Unlock()
	c := make(chan struct{}, 1)
	ts.waiting[ref] = c
	return c
}

// left takes back wait.
func (ts *Tenures) left(ref state.Ref) {
	ts.Mu.Lock()
	defer ts.Mu.Unlock()
	delete(ts.waiting, ref)
}

// Notify passes on what has happened to claims. It is called by raft's goroutine.
func (ts *Tenures) Notify(s *state.State, refs []state.Ref) {
	ts.Mu.Lock()
	var yielding []*Tenure
	for _, ref := range refs {
		if c := ts.waiting[ref]; c != nil {
			select {
			case c <- struct{}{}:
				ts.Woken++
			default:
			}
		}
		if t := ts.held[ref]; t != nil {
			if c, i := s.FindClaim(t.Key, ref); i == 0 && c.Yield != 0 {
				yielding = append(yielding, t)
			}
		}
	}
	ts.Mu.Unlock()
	for _, t := range yielding {
		t.yield()
	}
}

// Lose ends the tenures of a session.
func (ts *Tenures) Lose(session uint64, end time.Time, cause error) {
	for _, t := range ts.All() {
		if t.Ref.Session == session {
			t.lose(end, cause)
		}
	}
}

// Keep notes that the tenure's holder does not let go with the lease.
func (ts *Tenures) Keep(t *Tenure) {
	t.mu.Lock()
	t.keeps = true
	t.mu.Unlock()
	ts.Mu.Lock()
	defer ts.Mu.Unlock()
	ts.kept = max(ts.kept, t.Ref.Session)
}

// Seen reports whether something Public is held by a session yet, or kept without it.
func (ts *Tenures) Seen(session uint64) bool {
	ts.Mu.Lock()
	kept := ts.kept == session
	ts.Mu.Unlock()
	return kept || slices.ContainsFunc(ts.All(), func(t *Tenure) bool { return t.public && t.Ref.Session == session })
}

// Recheck has every claim that waits looked at again.
func (ts *Tenures) Recheck() {
	ts.Mu.Lock()
	defer ts.Mu.Unlock()
	for _, c := range ts.waiting {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Refs returns all claims.
func (ts *Tenures) Refs() []state.Ref {
	ts.Mu.Lock()
	defer ts.Mu.Unlock()
	refs := slices.Collect(maps.Keys(ts.waiting))
	return slices.AppendSeq(refs, maps.Keys(ts.held))
}

func (ts *Tenures) All() []*Tenure {
	ts.Mu.Lock()
	defer ts.Mu.Unlock()
	all := make([]*Tenure, 0, len(ts.held))
	for _, t := range ts.held {
		all = append(all, t)
	}
	return all
}

// Await proposes a claim and waits until it is granted, under a lease that can be relied on. It returns the claim, and 0 for index if it is not
// granted and does not wait. contest, if not nil, is run beside the waiting.
func (n *Holder) Await(ctx context.Context, c state.ClaimRole, contest func(context.Context, state.Ref)) (ref state.Ref, index uint64, err error) {
	ctx, stop := n.Life.WhileOpen(ctx)
	defer stop()
	for {
		// A claim of a node without a lease would only keep others from the role.
		if err := n.Keeper.AwaitReady(ctx); err != nil {
			return state.Ref{}, 0, err
		}
		if n.shuns(c.Role, c.Public != nil) {
			if err := n.Life.AwaitChanged(ctx, func() bool { return !n.shuns(c.Role, c.Public != nil) }); err != nil {
				return state.Ref{}, 0, n.Life.Explain(err)
			}
			continue
		}
		session, a, err := n.Replica.Writes.DoIn(ctx, state.Command{Change: c})
		ref := state.Ref{Node: n.Self.ID, Session: session, Seq: a.Seq}
		if errors.Is(err, errs.Lost) && ctx.Err() == nil {
			continue // the claim went with the session, and the next one belongs to a new one
		}
		if err != nil {
			if session != 0 {
				n.Withdraw(c.Role, ref)
			}
			return state.Ref{}, 0, err
		}
		if a.Code == state.CodeHeld {
			return state.Ref{}, 0, nil
		}
		if err := a.Code.Err(); err != nil {
			return state.Ref{}, 0, err
		}
		index, err := n.Granted(ctx, c, ref, contest)
		if err != nil {
			n.Withdraw(c.Role, ref)
			return state.Ref{}, 0, n.Life.Explain(err)
		}
		if index != 0 {
			return ref, index, nil
		}
	}
}

// Granted waits until a claim, made by c, is granted, and returns the index of that, 0 if the claim is gone.
func (n *Holder) Granted(ctx context.Context, c state.ClaimRole, ref state.Ref, contest func(context.Context, state.Ref)) (uint64, error) {
	told := n.Tenures.wait(ref)
	defer n.Tenures.left(ref)
	contesting := false
	for {
		var drains <-chan struct{}
		if c.Public != nil {
			drains = n.Life.Changed.Wait()
		}
		if n.shuns(c.Role, c.Public != nil) {
			n.Withdraw(c.Role, ref)
			return 0, nil
		}
		mine, i := n.Store.State().FindClaim(c.Role, ref)
		if i < 0 || mine.HoldDown != 0 {
			return 0, nil
		}
		if i == 0 && n.Keeper.Usable(ref.Session) {
			return mine.Index, nil
		}
		if i > 0 && contest != nil && !contesting {
			stop := notify.Beside(ctx, func(ctx context.Context) { contest(ctx, ref) })
			defer stop()
			contesting = true
		}
		var renewed <-chan struct{}
		if i == 0 {
			renewed = n.Keeper.Renewed.Wait() // the session is so new that there is no lease yet, or it is over
			if n.Keeper.Usable(ref.Session) {
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
func (n *Holder) shuns(key string, public bool) bool {
	return n.Life.Leaving.Load() || public && n.Life.Drained.Load() || n.Life.Cordoned.Load() && strings.HasPrefix(key, keyspace.RolePrefix)
}

// contest asks for a role to be handed over, as often as its claim has become better than the holder's and stayed so for the delay.
func (n *Holder) contest(ctx context.Context, key string, ref state.Ref, delay time.Duration) {
	var since time.Time
	for {
		changed := n.Tenures.Contested.Wait()
		s := n.Store.State()
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
				if _, _, err := n.Replica.Writes.DoIn(ctx, state.Command{Session: ref.Session, Change: state.YieldRole{Role: key, Claim: ref.Seq}}); err != nil && errors.Is(err, errs.Lost) {
					return
				}
				wait = n.Timing.Lease // it should be under way; else once more
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
func (n *Holder) enterTenure(ctx context.Context, c state.ClaimRole, contest func(context.Context, state.Ref)) (*Tenure, error) {
	for {
		ref, index, err := n.Await(ctx, c, contest)
		if err != nil {
			return nil, err
		}
		t := &Tenure{N: n, Key: c.Role, public: c.Public != nil, Ref: ref, At: index}
		ending, stop := context.WithCancelCause(ctx)
		t.Ctx, t.Stop = tenureContext{ending, t}, stop
		t.Unwatch = context.AfterFunc(n.Life.Works, func() { t.Stop(context.Cause(n.Life.Works)) })
		if n.BeginTenure(t) {
			return t, nil
		}
		n.EndTenure(t)
	}
}

// BeginTenure puts a tenure among those that hear of it when they are over, and reports whether it may begin: of what happened before it has
// not heard.
func (n *Holder) BeginTenure(t *Tenure) bool {
	n.Tenures.Mu.Lock()
	n.Tenures.held[t.Ref] = t
	n.Tenures.Mu.Unlock()
	if !n.Keeper.Usable(t.Ref.Session) || n.shuns(t.Key, t.public) {
		return false
	}
	n.Tenures.Notify(n.Store.State(), []state.Ref{t.Ref})
	return true
}

// EndTenure gives the role up. Only what is kept when the lease is lost stays in its queue, until the session ends.
func (n *Holder) EndTenure(t *Tenure) {
	t.Unwatch()
	t.Stop(nil)
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
		ctx, cancel := context.WithTimeout(n.Life.Works, n.Timing.Lease)
		if n.Life.Leaving.Load() {
			var stop func()
			ctx, stop = n.Replica.WhileSomebodyStays(ctx, n.Timing.Retry())
			defer stop()
		}
		_, _, err := n.Replica.Writes.DoIn(ctx, state.Command{Session: t.Ref.Session, Change: state.ReleaseRole{Role: t.Key, Claim: t.Ref.Seq}})
		cancel()
		stays = err != nil && !errors.Is(err, errs.Lost)
	}
	if stays {
		n.Withdraw(t.Key, t.Ref)
	}
	n.Tenures.Mu.Lock()
	delete(n.Tenures.held, t.Ref)
	n.Tenures.Mu.Unlock()
	n.Tenures.ended.Notify()
}

// Withdraw takes a claim back whose caller is gone. It is not waited for. As long as the session lives, so does the claim.
func (n *Holder) Withdraw(key string, ref state.Ref) {
	n.Tenures.Mu.Lock()
	n.Tenures.withdrawn[ref] = key
	more := n.Tenures.withdrawers < maxWithdrawers
	if more {
		n.Tenures.withdrawers++
	}
	n.Tenures.Mu.Unlock()
	if more {
		n.Life.Tasks.Go(n.withdrawAll)
	}
}

// withdrawAll withdraws one claim after another until none is left, or the node ends.
func (n *Holder) withdrawAll() {
	for {
		key, ref, ok := n.Tenures.nextWithdrawn(n.Life.Works.Err() != nil)
		if !ok {
			return
		}
		for n.Life.Works.Err() == nil {
			_, _, err := n.Replica.Writes.DoIn(n.Life.Works, state.Command{Session: ref.Session, Change: state.ReleaseRole{Role: key, Claim: ref.Seq}})
			if err == nil || errors.Is(err, errs.Lost) {
				break
			}
		}
	}
}

// nextWithdrawn takes out one claim that is to be withdrawn. When there is none, or the node has ended, the caller's work is over.
func (ts *Tenures) nextWithdrawn(ended bool) (key string, ref state.Ref, ok bool) {
	ts.Mu.Lock()
	defer ts.Mu.Unlock()
	if !ended {
		for ref, key := range ts.withdrawn {
			delete(ts.withdrawn, ref)
			return key, ref, true
		}
	}
	ts.withdrawers--
	return "", state.Ref{}, false
}

// AwaitEnd waits until every tenure has ended, or that time has come.
func (ts *Tenures) AwaitEnd(end time.Time) {
	timer := time.NewTimer(time.Until(end))
	defer timer.Stop()
	for {
		ended := ts.ended.Wait()
		if len(ts.All()) == 0 {
			return
		}
		select {
		case <-ended:
		case <-timer.C:
			return
		}
	}
}
