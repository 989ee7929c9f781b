package clustertest

import (
	"sync/atomic"
	"time"
)

// Clock is the clock of one node. All nodes of a test share time.Now, so a Clock changes what the
// node makes of it.
type Clock struct {
	c     *Cluster
	node  int
	rate  float64      // 0: 1; belongs to the goroutine of the test
	ahead atomic.Int64 // nanoseconds
}

// Rate sets how fast the clock runs by which the node measures leases and timeouts, from 0.99 to
// 1.01: that is the range in which flotilla promises that no two nodes hold the same. The node must
// not run: the rate counts from its next start on. Timers of the program keep the true time.
func (k *Clock) Rate(rate float64) {
	k.c.t.Helper()
	if !(rate >= 0.99 && rate <= 1.01) {
		k.c.t.Fatalf("a rate of %v is not from 0.99 to 1.01", rate)
	}
	if !k.c.dead[k.node] {
		k.c.t.Fatalf("%s runs, and takes its rate when it starts; stop or kill it first", name(k.node))
	}
	k.rate = rate
	k.c.trace.add(name(k.node), "fault: its clock runs at %v", rate)
}

// Jump moves the node's wall clock forward, or back if d is negative. Jumps add up. They change
// what flotilla takes for the date: what the node tells its peers, what Status says of clocks, and
// whether it orders certificates. They change neither what the program and certmagic read from
// time.Now, nor any lease, which no wall clock has to do with.
func (k *Clock) Jump(d time.Duration) {
	k.ahead.Add(int64(d))
	k.c.trace.add(name(k.node), "fault: its wall clock jumps by %v", d)
}

// wall returns by how much the wall clock is ahead.
func (k *Clock) wall() time.Duration { return time.Duration(k.ahead.Load()) }
