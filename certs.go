package flotilla

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
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
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"golang.org/x/net/idna"
)

const (
	handshakeHold = 5 * time.Second // how long a handshake waits for the first certificate
	retryFirst    = time.Second     // after the first failure to get a certificate; doubled with each
	retryLimit    = time.Minute     // between tries when the storage or the network failed
	retryLimitCA  = time.Hour       // when the CA refused; Let's Encrypt takes five failures of a name in an hour
	retryLook     = 5 * time.Second // between looks into the storage meanwhile: another node may have been luckier

	orderJitter = 250 * time.Millisecond // at most, before an order: nodes that start together shall not all want the lock of a name
	orderSettle = time.Second            // more, when the certificate was deleted: certmagic deletes its parts one by one
	orderLimit  = 5 * time.Minute        // for one try: the lock, which another node may hold for its order, and the order
)

// errOrderLimit ends a try.
var errOrderLimit = errors.New("a try has taken too long")

// certs are the certificates of a node: one certmagic cache and one certmagic configuration over the cluster's storage. Its
// methods are safe for concurrent use.
type certs struct {
	config         *certmagic.Config
	cache          *certmagic.Cache
	ready          func(context.Context) error
	company        func(context.Context) // waits a little for nodes that are only about to serve; the authority may come to any
	development    bool
	log            *slog.Logger
	port           atomic.Int32  // of the TLS listener, for the redirect in development mode
	gate           *gate         // of all listeners of this node
	redirectStatus int           // of redirects to https
	front          chan struct{} // holds one element while an order of this node waits for a slot, see admit

	life  context.Context // ends with close
	end   context.CancelFunc
	tasks tasks          // pushes, and slots that are kept for a while
	work  sync.WaitGroup // a goroutine for each name that has no certificate

	used    chan struct{} // closed when there is a name to serve for the first time
	useOnce sync.Once

	mu     sync.Mutex
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
	err     error         // of the last try
	stale   error         // why what is served is not the newest, or nil
	running bool          // obtain is
	again   bool          // and shall look once more before it ends
	first   chan struct{} // closed when there is a certificate for the first time since the start
	once    sync.Once     // closes first
}

// certStatus tells about the certificate of one name.
type certStatus struct {
	Domain   string
	Serial   string    // in hexadecimal; empty: none is loaded
	Issuer   string    // its common name
	NotAfter time.Time // zero: none is loaded
	Managed  bool      // loaded, and renewed when due
	Err      error     // why there is none, or why it is an old one, or nil
}

// newCerts prepares certificates as t says, kept in storage. Nothing is obtained before ready returns nil, which it does
// when the storage can be read and written. A *ConfigError names the field of t that is wrong. certmagic's maintenance runs until
// close.
func newCerts(t TLS, storage certmagic.Storage, development bool, ready func(context.Context) error, l *slog.Logger) (*certs, error) {
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	c := &certs{
		ready: ready, company: func(context.Context) {}, development: development, log: l, gate: newGate(), redirectStatus: http.StatusPermanentRedirect, front: make(chan struct{}, 1),
		names: make(map[string]*managed), sites: make(map[string][]string), turns: make(map[string]chan struct{}),
		pushing: make(map[string]chan struct{}), used: make(chan struct{}),
	}
	c.life, c.end = context.WithCancel(context.Background())
	zl := newZap(l)

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
		// A staple is fetched while a certificate is loaded, without a deadline; public CAs have given OCSP up.
		OCSP:   certmagic.OCSPConfig{DisableStapling: true},
		Logger: zl,
	})
	// The program around may use certmagic too, and its certmagic.Default would come in here.
	c.config.OnDemand, c.config.OnEvent, c.config.ShouldEmitFunc, c.config.LocalCache = nil, nil, nil, nil

	var issuer *certmagic.ACMEIssuer
	if development && t.CA == "" {
		c.config.Issuers = []certmagic.Issuer{&devIssuer{storage: storage}}
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
	c.observe()
	return c, nil
}

// check says what is wrong with t.
func (t *TLS) check() error {
	if t.Email != "" {
		if a, err := mail.ParseAddress(t.Email); err != nil || a.Address != t.Email {
			return &ConfigError{Field: "TLS.Email", Reason: "it must be a plain e-mail address, such as admin@example.com", Err: err}
		}
	}
	if t.CA == "" {
		return nil
	}
	u, err := url.Parse(t.CA)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		// Not the text of it, nor the error of url.Parse, which has it: there may be a password within.
		return &ConfigError{Field: "TLS.CA", Reason: "it must be the https URL of an ACME directory, such as " + certmagic.LetsEncryptProductionCA}
	}
	return nil
}

// check says what TLS.Configure has broken.
func (c *certs) check(storage certmagic.Storage) error {
	bad := func(reason string) error { return &ConfigError{Field: "TLS.Configure", Reason: reason} }
	switch {
	case c.config.Storage != storage:
		return bad("it must leave Storage as it is: certificates and challenges would not reach the other nodes")
	case len(c.config.Issuers) == 0:
		return bad("it must leave at least one issuer")
	case c.config.OnDemand != nil && c.config.OnDemand.DecisionFunc == nil:
		return bad("OnDemand needs a DecisionFunc: anybody could have certificates ordered otherwise")
	case c.config.Logger == nil:
		return bad("it must leave a Logger; zap.NewNop is silent")
	}
	return nil
}

