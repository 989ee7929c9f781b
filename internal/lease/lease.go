package lease

import (
	"slices"
	"time"
)

// The lease, as both of its ends keep it. Neither compares its clock with another's, and neither looks at one itself: callers say
// what time it is. ARCHITECTURE.md has the argument why two sessions never hold the same thing, and TestLeaseStateSpace searches for a
// way to make them.

// SessionID names a session.
type SessionID struct {
	Node   string
	Number uint64
}

// Held is what a node knows of the promises that voters have given to its session.
type Held struct {
	Length  time.Duration        // see timing.Held
	Session uint64               // 0: there is none
	Granted map[string]time.Time // by voter: when the newest request that it answered with a promise was sent
}

// Begin forgets all promises: they were given to another session.
func (l *Held) Begin(session uint64) {
	l.Session, l.Granted = session, make(map[string]time.Time)
}

// Grant notes a voter's answer to a request that was sent at the given time.
func (l *Held) Grant(voter string, session uint64, sent time.Time) {
	if session == l.Session && session != 0 && sent.After(l.Granted[voter]) {
		l.Granted[voter] = sent
	}
}

// End returns the time at which the lease ends: every one of a majority of the voters has promised at least until then. It is zero if there
// was no majority yet.
func (l *Held) End(voters []string) time.Time {
	sent := make([]time.Time, len(voters))
	for i, v := range voters {
		sent[i] = l.Granted[v]
	}
	slices.SortFunc(sent, func(a, b time.Time) int { return b.Compare(a) })
	if len(sent) == 0 || sent[len(sent)/2].IsZero() {
		return time.Time{}
	}
	return sent[len(sent)/2].Add(l.Length)
}

// Grants is what a voter has promised in this life of its process. It promises nothing to a session that its state says is
// suspected or unknown; that is the caller's to see to, in one step with give and lapsed.
type Grants struct {
	length time.Duration // see timing.Grant
	Began  time.Time     // what was promised before that, by an earlier process, is not known
	Until  map[SessionID]time.Time
	asked  map[SessionID]time.Time // when a session last asked, whatever the answer was
}

func NewGrants(length time.Duration, now time.Time) *Grants {
	return &Grants{length: length, Began: now, Until: make(map[SessionID]time.Time), asked: make(map[SessionID]time.Time)}
}

// ask notes that a session has asked.
func (p *Grants) ask(s SessionID, now time.Time) { p.asked[s] = now }

// Grant promises.
func (p *Grants) Grant(s SessionID, now time.Time) { p.Until[s] = now.Add(p.length) }

// Expires returns the time from which on no promise to the session binds this voter.
func (p *Grants) Expires(s SessionID) time.Time {
	end := p.Began.Add(p.length)
	if until := p.Until[s]; until.After(end) {
		return until
	}
	return end
}

// Expired reports whether no promise to the session binds this voter any more.
func (p *Grants) Expired(s SessionID, now time.Time) bool { return !now.Before(p.Expires(s)) }

// LastAsked returns when a session last asked; it is taken to have asked at the beginning.
func (p *Grants) LastAsked(s SessionID) time.Time {
	if at := p.asked[s]; at.After(p.Began) {
		return at
	}
	return p.Began
}

// forget drops the sessions that keep is false for.
func (p *Grants) forget(keep func(SessionID) bool) {
	for _, m := range []map[SessionID]time.Time{p.Until, p.asked} {
		for s := range m {
			if !keep(s) {
				delete(m, s)
			}
		}
	}
}
