package certs

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/certs/probe"
	"github.com/flotilla-ha/flotilla/internal/certs/quarantine"
	"github.com/flotilla-ha/flotilla/internal/certs/slots"
	"github.com/flotilla-ha/flotilla/internal/clocks"
)

// orderTimeout is for one try: the lock, which another node may hold for its own order, and the
// order.
const orderTimeout = 5 * time.Minute

var (
	errOrderTimeout = errors.New("a try has taken too long")
	errNotValid     = errors.New("the authority's new certificate is not valid by this node's clock; one of the two clocks is wrong")
)

// orderer places orders, and decides whether one may be placed. Its methods are safe for concurrent
// use.
type orderer struct {
	loader     *loader
	backoff    *backoff.Backoff
	clocks     *clocks.Clocks
	quarantine *quarantine.Quarantine
	slots      *slots.Slots
	limited    bool // orders need slots
	meters     *Meters
	log        *slog.Logger

	refusals *atomic.Int64 // answers of authorities that were errors
	mu       sync.Mutex
	placed   map[string]*placedOrder // orders under way, by name
}

// attempt is what is known of an order before it is placed. certmagic's own orders, when a
// certificate is due, have the zero attempt.
type attempt struct {
	limit  *time.Timer   // ends it
	placed **placedOrder // is set to the order that came of it, unless it is nil
	lead   probe.Lead    // where the name led
	led    bool          // it was brought forward because the name leads here now
	demand bool          // for a name on demand
	again  bool          // there was a certificate when the try began
	// others may know the old key: it is not used again, and no name waits like one on demand
	fresh bool
}

// attemptKey is the context's key for an attempt.
type attemptKey struct{}

func attemptOf(ctx context.Context) attempt {
	a, _ := ctx.Value(attemptKey{}).(attempt)
	return a
}

// order has a certificate ordered, unless the storage has a valid one. certmagic looks for that
// again once it has the lock of the name: another node may have been faster. With force there is an
// order in any case.
func (o *orderer) order(ctx context.Context, name string, force bool, a attempt) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := time.AfterFunc(orderTimeout, func() { cancel(errOrderTimeout) })
	defer limit.Stop()
	if a.limit = limit; a.placed == nil {
		a.placed = new(*placedOrder)
	}
	// certmagic's limit of orders in a process would make declared names wait behind those on
	// demand. It does not hold for further attempts.
	second := 1
	ctx = context.WithValue(context.WithValue(ctx, attemptKey{}, a), certmagic.AttemptsCtxKey, &second)
	config := o.loader.config
	if a.fresh && config.ReusePrivateKeys {
		other := *config
		other.ReusePrivateKeys = false
		config = &other
	}
	err := config.RenewCertSync(ctx, name, force)
	o.returned(ctx, name, a, err)
	if err != nil && context.Cause(ctx) == errOrderTimeout {
		return fmt.Errorf("%w: %w", errOrderTimeout, err)
	}
	return err
}

// mayOrder returns why no order for name may be placed now, nil if one may. led says that the name
// leads here now.
func (o *orderer) mayOrder(name string, led bool) error {
	if err := o.clocks.Check(o.clockLimit(name)); err != nil {
		return err
	}
	if p := o.backoff.For(name, o.loader.config.Issuers, led); p != nil {
		return p
	}
	return nil
}

// clockLimit returns how wrong this node's clock may be for an order of name. It is short if the
// certificates of name are short-lived.
func (o *orderer) clockLimit(name string) time.Duration {
	limit := clocks.MaxOffset
	for _, x := range o.loader.matching(name) {
		limit = min(limit, x.Lifetime()/clocks.LifetimeShare)
	}
	return max(limit, clocks.Tolerance)
}

// admit decides, under the lock of the name, whether an order for it may be placed, and waits for a
// slot if orders are limited. demand says that the name is on demand. allowed, if not nil, asks the
// program. release takes the order back.
func (o *orderer) admit(
	ctx context.Context, name string, demand bool, allowed func(context.Context, string) error,
) (release func(), err error) {
	a := attemptOf(ctx)
	if err := o.mayOrder(name, a.led); err != nil {
		return nil, err
	}
	if allowed != nil {
		if err := allowed(ctx, name); err != nil {
			return nil, err
		}
	}
	if err := o.quarantine.Accounts(ctx); err != nil {
		return nil, err
	}
	release = func() {}
	if o.limited {
		if release, err = o.slot(ctx, a, demand && !a.fresh); err != nil {
			return nil, err
		}
		if err := o.mayOrder(name, a.led); err != nil {
			// other nodes may have learned something meanwhile
			release()
			return nil, err
		}
	}
	return release, nil
}

// slot waits for a slot. The time in the queue does not count for the attempt.
func (o *orderer) slot(ctx context.Context, a attempt, demand bool) (release func(), err error) {
	if a.limit != nil {
		a.limit.Stop()
		defer a.limit.Reset(orderTimeout)
	}
	return o.slots.Acquire(ctx, demand)
}

