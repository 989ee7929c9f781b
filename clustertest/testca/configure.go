package testca

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/flotilla-ha/flotilla/internal/certs/backoff"
	"github.com/flotilla-ha/flotilla/internal/certs/probe"
)

// Configure makes a node order at the authority, in memory. It is for TLS.Configure of
// flotilla.Config. A function of the test may call it and change more, such as DNS01Solver. It
// panics if there is no ACME issuer, as with TLS.Private; in development mode, set TLS.CA to URL.
//
// certmagic's solvers open no port: they find one of loopback in use, which the authority holds.
// The node looks no name up. If it serves an IP address, it reaches it by Config.Dial.
func (a *Authority) Configure(_ *certmagic.Config, i *certmagic.ACMEIssuer) {
	if i == nil {
		panic("testca: there is no ACME issuer; set TLS.CA to the authority's URL, and do not set TLS.Private")
	}
	client := backoff.HTTPClientOf(i)
	if client == nil {
		panic("testca: this version of certmagic has its HTTP client elsewhere")
	}
	client.Transport = world{a}
	i.CA, i.TestCA = a.url, ""
	held := a.held.Addr().(*net.TCPAddr)
	i.ListenHost, i.AltHTTPPort, i.AltTLSALPNPort = held.IP.String(), held.Port, held.Port
}

// world is the transport of a node. The node's probes use it too.
type world struct{ *Authority }

var _ probe.Network = world{}

// Lookup knows no name: a node then concludes nothing from where its names lead.
func (world) Lookup(_ context.Context, _, host string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// Dial connects to an address.
func (w world) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	return w.dial(ctx, host, port)
}

// PrepareRenewals makes certmagic's own limit of orders for the authority. A test in a bubble needs
// it if its nodes renew certificates by themselves, and calls it outside of the bubble, before
// anything is ordered. email is TLS.Email of the nodes. The authority forgets that it was asked.
func (a *Authority) PrepareRenewals(ctx context.Context, email string) error {
	dir, err := os.MkdirTemp("", "testca")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var cfg *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return cfg, nil }, Logger: zap.NewNop(),
	})
	defer cache.Stop()
	cfg = certmagic.New(cache, certmagic.Config{Storage: &certmagic.FileStorage{Path: dir}, Logger: zap.NewNop()})
	if strings.TrimSpace(email) == "" {
		email = " " // as flotilla does: certmagic would look for another one
	}
	issuer := certmagic.NewACMEIssuer(cfg, certmagic.ACMEIssuer{CA: a.url, Email: email, Agreed: true, Logger: zap.NewNop()})
	a.Configure(cfg, issuer)
	const name = "prepare.example"
	if err := issuer.PreCheck(ctx, []string{name}, false); err != nil {
		return err
	}
	// The limit is made between the account and the order, which is refused.
	a.mu.Lock()
	former := a.refuse
	a.mu.Unlock()
	a.Refuse(func(r Request) *Refusal {
		if r.Op != NewOrder {
			return nil
		}
		return Problem(http.StatusForbidden, "rejectedIdentifier", "the limit is being made", "")
	})
	_, err = issuer.Issue(ctx, &x509.CertificateRequest{DNSNames: []string{name}})
	a.Refuse(former)
	if n := len(a.Placed(name)); n != 1 {
		return fmt.Errorf("testca: certmagic placed %d orders while its limit was made, want 1: %w", n, err)
	}
	a.forgetAll()
	return nil
}
