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

// Certificates are valid by the wall clock, so a node whose wall clock is wrong would order what
// the cluster has, and delete what others need. Each promise of a lease carries the voter's wall
// clock. It was read between the question and the arrival of the answer, by this node's own watch,
// so an answer that comes late proves less and never something wrong. Nothing but certificates, and
// what is cleaned up with them, depends on these clocks: leases and roles go by elapsed time alone.

const (
	Tolerance = time.Minute // a difference of more is told
	// more than this from the majority of the peers, and a node orders nothing
	MaxOffset     = time.Hour
	LifetimeShare = 10          // or more than this part of a certificate's life
	ClockFresh    = time.Minute // how long a peer's clock counts after it was heard
	clockKept     = time.Hour   // and an authority's
	clockAgain    = time.Hour   // between complaints
	clockLook     = time.Second // between looks whether there is something to tell
	clockSteady   = 5 * time.Second
	theirClock    = "the certificate authority"
)

// Clocks compares this node's wall clock with those of others. Its methods are safe for concurrent
// use.
type Clocks struct {
	Config
	skewed atomic.Int64 // nanoseconds

	mu     sync.Mutex
	peers  map[string]*peerClock
	looked time.Time
	told   time.Time // when it was last told that this node's clock is wrong; zero: it is not
}

// peerClock is a clock as it was heard.
type peerClock struct {
	from, to time.Time     // the peer's wall clock was read between these moments of this node's watch
	wall     time.Time     // what it said
	shown    time.Duration // by how much it is ahead, as status tells; 0: by less than a minute
	told     time.Time     // when that was last told
}

// Config is what clocks need. Zero fields do nothing.
type Config struct {
	Skew    time.Duration // see shift
	Changed func()        // what status returns is another; must not block
	Name    func(peer string) string
	Log     *slog.Logger
}

func New(cfg Config) *Clocks {
	c := &Clocks{Config: cfg, peers: make(map[string]*peerClock)}
	c.Shift(cfg.Skew)
	if c.Changed == nil {
		c.Changed = func() {}
	}
	if c.Name == nil {
		c.Name = func(peer string) string { return peer }
	}
	return c
}

// Shift makes this node's clock one that is ahead by so much, for tests whose nodes have one clock.
func (c *Clocks) Shift(by time.Duration) { c.skewed.Store(int64(by)) }

// Now is this node's wall clock.
func (c *Clocks) Now() time.Time { return time.Now().Round(0).Add(time.Duration(c.skewed.Load())) }

// Observe takes down what a peer's wall clock said between from and now.
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

// called returns what people call a peer.
func (c *Clocks) called(peer string) string {
	if peer == theirClock {
		return peer
	}
	return c.Name(peer)
}

// ObserveAuthority takes down what an authority's clock said in an answer that has just come.
func (c *Clocks) ObserveAuthority(date time.Time) {
	now := time.Now()
	c.Observe(theirClock, date, now.Add(-2*time.Second)) // whole seconds
}

// ahead returns by how much a peer's clock is ahead of this node's, at least: the smallest
// difference that what was heard allows for.
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

// fresh reports whether a peer's clock still counts.
func fresh(peer string, p *peerClock, now time.Time) bool {
	if peer == theirClock {
		return now.Sub(p.to) < clockKept
	}
	return now.Sub(p.to) < ClockFresh
}

// Error says that this node's clock is not to be relied on.
type Error struct {
	off map[string]time.Duration // by how much those who disagree are ahead
}

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

// Check returns a *Error if this node's clock is more than limit away from those of most of its
// peers; of two, each disagrees with most of its peers.
func (c *Clocks) Check(limit time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wrong(limit, time.Now())
}

// wrong is check; c.mu is held.
func (c *Clocks) wrong(limit time.Duration, now time.Time) error {
	heard, off := 0, make(map[string]time.Duration)
	for peer, p := range c.peers {
		if !fresh(peer, p, now) {
			continue
		}
		heard++
		if d := c.ahead(p, now); max(d, -d) > limit {
			off[c.called(peer)] = d
		}
	}
	if 2*len(off) <= heard {
		return nil
	}
	return &Error{off: off}
}

// Look tells of clocks that differ. It is called often, and looks once in a while.
func (c *Clocks) Look() {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.looked) < clockLook {
		return
	}
	if jump := now.Round(0).Sub(c.looked.Round(0)) - now.Sub(c.looked); max(jump, -jump) > Tolerance {
		// the clock was set, or the machine has slept: its watch stood still then
		delete(c.peers, theirClock)
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
		c.tell(peer, p, now)
	}
	switch err := c.wrong(MaxOffset, now); {
	case err != nil && now.Sub(c.told) >= clockAgain:
		c.told = now
		c.Log.Error("the clock of this node cannot be relied on", "error", err)
		c.Changed()
	case err == nil && !c.told.IsZero():
		c.told = time.Time{}
		c.Log.Info("the clock of this node agrees with most others again")
		c.Changed()
	}
}

// tell tells of one clock; c.mu is held.
func (c *Clocks) tell(peer string, p *peerClock, now time.Time) {
	d := c.ahead(p, now)
	if max(d, -d) <= Tolerance {
		if p.shown != 0 {
			p.shown, p.told = 0, time.Time{}
			c.Log.Info("a clock agrees with this node's again", "peer", c.called(peer))
			c.Changed()
		}
		return
	}
	if change := d - p.shown; max(change, -change) > clockSteady {
		p.shown = d.Round(time.Second)
		c.Changed()
	}
	if now.Sub(p.told) >= clockAgain {
		p.told = now
		c.Log.Warn("a clock differs from this node's; one of them is wrong", "peer", c.called(peer), "ahead", p.shown)
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