// failed records, for all nodes, that the authority refused an order for name. It records nothing
// if the authority could not be reached: another node may reach it.
func (o *orderer) failed(ctx context.Context, name string, issuers []string, err error) {
	order := o.ended(name)
	o.loader.notOrdered(name)
	refused := o.refusals.Load() > order.refusals
	if !backoff.Refused(err) && (!refused || errors.As(err, new(*backoff.Error))) {
		o.count(order, issuers, "failed")
		return
	}
	o.count(order, issuers, "refused")
	a := attemptOf(ctx)
	o.backoff.Fail(ctx, name, err, backoff.Failure{Away: a.lead.Away != nil, Stranger: a.lead.Stranger, Led: a.led})
}

// obtained records that an order for name has succeeded, unless the certificate is of no use.
func (o *orderer) obtained(ctx context.Context, name, issuer, place string) {
	order := o.ended(name)
	serial := ""
	text, err := o.loader.config.Storage.Load(ctx, place)
	if block, _ := pem.Decode(text); err == nil && block != nil {
		leaf, err := x509.ParseCertificate(block.Bytes)
		now := o.clocks.Now()
		if err == nil && (now.After(leaf.NotAfter) || now.Before(leaf.NotBefore.Add(-clocks.Tolerance))) {
			o.log.Error("the authority's new certificate is not valid by this node's clock; one of the two clocks is wrong",
				"domain", name, "from", leaf.NotBefore, "until", leaf.NotAfter, "now", now)
			o.backoff.Fail(ctx, name, errNotValid, backoff.Failure{Stranger: true})
			o.loader.notOrdered(name)
			o.count(order, []string{issuer}, "failed")
			return
		}
		if err == nil {
			serial = leaf.SerialNumber.Text(16)
		}
	}
	o.loader.ordered(name, serial)
	o.count(order, []string{issuer}, "ok")
	if all := o.loader.config.Issuers; len(all) > 1 && all[0].IssuerKey() != issuer {
		o.log.Warn("the first authority has given no certificate; another one has", "domain", name, "issuer", issuer)
	}
	switch {
	case attemptOf(ctx).fresh: // package rekey logs it
	case order.again:
		o.log.Info("a certificate was renewed", "event", event.CertificateRenewed, "domain", name, "issuer", issuer, "serial", serial)
	default:
		o.log.Info("a certificate was obtained", "event", event.CertificateObtained, "domain", name, "issuer", issuer, "serial", serial)
	}
	o.backoff.Drop(ctx, backoff.OfName(name))
}

// placedOrder is an order that is under way.
type placedOrder struct {
	refusals int64     // answers of authorities that were errors before it
	began    time.Time // when it was placed
	again    bool      // there was a certificate before
}

// action returns the label of an order.
func action(again bool) string {
	if again {
		return "renew"
	}
	return "obtain"
}

// begun records that an order for name is placed now. renewal says that the storage has a
// certificate for it.
func (o *orderer) begun(ctx context.Context, name string, renewal bool) {
	a := attemptOf(ctx)
	order := &placedOrder{refusals: o.refusals.Load(), began: time.Now(), again: renewal || a.again}
	if a.placed != nil {
		*a.placed = order
	} else { // certmagic renews it
		order.again = true
	}
	o.loader.ordering(name)
	o.mu.Lock()
	last := o.placed[name]
	o.placed[name] = order
	o.mu.Unlock()
	if last != nil {
		o.count(last, o.issuers(), "failed") // certmagic does not say when it could not store what it got
	}
}

// ended returns the order for name that is under way, and forgets it.
func (o *orderer) ended(name string) *placedOrder {
	o.mu.Lock()
	defer o.mu.Unlock()
	order := o.placed[name]
	delete(o.placed, name)
	if order == nil {
		order = &placedOrder{began: time.Now()}
	}
	return order
}

// returned counts how a try for name has ended, if certmagic has not said that.
func (o *orderer) returned(ctx context.Context, name string, a attempt, err error) {
	subject := o.loader.subject(name)
	switch order := *a.placed; {
	case order == nil && err == nil:
		o.count(&placedOrder{again: a.again}, []string{o.loader.issuerOf(ctx, name)}, "elsewhere")
	case order != nil:
		o.mu.Lock()
		open := o.placed[subject] == order
		if open {
			delete(o.placed, subject)
		}
		o.mu.Unlock()
		if open {
			o.loader.notOrdered(subject)
			o.count(order, o.issuers(), "failed")
		}
	}
}

// count counts an order that has ended.
func (o *orderer) count(order *placedOrder, issuers []string, result string) {
	for _, issuer := range issuers {
		o.meters.Orders.Inc(issuer, action(order.again), result)
	}
	if result == "ok" {
		o.meters.Order.Observe(time.Since(order.began))
	}
}

// issuers returns the keys of the issuers.
func (o *orderer) issuers() (keys []string) {
	for _, i := range o.loader.config.Issuers {
		keys = append(keys, i.IssuerKey())
	}
	return keys
}
