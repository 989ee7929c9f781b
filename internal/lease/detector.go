package lease

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
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
		timing: cfg.Timing, log: cfg.Log, life: cfg.Life, self: cfg.Self, store: cfg.Store, voter: v, wake: wake,
		holdDowns: holdDowns{timing: cfg.Timing},
		reports:   make(map[Suspicion]map[string]bool), pending: make(map[subject]bool),
	}
}

// evaluate decides about all sessions and hold-downs. awake is since when this process has run
// without a gap: what others sent before that may still be under way. It returns when the next
// hold-down expires, zero if none does.
func (d *detector) evaluate(ctx context.Context, term Term, now, awake time.Time) (next time.Time) {
	s := d.store.State()
	seen := time.Now() // not before s: this process may have stood still since now
	next = d.holdDowns.expired(s, seen, func(h holdDown, after time.Duration) {
		d.propose(ctx, term, subject{holdDown: h}, "a role is free: what its last holder left cannot be seen any more", slog.LevelInfo,
			[]any{"node", h.role, "session", h.began}, state.ExpireHoldDown{Role: h.role, Began: h.began, After: after})
	})
	d.voter.observeSessions(s) // SessionsChanged may be about to be called
	it := s.Sessions.Root().Iterator()
	for node, ses, ok := it.Next(); ok; node, ses, ok = it.Next() {
		d.evaluateSession(ctx, term, s, string(node), ses, now, awake)
	}
	return next
}

// evaluateSession decides about one session.
func (d *detector) evaluateSession(ctx context.Context, term Term, s *state.State, node string, ses *state.Session, now, awake time.Time) {
	// The leader's own session needs no suspicion: a leader without the grants of a majority leads no
	// more. But the leader before it may have suspected it.
	if ses.Incarnation == d.self.Incarnation && ses.Suspect == 0 {
		return
	}
	id := SessionID{node, ses.Number}
	silent := now.Sub(later(d.voter.lastAsked(id), awake))
	overdue := silent > d.timing.Silence()
	if term.Since().Sub(now.Add(-silent)) > d.timing.Leaderless() {
		// There was no leader for long. A live node opens a new session when it finds this one. Until
		// then its old session stays, and with it what the node has kept.
		overdue = now.Sub(later(term.Since(), awake)) > d.timing.Retry()
	}
	late := term.Late(node, now) || term.Expels(node)
	propose := func(why string, level slog.Level, change state.Change) {
		d.propose(ctx, term, subject{session: id}, why, level, []any{"node", node, "session", ses.Number}, change)
	}
	switch {
	case ses.Suspect != 0 && d.isExpired(Suspicion{id, ses.Suspect}, s.Voters):
		level := slog.LevelWarn
		if term.Expels(node) {
			level = slog.LevelInfo // it is planned
		}
		propose("a node is gone; what it held is free", level, state.EndSession{
			Node: node, Number: ses.Number, Suspicion: ses.Suspect, Voters: s.Elected, Silent: silent, Stored: term.Stored(node, ses.Incarnation),
		})
	case ses.Suspect == 0 && (overdue || late):
		propose("a node is silent", slog.LevelInfo, state.Suspect{Node: node, Number: ses.Number, Stored: term.Stored(node, ses.Incarnation)})
	case ses.Suspect != 0 && silent < d.timing.Heard() && !late:
		propose("a node is heard again", slog.LevelInfo, state.ClearSuspicion{Node: node, Number: ses.Number, Suspicion: ses.Suspect})
	}
}

// propose logs why and proposes a change, one at a time about a subject.
func (d *detector) propose(ctx context.Context, term Term, about subject, why string, level slog.Level, attrs []any, change state.Change) {
	d.mu.Lock()
	busy := d.pending[about]
	d.pending[about] = true
	d.mu.Unlock()
	if busy {
		return
	}
	d.log.Log(ctx, level, why, attrs...)
	d.life.Tasks.Go(func() {
		err := term.Propose(change) // it does nothing if its subject has changed meanwhile
		d.mu.Lock()
		delete(d.pending, about)
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
