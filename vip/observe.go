package vip

import (
	"strings"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/hold"
)

// follow changes the facts that follow from an event.
func follow(a *hold.Addresses, k Kind) {
	switch k {
	case Bound:
		a.Bound, a.Usable, a.Conflict = true, true, ""
	case Moved, Lost:
		a.Bound, a.Conflict = false, ""
	case Kept:
		a.Conflict = ""
	case Unusable:
		a.Usable, a.Conflict = false, ""
	case Competing:
		a.Usable = true
	}
}

// observed returns the event of the cluster that stands for e, without a Kind if there is none.
func observed(e Event) event.Event {
	out := event.Event{Severity: event.Info}
	switch e.Kind {
	case Conflict, Failed, Lost, Kept:
		out.Severity = event.Warn
	}
	switch e.Kind {
	case Bound:
		out.Kind, out.Text = event.AddressBound, "the floating addresses are at this node, and were announced"
	case Moved:
		out.Kind, out.Text = event.AddressReleased, "the floating addresses were handed over, by plan"
	case Lost:
		out.Kind, out.Text = event.AddressReleased, "the floating addresses were removed from this node"
	case Kept:
		out.Kind, out.Text = event.AddressKept, "the lease is over, and the floating addresses stay here, as configured"
	case Mended:
		out.Kind, out.Text = event.AddressMended, "somebody had changed something about the floating addresses, and it was repaired"
	case Conflict:
		out.Kind, out.Text = event.AddressConflict, "another machine claims a floating address"
	case Failed:
		out.Kind, out.Text = event.AddressFailed, "something went wrong with the floating addresses; it is tried again"
	}
	if out.Kind == "" {
		return out
	}
	var subject []string
	for _, a := range e.Addrs {
		subject = append(subject, a.Addr().String())
	}
	out.Subject = strings.Join(subject, ", ")
	if e.Err != nil {
		out.Cause = e.Err.Error()
	}
	return out
}