// tlsConfig returns a configuration that serves the certificates of this cluster, and sees to it that there are certificates for
// domains, which may be IP addresses. It does not wait for them: until there is one, handshakes for its name do, for five seconds at
// most, and then fail. Each call returns a configuration of its own; names may repeat. It answers the TLS-ALPN-01 challenges of every node.
func (c *certs) tlsConfig(domains ...string) (*tls.Config, error) {
	names := make([]string, 0, len(domains))
	for _, d := range domains {
		name := strings.ToLower(strings.TrimSpace(d))
		// The one form that certmagic stores certificates under; under another it would find none, and each node order its own.
		ip, noIP := netip.ParseAddr(name)
		if noIP == nil {
			name = ip.Unmap().String()
		}
		name, err := idna.ToASCII(name)
		if err != nil || !certmagic.SubjectQualifiesForCert(name) || strings.Contains(name, "..") || len(name) > 253 ||
			noIP != nil && strings.ContainsAny(name, "/:") {
			return nil, fmt.Errorf("flotilla: %q is neither a domain name nor an IP address", d)
		}
		if strings.Contains(name, "*") && !c.solvesDNS() {
			return nil, fmt.Errorf("flotilla: %q: a wildcard certificate needs the DNS-01 challenge; set the issuer's DNS01Solver in Config.TLS.Configure", d)
		}
		names = append(names, name)
	}
	if err := c.manage(names); err != nil {
		return nil, err
	}
	return &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return nil, takeTurn(hello.Conn) },
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			stepAside(hello.Conn)
			c.hold(hello)
			cert, err := c.config.GetCertificate(hello)
			if err == nil {
				err = takeTurn(hello.Conn)
			}
			return cert, err
		},
		NextProtos: []string{"h2", "http/1.1", acmez.ACMETLS1Protocol},
		MinVersion: tls.VersionTLS12,
	}, nil
}

// hold keeps a client waiting whose certificate is only about to be there, as on a node that has just started: a balancer that
// looks at nothing takes an open port for a working node, and there is no next node for those who are refused in the handshake.
func (c *certs) hold(hello *tls.ClientHelloInfo) {
	if slices.Contains(hello.SupportedProtos, acmez.ACMETLS1Protocol) {
		return
	}
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if name == "" {
		name, _, _ = net.SplitHostPort(hello.Conn.LocalAddr().String()) // as certmagic does for those who name nobody
	}
	c.mu.Lock()
	m := c.names[name]
	if _, parent, ok := strings.Cut(name, "."); m == nil && ok {
		m = c.names["*."+parent]
	}
	c.mu.Unlock()
	if m == nil {
		return
	}
	timer := time.NewTimer(handshakeHold)
	defer timer.Stop()
	select {
	case <-m.first:
	case <-timer.C:
	case <-hello.Context().Done():
	}
}

// solvesDNS reports whether some issuer can issue for a wildcard.
func (c *certs) solvesDNS() bool {
	return slices.ContainsFunc(c.config.Issuers, func(i certmagic.Issuer) bool {
		acme, ok := i.(*certmagic.ACMEIssuer)
		return !ok || acme.DNS01Solver != nil
	})
}

