package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/errs"
	"github.com/flotilla-ha/flotilla/internal/notify"
	"github.com/flotilla-ha/flotilla/internal/slogbridge"
)

// certs are the certificates of a node: one certmagic cache and one certmagic configuration over the cluster's storage. Its
// methods are safe for concurrent use.
type Certs struct {
	Config
	config *certmagic.Config
	cache  *certmagic.Cache

	probes chan struct{} // an element for each that is under way

	port               atomic.Int32  // of the TLS listener, for the redirect in development mode
	front, demandFront chan struct{} // see budget

	life  context.Context // ends with close
	end   context.CancelFunc
	tasks notify.Tasks   // pushes, and slots that are kept for a while
	work  sync.WaitGroup // a goroutine for each name that has no certificate

	staples stapler
	demands askedNames

	pauses   *backoff.Pauses
	refusals atomic.Int64 // of authorities, as far as they were heard

	given atomic.Int64 // handshakes under way that have a self-signed certificate

	used    chan struct{} // closed when there is a name to serve for the first time
	useOnce sync.Once

	mu     sync.Mutex
	before map[string]int64         // refusals before the order for a name that is under way
	names  map[string]*managed      // never shrinks
	sites  map[string][]string      // the names of each directory in the storage, those on demand included
	turns  map[string]chan struct{} // of a directory that a refresh is under way for; closed at its end
	decoy  *decoy                   // nil until an ACME issuer needs it
	closed bool

	pushMu  sync.Mutex
	pushing map[string]chan struct{} // of a directory that a goroutine looks after; an element sends it round once more
}

// managed is what a certs knows about one name; certs.mu guards it.
type managed struct {
	name    string
	err     error         // of the last try
	damage  error         // what is wrong with the records in the storage, until there is a certificate
	next    time.Time     // when the next try is, if err is not nil
	said    string        // of err, in the log
	stale   error         // why what is served is not the newest, or nil
	running bool          // obtain is
	waits   bool          // takeOver does
	again   bool          // and shall look once more before it ends
	known   chan struct{} // closed when handshakes need not wait any more
	once    sync.Once     // closes known

	had   bool             // the cluster has, or has had, a certificate
	none  bool             // it has never had one, as far as this node knows, which is current
	own   *tls.Certificate // the self-signed one; nil: nobody has asked for it
	given int              // handshakes under way that have it
	shown bool             // some handshake has had it
}

// Status tells about the certificate of one name.
type Status struct {
	Domain   string
	Serial   string    // in hexadecimal; empty: none is loaded
	Issuer   string    // its common name
	NotAfter time.Time // zero: none is loaded
	Managed  bool      // loaded, and renewed when due
	// SelfSigned says that none has ever been there, and a self-signed one is served.
	SelfSigned bool
	OnDemand   bool
	Err        error     // why there is none, or why it is an old one, or nil
	Next       time.Time // of the next try, if there was an error
	Failures   int       // orders of the cluster that failed since the last that did not
}

// Policy is what the user has said of certificates: see TLS of the root package.
type Policy struct {
	Email        string
	CA           string // empty: Let's Encrypt
	Private      bool   // certificates are signed by an authority of the cluster's own
	TrustedRoots *x509.CertPool
	Configure    func(*certmagic.Config, *certmagic.ACMEIssuer)
}

// Config is what certs need of the node around them.
type Config struct {
	Policy         Policy
	Development    bool // certificates are signed by an authority of the cluster's own, unless policy names one
	RedirectStatus int  // of redirects to https; 0: 308

	// storage is where certificates are kept. shared is the cluster's, if that is another one; nil: it is the same.
	Storage, Shared certmagic.Storage

	Ready      func(context.Context) error     // returns nil when the storage can be read and written; nothing is obtained before
	AwaitPeers func(context.Context)           // waits a little for nodes that are only about to serve; the authority may come to any; nil: it does not
	Barrier    func(context.Context)           // waits until what this node's storage holds is in every node's; nil: it does not
	Current    func() bool                     // whether what the storage does not hold is known to be nowhere; nil: it is
	Cluster    func() string                   // its identity; empty: not known yet; nil: never known
	Changed    func()                          // what status returns may be another; must not block; nil: nobody wants to know
	Peek       func(key string) ([]byte, bool) // reads a record of the shared storage from memory, without waiting; nil: Load does
	Node       func() string                   // the name of this node; nil: it has none
	Clocks     *clocks.Clocks                  // nil: this node's alone
	Limit      Limiter                         // of handshakes that are computed at once; nil: there is no limit
	Log        *slog.Logger                    // nil: nothing is logged

	// Lookup and Dial are how probes find and reach what answers at a name, Listen how the
	// challenge-port blocker gets its port. Nil: as package net does.
	Lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	Dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	Listen func(network, addr string) (net.Listener, error)
}

