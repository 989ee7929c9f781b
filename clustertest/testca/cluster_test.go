package testca_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

const (
	nodes       = 3
	clusterLife = 30 * 24 * time.Hour // of a certificate
	due         = clusterLife * 3 / 4
)

// street is a network in memory on which the authority reaches the nodes of a cluster.
type street struct {
	net   *simnet.Network
	turns atomic.Int64
}

// dial leads every name to one node after the other.
func (s *street) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	node := strconv.Itoa(int(s.turns.Add(1)) % nodes)
	return s.net.Host("authority").Dial(ctx, network, net.JoinHostPort(node, port))
}

// fleet is a cluster that serves a name in a street.
type fleet struct {
	*clustertest.Cluster
	t    *testing.T
	ca   *testca.Authority
	name string
	net  *simnet.Network

	mu      sync.Mutex
	configs map[int]*certmagic.Config // of the running process of each node
	serves  map[int]*tls.Config
	plain   map[int]http.Handler
}

// newFleet starts a cluster. configure, if not nil, configures each issuer.
func newFleet(t *testing.T, ca *testca.Authority, name string, s *street, configure func(*certmagic.ACMEIssuer)) *fleet {
	t.Helper()
	f := &fleet{
		t: t, ca: ca, name: name, net: s.net,
		configs: make(map[int]*certmagic.Config), serves: make(map[int]*tls.Config), plain: make(map[int]http.Handler),
	}
	f.Cluster = clustertest.New(t, nodes, func(i int, c *flotilla.Config) {
		c.Logger = slog.New(slog.DiscardHandler)
		c.TLS.Configure = func(cfg *certmagic.Config, issuer *certmagic.ACMEIssuer) {
			ca.Configure(cfg, issuer)
			if configure != nil {
				configure(issuer)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			f.configs[i] = cfg
		}
	})
	for i := range f.Nodes {
		f.listen(i)
	}
	f.serve()
	return f
}

// listen opens the ports of a node, which its processes share one after the other.
func (f *fleet) listen(i int) {
	f.t.Helper()
	host := f.net.Host(strconv.Itoa(i))
	for port, s := range map[string]*http.Server{
		":80": {Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			f.mu.Lock()
			h := f.plain[i]
			f.mu.Unlock()
			h.ServeHTTP(w, r)
		})},
		":443": {TLSConfig: &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.serves[i], nil
		}}},
	} {
		ln, err := host.Listen("tcp", port)
		if err != nil {
			f.t.Fatal(err)
		}
		if s.TLSConfig != nil {
			ln = tls.NewListener(ln, s.TLSConfig)
		}
		s.ErrorLog = log.New(io.Discard, "", 0)
		done := make(chan struct{})
		go func() { defer close(done); s.Serve(ln) }()
		f.t.Cleanup(func() { s.Close(); <-done })
	}
}

// serve has the running processes serve.
func (f *fleet) serve() {
	f.t.Helper()
	for i, n := range f.Nodes {
		cfg, err := n.TLSConfig(f.name)
		if err != nil {
			f.t.Fatal(err)
		}
		f.mu.Lock()
		f.serves[i], f.plain[i] = cfg, n.HTTPHandler(nil)
		f.mu.Unlock()
	}
	f.Settle()
}

// rest ends all processes for a time, and starts them again. A running cluster renews leases all
// the time: days of that would take hours.
func (f *fleet) rest(d time.Duration) {
	f.t.Helper()
	for i := range f.Nodes {
		f.Kill(i)
	}
	time.Sleep(d)
	for i := range f.Nodes {
		f.Restart(i)
	}
	f.serve()
}

// renewAll has all nodes renew the certificate at the same moment, if it is due, and returns their
// errors. Each goes the way of certmagic's timer, except that no other node's process is asked to
// do it instead: see the package comment.
func (f *fleet) renewAll() error {
	second := 1 // without certmagic's limit, which counts real seconds
	ctx := context.WithValue(f.t.Context(), certmagic.AttemptsCtxKey, &second)
	errs := make(chan error)
	for i := range f.Nodes {
		f.mu.Lock()
		cfg := f.configs[i]
		f.mu.Unlock()
		go func() { errs <- cfg.RenewCertSync(ctx, f.name, false) }()
	}
	var all error
	for range f.Nodes {
		all = errors.Join(all, <-errs)
	}
	return all
}

