// Package timing holds the lengths of time that follow from the length of a lease. Every wait of
// the cluster's protocols has its name here, so that they can be read side by side.
//
// All of them are measured on one node's monotonic clock. Clocks may run at different rates: see
// Drift.
package timing

import "time"

// Drift is how much faster or slower than right any clock may run: one part in a hundred.
const Drift = 100

// Timing is how patient a cluster is.
type Timing struct {
	// Lease is the length of a lease. A node that has not been heard of for so long is taken for gone.
	Lease time.Duration

	// Heartbeat is raft's heartbeat and election timeout. It is twice the lease: a heartbeat may come
	// after two fifths of it, and a follower that raft makes a candidate before the leader's lease has
	// expired is in the way of the one that stands then.
	Heartbeat time.Duration
}

// Of returns the timing for a lease of that length.
func Of(lease time.Duration) Timing { return Timing{Lease: lease, Heartbeat: 2 * lease} }

// At returns the timing of a node whose clock runs at that rate; 0 is 1. Fast clocks are the first
// to say that a time is over.
func (t Timing) At(rate float64) Timing {
	if rate != 0 {
		t.Lease = time.Duration(float64(t.Lease) / rate)
		t.Heartbeat = time.Duration(float64(t.Heartbeat) / rate)
	}
	return t
}

// Grant is how long a voter's grant binds it, from its answer on.
func (t Timing) Grant() time.Duration { return t.Lease + t.Lease/Drift }

// Held is how long a grant is good for the node that it was given to, from the sending of the
// request on. It is shorter than Grant by what the two clocks may differ.
func (t Timing) Held() time.Duration { return t.Lease - t.Lease/Drift }

// Renewal is how often a node asks for its lease. A grant may come only with the voter's next
// request, so at two fifths of the lease's age. Another fifth is Margin. The rest, 240 ms of 600,
// is for a lost packet that TCP sends again.
func (t Timing) Renewal() time.Duration { return t.Lease / 5 }

// Margin is how long before its end a lease is given up, so that what depends on it has ended by
// then.
func (t Timing) Margin() time.Duration { return t.Lease / 5 }

// Urgent is how much of a lease is left when its node asks for an answer at once.
func (t Timing) Urgent() time.Duration { return t.Lease / 2 }

// Silence is how long a session may be silent until it is suspected. Suspicion starts early, so it
// costs no time.
func (t Timing) Silence() time.Duration { return t.Lease / 2 }

// Heard is how recently a suspected session must have been heard of for the suspicion to be
// dropped.
func (t Timing) Heard() time.Duration { return t.Lease / 3 }

// Leaderless is how long a cluster has had no leader when its sessions count as heard of once more.
func (t Timing) Leaderless() time.Duration { return 2 * t.Lease }

// Stuck is how long a member may come no closer to what writers wait for. A slow line alone is no
// reason to do without it.
func (t Timing) Stuck() time.Duration { return 3 * t.Lease }

// Recent is how long what a peer has said of its log counts.
func (t Timing) Recent() time.Duration { return 12 * t.Lease }

// Attempt bounds one attempt of what is tried again.
func (t Timing) Attempt() time.Duration { return 5 * t.Lease }

// Greeting is how often peers are greeted while there is no leader.
func (t Timing) Greeting() time.Duration { return 5 * t.Lease }

// Query bounds a question to the voters whether a lease has expired.
func (t Timing) Query() time.Duration { return t.Lease / 3 }

// HandOver is how long a node that leaves goes on handing over when nobody seems to stay.
func (t Timing) HandOver() time.Duration { return t.Lease / 2 }

// Retry is the pause between attempts of what needs a leader, and how long a process must have run
// without a gap before it concludes anything from silence.
func (t Timing) Retry() time.Duration { return t.Lease / 6 }

// Poll is the pause between looks at what no signal tells of.
func (t Timing) Poll() time.Duration { return t.Lease / 12 }

// Glance is the pause between looks at what is about to change.
func (t Timing) Glance() time.Duration { return t.Lease / 24 }
