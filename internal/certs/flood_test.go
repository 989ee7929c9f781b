package certs

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/frontend/tickets"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A flood of names that nobody serves costs next to nothing.
func TestFloodOfUnknownNames(t *testing.T) {
	skipShort(t)
	names := cases(t, 2000, 500)
	for _, tc := range []struct {
		name     string
		n        int
		protos   []string
		onDemand bool
		ops      int64 // of the storage for each
	}{
		{name: "ordinary", n: names},
		// memory of this node: another node may have ordered
		{name: "as a challenge", n: 200, protos: []string{acmez.ACMETLS1Protocol}, ops: 1},
		{name: "on demand, not wanted", n: 200, onDemand: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			storage := &countedStorage{memStorage: newMemStorage()}
			var issued, asked, logged atomic.Int64
			c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
				cfg.Issuers = []certmagic.Issuer{&countingIssuer{Issuer: devca.Issuer{Storage: storage}, issued: &issued}}
				if tc.onDemand {
					cfg.OnDemand = &certmagic.OnDemandConfig{DecisionFunc: func(_ context.Context, name string) error {
						asked.Add(1)
						return errInjected
					}}
				}
			}}, storage, true, always, slog.New(countedLog{n: &logged}))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			addr := serveTLS(t, c, http.NotFoundHandler(), "home.test")
			settle(t, c)
			if _, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "home.test", InsecureSkipVerify: true}); err != nil {
				t.Fatal(err)
			}
			ops, looks, orders, records := storage.all.Load(), storage.looks.Load(), issued.Load(), logged.Load()
			if n := flood(t, addr, tc.n, tc.protos...); n != 0 {
				t.Errorf("%d got through", n)
			}
			ops, looks = storage.all.Load()-ops, storage.looks.Load()-looks
			if ops != looks || ops != tc.ops*int64(tc.n) {
				t.Errorf("%d calls of the storage for %d names, %d of them ask whether something is there", ops, tc.n, looks)
			}
			if n := issued.Load() - orders; n != 0 {
				t.Errorf("%d orders", n)
			}
			if n := logged.Load() - records; n != 0 {
				t.Errorf("%d records in the log", n)
			}
			if tc.onDemand && asked.Load() < int64(tc.n) {
				t.Errorf("the decision function was asked %d times for %d names", asked.Load(), tc.n)
			}
		})
	}
}

// A session that began with a self-signed certificate is not resumed. One that began with a real
// certificate is.
func TestSelfSignedSessionsEnd(t *testing.T) {
	synctest.Parallel(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answer, answers := stubca.Barrier()
				c := bootCerts(t, newMemStorage(), always, func() error { return answer(t.Context()) }, nil)
				server, err := c.TLSConfig("a.test", "*.wild.test")
				if err != nil {
					t.Fatal(err)
				}
				tickets.New(time.Hour, func() bool { return true }).Bind(server, c.Provisional)
				clients := make(map[string]*tls.Config)
				for _, name := range []string{"a.test", "x.wild.test", ""} {
					clients[name] = &tls.Config{
						ServerName: name, InsecureSkipVerify: true, MaxVersion: version, ClientSessionCache: oneSession{tls.NewLRUClientSessionCache(1)},
					}
					for range 3 {
						if resumes(t, clients[name], server) {
							t.Errorf("%q: a session is resumed while there is no certificate", name)
						}
					}
				}
				answers()
				settle(t, c)
				for name, client := range clients {
					for i, want := range []bool{false, true, true} {
						if got := resumes(t, client, server); got != want {
							t.Errorf("%q: connection %d resumes %v", name, i+1, got)
						}
					}
				}
				if all, a, wild := c.loader.names.given, c.loader.names.names["a.test"].given, c.loader.names.names["*.wild.test"].given; all != 0 || a != 0 || wild != 0 {
					t.Errorf("handshakes under way: %d, %d and %d of them", all, a, wild)
				}
			})
		})
	}
}

// resumes makes a connection and reports whether its session was resumed.
func resumes(t *testing.T, client, server *tls.Config) bool {
	t.Helper()
	wire := simnet.New()
	ln, err := wire.Host("server").Listen("tcp", "server:443")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		far, err := ln.Accept()
		if err == nil {
			_, err = tls.Server(far, server).Write([]byte("x"))
			far.Close()
		}
		served <- err
	}()
	near, err := wire.Host("client").Dial(t.Context(), "tcp", "server:443")
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(near, client)
	_, err = io.ReadFull(conn, make([]byte, 1)) // the ticket of TLS 1.3 comes before
	near.Close()
	if serr := <-served; err != nil || serr != nil {
		t.Fatalf("client: %v; server: %v", err, serr)
	}
	return conn.ConnectionState().DidResume
}

// oneSession offers the same session to every server, as an attacker would.
type oneSession struct{ tls.ClientSessionCache }

func (c oneSession) Get(string) (*tls.ClientSessionState, bool) { return c.ClientSessionCache.Get("") }

func (c oneSession) Put(_ string, s *tls.ClientSessionState) { c.ClientSessionCache.Put("", s) }
