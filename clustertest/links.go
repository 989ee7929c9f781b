package clustertest

import (
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
)

// Link is the way from one node to another, in that direction only. Its methods concern what is
// sent from now on. The zero value of each undoes it, and so does Cluster.Heal. Block and Isolate
// of Cluster cut a link.
//
// Nodes talk over TCP, and so do the clients of Serve. What happens to single packets reaches them
// as time: see Loss and Duplicate.
type Link struct {
	c        *Cluster
	from, to string
}

// Link returns the link from one node to another.
func (c *Cluster) Link(from, to int) *Link {
	c.t.Helper()
	c.machine(from)
	c.machine(to)
	c.faults() // there must be some to choose
	return &Link{c, name(from), name(to)}
}

// Delay sets the latency of the link, one way. 0: that of SetLatency.
func (l *Link) Delay(d time.Duration) {
	l.c.t.Helper()
	l.c.notNegative("a delay", d)
	l.set(func(q *simnet.Quality) { q.Latency = d }, "a delay of %v", d)
}

// Jitter sets the most by which a packet takes longer than the latency, at random. Nothing
// overtakes within a connection: what was sent later waits. 0: none.
func (l *Link) Jitter(d time.Duration) {
	l.c.t.Helper()
	l.c.notNegative("a jitter", d)
	l.set(func(q *simnet.Quality) { q.Jitter = d }, "a jitter of %v", d)
}

// Loss sets the share of packets that are lost, from 0 to less than 1. TCP sends a lost packet
// again: a round trip and 200 ms later, then after twice that time, and so on, as Linux does. A
// lost request for a connection is sent again after 1 s. So a reader sees a loss as a pause.
// Packets with acknowledgements are not lost, and nothing is sent again earlier. 0: none.
func (l *Link) Loss(share float64) {
	l.c.t.Helper()
	if !(share >= 0 && share < 1) {
		l.c.t.Fatalf("a loss of %v is not from 0 to less than 1; Block cuts the link", share)
	}
	l.set(func(q *simnet.Quality) { q.Loss = share }, "%v of all packets lost", share)
}

// Duplicate sets the share of packets that come twice, from 0 to 1. TCP drops the second one. So
// all that a duplicate costs is bandwidth: without a Bandwidth it has no effect. 0: none.
func (l *Link) Duplicate(share float64) {
	l.c.t.Helper()
	if !(share >= 0 && share <= 1) {
		l.c.t.Fatalf("a share of duplicates of %v is not from 0 to 1", share)
	}
	l.set(func(q *simnet.Quality) { q.Duplicate = share }, "%v of all packets doubled", share)
}

// Bandwidth sets how many bytes pass in a second, headers of packets included. All connections
// share them. What does not pass at once waits without a limit. 0: all pass at once.
func (l *Link) Bandwidth(bytesPerSecond int64) {
	l.c.t.Helper()
	if bytesPerSecond < 0 {
		l.c.t.Fatalf("a bandwidth of %d is negative", bytesPerSecond)
	}
	l.set(func(q *simnet.Quality) { q.Bandwidth = bytesPerSecond }, "%d bytes per second", bytesPerSecond)
}

func (l *Link) set(change func(*simnet.Quality), format string, args ...any) {
	q := l.c.net.Quality(l.from, l.to)
	change(&q)
	l.c.net.SetQuality(l.from, l.to, q)
	l.c.trace.add("", "fault: "+l.from+" to "+l.to+": "+format, args...)
}