// check fails the test unless n certificates were signed and all nodes serve the newest one, which
// is valid.
func (f *fleet) check(n int) {
	f.t.Helper()
	time.Sleep(time.Second) // until all nodes have loaded it
	issued := f.ca.Issued(f.name)
	if len(issued) != n {
		f.t.Errorf("%d certificates, want %d", len(issued), n)
	}
	newest := issued[len(issued)-1]
	if !time.Now().Before(newest.NotAfter) {
		f.t.Errorf("the newest certificate has expired at %s", newest.NotAfter)
	}
	for i := range f.Nodes {
		f.mu.Lock()
		cfg := f.serves[i]
		f.mu.Unlock()
		if got := testtls.Serial(cfg, f.name); got != newest.SerialNumber.Text(16) {
			f.t.Errorf("node %d serves %q, the newest is %x", i, got, newest.SerialNumber)
		}
	}
}

// A cluster of three real nodes renews the certificate of a name for 90 days. Each time all nodes
// want to renew it at once, and one order is placed. Once the authority cannot be reached, once it
// limits orders, and once certmagic's timer is waited for. Between renewals the processes rest: see
// fleet.rest. The other challenges have one renewal each.
func TestRenewalsOfCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	for _, tc := range []struct {
		challenge string
		pass      func(*fleet)
	}{{testca.HTTP01, ninetyDays}, {testca.TLSALPN01, renewal}, {testca.DNS01, renewal}} {
		t.Run(tc.challenge, func(t *testing.T) {
			s, zone := &street{net: simnet.New()}, new(testca.Zone)
			ca := testca.New(t, testca.Config{Dial: s.dial, TXT: zone.TXT, Challenges: []string{tc.challenge}, Lifetime: clusterLife})
			if err := ca.PrepareRenewals(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			var configure func(*certmagic.ACMEIssuer)
			if tc.challenge == testca.DNS01 {
				configure = func(i *certmagic.ACMEIssuer) { i.DNS01Solver = zone }
			}
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, ca, "cluster-"+tc.challenge+".example", s, configure)
				tc.pass(f)
				checkOrders(t, ca, f.name)
			})
		})
	}
}

// renewal is the first certificate of a fleet, and its first renewal.
func renewal(f *fleet) {
	f.t.Helper()
	time.Sleep(10 * time.Second)
	f.check(1)
	f.rest(due)
	if err := f.renewAll(); err != nil {
		f.t.Error(err)
	}
	f.check(2)
}

// ninetyDays is a renewal, and three more with difficulties.
func ninetyDays(f *fleet) {
	t, began := f.t, time.Now()
	renewal(f)

	f.rest(due)
	f.ca.SetUnreachable(true)
	if err := f.renewAll(); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a renewal without an authority: %v", err)
	}
	f.check(2) // the former one is served
	f.ca.SetUnreachable(false)
	if err := f.renewAll(); err != nil {
		t.Error(err)
	}
	f.check(3)

	f.rest(due)
	f.ca.Limit(testca.NewOrder, time.Minute)
	var limited acme.Problem
	if err := f.renewAll(); !errors.As(err, &limited) || limited.Type != acme.ProblemTypeRateLimited {
		t.Errorf("a renewal that is limited: %v", err)
	}
	f.check(3)
	for f.renewAll() != nil { // after a while
		time.Sleep(30 * time.Second)
	}
	f.check(4)
	if n := f.ca.Early(testca.NewOrder); n != 0 {
		t.Errorf("%d orders came while the authority wanted none", n)
	}

	f.rest(due)
	time.Sleep(11 * time.Minute) // certmagic looks every ten minutes
	f.check(5)

	if d := time.Since(began); d < 90*24*time.Hour {
		t.Errorf("only %v have passed", d)
	}
}

// checkOrders fails the test unless each certificate was replaced by one order, each challenge
// was answered, and there is one account.
func checkOrders(t *testing.T, ca *testca.Authority, name string) {
	t.Helper()
	former := ""
	for _, o := range ca.Placed(name) {
		if o.Refused {
			continue
		}
		if o.Certificate == nil || o.Replaces != former {
			t.Errorf("an order replaces %q, the newest was %q; it is %+v", o.Replaces, former, o)
			continue
		}
		var err error
		if former, err = acme.ARIUniqueIdentifier(o.Certificate); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range ca.Validations() {
		if v.Err != nil {
			t.Errorf("%s at %s: %v", v.Challenge, v.At, v.Err)
		}
	}
	if n := ca.Accounts(); n != 1 {
		t.Errorf("%d accounts", n)
	}
}
