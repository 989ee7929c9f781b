package flotilla

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

const (
	retryFirst = time.Second      // after the first failure to get a certificate; doubled with each
	retryLimit = time.Minute      // between tries when the storage or the network failed
	retryQuick = 3                // such pauses at most before a try whose last order the CA refused, then
	retrySlow  = 5 * time.Minute  // doubled with each; Let's Encrypt takes five failures of a name in an hour
	retryLast  = time.Hour        // at most
	retryLed   = 10 * time.Minute // between tries that were brought forward because the name leads here now
	retryLook  = 5 * time.Second  // between looks into the storage meanwhile: another node may have been luckier

	orderJitter = 250 * time.Millisecond // at most, before an order: nodes that start together shall not all want the lock of a name
	orderSettle = time.Second            // more, when the certificate was deleted: certmagic deletes its parts one by one
	orderLimit  = 5 * time.Minute        // for one try: the lock, which another node may hold for its order, and the order
)

// errOrderLimit ends a try.
var errOrderLimit = errors.New("a try has taken too long")

// start starts obtain for a name, or has the one that runs look once more before it ends. c.mu is held.
func (c *certs) start(name string) {
	m := c.names[name]
	if m.running || c.closed {
		m.again = true
		return
	}
	m.running = true
	c.work.Go(func() { c.obtain(c.life, name) })
}

// finish reports whether obtain has nothing left to do.
func (c *certs) finish(name string) bool {
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
// What the storage has is served before that, even if the cluster has no leader. A failure is followed by a few quick tries, unless
// the name leads to somebody else, and then by slow ones; the first of those is made at once when the name is seen to lead here.
func (c *certs) obtain(ctx context.Context, name string) {
	if c.refresh(ctx, name) == nil && c.serves(name) {
		c.note(name, nil)
	}
	var pauses retries
	for {
		l, err := c.try(ctx, name)
		if ctx.Err() != nil {
			return
		}
		c.note(name, l.explain(err))
		if err == nil {
			c.log.Info("certificate is being served", "domain", name)
			if c.finish(name) {
				return
			}
			pauses = retries{}
			continue
		}
		wait := pauses.next(err, l)
		pause := wait/2 + rand.N(wait) // nodes that failed together do not try again together
		c.log.Warn("no certificate; will try again", "domain", name, "error", l.explain(err), "in", pause)
		var led func(context.Context) bool
		if !l.here && !c.solvesDNS() && time.Since(pauses.led) > retryLed {
			looks := c.watch(name, func(l lead) { c.note(name, l.explain(err)) })
			led = func(ctx context.Context) bool {
				here := looks(ctx)
				if here {
					pauses.led = time.Now()
				}
				return here
			}
		}
		if c.await(ctx, name, pause, led) {
			c.note(name, nil)
			c.log.Info("certificate of another node is being served", "domain", name)
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
func (c *certs) try(ctx context.Context, name string) (lead, error) {
	if err := c.ready(ctx); err != nil {
		return lead{}, err
	}
	err := c.refresh(ctx, name)
	switch {
	case err == nil && c.serves(name):
		return lead{}, nil
	case errors.Is(err, fs.ErrNotExist):
		c.absent(name)
	case err != nil:
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
	c.company(ctx)
	l := <-sought
	if err := c.order(ctx, name, false); err != nil {
		return l, err
	}
	return l, c.refresh(ctx, name)
}

// retries are the pauses between the tries for one name. The zero value comes before the first failure.
type retries struct {
	quick int           // how many were short
	slow  time.Duration // the last long one
	led   time.Time     // when the last was cut short because the name leads here now
}

// next returns about how long to pause after err, in an order while the name led where l says.
func (r *retries) next(err error, l lead) time.Duration {
	problem := acme.Problem{}
	if l.stranger || errors.As(err, &problem) && r.quick >= retryQuick {
		r.slow = min(max(2*r.slow, retrySlow), retryLast)
		return r.slow
	}
	r.quick++
	return min(retryFirst<<min(r.quick-1, 10), retryLimit)
}

// order has a certificate ordered that is not in the storage, or not a valid one, unless another node does it: once it has the lock
// of the name, certmagic looks again. With force it does not, and there is an order in any case.
func (c *certs) order(ctx context.Context, name string, force bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := time.AfterFunc(orderLimit, func() { cancel(errOrderLimit) })
	defer limit.Stop()
	err := c.config.RenewCertSync(context.WithValue(ctx, limitKey{}, limit), name, force)
	if err != nil && context.Cause(ctx) == errOrderLimit {
		return fmt.Errorf("%w: %w", errOrderLimit, err)
	}
	return err
}

// limitKey is the context's key for the *time.Timer that ends a try.
type limitKey struct{}

// await waits for d, or until led, if not nil, says that this is enough, or until the storage has a certificate for name, and reports whether
// it has.
func (c *certs) await(ctx context.Context, name string, d time.Duration, led func(context.Context) bool) bool {
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
func (c *certs) refresh(ctx context.Context, name string) error {
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
			c.settled(ctx) // others show a self-signed one until they have this, and none may after this node has not
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
		c.log.Info("a newer certificate is being served", "domain", name, "serial", cert.Leaf.SerialNumber.Text(16))
	}
	return nil
}

// inStorage reports whether the storage has a certificate for name, which may be damaged. An error says that it cannot know.
func (c *certs) inStorage(ctx context.Context, name string) (bool, error) {
	for _, i := range c.config.Issuers {
		_, err := c.config.Storage.Stat(ctx, certmagic.StorageKeys.SiteCert(i.IssuerKey(), c.site(name)))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return err == nil, err
		}
	}
	return false, nil
}

// turn waits until nobody else refreshes what is in this directory of the storage; done lets the next one do it.
func (c *certs) turn(ctx context.Context, site string) (done func(), err error) {
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
func (c *certs) site(name string) string {
	if c.config.SubjectTransformer != nil {
		name = c.config.SubjectTransformer(c.life, name)
	}
	return certmagic.StorageKeys.Safe(name)
}

// matching returns the certificates in memory that name itself, or a wildcard for it, is on.
func (c *certs) matching(name string) []certmagic.Certificate {
	if len(name) > longestName {
		return nil
	}
	return slices.DeleteFunc(c.cache.AllMatchingCertificates(name), func(x certmagic.Certificate) bool { return x.Leaf == nil })
}

// serves reports whether a certificate for name is in memory that has not expired.
func (c *certs) serves(name string) bool {
	return slices.ContainsFunc(c.matching(name), func(x certmagic.Certificate) bool { return !x.Expired() })
}
