package event

import (
	"cmp"
	"slices"
	"time"
)

// Event is something that has happened.
type Event struct {
	// Number counts the events of the node that recorded it, from 1 in each process. A gap between
	// two numbers shows how many events a slow reader has missed.
	Number uint64

	// Time is when the node recorded it, by that node's wall clock.
	Time time.Time

	// Kind is what has happened.
	Kind Kind

	// Node is the name of the node that recorded it.
	Node string

	// Subject is what it happened to: the name of a node, a role, a domain, an address. Empty: the
	// node that recorded it.
	Subject string `json:",omitempty"`

	// Text describes it in a sentence for people, without the subject.
	Text string

	// Cause is why it happened. Empty: that is not known, or Text says it.
	Cause string `json:",omitempty"`

	// From and To are the names of the nodes between which a role has moved. From is empty if nobody
	// held it, and To if nobody holds it.
	From string `json:",omitempty"`
	To   string `json:",omitempty"`

	// Outage is for how long nobody held a role or led the cluster. 0: for no time, or it does not
	// apply.
	Outage time.Duration `json:",omitempty"`

	// Severity says how much it should worry an operator.
	Severity Severity

	// Key is the same for all nodes that recorded the same event of the cluster. Empty: it happened to
	// the one node.
	Key string `json:",omitempty"`
}

// Severity says how much an event should worry an operator. The level of the line in the log is the
// same.
type Severity string

// The severities.
const (
	Info  Severity = "info"  // it is as it should be
	Warn  Severity = "warn"  // somebody must act if it persists or comes back often
	Error Severity = "error" // somebody must act
)

// Merge joins the events of several nodes, in the order of their times. Of events with the same Key
// it keeps the one that was recorded first. The clocks of the nodes decide the order, so it is
// right only as far as they agree.
func Merge(of ...[]Event) []Event {
	var all []Event
	for _, events := range of {
		all = append(all, events...)
	}
	slices.SortStableFunc(all, func(a, b Event) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Number, b.Number))
	})
	known := make(map[string]bool)
	return slices.DeleteFunc(all, func(e Event) bool {
		if e.Key == "" {
			return false
		}
		again := known[e.Key]
		known[e.Key] = true
		return again
	})
}
