package lease

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// detector is the failure detector of a leader. It suspects sessions that have fallen silent,
// clears those that ask again, and ends those that a majority of the voters reports as expired. It
// also frees roles whose hold-down has expired.
type detector struct {
	timing timing.Timing
	log    *slog.Logger
	life   *lifecycle.Life
	self   *self.Self
	store  *applied.Store
	voter  *voter // knows when sessions last asked
	wake   func()

	holdDowns holdDowns

	mu      sync.Mutex
	reports map[Suspicion]map[string]bool // which voters have reported that nothing binds them
	pending map[subject]bool              // a change about it is under way
}

// subject is what the leader proposes a change about: a session, or a role in hold-down.
type subject struct {
	session  SessionID
	holdDown holdDown
}

func newDetector(cfg *Config, v *voter, wake func()) *detector {
	return &detector{
		timing: cfg.Timing, log: cfg.Log, life: cfg.Life, self: cfg.Self, store: cfg.Store,
		voter: v, wake: wake,
		holdDowns: holdDowns{timing: cfg.Timing},
		reports:   make(map[Suspicion]map[string]bool), pending: make(map[subject]bool),
	}
}

// round is one look of a leader at all sessions.
type round struct {
	term  Term
	state *state.State
	now   time.Time

	// awake is since when this process has run without a gap: what others sent before that may still
	// be under way.
	awake time.Time
}

// proposal is a change that a leader proposes, and why.
type proposal struct {
	about  subject
	change state.Change
	why    string
	level  slog.Level // of the log line
	attrs  []any      // of it
}

// evaluate decides about all sessions and hold-downs, and proposes one change at a time about each.
// It returns when the next hold-down expires, zero if none does. One goroutine at a time calls it.
func (d *detector) evaluate(ctx context.Context, term Term, now, awake time.Time) (next time.Time) {
	d.mu.Lock()
	pending := maps.Clone(d.pending)
	d.mu.Unlock()
	s := d.store.State() // after pending: what is not under way any more is applied in it
	seen := time.Now()   // not before s: this process may have stood still since now
	propose := func(p proposal) {
		if !pending[p.about] {
			d.propose(ctx, term, p)
		}
	}
	next = d.holdDowns.expired(s, seen, func(h holdDown, after time.Duration) {
		propose(proposal{
			about:  subject{holdDown: h},
			change: state.ExpireHoldDown{Role: h.role, Began: h.began, After: after},
			why:    "a role is free: what its last holder left cannot be seen any more",
			attrs:  []any{"role", strings.TrimPrefix(h.role, keyspace.RolePrefix), "entry", h.began},
		})
	})
	d.voter.observeSessions(s) // SessionsChanged may be about to be called
	it := s.Sessions.Root().Iterator()
	for node, ses, ok := it.Next(); ok; node, ses, ok = it.Next() {
		if p, ok := d.decide(round{term, s, now, awake}, string(node), ses); ok {
			propose(p)
		}
	}
	return next
}

// decide returns what to propose about a session, if anything.
func (d *detector) decide(r round, node string, ses *state.Session) (p proposal, ok bool) {
	// The leader's own session needs no suspicion: a leader without the grants of a majority leads no
	// more. But the leader before it may have suspected it.
	if ses.Incarnation == d.self.Incarnation && ses.Suspect == 0 {
		return p, false
	}
	id := SessionID{node, ses.Number}
	silent := r.now.Sub(later(d.voter.lastAsked(id), r.awake))
	overdue := silent > d.timing.Silence()
	if r.term.Since().Sub(r.now.Add(-silent)) > d.timing.Leaderless() {
		// There was no leader for long. A live node opens a new session when it finds this one. Until
		// then its old session stays, and with it what the node has kept.
		overdue = r.now.Sub(later(r.term.Since(), r.awake)) > d.timing.Retry()
	}
	expelled := r.term.Expels(node)
	late := r.term.Late(node, r.now) || expelled
	p = proposal{about: subject{session: id}, attrs: []any{"peer", node, "session", ses.Number}}
	switch {
	case ses.Suspect != 0 && d.isExpired(Suspicion{id, ses.Suspect}, r.state.Voters):
		p.why = "a node is gone; what it held is free"
		if !expelled {
			p.level = slog.LevelWarn // nobody has planned it
		}
		p.change = state.EndSession{
			Node: node, Number: ses.Number, Suspicion: ses.Suspect, Voters: r.state.Elected, Silent: silent,
			Stored: r.term.Stored(node, ses.Incarnation),
		}
	case ses.Suspect == 0 && (overdue || late):
		p.why = "a node is silent"
		p.change = state.Suspect{Node: node, Number: ses.Number, Stored: r.term.Stored(node, ses.Incarnation)}
	case ses.Suspect != 0 && silent < d.timing.Heard() && !late:
		p.why = "a node is heard again"
		p.change = state.ClearSuspicion{Node: node, Number: ses.Number, Suspicion: ses.Suspect}
	}
	return p, p.change != nil
}

// propose logs why and proposes a change. No other change about its subject may be under way.
func (d *detector) propose(ctx context.Context, term Term, p proposal) {
	d.mu.Lock()
	d.pending[p.about] = true
	d.mu.Unlock()
	d.log.Log(ctx, p.level, p.why, p.attrs...)
	d.life.Tasks.Go(func() {
		err := term.Propose(p.change) // it does nothing if its subject has changed meanwhile
		d.mu.Lock()
		delete(d.pending, p.about)
		d.mu.Unlock()
		if err == nil { // else the subject is evaluated again in the next round
			d.wake()
		}
	})
}

// isExpired reports whether a majority of the voters has reported under this suspicion.
func (d *detector) isExpired(who Suspicion, voters []string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return isMajority(d.reports[who], voters)
}

// isMajority reports whether more than half of the voters have reported.
func isMajority(reported map[string]bool, voters []string) bool {
	n := 0
	for _, v := range voters {
		if reported[v] {
			n++
		}
	}
	return n > len(voters)/2
}

// observe takes the report of a voter that no grant binds it to a suspected session. It stays true
// under this suspicion: a voter that restarts applies the suspicion again before it grants
// anything.
func (d *detector) observe(voter string, who Suspicion) {
	s := d.store.State()
	stands := func(who Suspicion) bool {
		ses := s.Session(who.Node)
		return ses != nil && ses.Number == who.Number && ses.Suspect == who.Index
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for old := range d.reports {
		if !stands(old) {
			delete(d.reports, old)
		}
	}
	if !stands(who) {
		return
	}
	if d.reports[who] == nil {
		d.reports[who] = make(map[string]bool)
	}
	if !d.reports[who][voter] {
		d.reports[who][voter] = true
		d.wake()
	}
}
