package certs

import "github.com/flotilla-ha/flotilla/internal/meter"

// Meters count what a node does for its certificates. The zero Meters is ready.
type Meters struct {
	// Orders counts orders that have ended. The labels are the key of the issuer, the action, "obtain"
	// or "renew", and the result: "ok", "refused" by the authority, "failed" for another reason, or
	// "elsewhere" if this node was about to order and found that another one had done so. An order
	// that fails counts for each issuer that was asked.
	Orders meter.Counters

	// Order is how long orders took that succeeded, from the moment when this node was the one to
	// order until the certificate was stored. The wait for a slot is not in it.
	Order meter.Histogram

	// RenewalCheck is when this node began to look whether certificates are due, the last time that it
	// looked at all of them and came to the end. It moves every ten minutes. Each time it takes longer
	// by what the authorities take to answer questions about renewals.
	RenewalCheck meter.Moment

	// Challenges counts challenges of authorities that this node was asked for. The labels are the
	// type, "http-01" or "tls-alpn-01", and the result: "answered", or "unknown" if no order of the
	// cluster waits for it.
	Challenges meter.Counters
}

// challengeCounts are the counters of Meters.Challenges for one type of challenge. They are looked
// up once, since anybody can ask.
type challengeCounts struct{ answered, unknown *meter.Counter }

func (m *Meters) challenges(kind string) challengeCounts {
	return challengeCounts{m.Challenges.Of(kind, "answered"), m.Challenges.Of(kind, "unknown")}
}
