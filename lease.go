package flotilla

import (
	"slices"
	"time"
)

// The lease, as both of its ends keep it. Neither compares its clock with another's, and neither looks at one itself: callers say
// what time it is. ARCHITECTURE.md has the argument why two sessions never hold the same thing, and TestLeaseStateSpace searches for a
// way to make them.

// sessionID names a session.
type sessionID struct {
	node   string
	number uint64
}

// lease is what a node knows of the promises that voters have given to its session.
type lease struct {
	length   time.Duration        // see timing.Held
	session  uint64               // 0: there is none
	promised map[string]time.Time // by voter: when the newest request that it answered with a promise was sent
}

// begin forgets all promises: they were given to another session.
func (l *lease) begin(session uint64) {
	l.session, l.promised = session, make(map[string]time.Time)
}

// promise notes a voter's answer to a request that was sent at the given time.
func (l *lease) promise(voter string, session uint64, sent time.Time) {
	if session == l.session && session != 0 && sent.After(l.promised[voter]) {
		l.promised[voter] = sent
	}
}

// end returns the time at which the lease ends: every one of a majority of the voters has promised at least until then. It is zero if there
// was no majority yet.
func (l *lease) end(voters []string) time.Time {
	sent := make([]time.Time, len(voters))
	for i, v := range voters {
		sent[i] = l.promised[v]
	}
	slices.SortFunc(sent, func(a, b time.Time) int { return b.Compare(a) })
	if len(sent) == 0 || sent[len(sent)/2].IsZero() {
		return time.Time{}
	}
	return sent[len(sent)/2].Add(l.length)
}

// promises is what a voter has promised in this life of its process. It promises nothing to a session that its state says is
// suspected or unknown; that is the caller's to see to, in one step with give and lapsed.
type promises struct {
	length time.Duration // see timing.Grant
	began  time.Time     // what was promised before that, by an earlier process, is not known
	until  map[sessionID]time.Time
	asked  map[sessionID]time.Time // when a session last asked, whatever the answer was
}

func newPromises(length time.Duration, now time.Time) *promises {
	return &promises{length: length, began: now, until: make(map[sessionID]time.Time), asked: make(map[sessionID]time.Time)}
}

// ask notes that a session has asked.
func (p *promises) ask(s sessionID, now time.Time) { p.asked[s] = now }

// give promises.
func (p *promises) give(s sessionID, now time.Time) { p.until[s] = now.Add(p.length) }

// lapses returns the time from which on no promise to the session binds this voter.
func (p *promises) lapses(s sessionID) time.Time {
	end := p.began.Add(p.length)
	if until := p.until[s]; until.After(end) {
		return until
	}
	return end
}

// lapsed reports whether no promise to the session binds this voter any more.
func (p *promises) lapsed(s sessionID, now time.Time) bool { return !now.Before(p.lapses(s)) }

// heard returns when a session last asked; it is taken to have asked at the beginning.
func (p *promises) heard(s sessionID) time.Time {
	if at := p.asked[s]; at.After(p.began) {
		return at
	}
	return p.began
}

// forget drops the sessions that keep is false for.
func (p *promises) forget(keep func(sessionID) bool) {
	for _, m := range []map[sessionID]time.Time{p.until, p.asked} {
		for s := range m {
			if !keep(s) {
				delete(m, s)
			}
		}
	}
}
