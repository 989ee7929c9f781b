package clocks

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Tolerance is the largest difference between two clocks that is not reported.
	Tolerance = time.Minute

	// MaxOffset is the largest difference from most of the peers with which a node orders
	// certificates.
	MaxOffset = time.Hour

	// LifetimeShare bounds the difference for certificates with a short life: the limit is the
	// certificate's life divided by LifetimeShare, if that is less than MaxOffset.
	LifetimeShare = 10
)

const (
	peerKept      = time.Minute // how long an observation of a peer counts
	authorityKept = time.Hour   // how long an observation of an authority counts
	reportEvery   = time.Hour   // between reports of the same fault
	lookEvery     = time.Second // between looks at the observations
	showStep      = 5 * time.Second
	authority     = "the certificate authority"
)

// Clocks compares this node's wall clock with those of others. Its methods are safe for concurrent
// use.
type Clocks struct {
	cfg    Config
	skewed atomic.Int64 // nanoseconds

	mu       sync.Mutex
	peers    map[string]*peerClock
	looked   time.Time
	reported time.Time // when this node's clock was last reported as wrong; zero: it is right
}

// peerClock is what was observed of a peer's clock.
type peerClock struct {
	// The peer's wall clock was read between these moments of this node's monotonic clock.
	from, to time.Time
	wall     time.Time     // what it showed
	shown    time.Duration // by how much Offset says it is ahead; 0: by at most Tolerance
	reported time.Time     // when that was last logged; zero: never
}

// Config is what Clocks needs of the node around it. Log is required.
type Config struct {
	// Skew is by how much this node's clock seems to be ahead. See Clocks.Shift.
	Skew time.Duration

	// Changed is called when the result of Check or Offset changes. A lock is held meanwhile, so
	// Changed must neither block nor call a method of Clocks. Nil: nothing is called.
	Changed func()

	// Name returns the name of a peer for people. A lock is held meanwhile, so Name must not call
	// a method of Clocks. Nil: the name is the ID.
	Name func(peer string) string

	// Log receives a line when a clock differs, once an hour while it does, and when it agrees
	// again.
	Log *slog.Logger
}

// New returns Clocks that have observed nothing yet, and so find no fault.
func New(cfg Config) *Clocks {
	c := &Clocks{cfg: cfg, peers: make(map[string]*peerClock)}
	c.Shift(cfg.Skew)
	if c.cfg.Changed == nil {
		c.cfg.Changed = func() {}
	}
	if c.cfg.Name == nil {
		c.cfg.Name = func(peer string) string { return peer }
	}
	return c
}

// Shift makes this node's clock seem to be ahead by the given time. Tests use it when their nodes
// share one clock.
func (c *Clocks) Shift(by time.Duration) { c.skewed.Store(int64(by)) }

// Now returns what this node's wall clock shows.
func (c *Clocks) Now() time.Time { return time.Now().Round(0).Add(time.Duration(c.skewed.Load())) }

// Observe records that a peer's wall clock showed wall at some moment between from and now.
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

// nameOf returns the name of a peer for people.
func (c *Clocks) nameOf(peer string) string {
	if peer == authority {
		return peer
	}
	return c.cfg.Name(peer)
}

// ObserveAuthority records the date of an answer that an authority has just sent.
func (c *Clocks) ObserveAuthority(date time.Time) {
	now := time.Now()
	c.Observe(authority, date, now.Add(-2*time.Second)) // a date has whole seconds
}

// ahead returns by how much a peer's clock is ahead of this node's: the smallest difference that
// the observation allows.
func (c *Clocks) ahead(p *peerClock, now time.Time) time.Duration {
	own := now.Round(0).Add(time.Duration(c.skewed.Load()))
	low := p.wall.Add(now.Sub(p.to)).Sub(own)
	high := p.wall.Add(now.Sub(p.from)).Sub(own)
	switch {
	case low > 0:
		return low
	case high < 0:
		return high
	}
	return 0
}

// fresh reports whether the observation of a peer still counts.
func fresh(peer string, p *peerClock, now time.Time) bool {
	if peer == authority {
		return now.Sub(p.to) < authorityKept
	}
	return now.Sub(p.to) < peerKept
}

// Error says that this node's clock cannot be relied on.
type Error struct {
	off map[string]time.Duration // by how much the clocks that disagree are ahead
}

// Error names the clocks that disagree, and by how much, and gives the remedy.
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

// Check returns an *Error if this node's clock differs by more than limit from most of its peers'
// clocks. In a cluster of two nodes whose clocks differ, both get an error.
func (c *Clocks) Check(limit time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wrong(limit, time.Now())
}

// wrong does the work of Check. The caller holds c.mu.
func (c *Clocks) wrong(limit time.Duration, now time.Time) error {
	observed, off := 0, make(map[string]time.Duration)
	for peer, p := range c.peers {
		if !fresh(peer, p, now) {
			continue
		}
		observed++
		if d := c.ahead(p, now); max(d, -d) > limit {
			off[c.nameOf(peer)] = d
		}
	}
	if 2*len(off) <= observed {
		return nil
	}
	return &Error{off: off}
}

// Look logs which clocks differ, and which agree again. It looks at most once a second, so callers
// may call it as often as they like.
func (c *Clocks) Look() {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.looked) < lookEvery {
		return
	}
	if jump := now.Round(0).Sub(c.looked.Round(0)) - now.Sub(c.looked); max(jump, -jump) > Tolerance {
		// The clock was set, or the machine has slept. A monotonic clock stands still in sleep, so
		// an old observation of the authority would be wrong.
		delete(c.peers, authority)
	}
	c.looked = now
	for peer, p := range c.peers {
		if !fresh(peer, p, now) {
			if p.shown != 0 {
				c.cfg.Changed()
			}
			delete(c.peers, peer)
			continue
		}
		c.report(peer, p, now)
	}
	switch err := c.wrong(MaxOffset, now); {
	case err != nil && now.Sub(c.reported) >= reportEvery:
		c.reported = now
		c.cfg.Log.Error("the clock of this node cannot be relied on", "error", err)
		c.cfg.Changed()
	case err == nil && !c.reported.IsZero():
		c.reported = time.Time{}
		c.cfg.Log.Info("the clock of this node agrees with most others again")
		c.cfg.Changed()
	}
}

// report logs what has changed about one clock. The caller holds c.mu.
func (c *Clocks) report(peer string, p *peerClock, now time.Time) {
	d := c.ahead(p, now)
	if max(d, -d) <= Tolerance {
		if p.shown != 0 {
			p.shown, p.reported = 0, time.Time{}
			c.cfg.Log.Info("a clock agrees with this node's again", "peer", c.nameOf(peer))
			c.cfg.Changed()
		}
		return
	}
	if change := d - p.shown; max(change, -change) > showStep {
		p.shown = d.Round(time.Second)
		c.cfg.Changed()
	}
	if now.Sub(p.reported) >= reportEvery {
		p.reported = now
		c.cfg.Log.Warn("a clock differs from this node's; one of them is wrong", "peer", c.nameOf(peer), "ahead", p.shown)
	}
}

// Offset returns by how much a peer's clock is ahead of this node's. It returns 0 if the difference
// is at most Tolerance, or is not known.
func (c *Clocks) Offset(peer string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.peers[peer]; p != nil {
		return p.shown
	}
	return 0
}
