package lease

import "time"

// grants is what a voter has granted since its process started. It looks at no clock: callers say
// what time it is, by the clock of the voter. They must not grant a session anything that the state
// says is suspected or unknown, and must look at the state and here in one step.
type grants struct {
	length time.Duration // see timing.Grant
	began  time.Time     // what an earlier process granted before that is not known
	until  map[SessionID]time.Time
	asked  map[SessionID]time.Time // when a session last asked, whatever the answer was
}

func newGrants(length time.Duration, now time.Time) *grants {
	return &grants{length: length, began: now, until: make(map[SessionID]time.Time), asked: make(map[SessionID]time.Time)}
}

// ask remembers that a session has asked.
func (g *grants) ask(s SessionID, now time.Time) { g.asked[s] = now }

// grant binds this voter to a session from now on.
func (g *grants) grant(s SessionID, now time.Time) { g.until[s] = now.Add(g.length) }

// hasGranted reports whether this process has granted the session a lease, expired or not.
func (g *grants) hasGranted(s SessionID) bool { return !g.until[s].IsZero() }

// expiry returns the time from which on no grant to the session binds this voter.
func (g *grants) expiry(s SessionID) time.Time {
	end := g.began.Add(g.length)
	if until := g.until[s]; until.After(end) {
		return until
	}
	return end
}

// expired reports whether no grant to the session binds this voter any more.
func (g *grants) expired(s SessionID, now time.Time) bool { return !now.Before(g.expiry(s)) }

// lastAsked returns when a session last asked. Each is taken to have asked when the process
// started.
func (g *grants) lastAsked(s SessionID) time.Time {
	if at := g.asked[s]; at.After(g.began) {
		return at
	}
	return g.began
}

// forget drops the sessions that keep is false for.
func (g *grants) forget(keep func(SessionID) bool) {
	for _, m := range []map[SessionID]time.Time{g.until, g.asked} {
		for s := range m {
			if !keep(s) {
				delete(m, s)
			}
		}
	}
}
