package vip

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/hold"
)

// reporter reports what happens to the addresses: to the program, the log, the cluster's status,
// and the Observer.
type reporter struct {
	name   string // of the role
	addrs  []netip.Prefix
	log    *slog.Logger
	notify func(Event)                       // Config.Notify; may be nil
	status func(role, text string)           // the Holder's Remark; may be nil
	tell   func(hold.Addresses, event.Event) // the Holder's ObserveAddresses; may be nil

	failure string // the last reason why the addresses could not be put in place

	mu    sync.Mutex // serializes the calls of notify and tell
	facts hold.Addresses
}

func newReporter(h Holder, cfg *Config) *reporter {
	r := &reporter{name: cfg.Name, addrs: cfg.addrs(), log: cfg.Logger, notify: cfg.Notify}
	r.facts = hold.Addresses{Role: r.name, Addrs: r.addrs}
	if h, ok := h.(interface{ Remark(role, text string) }); ok {
		r.status = h.Remark
	}
	if h, ok := h.(hold.Observer); ok {
		r.tell = h.ObserveAddresses
	}
	return r
}

// event logs an event and passes it to the program and the Observer. Of the facts it changes those
// that follow from its kind.
func (r *reporter) event(e Event) { r.eventWith(e, func(*hold.Addresses) {}) }

// eventWith is event. change changes other facts.
func (r *reporter) eventWith(e Event, change func(*hold.Addresses)) {
	e.Time, e.Name, e.Addrs = time.Now(), r.name, r.addrs
	o := observed(e)
	log := r.log.Info
	if o.Severity == event.Warn {
		log = r.log.Warn
	}
	log("floating address: "+string(e.Kind), "addrs", e.Addrs, "fence", e.Fence, "took", e.Took, "why", e.Err)
	r.mu.Lock()
	defer r.mu.Unlock()
	follow(&r.facts, e.Kind)
	change(&r.facts)
	r.observe(o)
	if r.notify != nil {
		r.notify(e)
	}
}

// set changes the facts. The Observer learns of it if that makes a difference.
func (r *reporter) set(change func(*hold.Addresses)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.facts
	change(&r.facts)
	if now := r.facts; now.Bound != was.Bound || now.Usable != was.Usable || now.Conflict != was.Conflict {
		r.observe(event.Event{})
	}
}

// unbound records that the addresses are not here any more, for a reason that is reported later.
func (r *reporter) unbound() { r.set(func(a *hold.Addresses) { a.Bound = false }) }

// competes records that this node competes for the addresses. Whether another machine claims one
// shows when it gets them.
func (r *reporter) competes() {
	r.set(func(a *hold.Addresses) { a.Usable, a.Conflict = true, "" })
}

// claimed records which other machine claims an address. Empty: none does.
func (r *reporter) claimed(by string) { r.set(func(a *hold.Addresses) { a.Conflict = by }) }

// begin tells the Observer of the addresses.
func (r *reporter) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.observe(event.Event{})
}

// end tells the Observer that Run has ended. For addresses that were kept until then that is an
// event.
func (r *reporter) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var e event.Event
	if r.facts.Bound {
		e = observed(Event{Kind: Moved, Addrs: r.addrs})
		e.Text = "the floating addresses were removed, since the program competes for them no more"
	}
	r.facts = hold.Addresses{Role: r.name, Addrs: r.addrs, Gone: true}
	r.observe(e)
}

// observe passes the facts and an event to the Observer. r.mu is held.
func (r *reporter) observe(e event.Event) {
	if r.tell != nil {
		a := r.facts
		a.Addrs = slices.Clone(a.Addrs)
		r.tell(a, e)
	}
}

// remark puts a text about the addresses on this node into the cluster's status. Empty removes it.
func (r *reporter) remark(text string) {
	if r.status != nil {
		r.status(r.name, text)
	}
}

// unable reports why the addresses cannot be put in place. The same reason again is no new event.
func (r *reporter) unable(why error) {
	pauses := func(a *hold.Addresses) { a.Usable, a.Conflict = false, "" }
	if why.Error() != r.failure {
		r.eventWith(Event{Kind: Failed, Err: why}, pauses)
	} else {
		r.set(pauses)
	}
	r.failure = why.Error()
	r.remark(fmt.Sprintf("cannot be put in place here: %v", why))
}

// again makes the next call of unable report an event, whatever the reason.
func (r *reporter) again() { r.failure = "" }

// able reports that the addresses have been put in place.
func (r *reporter) able() {
	r.again()
	r.remark("")
}
