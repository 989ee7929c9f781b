package vip

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/hold"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

var errLease = errors.New("no majority")

// observing is a cluster that records what an Observer is told.
type observing struct {
	*fakeCluster
	t    *testing.T
	seen list[string]

	mu   sync.Mutex
	lose chan struct{} // closed: the next tenure is lost; nil: none is
	back chan struct{} // closed: there is another one after that
	lost bool
	next hold.Holder // who holds the role
}

// Holder is a method of Node.
func (o *observing) Holder(string) hold.Holder {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.next
}

// HoldPublic implements PublicHolder.
func (o *observing) HoldPublic(ctx context.Context, r hold.Role, p hold.Public, f func(context.Context, hold.Tenure) error) error {
	o.mu.Lock()
	lose, lost := o.lose, o.lost
	o.mu.Unlock()
	if lose == nil {
		return o.fakeCluster.HoldPublic(ctx, r, p, f)
	}
	if lost {
		select {
		case <-o.back:
			return o.fakeCluster.HoldPublic(ctx, r, p, f)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	held, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		<-lose
		o.mu.Lock()
		o.lost = true
		o.mu.Unlock()
		cancel(errLease)
	}()
	return f(held, fakeTenure{grantedUntil{time.Now().Add(24 * time.Hour)}, o.fakeCluster})
}

// ObserveAddresses implements hold.Observer.
func (o *observing) ObserveAddresses(a hold.Addresses, e event.Event) {
	text := ""
	for _, fact := range []struct {
		is   bool
		text string
	}{{a.Bound, "bound "}, {a.Usable, "usable "}, {a.Conflict != "", "conflict:" + a.Conflict + " "}, {a.Gone, "gone "}} {
		if fact.is {
			text += fact.text
		}
	}
	if e.Kind != "" {
		text += fmt.Sprintf("| %s %s of %s", e.Severity, e.Kind, e.Subject)
		if e.Cause != "" {
			text += ": " + e.Cause
		}
		if e.Text == "" {
			o.t.Errorf("%s has no text", e.Kind)
		}
		e.Severity, e.Kind, e.Subject, e.Cause, e.Text = "", "", "", "", ""
	}
	if diff := cmp.Diff(event.Event{}, event.Event{Number: e.Number, Time: e.Time, Node: e.Node, From: e.From, To: e.To, Key: e.Key}); diff != "" {
		o.t.Errorf("what the recorder sets: %s", diff)
	}
	if got := fmt.Sprint(a.Role, a.Addrs); got != "vip/192.0.2.1[192.0.2.1/24 2001:db8::1/64]" {
		o.t.Errorf("the role and its addresses: %s", got)
	}
	a.Addrs[0] = netip.Prefix{} // they are the Observer's own
	o.seen.add(strings.TrimSpace(text))
}

// oddPlace is a fakePlace with faults of its own.
type oddPlace struct {
	*fakePlace
	other    string // who answers for the addresses
	mended   atomic.Bool
	stuck    error // of Release
	unusable atomic.Bool
	silent   error          // of Announce
	claimed  *ConflictError // comes when the addresses are there
}

func (p *oddPlace) Attach(context.Context, Unit) (Place, error) { return p, nil }
func (p *oddPlace) Mend(context.Context) (bool, error)          { return p.mended.Swap(false), nil }

func (p *oddPlace) Probe(context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.other, nil
}

func (p *oddPlace) Release(ctx context.Context) error {
	if p.stuck != nil {
		return p.stuck
	}
	return p.fakePlace.Release(ctx)
}

func (p *oddPlace) Usable() error {
	if p.unusable.Load() {
		return errCable
	}
	return nil
}

func (p *oddPlace) Announce() error {
	if p.silent != nil {
		return p.silent
	}
	return p.fakePlace.Announce()
}

// An Observer learns of the facts about the addresses and of events, from the beginning of Run to
// its end.
func TestObserver(t *testing.T) {
	const (
		both    = "192.0.2.1, 2001:db8::1"
		bound   = "bound usable | info address_bound of " + both
		kept    = "bound usable | warn address_kept of " + both + ": no majority"
		planned = "usable | info address_released of " + both + ": context canceled"
		gone    = "gone"
	)
	mac := foreign(1).String()
	claim := &ConflictError{Addr: netip.MustParseAddr("192.0.2.1"), MAC: foreign(1)}
	claimed := "bound usable conflict:" + mac + " | warn address_conflict of " + both + ": " + claim.Error()
	asks := &ConflictError{Addr: claim.Addr, MAC: claim.MAC, Probe: true}
	for _, test := range []struct {
		name  string
		cfg   Config
		fault func(p *oddPlace)               // of the place; nil: none
		lose  bool                            // the lease is lost
		run   func(c *observing, p *oddPlace) // what happens then, before the program ends
		want  []string
	}{
		{name: "from grant to end", want: []string{"", "usable", bound, planned, gone}},
		{
			name: "cannot be put in place",
			run: func(_ *observing, p *oddPlace) {
				p.change(func() { p.checkErr = nil })
				time.Sleep(time.Millisecond)
			},
			fault: func(p *oddPlace) { p.checkErr = errCable },
			want:  []string{"", "| warn address_failed of " + both + ": the cable is on fire", "usable", bound, planned, gone},
		},
		{
			name: "fails",
			run: func(_ *observing, p *oddPlace) {
				p.set(func() { p.bindErr = nil })
				time.Sleep(time.Second)
			},
			fault: func(p *oddPlace) { p.bindErr = errCable },
			want: []string{
				"", "usable", "| warn address_failed of " + both + ": the address cannot be put in place: the cable is on fire",
				"usable", bound, planned, gone,
			},
		},
		{
			name: "not usable for a while",
			run: func(_ *observing, p *oddPlace) {
				p.change(func() { p.unusable.Store(true) })
				time.Sleep(time.Millisecond)
				synctest.Wait()
				p.change(func() { p.unusable.Store(false) })
				time.Sleep(time.Millisecond)
			},
			want: []string{
				"", "usable", bound, "usable | info address_released of " + both + ": " + errUnfit.Error() + ": the cable is on fire",
				"", "usable", bound, planned, gone,
			},
		},
		{
			name: "mended",
			run: func(_ *observing, p *oddPlace) {
				p.change(func() { p.mended.Store(true) })
				time.Sleep(time.Millisecond)
			},
			want: []string{"", "usable", bound, "bound usable | info address_mended of " + both, planned, gone},
		},
		{
			name:  "cannot be announced",
			run:   func(_ *observing, p *oddPlace) { time.Sleep(150 * time.Millisecond) },
			fault: func(p *oddPlace) { p.silent = errCable },
			want: []string{
				"", "usable", bound, "bound usable | warn address_failed of " + both + ": the cable is on fire", planned, gone,
			},
		},
		{
			name: "claimed by another",
			run: func(_ *observing, p *oddPlace) {
				p.claims <- claim
				time.Sleep(2 * conflictOver)
			},
			want: []string{
				"", "usable", bound, claimed,
				"bound usable", planned, gone,
			},
		},
		{
			name: "claimed by another to the end",
			run: func(_ *observing, p *oddPlace) {
				p.claims <- claim
				time.Sleep(time.Second)
			},
			want: []string{"", "usable", bound, claimed, planned, gone},
		},
		{
			name: "claimed by another, and kept",
			cfg:  Config{Quorum: Keep}, lose: true,
			fault: func(p *oddPlace) { p.claimed = claim },
			want:  []string{"", "usable", bound, claimed, kept, "gone | info address_released of " + both},
		},
		{
			name: "asked for by another",
			run: func(_ *observing, p *oddPlace) {
				p.claims <- asks
				time.Sleep(time.Second)
			},
			want: []string{"", "usable", bound, "bound usable | warn address_conflict of " + both + ": " + asks.Error(), planned, gone},
		},
		{
			name: "given up to another",
			cfg:  Config{Conflict: Yield},
			run: func(_ *observing, p *oddPlace) {
				p.claims <- claim
				p.claims <- claim
				time.Sleep(conflictPause + time.Second)
			},
			want: []string{
				"", "usable", bound, claimed,
				"usable conflict:" + mac,
				"conflict:" + mac + " | warn address_conflict of " + both + ": " + errConflict.Error() + ": " + claim.Error(),
				"usable", bound, planned, gone,
			},
		},
		{
			name:  "found at another",
			cfg:   Config{Probe: true},
			fault: func(p *oddPlace) { p.other = "router" },
			run: func(_ *observing, p *oddPlace) {
				p.set(func() { p.other = "" })
				time.Sleep(conflictPause + time.Second)
			},
			want: []string{
				"", "usable", "usable conflict:router",
				"conflict:router | warn address_conflict of " + both + ": " + errConflict.Error() + ": router",
				"usable", bound, planned, gone,
			},
		},
		{
			name: "lost",
			lose: true,
			want: []string{"", "usable", bound, "usable | warn address_released of " + both + ": no majority", gone},
		},
		{
			name: "kept to the end",
			cfg:  Config{Quorum: Keep}, lose: true,
			want: []string{"", "usable", bound, kept, "gone | info address_released of " + both},
		},
		{
			name: "kept until another has them",
			cfg:  Config{Quorum: Keep}, lose: true,
			run: func(c *observing, _ *oddPlace) {
				c.mu.Lock()
				c.next = hold.Holder{Fence: 8}
				c.mu.Unlock()
				time.Sleep(time.Second)
			},
			want: []string{
				"", "usable", bound, kept,
				"usable | warn address_released of " + both + ": the cluster is back, and another node has the address", gone,
			},
		},
		{
			name: "kept, and not bound again",
			cfg:  Config{Quorum: Keep}, lose: true,
			run: func(c *observing, p *oddPlace) {
				p.set(func() { p.bindErr = errCable })
				close(c.back)
			},
			want: []string{
				"", "usable", bound, kept, "usable",
				"| warn address_failed of " + both + ": the address cannot be put in place: the cable is on fire", gone,
			},
		},
		{
			name:  "cannot be handed over",
			fault: func(p *oddPlace) { p.stuck = errCable },
			want:  []string{"", "usable", bound, "usable", gone},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, c := &oddPlace{fakePlace: newFakePlace()}, &observing{fakeCluster: newFakeCluster(), t: t, back: make(chan struct{})}
				cfg := test.cfg
				if test.fault != nil {
					test.fault(p)
				}
				if test.lose {
					c.lose = make(chan struct{})
				}
				cfg.Addr, cfg.With, cfg.Binder = netip.MustParsePrefix("192.0.2.1/24"), []netip.Prefix{netip.MustParsePrefix("2001:db8::1/64")}, p
				end := start(t, c, cfg)
				synctest.Wait()
				if p.claimed != nil {
					p.claims <- p.claimed
					synctest.Wait()
				}
				if test.lose {
					close(c.lose)
					synctest.Wait()
				}
				if test.run != nil {
					test.run(c, p)
					synctest.Wait()
				}
				end()
				if diff := cmp.Diff(test.want, c.seen.get()); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		})
	}
}
