package replica

import (
	"log/slog"
	"time"

	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// heartbeats decides when raft sends the heartbeats of a leader, and how long a follower waits for
// them. One goroutine uses it.
//
// Slow heartbeats delay nothing when a leader fails: leases and connections show that. But raft
// needs some. By them a follower knows whom to follow, and a leader that reaches no majority steps
// down. raft would send each at a random time, and so wake the processes on both ends once more.
// Instead they go along with the requests for the leader's lease.
//
// raft sends heartbeats after a tenth to a fifth of its election timeout, and at once when that
// becomes shorter. On a leader its only other purpose is to bound an offer of the leadership: see
// Elections.
type heartbeats struct {
	timing timing.Timing
	log    *slog.Logger
	group  *Group
	raft   *Instance
}

// await has raft wait for the heartbeats of another node. They come after one lease and a half at
// most.
func (h *heartbeats) await() { h.set(patience(h.timing, h.group.self)) }

// patience returns how long raft waits for a leader before the node stands for election. raft waits
// for a random time between this and twice as long. So a witness waits until all others have stood.
func patience(t timing.Timing, me *self.Self) time.Duration {
	if me.Witness {
		return 2 * t.Heartbeat
	}
	return t.Heartbeat
}

// sendAlone has raft send heartbeats by itself.
func (h *heartbeats) sendAlone() { h.set(2 * h.timing.Heartbeat) }

// sendAlong sends heartbeats now, which Leadership.Beat has found to be due. A member that cannot
// be reached must hear of its leader as soon as it is back. raft retries at growing intervals, up
// to half the timeout. So raft sends by itself then.
func (h *heartbeats) sendAlong() {
	for _, id := range h.group.Others() {
		if _, err := h.group.port.LastError(id); err != nil {
			h.sendAlone()
			return
		}
	}
	long := 7 * h.timing.Heartbeat // a tenth is longer than a Beat
	h.set(long + 1)
	h.set(long)
}

// set sets raft's election timeout.
func (h *heartbeats) set(timeout time.Duration) {
	if err := h.raft.setTimeout(timeout); err != nil {
		h.log.Warn("raft does not take another heartbeat", "timeout", timeout, "err", err)
	}
}