// complete puts in what is not said.
func (c *Config) complete() {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Shared == nil {
		c.Shared = c.Storage
	}
	if c.AwaitPeers == nil {
		c.AwaitPeers = func(context.Context) {}
	}
	if c.Barrier == nil {
		c.Barrier = func(context.Context) {}
	}
	if c.Current == nil {
		c.Current = func() bool { return true }
	}
	if c.Cluster == nil {
		c.Cluster = func() string { return "" }
	}
	if c.Changed == nil {
		c.Changed = func() {}
	}
	if c.Peek == nil {
		c.Peek = func(key string) ([]byte, bool) {
			value, err := c.Storage.Load(context.Background(), key)
			return value, err == nil
		}
	}
	if c.Node == nil {
		c.Node = func() string { return "" }
	}
	if c.Clocks == nil {
		c.Clocks = clocks.New(clocks.Config{Log: c.Log})
	}
	if c.Limit == nil {
		c.Limit = unlimited{}
	}
	if c.Lookup == nil {
		c.Lookup = net.DefaultResolver.LookupNetIP
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Listen == nil {
		c.Listen = net.Listen
	}
	if c.RedirectStatus == 0 {
		c.RedirectStatus = http.StatusPermanentRedirect
	}
}

// perNode reports whether certificates are this node's own.
func (c *Config) perNode() bool { return c.Storage != c.Shared }

// Limiter bounds the handshakes that are computed at once.
type Limiter interface {
	Acquire(*tls.ClientHelloInfo) error // returns when the handshake may go on; for GetConfigForClient, and for the end of GetCertificate
	Release(net.Conn)                   // lets others go on until Acquire is called again; for GetCertificate, when it may have to wait
}

// unlimited is no limiter.
type unlimited struct{}

func (unlimited) Acquire(*tls.ClientHelloInfo) error { return nil }
func (unlimited) Release(net.Conn)                   {}

// Used returns a channel that is closed when the first name is served.
func (c *Certs) Used() <-chan struct{} { return c.used }

// OnDemand returns the certificates on demand that expire first, and how many there are.
func (c *Certs) OnDemand() (first []Status, all int) { return c.demands.status() }

// ServedAt says at which port TLS is served, for the redirect in development mode.
func (c *Certs) ServedAt(port int) { c.port.Store(int32(port)) }

// New prepares certificates. A *ConfigError names the field of Config.TLS that is wrong. certmagic's maintenance runs until
// close.
func New(cfg Config) (*Certs, error) {
	cfg.complete()
	t, storage, l := cfg.Policy, cfg.Storage, cfg.Log
	if err := t.check(); err != nil {
		return nil, err
	}
	c := &Certs{
		Config: cfg, front: make(chan struct{}, 1), demandFront: make(chan struct{}, 1),
		probes: make(chan struct{}, probeAtOnce),
		names:  make(map[string]*managed), sites: make(map[string][]string), turns: make(map[string]chan struct{}),
		pushing: make(map[string]chan struct{}), used: make(chan struct{}), before: make(map[string]int64),
		pauses:  backoff.New(cfg.Peek, cfg.Node, storage, l),
		demands: askedNames{orders: make(map[string]*demand), served: make(map[string]Status)},
	}
	c.life, c.end = context.WithCancel(context.Background())
	zl := slogbridge.NewZap(l)

	// The cache must be given this very configuration, or renewals go to certmagic's default storage (certmagic issue 292).
	c.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return c.config, nil },
		Logger:           zl,
	})
	c.config = certmagic.New(c.cache, certmagic.Config{
		Storage:             storage,
		Issuers:             []certmagic.Issuer{},
		KeySource:           certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
		DisableStorageCheck: true, // 10 KiB written and deleted in the log for each order, to find out what ready knows
		// certmagic fetches staples while a certificate is loaded, without a deadline; see stapler.
		OCSP:   certmagic.OCSPConfig{DisableStapling: true},
		Logger: zl,
	})
	// The program around may use certmagic too, and its certmagic.Default would come in here.
	c.config.OnDemand, c.config.OnEvent, c.config.ShouldEmitFunc, c.config.LocalCache = nil, nil, nil, nil

	var issuer *certmagic.ACMEIssuer
	if cfg.Development && t.CA == "" {
		c.config.Issuers = []certmagic.Issuer{&devca.Issuer{Storage: storage}}
	} else {
		ca := t.CA
		if ca == "" {
			ca = certmagic.LetsEncryptProductionCA
		}
		issuer = certmagic.NewACMEIssuer(c.config, certmagic.ACMEIssuer{
			CA: ca, Email: t.Email, Agreed: true, TrustedRoots: t.TrustedRoots, Logger: zl,
		})
		issuer.TestCA = ""
		c.config.Issuers = []certmagic.Issuer{issuer}
	}
	if t.Configure != nil {
		t.Configure(c.config, issuer)
	}
	if err := c.check(storage); err != nil {
		c.cache.Stop()
		return nil, err
	}
	for _, i := range c.config.Issuers {
		if i, ok := i.(*certmagic.ACMEIssuer); ok {
			// A retry at another CA stores its token where other nodes do not look (certmagic issue 334).
			i.TestCA = ""
			if i.Email == "" {
				i.Email = " " // trimmed by certmagic, which otherwise asks on the terminal, or takes an address from another account
			}
		}
	}
	c.demands.config, c.config.OnDemand = c.config.OnDemand, nil
	for _, i := range c.config.Issuers {
		if i, ok := i.(*certmagic.ACMEIssuer); ok && !backoff.Observe(i, c.pauses, c.Clocks.ObserveAuthority, &c.refusals) {
			l.Warn("this version of certmagic does not let an authority's wish for fewer requests be heard", "issuer", i.IssuerKey())
		}
	}
	c.config.OCSP.DisableStapling = true
	c.staples.prepare(c.config.OCSP)
	c.observe()
	return c, nil
}

