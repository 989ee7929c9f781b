package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/errs"
)

// Certificates on demand: a name that was not declared gets one when a handshake asks for it and
// TLS.Configure's OnDemand decides so. They are beside the declared ones and take nothing from them:
// their orders have slots of their own, see orders.go. certmagic itself knows nothing of this, for its
// way would make the declared names wait for handshakes, hold the lock of a name through hours of
// retries, and have a handshake wait for the renewal of what this node's clock takes for expired.
//
// Once loaded they are renewed as the others are, after OnDemand was asked again.

const (
	demandWait   = time.Minute // for a handshake, at most; clients wait less
	demandAtOnce = 64          // names of a node that are being loaded or ordered
	demandShown  = 100         // in status
)

// errDemand refuses a client while too many names are being ordered.
var errDemand = errors.New("flotilla: too many certificates are being ordered on demand; try again")

// deniedError says that the program does not want a certificate for a name.
type deniedError struct{ err error }

func (e *deniedError) Error() string { return "the decision function refuses it: " + e.err.Error() }
func (e *deniedError) Unwrap() error { return e.err }

// askedNames are the names that handshakes have asked for. Its methods are safe for concurrent use.
type askedNames struct {
	config *certmagic.OnDemandConfig // nil: there are none

	mu     sync.Mutex
	orders map[string]*demand // under way
	served map[string]Status  // what is in memory, by name
	view   []Status           // those of served that status shows; nil: it is to be made anew
}

// demand is a name that is being loaded or ordered.
type demand struct {
	done chan struct{} // closed at the end
	err  error
}

// allowed asks the program whether name may have a certificate.
func (d *askedNames) allowed(ctx context.Context, name string) error {
	if d.config == nil {
		return errUnknownName
	}
	if !certmagic.SubjectQualifiesForCert(name) {
		return errUnknownName
	}
	if err := d.config.DecisionFunc(ctx, name); err != nil {
		return &deniedError{err}
	}
	return nil
}

// managed returns what one of OnDemand's Managers has for a client; nil: none has anything.
func (d *askedNames) managed(hello *tls.ClientHelloInfo) (cert *tls.Certificate, err error) {
	for _, m := range d.config.Managers {
		if cert, err = m.GetCertificate(hello.Context(), hello); cert != nil {
			return cert, nil
		}
	}
	return nil, err
}

// isDemanded reports whether name is not declared and handshakes may have it ordered.
func (c *Certs) isDemanded(name string) bool {
	if c.demands.config == nil || name == "" {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.find(name) == nil
}

// demanded sees to it that there is a certificate for a client that asks for a name which was not
// declared, or returns one that is somebody else's to manage.
func (c *Certs) demanded(hello *tls.ClientHelloInfo, name string) (*tls.Certificate, error) {
	if len(c.matching(name)) > 0 {
		return nil, nil
	}
	c.Limit.Release(hello.Conn)
	if cert, err := c.demands.managed(hello); cert != nil || err != nil {
		return cert, err
	}
	ctx, cancel := context.WithTimeout(hello.Context(), demandWait)
	defer cancel()
	if err := c.demands.allowed(ctx, name); err != nil {
		return nil, err
	}
	d, err := c.demand(name)
	if err != nil {
		return nil, err
	}
	select {
	case <-d.done:
		return nil, d.err
	case <-ctx.Done():
		return nil, fmt.Errorf("flotilla: a certificate on demand: %w", ctx.Err())
	}
}

// demand has name loaded or ordered, once for all who ask at that time. It does not end with them.
func (c *Certs) demand(name string) (*demand, error) {
	c.demands.mu.Lock()
	defer c.demands.mu.Unlock()
	if d := c.demands.orders[name]; d != nil {
		return d, nil
	}
	if len(c.demands.orders) >= demandAtOnce {
		return nil, errDemand
	}
	if c.life.Err() != nil {
		return nil, errs.Closed
	}
	d := &demand{done: make(chan struct{})}
	c.demands.orders[name] = d
	c.tasks.Go(func() {
		err := c.fetch(c.life, name)
		c.demands.mu.Lock()
		delete(c.demands.orders, name)
		c.demands.mu.Unlock()
		if d.err = err; err != nil {
			level := slog.LevelWarn
			if errors.As(err, new(*backoff.Error)) || c.life.Err() != nil {
				level = slog.LevelDebug // it was told when it happened
			}
			c.Log.Log(c.life, level, "no certificate on demand", "domain", name, "error", err)
		}
		close(d.done)
	})
	return d, nil
}

// fetch loads the certificate of a name on demand, or orders it.
func (c *Certs) fetch(ctx context.Context, name string) error {
	err := c.refresh(ctx, name)
	switch {
	case err == nil && (c.serves(name) || c.Clocks.Check(clocks.MaxOffset) != nil):
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		if err := c.setAside(ctx, name, err); err != nil {
			return err
		}
	}
	if err := c.Ready(ctx); err != nil {
		return err
	}
	if err := c.order(ctx, name, false, attempt{demand: true}); err != nil {
		return err
	}
	return c.refresh(ctx, name)
}

// renewable asks whether a certificate on demand that is in memory may be renewed. One that may not is
// no longer served.
func (c *Certs) renewable(ctx context.Context, name string) error {
	err := c.demands.allowed(ctx, name)
	if denied := (*deniedError)(nil); errors.As(err, &denied) {
		c.Log.Warn("a certificate on demand is not wanted any more, and not renewed", "domain", name, "error", err)
		c.withdraw(name)
	}
	return err
}

// withdraw takes the certificates of exactly this name out of memory.
func (c *Certs) withdraw(name string) {
	var gone []string
	for _, x := range c.matching(name) {
		if slices.Contains(x.Names, name) {
			gone = append(gone, x.Hash())
		}
	}
	c.cache.Remove(gone)
	c.demands.forget(name)
	c.Changed()
}

// learn takes down certificates that were loaded for names which are not declared.
func (c *Certs) learn(names []string) {
	for _, name := range names {
		if !c.isDemanded(name) {
			continue
		}
		site := certmagic.StorageKeys.Safe(name)
		c.mu.Lock()
		if !slices.Contains(c.sites[site], name) {
			c.sites[site] = append(c.sites[site], name)
		}
		c.mu.Unlock()
		if found := c.matching(name); len(found) > 0 {
			s := Status{Domain: name, Managed: true, OnDemand: true}
			s.show(found)
			c.demands.mu.Lock()
			c.demands.served[name], c.demands.view = s, nil
			c.demands.mu.Unlock()
			c.Changed()
		}
	}
}

// forget drops what is known of a name.
func (d *askedNames) forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.served, name)
	d.view = nil
}

// status returns those that expire first, and how many there are.
func (d *askedNames) status() (first []Status, all int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.view == nil && len(d.served) > 0 {
		for _, s := range d.served {
			d.view = append(d.view, s)
		}
		slices.SortFunc(d.view, func(a, b Status) int {
			return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.Domain, b.Domain))
		})
		d.view = slices.Clone(d.view[:min(len(d.view), demandShown)])
	}
	return d.view, len(d.served)
}
