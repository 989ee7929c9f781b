package clocks

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/event"
)

const (
	Tolerance     = time.Minute // larger differences are reported
	MaxOffset     = time.Hour   // a node that differs more from most of its peers orders nothing
	LifetimeShare = 10          // or more than this part of a certificate's life
	freshFor      = time.Minute // how long an observation of a peer's clock counts
	authorityFor  = time.Hour   // and one of an authority's
	complainEvery = time.Hour
	lookEvery     = time.Second
	steady        = 5 * time.Second             // smaller changes of a difference are not reported
	authority     = "the certificate authority" // its name among the peers
)

// Clocks compares this node's wall clock with those of others. Its methods are safe for concurrent
// use.
type Clocks struct {
	Config

	mu     sync.Mutex
	peers  map[string]*peerClock
	looked time.Time
	logged time.Time // when it was last logged that this node's clock is wrong; zero: it is not
}

// peerClock is an observation of a clock.
type peerClock struct {
	// the peer's wall clock was read between these times, by this node's monotonic clock
	from, to time.Time
	wall     time.Time     // what it said
	shown    time.Duration // by how much it is ahead, as status shows; 0: by less than a minute
	logged   time.Time     // when that was last logged
}

// Config is what clocks need. Nil functions do nothing.
type Config struct {
	// returns by how much this node's clock is ahead of time.Now, for tests whose nodes share that
	Ahead func() time.Duration
	// is called when Check or Offset return something else; must not block
	Changed func()
	Name    func(peer string) string // returns the name of a peer for people
	Log     *slog.Logger
}

// New returns clocks that have observed nothing.
func New(cfg Config) *Clocks {
	c := &Clocks{Config: cfg, peers: make(map[string]*peerClock)}
	if c.Ahead == nil {
		c.Ahead = func() time.Duration { return 0 }
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	if c.Name == nil {
		c.Name = func(peer string) string { return peer }
	}
	return c
}

// Now returns this node's wall clock.
func (c *Clocks) Now() time.Time { return time.Now().Round(0).Add(c.Ahead()) }

// Observe records what a peer's wall clock said between from and now.
func (c *Clocks) Observe(peer string, wall, from time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.peers[peer]
	if p == nil {
		p = new(peerClock)
		c.peers[peer] = p
	}
	p.wall, p.from, p.to = wall, from, time.Now()
}

// Narrow says that what a peer's wall clock said in an answer to a question was read by then. The
// question is known by when it was sent, which is the time from of its Observe.
func (c *Clocks) Narrow(peer string, from, by time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.peers[peer]; p != nil && p.from.Equal(from) && !by.Before(from) && by.Before(p.to) {
		p.to = by
	}
}

// Measured is what this node knows of a peer's clock.
type Measured struct {
	Peer   string        // its node ID
	Ahead  time.Duration // of this node's clock
	Within time.Duration // by how much Ahead may be wrong
}

// Measured returns what this node knows of the clocks of its peers, in the order of their IDs.
func (c *Clocks) Measured() (all []Measured) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for _, peer := range slices.Sorted(maps.Keys(c.peers)) {
		if p := c.peers[peer]; peer != authority && fresh(peer, p, now) {
			low, high := c.bounds(p, now)
			high += time.Millisecond // peers say whole milliseconds
			all = append(all, Measured{peer, low + (high-low)/2, (high - low) / 2})
		}
	}
	return all
}

// name returns the name of a peer for people.
func (c *Clocks) name(peer string) string {
	if peer == authority {
		return peer
	}
	return c.Name(peer)
}

// ObserveAuthority records what an authority's clock said in an answer that has just come.
func (c *Clocks) ObserveAuthority(date time.Time) {
	now := time.Now()
	c.Observe(authority, date, now.Add(-2*time.Second)) // whole seconds
}

// ahead returns by how much a peer's clock is ahead of this node's, at least: the smallest
// difference that agrees with the observation.
func (c *Clocks) ahead(p *peerClock, now time.Time) time.Duration {
	low, high := c.bounds(p, now)
	switch {
	case low > 0:
		return low
	case high < 0:
		return high
	}
	return 0
}