// manage starts a goroutine for each name that has none.
func (c *certs) manage(names []string) error {
	sites := make([]string, len(names))
	for i, name := range names {
		sites[i] = c.site(name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.useOnce.Do(func() { close(c.used) })
	if c.config.OnDemand != nil {
		return nil // every certificate waits for a handshake that wants it
	}
	for i, name := range names {
		if c.names[name] != nil {
			continue
		}
		if err := c.deceive(); err != nil {
			return err
		}
		c.names[name] = &managed{err: errors.New("not tried yet"), first: make(chan struct{})}
		c.sites[sites[i]] = append(c.sites[sites[i]], name)
		c.start(name)
	}
	return nil
}

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

// deceive sets up the decoy, once, if an issuer would listen otherwise. It runs before any order, with c.mu held.
func (c *certs) deceive() error {
	for _, i := range c.config.Issuers {
		acme, ok := i.(*certmagic.ACMEIssuer)
		if !ok || acme.DNS01Solver != nil {
			continue
		}
		if c.decoy == nil {
			d, err := newDecoy()
			if err != nil {
				return fmt.Errorf("flotilla: cannot listen on loopback, which certmagic's challenge solvers need: %w", err)
			}
			c.decoy = d
		}
		c.decoy.attract(acme)
	}
	return nil
}

// obtain tries until name has a certificate; certmagic renews it from then on. The retries are ours because certmagic's keep the
// cluster-wide lock of the name for up to 30 days, and do not happen at all when the storage fails. When several nodes try
// at once one of them has the lock, and the others find its certificate in the storage when they get it.
//
// What the storage has is served before that, even if the cluster has no leader.
func (c *certs) obtain(ctx context.Context, name string) {
	if c.refresh(ctx, name) == nil && c.serves(name) {
		c.note(name, nil)
	}
	wait := retryFirst
	for {
		err := c.try(ctx, name)
		if ctx.Err() != nil {
			return
		}
		c.note(name, err)
		if err == nil {
			c.log.Info("certificate is being served", "domain", name)
			if c.finish(name) {
				return
			}
			wait = retryFirst
			continue
		}
		pause := wait/2 + rand.N(wait) // nodes that failed together do not try again together
		c.log.Warn("no certificate; will try again", "domain", name, "error", err, "in", pause)
		limit := retryLimit
		if problem := (acme.Problem{}); errors.As(err, &problem) {
			limit = retryLimitCA
		}
		wait = min(2*wait, limit)
		if c.await(ctx, name, pause) {
			c.note(name, nil)
			c.log.Info("certificate of another node is being served", "domain", name)
			if c.finish(name) {
				return
			}
			wait = retryFirst
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// try makes one attempt to load, obtain or renew the certificate of name. It orders nothing if the storage has one that is valid: certmagic
// sees to it when that is due.
func (c *certs) try(ctx context.Context, name string) error {
	if err := c.ready(ctx); err != nil {
		return err
	}
	err := c.refresh(ctx, name)
	switch {
	case err == nil && c.serves(name):
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	pause := rand.N(orderJitter)
	if c.serves(name) {
		pause += orderSettle
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
	}
	c.company(ctx)
	if err := c.order(ctx, name); err != nil {
		return err
	}
	return c.refresh(ctx, name)
}

// order has a certificate ordered that is not in the storage, or not a valid one, unless another node does it: once it has the lock
// of the name, certmagic looks again.
func (c *certs) order(ctx context.Context, name string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := time.AfterFunc(orderLimit, func() { cancel(errOrderLimit) })
	defer limit.Stop()
	err := c.config.RenewCertSync(context.WithValue(ctx, limitKey{}, limit), name, false)
	if err != nil && context.Cause(ctx) == errOrderLimit {
		return fmt.Errorf("%w: %w", errOrderLimit, err)
	}
	return err
}

// limitKey is the context's key for the *time.Timer that ends a try.
type limitKey struct{}

// await waits for d, or until the storage has a certificate for name, and reports whether it has.
func (c *certs) await(ctx context.Context, name string, d time.Duration) bool {
	for end := time.Now().Add(d); ; {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(min(time.Until(end), retryLook)):
		}
		if c.refresh(ctx, name) == nil && c.serves(name) {
			return true
		}
		if !time.Now().Before(end) {
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
	old := c.matching(name)
	cert, err := c.config.CacheManagedCertificate(ctx, name)
	if err != nil {
		return err
	}
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
	return slices.DeleteFunc(c.cache.AllMatchingCertificates(name), func(x certmagic.Certificate) bool { return x.Leaf == nil })
}

// serves reports whether a certificate for name is in memory that has not expired.
func (c *certs) serves(name string) bool {
	return slices.ContainsFunc(c.matching(name), func(x certmagic.Certificate) bool { return !x.Expired() })
}

// note takes down how a try for name ended.
func (c *certs) note(name string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.names[name]
	if m == nil {
		return // on demand
	}
	m.err = err
	if err == nil {
		m.stale = nil
		m.once.Do(func() { close(m.first) })
	}
}

// noteStale takes down why name has no newer certificate than the one that is served. It reports whether that is news.
func (c *certs) noteStale(name string, err error) bool {
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

// status returns what is known about each name, in alphabetical order.
func (c *certs) status() []certStatus {
	c.mu.Lock()
	all := make([]certStatus, 0, len(c.names))
	for name, m := range c.names {
		s := certStatus{Domain: name, Err: m.err, Managed: m.err == nil}
		if s.Err == nil {
			s.Err = m.stale
		}
		all = append(all, s)
	}
	c.mu.Unlock()
	slices.SortFunc(all, func(a, b certStatus) int { return strings.Compare(a.Domain, b.Domain) })
	for i := range all {
		s := &all[i]
		found := c.matching(s.Domain)
		if len(found) == 0 {
			s.Managed = false
			continue
		}
		// As a handshake chooses: the first that is valid, else the first.
		leaf := found[max(0, slices.IndexFunc(found, func(x certmagic.Certificate) bool { return !x.Expired() }))].Leaf
		s.Serial, s.Issuer, s.NotAfter = leaf.SerialNumber.Text(16), leaf.Issuer.CommonName, leaf.NotAfter
	}
	return all
}

// close ends all that newCerts and tlsConfig have started, and waits for it. Handshakes go on with what is in memory. Calls of
// the storage under way are waited for, so they must end: they do when the storage is closed.
func (c *certs) close() {
	c.mu.Lock()
	first := !c.closed
	c.closed = true
	c.mu.Unlock()
	c.end()
	// certmagic.CleanUpOwnLocks is for the whole process and would take the locks of other nodes in it; a lock still held
	// here ends with this node's session.
	c.work.Wait()
	c.tasks.close()
	if first {
		c.cache.Stop()
		if c.decoy != nil {
			c.decoy.close()
		}
	}
}
