package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/selfsign"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// addrConn is a connection that was made to that address.
type addrConn struct {
	net.Conn
	local net.Addr
}

func (c *addrConn) LocalAddr() net.Addr { return c.local }

// leafFrom returns the certificate that cfg shows to a client for name that has dialled local, nil
// if it is refused.
func leafFrom(cfg *tls.Config, name, local string) *x509.Certificate {
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		defer server.Close()
		addr, _ := net.ResolveTCPAddr("tcp", local)
		tls.Server(&addrConn{server, addr}, cfg).Handshake()
	}()
	conn := tls.Client(client, &tls.Config{ServerName: name, InsecureSkipVerify: true})
	if conn.Handshake() != nil {
		return nil
	}
	return conn.ConnectionState().PeerCertificates[0]
}

// bootCerts returns certificates of a node whose orders go to issue, which may take its time.
func bootCerts(t *testing.T, storage certmagic.Storage, ready func(context.Context) error, issue func() error, l *slog.Logger) *Certs {
	t.Helper()
	c, err := openCerts(Policy{Configure: func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
		cfg.Issuers = []certmagic.Issuer{&stubca.Issuer{Issuer: devca.Issuer{Storage: storage}, Fails: issue}}
	}}, storage, false, ready, l, func(c *Config) { c.Cluster = func() string { return "one" } })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestSelfSignedFromTheFirstSecond(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		ready, enter := stubca.Barrier()
		answer, answers := stubca.Barrier()
		c := bootCerts(t, newMemStorage(), ready, func() error { return answer(t.Context()) }, slog.New(slog.NewTextHandler(&log, nil)))
		names := []string{"a.test", "*.wild.test", "192.0.2.1", "b.test"}
		cfg, err := c.TLSConfig(names...)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if leaf := leafFrom(cfg, "a.test", ""); leaf != nil || time.Since(began) != handshakeWait {
			t.Errorf("before it is known whether there is one: %v after %v", leaf, time.Since(began))
		}
		if c.Status()[1].SelfSigned {
			t.Error("self-signed before it is known whether there is one")
		}

		// A handshake that waits gets it as soon as it is known.
		held := make(chan *x509.Certificate)
		go func() { held <- leafFrom(cfg, "a.test", "") }()
		synctest.Wait()
		began = time.Now()
		enter()
		if leaf := <-held; leaf == nil || leaf.SerialNumber.Cmp(c.handshakes.provisional.marker("a.test")) != 0 || time.Since(began) != 0 {
			t.Errorf("a handshake that waited got %v after %v", leaf, time.Since(began))
		}
		synctest.Wait()
		for sni, name := range map[string]string{"a.test": "a.test", "A.Test": "a.test", "x.wild.test": "*.wild.test", "": "a.test", "b.test": "b.test"} {
			leaf := leafFrom(cfg, sni, "")
			if leaf == nil || leaf.SerialNumber.Cmp(c.handshakes.provisional.marker(name)) != 0 || leaf.Subject.CommonName != selfsign.CommonName || len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != name {
				t.Errorf("%q is shown %+v", sni, leaf)
			} else if again := leafFrom(cfg, sni, ""); !again.Equal(leaf) {
				t.Errorf("%q is shown another the second time", sni)
			}
		}
		if leaf := leafFrom(cfg, "", "192.0.2.1:443"); leaf == nil || leaf.VerifyHostname("192.0.2.1") != nil {
			t.Errorf("a client by address is shown %+v", leaf)
		}
		for _, s := range c.Status() {
			if !s.SelfSigned || s.Managed || s.Serial != "" {
				t.Errorf("status %+v", s)
			}
		}
		// the authority sleeps longer than a self-signed certificate lives
		time.Sleep(selfsign.Life + time.Minute)
		if leaf := leafFrom(cfg, "a.test", ""); leaf == nil || time.Now().After(leaf.NotAfter) {
			t.Errorf("a day later: %+v", leaf)
		}

		answers()
		serial := ""
		for serial == "" { // no handshake fails meanwhile
			leaf := leafFrom(cfg, "a.test", "")
			if leaf == nil {
				t.Fatal("a gap between the two")
			}
			if leaf.Subject.CommonName != selfsign.CommonName {
				serial = leaf.SerialNumber.Text(16)
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Minute)
		for _, s := range c.Status() {
			if s.SelfSigned || !s.Managed {
				t.Errorf("status %+v", s)
			}
		}
		if err := c.loader.config.Storage.Delete(t.Context(), certmagic.StorageKeys.CertsSitePrefix(keyspace.DevIssuer, "a.test")); err != nil {
			t.Fatal(err)
		}
		c.Stored("a.test")
		for range 100 {
			if leaf := leafFrom(cfg, "a.test", ""); leaf == nil || leaf.Subject.CommonName == selfsign.CommonName {
				t.Fatalf("after it was deleted: %+v", leaf)
			}
			time.Sleep(30 * time.Millisecond)
		}
		synctest.Wait() // nobody writes to the log
		text := log.String()
		for _, line := range []string{"a self-signed certificate is being served", "the self-signed certificate is not served any more"} {
			if n := strings.Count(text, line); n != len(names) {
				t.Errorf("%q stands %d times in the log, want once for each name:\n%s", line, n, text)
			}
		}
	})
}

