package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/clustertest/testca"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// Three nodes renew the certificate of a name for 90 days, by the node's timer, with renewal
// information. The authority cannot be reached for half a day and limits orders for another half,
// both when a renewal is due. Each certificate is replaced by one order, and all nodes serve the
// newest one at any time. The challenges go to one node after the other: see package testca for
// why that shows that each node knows them.
//
// The nodes have a storage in memory in place of raft. TestRenewalsOfCluster has raft.
func TestNinetyDaysOfRenewals(t *testing.T) {
	skipShort(t)
	const (
		day   = 24 * time.Hour
		life  = 6 * day
		every = 6 * time.Hour // between looks at what is served
	)
	all := time.Duration(cases(t, 90, 30)) * day
	for _, challenge := range []string{testca.HTTP01, testca.TLSALPN01, testca.DNS01} {
		t.Run(challenge, func(t *testing.T) {
			s := &sites{net: simnet.New()}
			zone := new(testca.Zone)
			ca := testca.New(t, testca.Config{Dial: s.dial, TXT: zone.TXT, Challenges: []string{challenge}, Lifetime: life})
			withoutLimit(t, func() error { return ca.PrepareRenewals(t.Context(), "") })
			name := challenge + ".example"
			synctest.Test(t, func(t *testing.T) {
				storage := newMemStorage()
				var nodes []*Certs
				for range 3 {
					c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, i *certmagic.ACMEIssuer) {
						ca.Configure(cfg, i)
						if challenge == testca.DNS01 {
							i.DNS01Solver = zone
						}
					}}, storage, false, always, nil)
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(c.Close)
					nodes = append(nodes, c)
				}
				storage.notify(nodes...)
				for _, c := range nodes {
					s.add(t, c, name)
				}
				time.Sleep(time.Minute)
				for _, c := range nodes {
					settle(t, c)
				}
				began := time.Now()
				down, limited := began.Add(all/3), began.Add(2*all/3)
				for time.Since(began) < all {
					time.Sleep(every)
					synctest.Wait()
					issued := ca.Issued(name)
					newest := issued[len(issued)-1]
					for i, c := range nodes {
						if got := c.Status()[0].Serial; got != newest.SerialNumber.Text(16) {
							t.Errorf("after %v node %d serves %s, the newest is %s", time.Since(began), i, got, newest.SerialNumber.Text(16))
						}
					}
					switch due := dueOf(newest); {
					case !down.IsZero() && time.Now().After(down) && time.Until(due) < every:
						down = time.Time{}
						ca.SetUnreachable(true)
						time.AfterFunc(every+12*time.Hour, func() { ca.SetUnreachable(false) })
					case !limited.IsZero() && time.Now().After(limited) && time.Until(due) < every:
						limited = time.Time{}
						ca.Limit(testca.NewOrder, every+12*time.Hour)
					}
				}
				checkChain(t, ca, name, int(all/(life*2/3)))
				if n := ca.Early(testca.NewOrder); n != 0 {
					t.Errorf("%d orders came while the authority wanted none", n)
				}
				for _, v := range ca.Validations() {
					if v.Err != nil {
						t.Errorf("%s: %v", v.At, v.Err)
					}
				}
				if n := ca.Accounts(); n != 1 {
					t.Errorf("%d accounts", n)
				}
			})
		})
	}
}

// A node answers a challenge from the storage alone, although certmagic has it in the memory of the
// process: a node with another storage fails the order. So in the test above each node that was
// asked has read the token.
func TestChallengeComesFromTheStorage(t *testing.T) {
	synctest.Parallel(t)
	for _, challenge := range []string{testca.HTTP01, testca.TLSALPN01} {
		for _, same := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, the same storage %v", challenge, same), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := &sites{net: simnet.New()}
					ca := testca.New(t, testca.Config{Dial: s.dial, Challenges: []string{challenge}})
					storages := []*memStorage{newMemStorage(), newMemStorage()}
					if same {
						storages[1] = storages[0]
					}
					var nodes []*Certs
					for _, storage := range storages {
						c, err := openCerts(Policy{Configure: ca.Configure}, storage, false, always, nil)
						if err != nil {
							t.Fatal(err)
						}
						t.Cleanup(c.Close)
						nodes = append(nodes, c)
					}
					s.add(t, nodes[1]) // the authority is always led here
					startAll(t, nodes[:1], challenge+"-storage.example")
					time.Sleep(10 * time.Second)
					all := ca.Validations()
					if len(all) == 0 || same != (all[0].Err == nil) {
						t.Errorf("validations: %+v", all)
					}
				})
			})
		}
	}
}