// check says what is wrong with p.
func (t *Policy) check() error {
	if t.Private && t.CA != "" {
		return &errs.ConfigError{Field: "TLS.Private", Reason: "TLS.CA names another authority; set one of the two"}
	}
	if t.Email != "" {
		if a, err := mail.ParseAddress(t.Email); err != nil || a.Address != t.Email {
			return &errs.ConfigError{Field: "TLS.Email", Reason: "it must be a plain e-mail address, such as admin@example.com", Err: err}
		}
	}
	if t.CA == "" {
		return nil
	}
	u, err := url.Parse(t.CA)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		// Not the text of it, nor the error of url.Parse, which has it: there may be a password within.
		return &errs.ConfigError{Field: "TLS.CA", Reason: "it must be the https URL of an ACME directory, such as " + certmagic.LetsEncryptProductionCA}
	}
	return nil
}

// check says what TLS.Configure has broken.
func (c *Certs) check(storage certmagic.Storage) error {
	bad := func(reason string) error { return &errs.ConfigError{Field: "TLS.Configure", Reason: reason} }
	switch {
	case c.config.Storage != storage:
		return bad("it must leave Storage as it is: certificates and challenges would not reach the other nodes")
	case len(c.config.Issuers) == 0:
		return bad("it must leave at least one issuer")
	case c.config.OnDemand != nil && c.config.OnDemand.DecisionFunc == nil:
		return bad("OnDemand needs a DecisionFunc: anybody could have certificates ordered otherwise; set one that accepts the names of your users")
	case c.config.Logger == nil:
		return bad("it must leave a Logger; zap.NewNop is silent")
	}
	return nil
}

// solvesDNS reports whether some issuer can issue for a wildcard.
func (c *Certs) SolvesDNS() bool {
	return slices.ContainsFunc(c.config.Issuers, func(i certmagic.Issuer) bool {
		acme, ok := i.(*certmagic.ACMEIssuer)
		return !ok || acme.DNS01Solver != nil
	})
}

// manage starts a goroutine for each name that has none.
func (c *Certs) manage(names []string) error {
	sites := make([]string, len(names))
	for i, name := range names {
		sites[i] = c.site(name)
	}
	defer c.Changed()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errs.Closed
	}
	c.useOnce.Do(func() { close(c.used) })
	for i, name := range names {
		if c.names[name] != nil {
			continue
		}
		if err := c.deceive(); err != nil {
			return err
		}
		c.names[name] = &managed{name: name, err: errors.New("not tried yet"), known: make(chan struct{})}
		if !slices.Contains(c.sites[sites[i]], name) { // it may have been on demand
			c.sites[sites[i]] = append(c.sites[sites[i]], name)
		}
		c.demands.forget(name)
		c.start(name)
	}
	return nil
}

