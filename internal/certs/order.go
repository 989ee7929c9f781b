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
	log        *slog.Logger

	refusals *atomic.Int64 // answers of authorities that were errors
	mu       sync.Mutex
	before   map[string]int64 // refusals before the order for a name that is under way
}

// attempt is what is known of an order before it is placed. certmagic's own orders, when a
// certificate is due, have the zero attempt.
type attempt struct {
	limit  *time.Timer // ends it
	lead   probe.Lead  // where the name led
	led    bool        // it was brought forward because the name leads here now
	demand bool        // for a name on demand
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
	a.limit = limit
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
	o.mu.Lock()
	defer o.mu.Unlock()
	o.before[name] = o.refusals.Load()
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
func (o *orderer) failed(ctx context.Context, name string, err error) {
	o.mu.Lock()
	refused := o.refusals.Load() > o.before[name]
	delete(o.before, name)
	o.mu.Unlock()
	if !backoff.Refused(err) && (!refused || errors.As(err, new(*backoff.Error))) {
		return
	}
	a := attemptOf(ctx)
	o.backoff.Fail(ctx, name, err, backoff.Failure{Away: a.lead.Away != nil, Stranger: a.lead.Stranger, Led: a.led})
}

// obtained records that an order for name has succeeded, unless the certificate is of no use.
func (o *orderer) obtained(ctx context.Context, name, place string) {
	o.mu.Lock()
	delete(o.before, name)
	o.mu.Unlock()
	text, err := o.loader.config.Storage.Load(ctx, place)
	if block, _ := pem.Decode(text); err == nil && block != nil {
		leaf, err := x509.ParseCertificate(block.Bytes)
		now := o.clocks.Now()
		if err == nil && (now.After(leaf.NotAfter) || now.Before(leaf.NotBefore.Add(-clocks.Tolerance))) {
			o.log.Error("the authority's new certificate is not valid by this node's clock; one of the two clocks is wrong",
				"domain", name, "from", leaf.NotBefore, "until", leaf.NotAfter, "now", now)
			o.backoff.Fail(ctx, name, errNotValid, backoff.Failure{Stranger: true})
			return
		}
	}
	o.backoff.Drop(ctx, backoff.OfName(name))
}
