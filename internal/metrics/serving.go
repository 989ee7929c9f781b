package metrics

import "github.com/flotilla-ha/flotilla/metric"

func (b *builder) serving() {
	s := &b.in.Serving
	b.counts("tls_handshakes_total", "TLS handshakes with clients.", []string{"version", "resumed", "result"}, s.Handshakes)
	b.histogram("tls_handshake_seconds", "How long handshakes took that succeeded.", s.Handshake)
	b.histogram("tls_handshake_wait_seconds", "How long connections waited for their turn to compute.", s.HandshakeWait)
	b.gauge("connections", "Connections of clients that are open.", float64(s.Connections))
	b.counts("connections_refused_total", "Connections of clients that were refused.", []string{"reason"}, s.Refused)
	b.count("drain_cut_total", "Requests, and new connections without one, that were cut at the end of a drain.", s.DrainCut)
	b.moment("ticket_key_timestamp_seconds", "When the present key of session tickets became current.", b.in.Status.Tickets.Since)
}

func (b *builder) upkeep() {
	s := &b.in.Status
	var failing bool
	var every float64
	backup := s.Backup
	if backup != nil {
		if failing = backup.Err != ""; backup.Makes {
			every = backup.Every.Seconds()
		}
		b.moment("backup_verified_timestamp_seconds", "When the last backup was made that was verified.", backup.Time)
	} else {
		b.add(metric.Gauge, "backup_verified_timestamp_seconds", "When the last backup was made that was verified.", nil)
	}
	b.gauge("backup_interval_seconds", "How old the last backup may become. 0: this node is to make none.", every)
	b.truth("backup_failing", "1 if the last attempt of this node to make a backup failed.", failing)
	var waits []metric.Sample
	for _, w := range s.Waiting {
		waits = append(waits, metric.Sample{Values: []string{w.What}, Value: b.in.Now.Sub(w.Since).Seconds()})
	}
	b.add(metric.Gauge, "waiting_seconds", "How long the node has been waiting for something, if it is some seconds.", []string{"what"}, waits...)
	b.counts("events_total", "Events that the node has recorded.", []string{"kind"}, b.in.Events)
}
