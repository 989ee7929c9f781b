package certs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/hostname"
)

const (
	retryLook = 5 * time.Second // between looks into the storage meanwhile: another node may have been luckier

	orderJitter = 250 * time.Millisecond // at most, before an order: nodes that start together shall not all want the lock of a name
	orderSettle = time.Second            // more, when the certificate was deleted: certmagic deletes its parts one by one
	orderLimit  = 5 * time.Minute        // for one try: the lock, which another node may hold for its order, and the order
)

var (
	// errOrderLimit ends a try.
	errOrderLimit = errors.New("a try has taken too long")

	// errOtherName says that a certificate is stored in the wrong place.
	errOtherName = errors.New("the stored certificate is for another name")

	// errNotValid says that an order was in vain.
	errNotValid = errors.New("the authority's new certificate is not valid by this node's clock; one of the two clocks is wrong")
)

// start starts obtain for a name, or has the one that runs look once more before it ends. c.mu is held.
func (c *Certs) start(name string) {
	m := c.names[name]
	if m.running || c.closed {
		m.again = true
		return
	}
	m.running = true
	c.work.Go(func() { c.obtain(c.life, name) })
}

// finish reports whether obtain has nothing left to do.
func (c *Certs) finish(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.names[name]
	m.running, m.again = m.again, false
	return !m.running
}

// obtain tries until name has a certificate; certmagic renews it from then on. The retries are ours because certmagic's keep the
// cluster-wide lock of the name for up to 30 days, and do not happen at all when the storage fails. When several nodes try
// at once one of them has the lock, and the others find its certificate in the storage when they get it.
//
// What the storage has is served before that, even if the cluster has no leader. An order that fails is followed by a quick one,
// unless the name leads to somebody else, and then by slow ones, whichever node places them; see pauses. One of those is brought
// forward when the name is seen to lead here.
func (c *Certs) obtain(ctx context.Context, name string) {
	if c.refresh(ctx, name) == nil && c.serves(name) {
		c.note(name, nil)
	}
	var pauses retries
	led := false
	for {
		l, err := c.try(ctx, name, led)
		if ctx.Err() != nil {
			return
		}
		c.note(name, l.explain(err))
		if err == nil {
			c.Log.Info("certificate is being served", "domain", name)
			if c.finish(name) {
				return
			}
			pauses = retries{}
			continue
		}
		wait := pauses.next(l)
		pause := wait/2 + rand.N(wait) // nodes that failed together do not try again together
		if x, left := c.pauses.Get(backoff.OfName(name)); errors.As(err, new(*backoff.Error)) || left > 0 && x.Failures > 0 {
			if p := c.pauses.For(name, c.config.Issuers, false); p != nil { // the cluster's pause, which all nodes know
				pause = time.Until(p.Until) + time.Second + rand.N(backoff.RetryFirst)
			}
		} else if errors.As(err, new(*clocks.Error)) {
			pause = backoff.RetryLimit/2 + rand.N(backoff.RetryLimit)
		}
		c.scheduled(name, time.Now().Add(pause))
		c.complain(name, l.explain(err), pause)
		var leads func(context.Context) bool
		if led = false; !l.here && !c.SolvesDNS() && time.Since(pauses.led) > backoff.RetryLed {
			looks := c.watch(name, func(l lead) { c.note(name, l.explain(err)) })
			leads = func(ctx context.Context) bool {
				if looks(ctx) {
					led, pauses.led = true, time.Now()
				}
				return led
			}
		}
		if c.await(ctx, name, pause, leads) {
			c.note(name, nil)
			c.Log.Info("certificate of another node is being served", "domain", name)
			if c.finish(name) {
				return
			}
			pauses = retries{}
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// try makes one attempt to load, obtain or renew the certificate of name. It orders nothing if the storage has one that is valid: certmagic
// sees to it when that is due. It returns where the name led before an order.
func (c *Certs) try(ctx context.Context, name string, led bool) (lead, error) {
	if err := c.Ready(ctx); err != nil {
		return lead{}, err
	}
	err := c.refresh(ctx, name)
	if err == nil && len(c.matching(name)) == 0 {
		err = errOtherName
	}
	switch {
	case err == nil && c.serves(name):
		return lead{}, nil
	case errors.Is(err, fs.ErrNotExist):
		c.absent(name)
	case err != nil:
		if err := c.setAside(ctx, name, err); err != nil {
			return lead{}, err
		}
	}
	if err := c.mayOrder(name, led); err != nil {
		return lead{}, err
	}
	pause := rand.N(orderJitter)
	if c.serves(name) {
		pause += orderSettle
	}
	select {
	case <-ctx.Done():
		return lead{}, ctx.Err()
	case <-time.After(pause):
	}
	sought := make(chan lead, 1)
	go func() { sought <- c.seek(ctx, name) }()
	c.AwaitPeers(ctx)
	l := <-sought
	if err := c.order(ctx, name, false, attempt{lead: l, led: led}); err != nil {
		return l, err
	}
	if err := c.refresh(ctx, name); err != nil {
		return l, err
	}
	if !c.serves(name) {
		return l, errNotValid
	}
	return l, nil
}

// mayOrder returns why no order for name is placed now, nil if one may be.
func (c *Certs) mayOrder(name string, led bool) error {
	if err := c.Clocks.Check(c.clockLimit(name)); err != nil {
		return err
	}
	if p := c.pauses.For(name, c.config.Issuers, led); p != nil {
		return p
	}
	return nil
}

// clockLimit returns how wrong this node's clock may be for an order of name: little if its
// certificates are short-lived.
func (c *Certs) clockLimit(name string) time.Duration {
	limit := clocks.MaxOffset
	for _, x := range c.matching(name) {
		limit = min(limit, x.Lifetime()/clocks.LifetimeShare)
	}
	return max(limit, clocks.Tolerance)
}

// retries are the pauses between the tries for one name. The zero value comes before the first failure.
type retries struct {
	quick int           // how many were short
	slow  time.Duration // the last long one
	led   time.Time     // when the last was cut short because the name leads here now
}

// next returns about how long to pause after a failure of the storage, or of the network, while the name led where l says. For
// an order that an authority refused see pauses.
func (r *retries) next(l lead) time.Duration {
	if l.stranger {
		r.slow = min(max(2*r.slow, backoff.RetrySlow), backoff.RetryLast)
		return r.slow
	}
	r.quick++
	return min(backoff.RetryFirst<<min(r.quick-1, 10), backoff.RetryLimit)
}

// order has a certificate ordered that is not in the storage, or not a valid one, unless another node does it: once it has the lock
// of the name, certmagic looks again. With force it does not, and there is an order in any case.
func (c *Certs) order(ctx context.Context, name string, force bool, a attempt) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := time.AfterFunc(orderLimit, func() { cancel(errOrderLimit) })
	defer limit.Stop()
	a.limit = limit
	// certmagic's limit of orders in a process would have declared names wait behind those on demand. It lets further attempts pass.
	second := 1
	ctx = context.WithValue(context.WithValue(ctx, attemptKey{}, a), certmagic.AttemptsCtxKey, &second)
	err := c.config.RenewCertSync(ctx, name, force)
	if err != nil && context.Cause(ctx) == errOrderLimit {
		return fmt.Errorf("%w: %w", errOrderLimit, err)
	}
	return err
}

// attempt is what is known of an order before it is placed. The zero attempt is certmagic's own, when a certificate is due.
type attempt struct {
	limit  *time.Timer // ends it
	lead   lead        // where the name led
	led    bool        // it was brought forward because the name leads here now
	demand bool        // for a name on demand
}

// attemptKey is the context's key for an attempt.
type attemptKey struct{}

// await waits for d, or until led, if not nil, says that this is enough, or until the storage has a certificate for name, and reports whether
// it has.
func (c *Certs) await(ctx context.Context, name string, d time.Duration, led func(context.Context) bool) bool {
	for end := time.Now().Add(d); ; {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(min(time.Until(end), retryLook)):
		}
		if c.refresh(ctx, name) == nil && c.serves(name) {
			return true
		}
		if !time.Now().Before(end) || led != nil && led(ctx) {
			return false
		}
	}
}

// refresh makes this node serve the certificate that the storage has for name, whoever obtained it, at once: certmagic by itself looks
// only when the one in memory is due.
func (c *Certs) refresh(ctx context.Context, name string) error {
	// One at a time: of two, the slower might remove what the other has just put there.
	done, err := c.turn(ctx, c.site(name))
	if err != nil {
		return err
	}
	defer done()
	c.mu.Lock()
	first := c.names[name] != nil && c.names[name].none
	c.mu.Unlock()
	if first {
		if has, err := c.inStorage(ctx, name); err == nil && has {
			c.Barrier(ctx) // others show a self-signed one until they have this, and none may after this node has not
		}
	}
	old := c.matching(name)
	cert, err := c.config.CacheManagedCertificate(ctx, name)
	if err != nil {
		return err
	}
	c.present(name)
	// A handshake takes the first that is valid, so the older ones have to go, after the new one is there.
	var stale []string
	for _, o := range old {
		if o.Hash() != cert.Hash() && slices.Equal(o.Names, cert.Names) && (o.Expired() || !cert.Expired()) {
			stale = append(stale, o.Hash())
		}
	}
	if len(stale) > 0 {
		c.cache.Remove(stale)
		c.Log.Info("a newer certificate is being served", "domain", name, "serial", cert.Leaf.SerialNumber.Text(16))
	}
	return nil
}

// inStorage reports whether the storage has a certificate for name, which may be damaged. An error says that it cannot know.
func (c *Certs) inStorage(ctx context.Context, name string) (bool, error) {
	for _, i := range c.config.Issuers {
		_, err := c.config.Storage.Stat(ctx, certmagic.StorageKeys.SiteCert(i.IssuerKey(), c.site(name)))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return err == nil, err
		}
	}
	return false, nil
}

