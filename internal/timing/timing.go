// Package timing holds the lengths of time that follow from the length of a lease. Every wait of
// the cluster's protocols has its name here, so that they can be read side by side.
//
// Each node measures them on its own monotonic clock. Clocks may run at different rates: see Drift.
package timing

import "time"

// Drift bounds how much faster or slower than right any clock may run. The bound is one part in
// Drift, a hundredth.
const Drift = 100

// tight is the length below which a lease is Tight.
const tight = 150 * time.Millisecond

// shortestHeartbeat is what raft's heartbeat and election timeout is at least. On a shared machine
// raft elects leaders without a reason if it is below 200 ms. A shorter one would gain nothing:
// failures are detected by leases.
const shortestHeartbeat = 400 * time.Millisecond

// Timing holds the two lengths of time from which a cluster's other waits follow. Make it with Of.
type Timing struct {
	// Lease is the length of a lease. The cluster takes a node for gone that has been silent for
	// so long.
	Lease time.Duration

	// Heartbeat is raft's heartbeat and election timeout, at least twice the lease. A heartbeat may
	// come only after seven tenths of it, see Beat. Also, raft must not make a follower a candidate
	// before the leader's lease has expired: that candidate would be in the way of the one that
	// stands then.
	Heartbeat time.Duration
}

// Of returns the timing for a lease of the given length.
func Of(lease time.Duration) Timing {
	return Timing{Lease: lease, Heartbeat: max(2*lease, shortestHeartbeat)}
}

// Tight reports whether a pause that is common on a shared machine takes a good part of the lease.
func (t Timing) Tight() bool { return t.Lease < tight }

// At returns the timing of a node whose clock runs at the given rate, for tests. A rate of 0 stands
// for 1. The times of a node with a fast clock end early.
func (t Timing) At(rate float64) Timing {
	if rate != 0 {
		t.Lease = time.Duration(float64(t.Lease) / rate)
		t.Heartbeat = time.Duration(float64(t.Heartbeat) / rate)
	}
	return t
}

// Grant is how long a grant binds the voter, counted from the voter's answer.
func (t Timing) Grant() time.Duration { return t.Lease + t.Lease/Drift }

// Held is how long a grant is good for the node that receives it, counted from the moment when it
// sent the request. Held is shorter than Grant by as much as the two clocks may differ.
func (t Timing) Held() time.Duration { return t.Lease - t.Lease/Drift }

// Renewal is the pause between requests for a lease. A grant may come only with the voter's next
// request, when the lease has used up two fifths. Margin takes another fifth. The rest, 240 ms of
// 600, is for a lost packet that TCP sends again.
func (t Timing) Renewal() time.Duration { return t.Lease / 5 }

// Beat is the pause between a leader's heartbeats, six renewals. They go along with a renewal, so
// one may come a renewal late. Until the followers stand for election, or the leader steps down,
// there is more time left than a lease survives a pause of its process.
func (t Timing) Beat() time.Duration { return 6 * t.Renewal() }

// Margin is how long before its end a node gives a lease up. What depends on the lease ends within
// that time.
func (t Timing) Margin() time.Duration { return t.Lease / 5 }

// Urgent is how much of a lease is left when its node asks for an answer at once. A node with a
// tight lease always does: then a pause may last for three fifths of the lease, and not for two.
func (t Timing) Urgent() time.Duration {
	if t.Tight() {
		return t.Lease
	}
	return t.Lease / 2
}

// Silence is how long a session may be silent before it is suspected. Suspicion starts early, so it
// does not delay the end of the session. But a suspected session is granted nothing until it is
// cleared, and a tight lease has no time for that. So it is suspected later. The leader notices
// that by a fifth of the lease later. The last fifth is for the entry of the suspicion.
func (t Timing) Silence() time.Duration {
	if t.Tight() {
		return 3 * t.Lease / 5
	}
	return t.Lease / 2
}

// Heard bounds how old the last sign of a suspected session may be for the suspicion to be dropped.
func (t Timing) Heard() time.Duration { return t.Lease / 3 }

// Leaderless is how long a cluster must have been without a leader for a new leader to let each
// session start afresh, as if it had just given a sign.
func (t Timing) Leaderless() time.Duration { return 2 * t.Lease }

// Stuck is how long a member may make no progress towards what writers wait for. After that time
// they stop waiting for it. A slow line alone is no reason to stop, nor is a disk that pauses for
// half a second.
func (t Timing) Stuck() time.Duration { return max(3*t.Lease, 600*time.Millisecond) }

// Present is how long ago a leader's raft may have heard of a member that is there. A member at
// rest answers only heartbeats, see Beat.
func (t Timing) Present() time.Duration { return 2 * t.Lease }

// Recent is how long a peer's report about its log counts.
func (t Timing) Recent() time.Duration { return 12 * t.Lease }

// Attempt bounds one attempt of an action that is tried again.
func (t Timing) Attempt() time.Duration { return 5 * t.Lease }

// StandAnswer is how long a leader waits for the answer of a peer that it tells to stand for
// election. raft takes no writes and no other offer of the leadership until then.
const StandAnswer = 100 * time.Millisecond

// Offer is how long a leader waits for one peer to take the leadership over. raft is free for the
// next offer by then: after StandAnswer and Heartbeat, and the time in which the peer got what was
// just written.
func (t Timing) Offer() time.Duration { return t.Heartbeat + 2*StandAnswer }

// Transfer bounds an attempt to hand the leadership over. Two peers may fail to take it.
func (t Timing) Transfer() time.Duration { return max(t.Attempt(), 2*t.Offer()+2*t.Lease) }

// Greeting is the pause between greetings to the peers while there is no leader.
func (t Timing) Greeting() time.Duration { return 5 * t.Lease }

// Query bounds the question to the voters whether a lease has expired.
func (t Timing) Query() time.Duration { return t.Lease / 3 }

// HandOver is how long a leaving node continues to hand over when no other node seems to stay.
func (t Timing) HandOver() time.Duration { return t.Lease / 2 }

// Retry is the pause between attempts of an action that needs a leader. It is also how long a
// process must have run without a gap before it concludes anything from silence.
func (t Timing) Retry() time.Duration { return t.Lease / 6 }

// Poll is the pause between looks at a state that no signal announces.
func (t Timing) Poll() time.Duration { return t.Lease / 12 }

// Glance is the pause between looks at a state that is about to change.
func (t Timing) Glance() time.Duration { return t.Lease / 24 }
