package lease

import (
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/internal/meter"
)

// Meters count what a Manager does. The zero value is ready.
type Meters struct {
	// Lost is how often this node gave up a lease that it had, without having planned that. A node
	// that shuts down or is closed has planned it.
	Lost meter.Counter

	// Renew is how long each extension of the lease took, from the sending of the request to the grant
	// with which a majority had answered. A grant that is not urgent waits at its voter for up to a
	// renewal, by design. So half of that is usual, and the lease is in danger when it comes near to
	// what is left beside timing.Margin.
	Renew meter.Histogram
}

// trips are the round-trip times of datagrams. The zero value is ready. Its methods are safe for
// concurrent use.
type trips struct {
	mu sync.Mutex
	to map[string]trip
}

// trip is what is known of the way to a voter and back.
type trip struct {
	time time.Duration // smoothed
	at   time.Time     // when it was measured last
}

// share is the part by which a new measurement changes what is known: an eighth, as in TCP.
const share = 8

// measured takes a new measurement. One that is older than recent says nothing any more.
func (t *trips) measured(voter string, took, recent time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, old := time.Now(), t.to[voter]
	if !old.at.IsZero() && now.Sub(old.at) <= recent {
		took = old.time + (took-old.time)/share
	}
	if t.to == nil {
		t.to = make(map[string]trip)
	}
	t.to[voter] = trip{took, now}
}

func (t *trips) last(voter string, recent time.Duration) (time.Duration, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last, ok := t.to[voter]
	return last.time, ok && time.Since(last.at) <= recent
}

// RTT returns how long a datagram takes to a voter and back, smoothed over the last renewals, and
// whether that is known. It counts from when this node has sent a request for its lease until it
// takes the grant, without the time that the grant has waited at the voter: see Kept. What both
// processes need to send and to wake is in it. A voter of an older version does not say how long
// its grants have waited.
func (m *Manager) RTT(voter string) (time.Duration, bool) {
	return m.trips.last(voter, m.cfg.Timing.Recent())
}

// onKept measures the way to a voter and back.
func (m *Manager) onKept(voter string, k Kept) {
	since := time.Since(m.own.started)
	if k.Sent > uint64(since) || k.For > uint64(since)-k.Sent || !slices.Contains(m.cfg.Store.State().Voters, voter) {
		return // it cannot be
	}
	took := since - time.Duration(k.Sent) - time.Duration(k.For)
	m.trips.measured(voter, took, m.cfg.Timing.Recent())
	sent := m.own.started.Add(time.Duration(k.Sent))
	m.cfg.Clocks.Narrow(voter, sent, sent.Add(took))
}
