package metrics

import (
	"maps"
	"slices"
	"time"

	"github.com/flotilla-ha/flotilla/metric"
	"github.com/flotilla-ha/flotilla/status"
)

func (b *builder) node() {
	s := &b.in.Status
	b.add(metric.Gauge, "build_info", "Always 1. The labels are the versions of flotilla and of Go.", []string{"version", "goversion"},
		metric.Sample{Values: []string{b.in.Build, b.in.Go}, Value: 1})
	b.add(metric.Gauge, "node_info", "Always 1. The labels are the node's name, its ID and that of its cluster.", []string{"name", "id", "cluster"},
		metric.Sample{Values: []string{s.Name, s.ID, s.Cluster}, Value: 1})
	b.moment("start_timestamp_seconds", "When the node was opened.", b.in.Started)
	b.truth("ready", "1 if the node is a member, has a lease and is current.", s.Ready)
	b.truth("draining", "1 if the node is to get no new clients: it shuts down, or an operator has drained it.", s.Draining)
	b.truth("failed", "1 if the node takes no part in its cluster because of an error, such as a failing disk.", s.Err != "")
	b.truth("clock_reliable", "0 if the node's wall clock is more than an hour away from most others.", s.Clock == "")
	b.gauge("loop_idle_seconds", "How long ago the loop ran that renews the lease.", float64(s.Lease.IdleMillis)/1000)
}

func (b *builder) cluster() {
	s, c := &b.in.Status, &b.in.Cluster
	b.truth("has_leader", "1 if the node knows a leader.", s.Leader != "")
	b.truth("is_leader", "1 if the node leads.", s.Leader != "" && s.Leader == s.ID)
	b.gauge("term", "The term of raft.", float64(s.Term))
	b.count("leader_changes_total", "How often the node has learned of another leader, or of the same one after it knew of none.", c.LeaderChanges)
	b.histogram("election_seconds", "How long the node knew of no leader, each time it did not.", c.Election)
	voters, present, reachable := 0, 0, 0
	unreachable := make(map[string]bool)
	for _, p := range s.Peers {
		if p.Err != "" {
			unreachable[p.ID] = true
		}
	}
	var reached, supports []metric.Sample
	names := labels(s.Members)
	for _, m := range s.Members {
		if m.Voter {
			voters++
		}
		if m.Present {
			present++
		}
		up := m.Present && !unreachable[m.ID]
		if m.Voter && up {
			reachable++
		}
		if m.ID != s.ID {
			reached = append(reached, metric.Sample{Values: []string{names[m.ID]}, Value: number(up)})
		}
		if m.Supports != 0 {
			supports = append(supports, metric.Sample{Values: []string{names[m.ID]}, Value: float64(m.Supports)})
		}
	}
	b.add(metric.Gauge, "members", "Members of the cluster, by whether they vote.", []string{"raft"},
		metric.Sample{Values: []string{"voter"}, Value: float64(voters)},
		metric.Sample{Values: []string{"nonvoter"}, Value: float64(len(s.Members) - voters)})
	b.gauge("members_present", "Members that have a session: the cluster takes them for alive.", float64(present))
	b.gauge("failure_tolerance", "How many more voters may fail before there is no majority, as this node sees it. Below 0: there is none.",
		float64(reachable-(voters/2+1)))
	b.add(metric.Gauge, "peer_reachable", "1 if the peer has a session and this node can reach it.", []string{"peer"}, reached...)
	b.add(metric.Gauge, "peer_supported_version", "The newest cluster version that the program of the node supports.", []string{"peer"}, supports...)
	b.gauge("cluster_version", "The version of the cluster.", float64(s.Version))
	differs := 0
	for _, p := range s.Peers {
		differs += len(p.Differs)
	}
	b.gauge("config_differences", "Settings that differ between this node and others, and should not.", float64(differs))
	b.add(metric.Gauge, "peer_lag_entries", "Entries of the log that the peer has not confirmed. Only the leader has these.", []string{"peer"},
		byPeer(names, c.Lags, func(n uint64) float64 { return float64(n) })...)
	b.add(metric.Gauge, "peer_rtt_seconds", "The round trip of a message to the peer.", []string{"peer"}, byPeer(names, c.RTT, time.Duration.Seconds)...)
	b.add(metric.Gauge, "peer_clock_offset_seconds", "How far the peer's wall clock is ahead of this node's.", []string{"peer"},
		byPeer(names, c.Offsets, time.Duration.Seconds)...)
	b.counts("peer_rejected_total", "Connections and requests at the port for peers that were refused.", []string{"reason"}, c.Rejected)
}

