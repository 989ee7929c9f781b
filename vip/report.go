package vip

import (
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// reporter reports what happens to the addresses: to the program, the log and the cluster's status.
type reporter struct {
	name   string // of the role
	addrs  []netip.Prefix
	log    *slog.Logger
	notify func(Event)             // Config.Notify; may be nil
	status func(role, text string) // the Holder's Remark; may be nil

	failure string // the last reason why the addresses could not be put in place

	mu sync.Mutex // serializes the calls of notify
}

func newReporter(h Holder, cfg *Config) *reporter {
	r := &reporter{name: cfg.Name, addrs: cfg.addrs(), log: cfg.Logger, notify: cfg.Notify}
	if h, ok := h.(interface{ Remark(role, text string) }); ok {
		r.status = h.Remark
	}
	return r
}

// event logs an event and passes it to the program.
func (r *reporter) event(e Event) {
	e.Time, e.Name, e.Addrs = time.Now(), r.name, r.addrs
	log := r.log.Info
	if e.Kind == Conflict || e.Kind == Failed || e.Kind == Lost || e.Kind == Kept {
		log = r.log.Warn
	}
	log("floating address: "+string(e.Kind), "addrs", e.Addrs, "fence", e.Fence, "took", e.Took, "why", e.Err)
	if r.notify != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.notify(e)
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
	if why.Error() != r.failure {
		r.event(Event{Kind: Failed, Err: why})
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
