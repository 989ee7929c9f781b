package certs

import (
	"cmp"
	"context"
	"crypto/tls"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/certs/blocker"
	"github.com/flotilla-ha/flotilla/internal/certs/probe"
	"github.com/flotilla-ha/flotilla/internal/certs/quarantine"
	"github.com/flotilla-ha/flotilla/internal/certs/rekey"
	"github.com/flotilla-ha/flotilla/internal/certs/slots"
	"github.com/flotilla-ha/flotilla/internal/certs/staple"
	"github.com/flotilla-ha/flotilla/internal/certs/sweep"
	"github.com/flotilla-ha/flotilla/internal/certs/web"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/hostname"
)

// Certs are the certificates of a node. Its methods are safe for concurrent use.
type Certs struct {
	loader     *loader
	orders     *orderer
	obtainer   *obtainer
	demands    *demands
	pusher     *pusher
	handshakes *handshakes
	blocker    *blocker.Blocker
	sweeper    *sweep.Sweeper
	rekeyer    *rekey.Rekeyer
	renewals   *renewals
	web        *web.Handlers
	meters     *Meters

	end     context.CancelFunc // of all background work
	used    chan struct{}      // closed when there is a name to serve for the first time
	useOnce sync.Once
}

// New prepares certificates. A *errs.ConfigError names the field of TLS that is wrong. Renewals run
// until Close.
func New(cfg Config) (*Certs, error) {
	cfg.setDefaults()
	config, cache, demand, err := newCertmagic(&cfg)
	if err != nil {
		return nil, err
	}
	cfg.setNetwork(config.Issuers)
	life, end := context.WithCancel(context.Background())
	log, refusals, meters := cfg.Log, new(atomic.Int64), new(Meters)
	pauses := backoff.New(cfg.Peek, cfg.Node, cfg.Storage, log)
	eachACME(config, log, func(i *certmagic.ACMEIssuer) bool {
		return backoff.Observe(i, pauses, cfg.Clocks.ObserveAuthority, refusals)
	})

	names := newNameTable(cfg.Changed)
	l := &loader{
		config: config, cache: cache, names: names, life: life, barrier: cfg.Barrier, log: log,
		busy: make(map[string]chan struct{}),
	}
	q := quarantine.New(quarantine.Config{
		Certmagic: config, Subject: l.subject, Clocks: cfg.Clocks, Keyless: cfg.perNode(),
		Damaged: names.damaged, Found: l.found, Log: log,
	})
	o := &orderer{
		loader: l, backoff: pauses, clocks: cfg.Clocks, quarantine: q, slots: slots.New(cfg.Storage, log),
		limited: !l.isLocal(), meters: meters, log: log, refusals: refusals, placed: make(map[string]*placedOrder),
	}
	p := &provisional{loader: l, cluster: cfg.Cluster, perNode: cfg.perNode(), log: log}
	prober := probe.New(probe.Config{Off: l.solvesDNS(), Lookup: cfg.Lookup, Dial: cfg.Dial, Ours: p.ours})
	ob := &obtainer{
		loader: l, orders: o, prober: prober, ready: cfg.Ready, awaitPeers: cfg.AwaitPeers, log: log, life: life,
		jobs: make(map[string]*job),
	}
	release := func(hello *tls.ClientHelloInfo) { cfg.Limit.Release(hello.Conn) }
	d := &demands{
		config: demand, loader: l, orders: o, ready: cfg.Ready, release: release, log: log, life: life,
		asked: make(map[string]*demandOrder), known: make(map[string]Status),
	}
	rep := &replacer{loader: l, orders: o, life: life, log: log}
	staples := staple.New(staple.Config{
		Storage: cfg.Storage, OCSP: config.OCSP, Matching: l.matching, Revoked: rep.replace,
		Network: cfg.Network, Log: log,
	})
	used := make(chan struct{})
	rk := newRekeyer(&cfg, o, d, used)
	overHTTP := meters.challenges("http-01")
	c := &Certs{
		loader: l, orders: o, obtainer: ob, demands: d, rekeyer: rk,
		pusher: &pusher{
			loader: l, obtainer: ob, demands: d, quarantine: q, log: log, life: life,
			pushing: make(map[string]chan struct{}),
		},
		handshakes: &handshakes{
			loader: l, demands: d, provisional: p, staples: staples, limit: cfg.Limit, challenges: meters.challenges("tls-alpn-01"),
		},
		blocker: blocker.New(cfg.Listen, config.Issuers),
		sweeper: newSweeper(&cfg, pauses.Sweep, q.Sweep, rk.Sweep),
		web: web.New(web.Config{
			Issuers: config.Issuers, Current: cfg.Current, Manages: names.manages, Serves: l.serves,
			Development: cfg.Development, Status: cfg.RedirectStatus, Log: log,
			Answered: overHTTP.answered, Unknown: overHTTP.unknown,
		}),
		renewals: &renewals{
			look: cache.RenewManagedCertificates, looked: &meters.RenewalCheck, every: cmp.Or(cfg.RenewalCheck, renewalInterval), log: log, life: life,
		},
		meters: meters,
		end:    end, used: used,
	}
	e := &events{orders: o, obtainer: ob, demands: d, staples: staples, user: config.OnEvent}
	if e.user == nil {
		// Otherwise each handshake would make an event that nobody receives.
		config.ShouldEmitFunc = func(event string) bool { return event != "tls_get_certificate" }
	}
	config.OnEvent = e.observe
	c.renewals.start()
	return c, nil
}