// note takes down how a try for name ended.
func (c *Certs) note(name string, err error) {
	old := len(c.matching(name)) > 0
	defer c.Changed()
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.names[name]
	if m == nil {
		return // on demand
	}
	if m.err = err; err == nil {
		m.stale, m.damage, m.next, m.said = nil, nil, time.Time{}, ""
	} else if m.damage != nil {
		m.err = fmt.Errorf("%w; %w", m.damage, err)
	}
	if err == nil || old { // an expired one is not waited with any longer
		m.once.Do(func() { close(m.known) })
	}
}

// noteStale takes down why name has no newer certificate than the one that is served. It reports whether that is news.
func (c *Certs) noteStale(name string, err error) bool {
	defer c.Changed()
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.names[name]
	if m == nil {
		return false
	}
	news := m.stale == nil
	m.stale = err
	return news
}

// scheduled takes down when the next try for name is.
func (c *Certs) scheduled(name string, at time.Time) {
	defer c.Changed()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names[name].next = at.Round(time.Second)
}

// complain logs why name has no certificate, each reason once.
func (c *Certs) complain(name string, err error, pause time.Duration) {
	c.mu.Lock()
	text, m := err.Error(), c.names[name]
	level := slog.LevelWarn
	if paused := (*backoff.Error)(nil); errors.As(err, &paused) {
		if text = paused.Why; strings.Contains(m.said, text) {
			level = slog.LevelDebug
		}
	}
	m.said = text
	c.mu.Unlock()
	c.Log.Log(c.life, level, "no certificate; will try again", "domain", name, "error", err, "in", pause)
}

// show takes over what is known of the certificate that a handshake is given: the first that is valid, else the first.
func (s *Status) show(found []certmagic.Certificate) {
	leaf := found[max(0, slices.IndexFunc(found, func(x certmagic.Certificate) bool { return !x.Expired() }))].Leaf
	s.Serial, s.Issuer, s.NotAfter = leaf.SerialNumber.Text(16), leaf.Issuer.CommonName, leaf.NotAfter
}

// status returns what is known about each declared name, in alphabetical order.
func (c *Certs) Status() []Status {
	c.mu.Lock()
	all := make([]Status, 0, len(c.names))
	for name, m := range c.names {
		s := Status{Domain: name, Err: m.err, Managed: m.err == nil, SelfSigned: m.none, Next: m.next}
		if s.Err == nil {
			s.Err = m.stale
		}
		if s.Err == nil {
			s.Err = m.damage
		}
		all = append(all, s)
	}
	c.mu.Unlock()
	slices.SortFunc(all, func(a, b Status) int { return strings.Compare(a.Domain, b.Domain) })
	for i := range all {
		s := &all[i]
		if s.Err != nil {
			x, left := c.pauses.Get(backoff.OfName(s.Domain))
			if s.Failures = x.Failures; left > 0 && s.Next.IsZero() {
				s.Next = x.At.Add(x.Wait).Round(time.Second) // certmagic's own renewals
			}
		}
		found := c.matching(s.Domain)
		if len(found) == 0 {
			s.Managed = false
			continue
		}
		s.SelfSigned = false // that of a wildcard is there
		s.show(found)
	}
	return all
}

// close ends all that New and tlsConfig have started, and waits for it. Handshakes go on with what is in memory. Calls of
// the storage under way are waited for, so they must end: they do when the storage is closed.
func (c *Certs) Close() {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	c.end()
	// certmagic.CleanUpOwnLocks is for the whole process and would take the locks of other nodes in it; a lock still held
	// here ends with this node's session.
	c.work.Wait()
	c.tasks.Close()
	if first {
		c.cache.Stop()
		if c.decoy != nil {
			c.decoy.close()
		}
	}
}

// domains returns the names that are served, in alphabetical order.
func (c *Certs) Domains() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.names))
}

// mostListed is how many names a line lists.
const mostListed = 10

// missing lists the names that have no certificate, and why.
func (c *Certs) Missing() string {
	failed := make(map[string]error)
	c.mu.Lock()
	for name, m := range c.names {
		if m.err != nil {
			failed[name] = m.err
		}
	}
	c.mu.Unlock()
	maps.DeleteFunc(failed, func(name string, _ error) bool { return len(c.matching(name)) > 0 })
	var all []string
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		if len(all) == mostListed {
			all = append(all, fmt.Sprintf("and %d more", len(failed)-mostListed))
			break
		}
		all = append(all, name+": "+failed[name].Error())
	}
	return strings.Join(all, "; ")
}

// issuers returns the keys of the issuers that certificates are asked of, in their order.
func (c *Certs) Issuers() []string {
	var keys []string
	for _, i := range c.config.Issuers {
		keys = append(keys, i.IssuerKey())
	}
	return keys
}
