package lease

import (
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// voter gives grants to the sessions of others and of its own node. It needs no leader and no disk.
// Its methods are safe for concurrent use.
type voter struct {
	timing timing.Timing
	life   *lifecycle.Life
	store  *applied.Store
	clocks *clocks.Clocks

	mu       sync.Mutex
	given    *grants
	caughtUp bool // with a leader, since the process started: before that it may lack a suspicion

	owed      map[string]owed // grants that travel with the next datagram to a node
	postponed []request       // what cannot be answered yet, one of a node
	renewal   time.Time       // when the next datagrams are sent
}

// owed is a grant that is yet to be sent.
type owed struct {
	Grant
	since time.Time // when the request came; zero: some time before the grant
}

// request is a Renew, and which node asks.
type request struct {
	node string
	Renew
	late bool // it could not be answered when it came
}

func newVoter(cfg *Config, now time.Time) *voter {
	return &voter{
		timing: cfg.Timing, life: cfg.Life, store: cfg.Store, clocks: cfg.Clocks,
		given: newGrants(cfg.Timing.Grant(), now), owed: make(map[string]owed),
	}
}

// catchUp says that this node has caught up with a leader since its process started.
func (v *voter) catchUp() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.caughtUp = true
}

// ask decides whether this voter grants a session a lease. It looks at the state and grants in one
// step: no report may come in between.
func (v *voter) ask(node string, session uint64) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	now, id := time.Now(), SessionID{node, session}
	ses := v.store.State().Session(node)
	if ses == nil || ses.Number != session {
		return false
	}
	v.given.ask(id, now)
	if ses.Suspect != 0 || !v.caughtUp || v.life.Works.Err() != nil || v.life.Setback.Load() != nil {
		return false
	}
	v.given.grant(id, now)
	return true
}

// answer returns what to send to a node that asks for a lease, nil if nothing. A grant binds from
// now on, but unless it is urgent it waits for the next datagram to that node: a datagram of its
// own would cost both nodes a wake-up each time. wake reports that the next datagrams are better
// sent now, since this process is awake and they are nearly due.
func (v *voter) answer(r request) (answer datagram, wake bool) {
	v.postpone(r)
	switch s := v.store.State(); {
	case v.ask(r.node, r.Session):
		g := Grant{Session: r.Session, Sent: r.Sent, Clock: v.clocks.Now().UnixMilli()}
		if r.Urgent {
			return g, false
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		now := time.Now()
		o := owed{Grant: g}
		if !r.late {
			o.since = now // not before the clock was read
		}
		v.owed[r.node] = o
		return nil, !now.Before(v.renewal.Add(-v.timing.Renewal() / 2))
	case s.Index >= r.Session && s.Number(r.node) != r.Session:
		return Ended{Session: r.Session}, false // it may not know, if its clock stood still
	}
	return nil, false
}

// postpone keeps a request that this voter cannot answer yet, because it has not applied the
// opening of the session or has not caught up. The next request comes only with the next renewal.
// Until then a voter that has granted nothing could not say that the lease has expired.
func (v *voter) postpone(r request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.caughtUp && v.store.State().Index >= r.Session {
		return
	}
	r.late = true
	v.postponed = append(slices.DeleteFunc(v.postponed, func(old request) bool { return old.node == r.node }), r)
}

// takePostponed returns what was postponed, to be answered anew.
func (v *voter) takePostponed() []request {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := v.postponed
	v.postponed = nil
	return all
}

// takeOwed returns the grants that are to be sent now, by node.
func (v *voter) takeOwed() map[string]owed {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := v.owed
	v.owed = make(map[string]owed)
	return all
}

// setRenewal says when the next datagrams are sent.
func (v *voter) setRenewal(at time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.renewal = at
}

// report returns the suspicions under which no grant binds this voter any more, and when there will
// be more of them; zero if no session is suspected.
func (v *voter) report(now time.Time) (expired []Suspicion, next time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.store.State()
	for node, ses := range s.Suspects() {
		id := SessionID{node, ses.Number}
		at := v.given.expiry(id)
		if v.caughtUp && v.given.expired(id, now) {
			expired = append(expired, Suspicion{id, ses.Suspect})
			at = now.Add(v.timing.Poll()) // again, since a report may be lost
		} else if !v.caughtUp {
			at = now.Add(v.timing.Poll())
		}
		if at = later(at, now.Add(time.Millisecond)); next.IsZero() || at.Before(next) {
			next = at
		}
	}
	v.given.forget(func(id SessionID) bool {
		ses := s.Session(id.Node)
		return ses != nil && ses.Number == id.Number
	})
	return expired, next
}

// observeSessions counts the opening of a session as if it had asked.
func (v *voter) observeSessions(s *state.State) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	it := s.Sessions.Root().Iterator()
	for node, ses, ok := it.Next(); ok; node, ses, ok = it.Next() {
		id := SessionID{string(node), ses.Number}
		if _, known := v.given.asked[id]; !known {
			v.given.ask(id, now)
		}
	}
}

// lastAsked returns when a session last asked. A session that this process found in the state
// counts as if it had asked then.
func (v *voter) lastAsked(id SessionID) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.given.lastAsked(id)
}

// expiry returns when the last grant that this voter has given to a session expires.
func (v *voter) expiry(id SessionID) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.given.expiry(id)
}

// hasExpired reports whether every grant that this process has given to a session has expired, and
// the session has not asked since. It is false for a session to which this process has granted
// nothing: the node of that may have a newer one.
func (v *voter) hasExpired(id SessionID, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.given.hasGranted(id) && v.given.expired(id, now) && now.Sub(v.given.lastAsked(id)) >= v.given.length
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