func newSweeper(cfg *Config, also ...func(context.Context)) *sweep.Sweeper {
	s := sweep.Config{
		Shared: cfg.Shared, Log: cfg.Log,
		Clock: func() error { return cfg.Clocks.Check(clocks.MaxOffset) },
		Also:  also,
	}
	if cfg.perNode() {
		s.Own = cfg.Storage
	}
	return sweep.New(s)
}

// Close ends all background work and waits for it. Handshakes go on with what is in memory. Calls
// of the storage that are under way are waited for; they end when the storage is closed.
func (c *Certs) Close() {
	c.end()
	// certmagic.CleanUpOwnLocks is for the whole process and would take the locks of other nodes in
	// it. A lock that is still held ends with this node's session.
	c.renewals.tasks.Close()
	c.obtainer.close()
	c.demands.tasks.Close()
	c.pusher.tasks.Close()
	c.handshakes.staples.Close()
	c.orders.slots.Close()
	c.blocker.Close()
}

// TLSConfig returns a configuration that serves the certificates of the cluster, and has
// certificates obtained for domains, which may be IP addresses. Names may repeat, and each call
// returns a configuration of its own.
//
// It does not wait for the certificates. Until this node knows whether the cluster has one,
// handshakes for its name wait, for five seconds at most, and then fail. While there is none, they
// get a self-signed one. A client without SNI gets the certificate of the address that it came to,
// if that is managed, else certmagic's DefaultServerName's, else that of the first domain. The
// configuration answers the TLS-ALPN-01 challenges of every node.
func (c *Certs) TLSConfig(domains ...string) (*tls.Config, error) {
	names, err := hostname.ForCertificates(domains, c.SolvesDNS())
	if err != nil {
		return nil, err
	}
	if c.loader.life.Err() != nil {
		return nil, errs.ErrClosed
	}
	if len(names) == 0 {
		c.use()
		return c.handshakes.config(""), nil
	}
	if err := c.blocker.Start(); err != nil {
		return nil, err
	}
	c.use()
	for _, name := range names {
		if c.loader.names.declare(name, c.loader.site(name)) {
			c.demands.forget(name)
			c.obtainer.start(name)
		}
	}
	return c.handshakes.config(names[0]), nil
}

func (c *Certs) use() { c.useOnce.Do(func() { close(c.used) }) }

// Used returns a channel that is closed when TLSConfig is called for the first time.
func (c *Certs) Used() <-chan struct{} { return c.used }

// SolvesDNS reports whether some issuer can issue for a wildcard.
func (c *Certs) SolvesDNS() bool { return c.loader.solvesDNS() }

// Domains returns the declared names, in alphabetical order.
func (c *Certs) Domains() []string { return c.loader.names.domains() }

// Issuers returns the keys of the issuers, in their order.
func (c *Certs) Issuers() []string {
	var keys []string
	for _, i := range c.loader.config.Issuers {
		keys = append(keys, i.IssuerKey())
	}
	return keys
}

// Status returns what is known about each declared name, in alphabetical order.
func (c *Certs) Status() []Status { return status(c.loader, c.orders.backoff, c.handshakes.staples) }

// OnDemand returns the certificates on demand that expire first, and how many there are.
func (c *Certs) OnDemand() (first []Status, all int) {
	first, all = c.demands.status()
	first = slices.Clone(first)
	for i := range first {
		if found := c.loader.matching(first[i].Domain); len(found) > 0 {
			first[i].plan(found, c.loader.config, c.handshakes.staples)
			first[i].refused(c.orders.backoff)
		}
	}
	return first, all
}

// Meters returns what the node counts. They may be read at any time.
func (c *Certs) Meters() *Meters { return c.meters }

// Missing lists the declared names that have no certificate, and why. It is empty if all have one.
func (c *Certs) Missing() string { return missing(c.loader) }

// Provisional reports whether a handshake under way that asked for name, or for no name if it is
// empty, may have a self-signed certificate. Its session must not be resumed.
func (c *Certs) Provisional(name string) bool { return c.loader.names.provisional(name) }

// Stored is to be called on every node after something below certificates/ISSUER/site/ has changed
// in the storage. It does not block.
func (c *Certs) Stored(site string) { c.pusher.stored(site) }

// StoredAny is Stored for all certificates, as after a snapshot.
func (c *Certs) StoredAny() {
	for _, site := range c.loader.names.directories() {
		c.pusher.stored(site)
	}
}

// Maintain keeps the cluster's storage clean until ctx is done. One node does that at a time.
func (c *Certs) Maintain(ctx context.Context) { c.sweeper.Run(ctx) }

// CleanOwn keeps what this node has for itself clean until ctx is done. Every node does that.
func (c *Certs) CleanOwn(ctx context.Context) { c.sweeper.RunOwn(ctx) }

// ServedAt says at which port TLS is served, for redirects in development mode.
func (c *Certs) ServedAt(port int) { c.web.ServedAt(port) }

// HTTPHandler answers the ACME HTTP-01 challenges of every node and passes all other requests to
// next. Nil next redirects them to https.
func (c *Certs) HTTPHandler(next http.Handler) http.Handler { return c.web.HTTP(next) }

// HSTS sets Strict-Transport-Security for host names with a valid certificate: see web.HSTS.
func (c *Certs) HSTS(maxAge time.Duration, next http.Handler) http.Handler {
	return c.web.HSTS(maxAge, next)
}