// Once the cluster has had a certificate, no node shows a self-signed one, even if the certificate
// is gone or of no use.
func TestNeverSelfSignedAgain(t *testing.T) {
	skipShort(t)
	synctest.Parallel(t)
	down := func() error { return errInjected }
	crt := certmagic.StorageKeys.SiteCert(keyspace.DevIssuer, "a.test")
	for _, tc := range []struct {
		name   string
		ready  bool          // or never
		after  time.Duration // the new node starts
		change func(*memStorage)
		late   bool // change happens only when the node serves a self-signed one
		want   bool // that the old certificate is shown, rather than none
	}{
		{name: "the authority is down", ready: true, want: true},
		{name: "no quorum", want: true},
		{name: "expired", ready: true, after: devca.LeafLife + time.Hour, want: true},
		{name: "unreadable", ready: true, change: func(s *memStorage) { s.data[crt] = []byte("x") }},
		{name: "another node was luckier", ready: true, late: true, want: true},
		{name: "unreadable from another node", ready: true, late: true, change: func(s *memStorage) { s.data[crt] = []byte("x") }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				storage := newMemStorage()
				old := bootCerts(t, storage, always, func() error { return nil }, nil)
				if _, err := old.TLSConfig("a.test"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				settle(t, old)
				serial := old.Status()[0].Serial
				old.Close()
				time.Sleep(tc.after)
				had := storage.data
				if tc.late {
					storage.data = map[string][]byte{}
				} else if tc.change != nil {
					tc.change(storage)
				}

				ready := always
				if !tc.ready {
					ready, _ = stubca.Barrier()
				}
				c := bootCerts(t, storage, ready, down, nil)
				cfg, err := c.TLSConfig("a.test")
				if err != nil {
					t.Fatal(err)
				}
				if tc.late {
					if leaf := leafFrom(cfg, "a.test", ""); leaf == nil || leaf.Subject.CommonName != selfsign.CommonName {
						t.Fatalf("shown %+v", leaf)
					}
					storage.mu.Lock()
					storage.data = had
					if tc.change != nil {
						tc.change(storage)
					}
					storage.mu.Unlock() // and before this node has heard of it
				}
				for range 50 {
					began := time.Now()
					leaf := leafFrom(cfg, "a.test", "")
					got := ""
					if leaf != nil {
						got = leaf.SerialNumber.Text(16)
					}
					if want := map[bool]string{true: serial}[tc.want]; got != want {
						t.Fatalf("shown %q, want %q", got, want)
					}
					if tc.want && time.Since(began) >= handshakeWait {
						t.Errorf("it came after %v", time.Since(began))
					}
					if c.Status()[0].SelfSigned {
						t.Errorf("status %+v", c.Status()[0])
					}
					time.Sleep(20 * time.Second)
				}
			})
		})
	}
}

// While the storage cannot be read, it is not known whether there is a certificate, and no
// self-signed one is shown.
func TestNotSelfSignedForFaults(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		storage := newMemStorage()
		storage.fail.Store(-1)
		c := bootCerts(t, storage, always, func() error { return errors.New("down") }, nil)
		cfg, err := c.TLSConfig("a.test")
		if err != nil {
			t.Fatal(err)
		}
		if leaf := leafFrom(cfg, "a.test", ""); leaf != nil {
			t.Errorf("shown %+v", leaf)
		}
		storage.fail.Store(0)
		time.Sleep(lookInterval + time.Minute)
		if leaf := leafFrom(cfg, "a.test", ""); leaf == nil || leaf.Subject.CommonName != selfsign.CommonName {
			t.Errorf("shown %+v when the storage could be read", leaf)
		}
		storage.denyAll(func(op, _ string) error {
			if op == "stat" {
				return errInjected // without a lease: another node may have stored one since
			}
			return nil
		})
		if leaf := leafFrom(cfg, "a.test", ""); leaf != nil {
			t.Errorf("shown %+v when the storage could not be read any more", leaf)
		}
	})
}

// A name is served with a wildcard's certificate until it has its own.
func TestWildcardBeforeSelfSigned(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		c := devCerts(t, newMemStorage(), new(atomic.Int64))
		cfg, err := c.TLSConfig("*.wild.test", "bad.wild.test")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if leaf := leafFrom(cfg, "bad.wild.test", ""); leaf == nil || leaf.Subject.CommonName == selfsign.CommonName {
			t.Errorf("shown %+v", leaf)
		}
		if s := c.Status()[1]; s.Domain != "bad.wild.test" || s.SelfSigned || s.Err == nil {
			t.Errorf("status %+v", s)
		}
	})
}

// The marker is the same on all nodes of a cluster, and different for other clusters and names.
func TestMarker(t *testing.T) {
	marker := func(cluster, name string) string {
		return selfsign.Marker(cluster, name).Text(16)
	}
	if a, b := marker("one", "a.test"), marker("one", "a.test"); a != b || len(a) != 32 {
		t.Errorf("%s, %s", a, b)
	}
	for _, other := range []string{marker("two", "a.test"), marker("one", "b.test")} {
		if other == marker("one", "a.test") {
			t.Error("another cluster, or another name, has the same marker")
		}
	}
}
