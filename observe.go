package flotilla

import (
	"context"
	"iter"
	"runtime"
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/diagnosis"
	"github.com/flotilla-ha/flotilla/internal/metrics"
	"github.com/flotilla-ha/flotilla/metric"
)

// Events yields what has happened to this node and its cluster: the newest 256 events, and then
// each new one, until the loop ends, ctx is done or the node closes. It asks no other node. A slow
// reader misses events, and sees that at their numbers.
func (n *Node) Events(ctx context.Context) iter.Seq[event.Event] {
	return n.observer.Events.All(ctx, n.life.Open)
}

// Metrics yields the metrics of this node: those that Health serves at /metrics, with and without
// values. It is cheap and asks no other node. See docs/metrics.md for what they mean, and the
// module metrics for a Prometheus registry.
func (n *Node) Metrics() iter.Seq[metric.Family] {
	in := &metrics.Input{
		Now: n.clocks.Now(), Started: n.observer.Started, Status: n.Status(), Build: diagnosis.OfBuild().Version, Go: runtime.Version(),
		Events: n.observer.Events.Counts(),
	}
	r, front, certs := n.replica, n.frontend.Meters(), n.certs.Meters()
	in.Cluster = metrics.Cluster{
		LeaderChanges: r.Meters.LeaderChanges.Load(), Election: r.Meters.Election.Load(), Rejected: r.Port.Meters.Rejected.List(),
		Lags: make(map[string]uint64), RTT: make(map[string]time.Duration), Offsets: make(map[string]time.Duration),
	}
	for _, lag := range r.Lags() {
		in.Cluster.Lags[lag.Node] = lag.Entries
	}
	for _, m := range in.Status.Members {
		if rtt, ok := n.leases.RTT(m.ID); ok && m.ID != n.self.ID {
			in.Cluster.RTT[m.ID] = rtt
		}
	}
	for _, m := range n.clocks.Measured() {
		in.Cluster.Offsets[m.Peer] = m.Ahead
	}
	waiting, _ := r.Writes.Oldest()
	in.Writes = metrics.Writes{
		OK: r.Meters.WritesOK.Load(), Refused: r.Meters.WritesRefused.Load(), Failed: r.Meters.WritesFailed.Load(), Waiting: waiting,
		ReadersWait: r.Meters.ReadersWait.Load(), LogSync: r.LogSync(), Snapshot: r.SnapshotTaken(),
	}
	in.Writes.LogBytes, _ = r.Snapshots.LogBytes()
	in.Lease = metrics.Lease{Lost: n.leases.Meters.Lost.Load(), Renew: n.leases.Meters.Renew.Load()}
	in.Roles = n.observer.Roles()
	in.Certificates = metrics.Certificates{
		Orders: certs.Orders.List(), Order: certs.Order.Load(), RenewalCheck: certs.RenewalCheck.Load(), Challenges: certs.Challenges.List(),
	}
	in.Serving = metrics.Serving{
		Handshakes: front.Handshakes.List(), Handshake: front.Handshake.Load(), HandshakeWait: front.HandshakeWait.Load(),
		Connections: front.Connections.Load(), Refused: front.Refused.List(), DrainCut: front.DrainCut.Load(),
	}
	return slices.Values(metrics.Families(in))
}

// ObserveAddresses implements hold.Observer: package vip says what it does with floating addresses.
// Events, Metrics and Health show it.
func (n *Node) ObserveAddresses(a hold.Addresses, e event.Event) {
	n.observer.Addresses(a, e)
	n.life.Changed.Notify()
}
