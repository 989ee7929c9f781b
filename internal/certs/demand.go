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

	"github.com/flotilla-ha/flotilla/event"
	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/notify"
)

const (
	demandWait   = time.Minute // for a handshake, at most; clients wait less
	demandAtOnce = 64          // names of a node that are being loaded or ordered
	demandShown  = 100         // in status
)

// errDemand refuses a client while too many names are being ordered.
var errDemand = errors.New("flotilla: too many certificates are being ordered on demand; try again")

// deniedError means that the program does not want a certificate for a name.
type deniedError struct{ err error }

func (e *deniedError) Error() string { return "the decision function refuses it: " + e.err.Error() }
func (e *deniedError) Unwrap() error { return e.err }

// demands are the names on demand: a name that was not declared gets a certificate when a handshake
// asks for it and TLS.Configure's OnDemand allows it. They take nothing from the declared names:
// their orders have slots of their own. Once loaded they are renewed as the others are, after
// OnDemand was asked again.
//
// certmagic knows nothing of this. It would make the declared names wait for handshakes, hold the
// lock of a name through hours of retries, and make a handshake wait for the renewal of a
// certificate that has expired by this node's clock only.
type demands struct {
	config  *certmagic.OnDemandConfig // nil: there are none
	loader  *loader
	orders  *orderer
	ready   func(context.Context) error
	release func(tls *tls.ClientHelloInfo) // lets other handshakes go on while this one waits
	log     *slog.Logger

	life  context.Context
	tasks notify.Tasks

	mu    sync.Mutex
	asked map[string]*demandOrder // under way
	known map[string]Status       // what is in memory, by name
	view  []Status                // those of known that status shows; nil: to be made anew
}

// demandOrder is a name that is being loaded or ordered.
type demandOrder struct {
	done chan struct{} // closed at the end
	err  error
}

// has reports whether name is not declared and handshakes may have it ordered.
func (d *demands) has(name string) bool {
	return d.config != nil && name != "" && !d.loader.names.manages(name)
}

// allowed asks the program whether name may have a certificate.
func (d *demands) allowed(ctx context.Context, name string) error {
	if d.config == nil || !certmagic.SubjectQualifiesForCert(name) {
		return errUnknownName
	}
	if err := d.config.DecisionFunc(ctx, name); err != nil {
		return &deniedError{err}
	}
	return nil
}

// renewable asks the program whether the certificate in memory may be renewed. One that may not is
// no longer served.
func (d *demands) renewable(ctx context.Context, name string) error {
	err := d.allowed(ctx, name)
	if denied := (*deniedError)(nil); errors.As(err, &denied) {
		d.log.Info("a certificate on demand is not wanted any more, and not renewed", "domain", name, "error", err)
		d.withdraw(name)
	}
	return err
}

// managed returns what one of OnDemand's Managers has for a client, nil if none has anything.
func (d *demands) managed(hello *tls.ClientHelloInfo) (cert *tls.Certificate, err error) {
	for _, m := range d.config.Managers {
		if cert, err = m.GetCertificate(hello.Context(), hello); cert != nil {
			return cert, nil
		}
	}
	return nil, err
}

// await loads or orders a certificate for a client that asks for a name which was not declared. It
// returns one only if another manager has it.
func (d *demands) await(hello *tls.ClientHelloInfo, name string) (*tls.Certificate, error) {
	if len(d.loader.matching(name)) > 0 {
		return nil, nil
	}
	d.release(hello)
	if cert, err := d.managed(hello); cert != nil || err != nil {
		return cert, err
	}
	ctx, cancel := context.WithTimeout(hello.Context(), demandWait)
	defer cancel()
	if err := d.allowed(ctx, name); err != nil {
		return nil, err
	}
	order, err := d.start(name)
	if err != nil {
		return nil, err
	}
	select {
	case <-order.done:
		return nil, order.err
	case <-ctx.Done():
		return nil, fmt.Errorf("flotilla: a certificate on demand: %w", ctx.Err())
	}
}

// start has name loaded or ordered, once for all clients that ask at that time. It goes on when
// they have gone.
func (d *demands) start(name string) (*demandOrder, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if order := d.asked[name]; order != nil {
		return order, nil
	}
	if len(d.asked) >= demandAtOnce {
		return nil, errDemand
	}
	if d.life.Err() != nil {
		return nil, errs.ErrClosed
	}
	order := &demandOrder{done: make(chan struct{})}
	d.asked[name] = order
	d.tasks.Go(func() {
		err := d.fetch(d.life, name)
		d.mu.Lock()
		delete(d.asked, name)
		d.mu.Unlock()
		if order.err = err; err != nil {
			if errors.As(err, new(*backoff.Error)) || d.life.Err() != nil { // it was logged when it happened
				d.log.Debug("no certificate on demand", "domain", name, "error", err)
			} else {
				d.log.Warn("no certificate on demand", "event", event.OrderRefused, "domain", name, "error", err)
			}
		}
		close(order.done)
	})
	return order, nil
}

// fetch loads the certificate of a name on demand, or orders it.
func (d *demands) fetch(ctx context.Context, name string) error {
	err := d.loader.refresh(ctx, name)
	switch {
	case err == nil && (d.loader.serves(name) || d.orders.clocks.Check(clocks.MaxOffset) != nil):
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		if err := d.orders.quarantine.Certificate(ctx, name, err); err != nil {
			return err
		}
	}
	if err := d.ready(ctx); err != nil {
		return err
	}
	if err := d.orders.order(ctx, name, false, attempt{demand: true}); err != nil {
		return err
	}
	return d.loader.refresh(ctx, name)
}

// withdraw takes the certificates of exactly this name out of memory.
func (d *demands) withdraw(name string) {
	d.loader.withdraw(name)
	d.forget(name)
	d.loader.names.changed()
}

// learn records certificates that were loaded for names which are not declared.
func (d *demands) learn(names []string) {
	for _, name := range names {
		if !d.has(name) {
			continue
		}
		d.loader.names.learn(certmagic.StorageKeys.Safe(name), name)
		if found := d.loader.matching(name); len(found) > 0 {
			s := Status{Domain: name, Managed: true, OnDemand: true}
			s.show(found)
			d.mu.Lock()
			d.known[name], d.view = s, nil
			d.mu.Unlock()
			d.loader.names.changed()
		}
	}
}

// forget drops what is known of a name.
func (d *demands) forget(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.known, name)
	d.view = nil
}

// status returns those that expire first, and how many there are.
func (d *demands) status() (first []Status, all int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.view == nil && len(d.known) > 0 {
		for _, s := range d.known {
			d.view = append(d.view, s)
		}
		slices.SortFunc(d.view, func(a, b Status) int {
			return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.Domain, b.Domain))
		})
		d.view = slices.Clone(d.view[:min(len(d.view), demandShown)])
	}
	return d.view, len(d.known)
}