// labels returns what each member is called in labels, by its ID: its name, with its ID if
// that is not enough. Two samples with the same labels would spoil the whole scrape.
func labels(members []status.Member) map[string]string {
	count, out := make(map[string]int), make(map[string]string)
	for _, m := range members {
		count[m.Name]++
	}
	for _, m := range members {
		switch {
		case m.Name == "":
			out[m.ID] = m.ID
		case count[m.Name] > 1:
			out[m.ID] = m.Name + " (" + m.ID + ")"
		default:
			out[m.ID] = m.Name
		}
	}
	return out
}

// byPeer returns a sample for each member that is in all, by its ID.
func byPeer[T any](names map[string]string, all map[string]T, value func(T) float64) []metric.Sample {
	var out []metric.Sample
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if name, ok := names[id]; ok {
			out = append(out, metric.Sample{Values: []string{name}, Value: value(all[id])})
		}
	}
	return out
}

func (b *builder) writes() {
	s, w := &b.in.Status, &b.in.Writes
	b.gauge("applied_index", "The newest entry of the log that the node has applied.", float64(s.Index))
	b.add(metric.Histogram, "write_seconds", "How long writes of this node took. Refused ones did nothing, failed ones got no answer.", []string{"result"},
		metric.Sample{Values: []string{"ok"}, Histogram: observations(w.OK)},
		metric.Sample{Values: []string{"refused"}, Histogram: observations(w.Refused)},
		metric.Sample{Values: []string{"failed"}, Histogram: observations(w.Failed)})
	b.gauge("writes_waiting", "Writes of this node that have no answer yet.", float64(w.Waiting))
	b.histogram("write_wait_readers_seconds", "How long writes waited at the leader until every node had applied them.", w.ReadersWait)
	b.histogram("log_sync_seconds", "How long the disk took to make entries of the log durable.", w.LogSync)
	b.gauge("log_bytes", "Bytes of the log's entries.", float64(w.LogBytes))
	b.moment("snapshot_timestamp_seconds", "When the newest snapshot was taken.", w.Snapshot)
	var used, limits []metric.Sample
	for _, space := range s.Space {
		used = append(used, metric.Sample{Values: []string{space.What}, Value: float64(space.Bytes)})
		limits = append(limits, metric.Sample{Values: []string{space.What}, Value: float64(space.Limit)})
	}
	b.add(metric.Gauge, "state_bytes", "Bytes of the replicated state that count against each limit.", []string{"part"}, used...)
	b.add(metric.Gauge, "state_limit_bytes", "The limits of the replicated state.", []string{"part"}, limits...)
}

func (b *builder) lease() {
	s, l := &b.in.Status, &b.in.Lease
	b.truth("lease_held", "1 if the node has a lease: it may hold roles, and its reads are current.", s.Lease.Held)
	b.gauge("lease_remaining_seconds", "How long the lease lasts if nobody renews it.", float64(s.Lease.LeftMillis)/1000)
	b.count("lease_lost_total", "How often the node lost its lease, and so its roles, without a plan.", l.Lost)
	b.histogram("lease_renew_seconds", "How long it took until a majority had renewed the lease.", l.Renew)
}