// bounds returns between what a peer's clock is ahead of this node's.
func (c *Clocks) bounds(p *peerClock, now time.Time) (low, high time.Duration) {
	own := now.Round(0).Add(c.Ahead())
	return p.wall.Add(now.Sub(p.to)).Sub(own), p.wall.Add(now.Sub(p.from)).Sub(own)
}

// fresh reports whether an observation still counts.
func fresh(peer string, p *peerClock, now time.Time) bool {
	if peer == authority {
		return now.Sub(p.to) < authorityFor
	}
	return now.Sub(p.to) < freshFor
}

// Error means that this node's clock is not to be relied on.
type Error struct {
	off map[string]time.Duration // by how much the peers that disagree are ahead
}

// Error implements error.
func (e *Error) Error() string {
	var who []string
	for _, name := range slices.Sorted(maps.Keys(e.off)) {
		d := e.off[name]
		where := "ahead of"
		if d > 0 {
			where = "behind"
		}
		who = append(who, fmt.Sprintf("%v %s that of %s", max(d, -d).Round(time.Minute), where, name))
	}
	return "this node's clock is wrong, or most others are: it is " + strings.Join(who, ", and ") +
		"; set it, and keep it right by NTP. Until then this node orders no certificates and deletes none"
}

// Check returns a *Error if this node's clock differs by more than limit from those of most of its
// peers. If there are only two nodes and they differ, both get the error.
func (c *Clocks) Check(limit time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wrong(limit, time.Now())
}

// wrong is Check; c.mu is held.
func (c *Clocks) wrong(limit time.Duration, now time.Time) error {
	observed, off := 0, make(map[string]time.Duration)
	for peer, p := range c.peers {
		if !fresh(peer, p, now) {
			continue
		}
		observed++
		if d := c.ahead(p, now); max(d, -d) > limit {
			off[c.name(peer)] = d
		}
	}
	if 2*len(off) <= observed {
		return nil
	}
	return &Error{off: off}
}

// Look logs clocks that differ. It may be called often, and looks once in a second.
func (c *Clocks) Look() {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.looked) < lookEvery {
		return
	}
	if jump := now.Round(0).Sub(c.looked.Round(0)) - now.Sub(c.looked); max(jump, -jump) > Tolerance {
		// the clock was set, or the machine has slept and its monotonic clock stood still
		delete(c.peers, authority)
	}
	c.looked = now
	for peer, p := range c.peers {
		if !fresh(peer, p, now) {
			if p.shown != 0 {
				c.Changed()
			}
			delete(c.peers, peer)
			continue
		}
		c.compare(peer, p, now)
	}
	switch err := c.wrong(MaxOffset, now); {
	case err != nil && now.Sub(c.logged) >= complainEvery:
		c.logged = now
		c.Log.Error("the clock of this node cannot be relied on", "event", event.ClockWrong, "error", err)
		c.Changed()
	case err == nil && !c.logged.IsZero():
		c.logged = time.Time{}
		c.Log.Info("the clock of this node agrees with most others again", "event", event.ClockRight)
		c.Changed()
	}
}

// compare logs whether one clock differs. c.mu is held.
func (c *Clocks) compare(peer string, p *peerClock, now time.Time) {
	d := c.ahead(p, now)
	if max(d, -d) <= Tolerance {
		if p.shown != 0 {
			p.shown, p.logged = 0, time.Time{}
			c.Log.Info("a clock agrees with this node's again", "event", event.ClockRight, "peer", c.name(peer))
			c.Changed()
		}
		return
	}
	if change := d - p.shown; max(change, -change) > steady {
		p.shown = d.Round(time.Second)
		c.Changed()
	}
	if now.Sub(p.logged) >= complainEvery {
		p.logged = now
		c.Log.Warn("a clock differs from this node's; one of them is wrong", "event", event.ClockWrong, "peer", c.name(peer), "ahead", p.shown)
	}
}

// Offset returns by how much a peer's clock is ahead of this node's, 0 if that is less than a
// minute or not known.
func (c *Clocks) Offset(peer string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.peers[peer]; p != nil {
		return p.shown
	}
	return 0
}