// turn waits until nobody else refreshes what is in this directory of the storage; done lets the next one do it.
func (c *Certs) turn(ctx context.Context, site string) (done func(), err error) {
	for {
		c.mu.Lock()
		busy := c.turns[site]
		if busy == nil {
			mine := make(chan struct{})
			c.turns[site] = mine
			c.mu.Unlock()
			return func() {
				c.mu.Lock()
				delete(c.turns, site)
				c.mu.Unlock()
				close(mine)
			}, nil
		}
		c.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// site returns the directory in the storage, below the issuer's, that certmagic keeps the certificate of name in.
func (c *Certs) site(name string) string { return certmagic.StorageKeys.Safe(c.subject(name)) }

// subject returns the name that is ordered for name.
func (c *Certs) subject(name string) string {
	if c.config.SubjectTransformer != nil {
		return c.config.SubjectTransformer(c.life, name)
	}
	return name
}

// matching returns the certificates in memory that name itself, or a wildcard for it, is on.
func (c *Certs) matching(name string) []certmagic.Certificate {
	if len(name) > hostname.MaxLength {
		return nil
	}
	return slices.DeleteFunc(c.cache.AllMatchingCertificates(name), func(x certmagic.Certificate) bool { return x.Leaf == nil })
}

// serves reports whether a certificate for name is in memory that has not expired.
func (c *Certs) serves(name string) bool {
	return slices.ContainsFunc(c.matching(name), func(x certmagic.Certificate) bool { return !x.Expired() })
}