// Probes of a node that orders at an authority in memory use the authority's network, unless the
// node was given another one.
func TestProbesUseTheAuthoritysNetwork(t *testing.T) {
	synctest.Parallel(t)
	const ip = "192.0.2.7"
	for _, given := range []bool{false, true} {
		t.Run(fmt.Sprintf("another one is given: %v", given), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var dialed atomic.Pointer[string]
				ca := testca.New(t, testca.Config{Trusting: true, Dial: func(_ context.Context, _, addr string) (net.Conn, error) {
					dialed.Store(&addr)
					return nil, errInjected
				}})
				var with []func(*Config)
				if given {
					with = append(with, offline)
				}
				c, err := openCerts(Policy{Configure: ca.Configure}, newMemStorage(), false, always, nil, with...)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(c.Close)
				startAll(t, []*Certs{c}, ip, "a.example")
				time.Sleep(time.Minute)
				settle(t, c)
				if got := dialed.Load(); given != (got == nil) || got != nil && *got != ip+":443" {
					t.Errorf("dialed: %v", got)
				}
			})
		})
	}
}

// dueOf returns when renewal information wants a certificate to be renewed, if it says nothing
// else.
func dueOf(leaf *x509.Certificate) time.Time {
	return leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3)
}

// checkChain fails the test unless each certificate of name was replaced by one order, before it
// has expired, about n times.
func checkChain(t *testing.T, ca *testca.Authority, name string, n int) {
	t.Helper()
	var last *x509.Certificate
	renewals, refused := 0, 0
	for _, o := range ca.Placed(name) {
		if o.Refused {
			refused++
			continue
		}
		if o.Certificate == nil {
			t.Errorf("the order of %s came to nothing", o.At)
			continue
		}
		if last != nil {
			renewals++
			if id, err := acme.ARIUniqueIdentifier(last); err != nil || o.Replaces != id {
				t.Errorf("the order of %s replaces %q, the newest is %q (%v)", o.At, o.Replaces, id, err)
			}
			if !o.At.Before(last.NotAfter) {
				t.Errorf("the certificate until %s was replaced at %s", last.NotAfter, o.At)
			}
		}
		last = o.Certificate
	}
	if renewals < n-2 || renewals > n+1 {
		t.Errorf("%d renewals, want about %d", renewals, n)
	}
	t.Logf("%s: %d renewals, %d orders refused", name, renewals, refused)
}

// withoutLimit calls f while certmagic makes limits that limit nothing: they count real seconds. No
// other test may run, because this is a variable of certmagic.
func withoutLimit(t *testing.T, f func() error) {
	t.Helper()
	events, window := certmagic.RateLimitEvents, certmagic.RateLimitEventsWindow
	certmagic.RateLimitEvents, certmagic.RateLimitEventsWindow = 0, 0
	defer func() { certmagic.RateLimitEvents, certmagic.RateLimitEventsWindow = events, window }()
	if err := f(); err != nil {
		t.Fatal(err)
	}
}

// sites are nodes that serve on a network in memory.
type sites struct {
	net   *simnet.Network
	n     atomic.Int64 // of nodes
	turns atomic.Int64 // of dial
}

// add has a node serve names until the test ends, on the next host.
func (s *sites) add(t *testing.T, c *Certs, names ...string) {
	t.Helper()
	host := s.net.Host(fmt.Sprint("n", s.n.Add(1)-1))
	cfg, err := c.TLSConfig(names...)
	if err != nil {
		t.Fatal(err)
	}
	for port, wrap := range map[string]func(net.Listener) net.Listener{
		":80":  func(ln net.Listener) net.Listener { return ln },
		":443": func(ln net.Listener) net.Listener { return tls.NewListener(ln, cfg) },
	} {
		ln, err := host.Listen("tcp", port)
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: c.HTTPHandler(nil), ErrorLog: log.New(io.Discard, "", 0)}
		done := make(chan struct{})
		go func() { defer close(done); srv.Serve(wrap(ln)) }()
		t.Cleanup(func() { srv.Close(); <-done })
	}
}

// dial leads every name to one node after the other.
func (s *sites) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	to := fmt.Sprint("n", s.turns.Add(1)%s.n.Load())
	return s.net.Host("authority").Dial(ctx, network, net.JoinHostPort(to, port))
}
