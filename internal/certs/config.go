package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/mail"
	"net/netip"
	"net/url"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/certs/probe"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/errs"
)

// Policy is what the user has chosen: see TLS of the root package.
type Policy struct {
	Email        string         // of the ACME account; empty: none
	CA           string         // URL of an ACME directory; empty: Let's Encrypt
	Private      bool           // an authority of the cluster's own signs the certificates
	TrustedRoots *x509.CertPool // for connections to the authority; nil: the system's
	// Configure changes certmagic's configuration, and that of the ACME issuer, which is nil if there
	// is none. Nil changes nothing.
	Configure func(*certmagic.Config, *certmagic.ACMEIssuer)
}

// Check returns what is wrong with p, as an *errs.ConfigError.
func (p *Policy) Check() error {
	if p.Private && p.CA != "" {
		return &errs.ConfigError{Field: "TLS.Private", Reason: "TLS.CA names another authority; set one of the two"}
	}
	if p.Email != "" {
		if a, err := mail.ParseAddress(p.Email); err != nil || a.Address != p.Email {
			return &errs.ConfigError{Field: "TLS.Email", Reason: "it must be a plain e-mail address, such as admin@example.com", Err: err}
		}
	}
	if p.CA == "" {
		return nil
	}
	u, err := url.Parse(p.CA)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		// Neither the text nor the error of url.Parse, which has the text: there may be a password
		// in it.
		return &errs.ConfigError{Field: "TLS.CA", Reason: "it must be the https URL of an ACME directory, such as " + certmagic.LetsEncryptProductionCA}
	}
	return nil
}

// Config is what certificates need of the node around them. Policy, Storage and Ready are required.
type Config struct {
	Policy Policy // what the user has chosen
	// the cluster's own authority signs the certificates, unless Policy names another one
	Development    bool
	RedirectStatus int // of redirects to https; 0: 308

	// Storage is where certificates are kept. Shared is the cluster's storage, if that is another
	// one: then each node has certificates of its own. Nil: it is the same.
	Storage, Shared certmagic.Storage

	// Ready returns nil when the storage can be read and written. Nothing is ordered before.
	Ready func(context.Context) error
	// AwaitPeers waits a little for nodes that are about to serve: the authority may connect to any
	// of them. Nil does not wait.
	AwaitPeers func(context.Context)
	// Barrier waits until every node's storage has what this node's has, but not for long: a node
	// that does not answer holds nobody up. Nil does not wait.
	Barrier func(context.Context)
	// Current reports whether a record that is missing here is missing in the cluster. Nil: always.
	Current func() bool
	// Cluster returns the identity of the cluster, empty if it is not known yet. Nil: it never is.
	Cluster func() string
	// Changed is called when Status may return something else. It must not block. Nil does nothing.
	Changed func()
	// Peek reads a record of the shared storage from memory, without waiting. Nil uses Storage.Load.
	Peek func(key string) ([]byte, bool)
	// Node returns the name of this node. Nil: it has none.
	Node func() string

	Clocks *clocks.Clocks // nil: this node's clock alone
	Limit  Limiter        // nil: no limit
	Log    *slog.Logger   // nil: nothing is logged

	// RenewalCheck is how often the certificates in memory are looked at. 0: every ten minutes, as
	// certmagic does.
	RenewalCheck time.Duration

	// Lookup and Dial are how probes resolve and reach names, Listen how the challenge-port blocker
	// gets its port, and Network what OCSP responders are asked through. Nil: the real network. If
	// both Lookup and Dial are nil, and an authority is in memory, they are its own.
	Lookup  func(ctx context.Context, network, host string) ([]netip.Addr, error)
	Dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	Listen  func(network, addr string) (net.Listener, error)
	Network http.RoundTripper
}

// setDefaults replaces what is nil.
func (c *Config) setDefaults() {
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
	if c.Listen == nil {
		c.Listen = net.Listen
	}
	if c.RedirectStatus == 0 {
		c.RedirectStatus = http.StatusPermanentRedirect
	}
}

// setNetwork sets how probes resolve and reach names. Authorities in memory say that by the
// transport of their issuer: the real network would lead probes elsewhere, and stop the time of a
// bubble.
func (c *Config) setNetwork(issuers []certmagic.Issuer) {
	for _, i := range issuers {
		acme, ok := i.(*certmagic.ACMEIssuer)
		if !ok || c.Lookup != nil || c.Dial != nil {
			continue
		}
		if client := backoff.HTTPClientOf(acme); client != nil {
			if n, ok := client.Transport.(probe.Network); ok {
				c.Lookup, c.Dial = n.Lookup, n.Dial
			}
		}
	}
	if c.Lookup == nil {
		c.Lookup = net.DefaultResolver.LookupNetIP
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
}

// perNode reports whether each node has certificates of its own.
func (c *Config) perNode() bool { return c.Storage != c.Shared }

// Limiter bounds the handshakes that are computed at once.
type Limiter interface {
	// Acquire returns when the handshake may go on. It is called in GetConfigForClient, and at the
	// end of GetCertificate.
	Acquire(*tls.ClientHelloInfo) error
	// Release lets others go on until Acquire is called again. GetCertificate calls it before it
	// waits.
	Release(net.Conn)
	// Refuse records that the handshake fails because there is no certificate for it. The error is
	// returned after it.
	Refuse(net.Conn)
}

// unlimited is no limiter.
type unlimited struct{}

func (unlimited) Acquire(*tls.ClientHelloInfo) error { return nil }
func (unlimited) Release(net.Conn)                   {}
func (unlimited) Refuse(net.Conn)                    {}
