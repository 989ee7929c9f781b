package metrics

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/events"
	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/state"
)

// Observer keeps what a node as a whole has seen. No single part of the node knows all of it. Make
// it with NewObserver. Its methods are safe for concurrent use and do not block.
type Observer struct {
	// Events are those of the node.
	Events *events.Log

	// Started is when the node was opened, by the clock of the machine.
	Started time.Time

	changes meter.Counters // of roles, by role and cause
	vips    meter.Counters // by address and kind of event

	mu        sync.Mutex
	addresses map[string]hold.Addresses // by role
}

// NewObserver returns an Observer that has seen nothing but the events of the Log.
func NewObserver(log *events.Log) *Observer {
	return &Observer{Events: log, Started: time.Now(), addresses: make(map[string]hold.Addresses)}
}

// News takes what entries did, and counts the roles that the node self has got.
func (o *Observer) News(all []state.News, self string) {
	for _, n := range o.Events.News(all) {
		if n.Kind == event.RoleMoved && n.Node == self {
			o.changes.Inc(n.Role, cmp.Or(n.Cause, "it was free"))
		}
	}
}

// Addresses takes what package vip says: see hold.Observer.
func (o *Observer) Addresses(a hold.Addresses, e event.Event) {
	o.mu.Lock()
	o.addresses[a.Role] = a
	if a.Gone {
		delete(o.addresses, a.Role)
	}
	o.mu.Unlock()
	if e.Kind == "" {
		return
	}
	for _, p := range a.Addrs {
		o.vips.Inc(p.Addr().String(), strings.TrimPrefix(string(e.Kind), "address_"))
	}
	o.Events.Add(e)
}

// Roles returns what the metrics of roles and addresses are made of.
func (o *Observer) Roles() Roles {
	out := Roles{Changes: o.changes.List(), Events: o.vips.List()}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, role := range slices.Sorted(maps.Keys(o.addresses)) {
		a := o.addresses[role]
		for _, p := range a.Addrs {
			out.Addresses = append(out.Addresses, Address{p.Addr().String(), a.Bound, a.Usable, a.Conflict != ""})
		}
	}
	return out
}
