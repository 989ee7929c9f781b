package flotilla

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
)

// serving is a cluster of one that serves app.test on the sockets of this machine.
type serving struct {
	*Node
	port  string
	roots *x509.CertPool
	stop  context.CancelFunc
	ended chan error
}

// serveReal serves h with cfg on every address of this machine, by Node.Serve.
func serveReal(t *testing.T, cfg Config, h http.Handler) *serving {
	t.Helper()
	addrs := freeAddrs(t, 2)
	_, port, _ := net.SplitHostPort(addrs[0])
	cfg.Secrets, cfg.Addr, cfg.Timing = []Secret{NewSecret()}, "127.0.0.1:0", Fast
	cfg.HTTPSAddr, cfg.HTTPAddr = "0.0.0.0:"+port, addrs[1]
	cfg.TLS.Configure = ownIssuer
	n, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	s := &serving{Node: n, port: port, stop: stop, ended: make(chan error, 1)}
	go func() { s.ended <- n.Serve(ctx, h, "app.test") }()
	t.Cleanup(func() {
		stop()
		n.Close()
	})
	s.roots = awaitCertificate(t, n, s.ended)
	return s
}

// ownIssuer makes the cluster issue its certificates itself.
func ownIssuer(c *certmagic.Config, _ *certmagic.ACMEIssuer) {
	c.Issuers = []certmagic.Issuer{&devca.Issuer{Storage: c.Storage}}
}

// awaitCertificate waits for the certificate of app.test, and returns its authority. It fails the
// test if Serve ends first, whose error ended gets.
func awaitCertificate(t *testing.T, n *Node, ended chan error) *x509.CertPool {
	t.Helper()
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if s := n.certs.Status(); len(s) > 0 && s[0].Serial != "" {
			return stubca.DevRoots(t, n.storage)
		}
		select {
		case err := <-ended:
			ended <- err // for others who wait for it
			t.Fatalf("Serve has ended before there was a certificate: %v", err)
		case <-tick.C:
		}
	}
}

// tls returns a client's configuration.
func (s *serving) tls(protos ...string) *tls.Config {
	return &tls.Config{RootCAs: s.roots, ServerName: "app.test", NextProtos: protos}
}

// Clients must show certificates if the user's server requires them. The certificate authority need
// not.
func TestServeWithClientCertificates(t *testing.T) {
	SkipShort(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(leaf)

	var states, contexts, bases, verified atomic.Int32
	srv := &http.Server{
		TLSConfig: &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, VerifyConnection: func(s tls.ConnectionState) error {
			verified.Add(1)
			if len(s.PeerCertificates) == 0 {
				return errors.New("no certificate")
			}
			return nil
		}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, r.Proto+" "+r.TLS.PeerCertificates[0].SerialNumber.String())
		}),
		ConnState:   func(net.Conn, http.ConnState) { states.Add(1) },
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context { contexts.Add(1); return ctx },
		BaseContext: func(net.Listener) context.Context { bases.Add(1); return t.Context() },
	}
	s := serveReal(t, Config{Server: srv}, nil)
	addr := "127.0.0.1:" + s.port
	for _, h2 := range []bool{false, true} {
		config := s.tls()
		config.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: h2, DisableKeepAlives: true}}
		resp, err := client.Get("https://" + addr)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := map[bool]string{false: "HTTP/1.1 1", true: "HTTP/2.0 1"}[h2]; err != nil || string(body) != want {
			t.Errorf("%q, %v, want %q", body, err, want)
		}
	}
	if states.Load() < 4 || contexts.Load() != 2 || bases.Load() != 1 || verified.Load() != 2 {
		t.Errorf("the user's hooks: %d states, %d contexts, %d bases, %d verified", states.Load(), contexts.Load(), bases.Load(), verified.Load())
	}

	bare := &http.Client{Transport: &http.Transport{TLSClientConfig: s.tls()}}
	defer bare.CloseIdleConnections()
	if _, err := bare.Get("https://" + addr); err == nil || !strings.Contains(err.Error(), "tls: certificate required") {
		t.Errorf("a client without a certificate is served: %v", err)
	}
	// ALPN that only resembles a challenge does not help.
	for _, protos := range [][]string{{acmez.ACMETLS1Protocol, "http/1.1"}, {"http/1.1", acmez.ACMETLS1Protocol}} {
		conn, err := tls.Dial("tcp", addr, s.tls(protos...))
		if err == nil {
			_, err = conn.Read(make([]byte, 1)) // in TLS 1.3 the client gets the alert here
			conn.Close()
		}
		if !strings.Contains(err.Error(), "certificate required") {
			t.Errorf("ALPN %q: %v", protos, err)
		}
	}

	chal := stubca.StoreToken(t, s.storage, s.certs.Issuers()[0], acme.ChallengeTypeTLSALPN01, "app.test")
	want, err := acmez.TLSALPN01ChallengeCert(chal)
	if err != nil {
		t.Fatal(err)
	}
	before := verified.Load()
	conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "app.test", NextProtos: []string{acmez.ACMETLS1Protocol}, InsecureSkipVerify: true})
	if err != nil {
		t.Fatalf("a challenge: %v", err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF { // a refusal would come here
		t.Errorf("a challenge: %v", err)
	}
	got := conn.ConnectionState()
	if len(got.PeerCertificates[0].Extensions) != len(want.Leaf.Extensions) || got.NegotiatedProtocol != acmez.ACMETLS1Protocol || verified.Load() != before {
		t.Errorf("not the certificate of the challenge, or the user was asked: %+v", got)
	}
	for _, e := range want.Leaf.Extensions {
		if !slices.ContainsFunc(got.PeerCertificates[0].Extensions, func(x pkix.Extension) bool { return x.Id.Equal(e.Id) }) {
			t.Errorf("the certificate has no extension %v", e.Id)
		}
	}
}

// An http.Server serves once, and one that has been shut down does not serve.
func TestServerServesOnce(t *testing.T) {
	SkipShort(t)
	fault := func(err error, want string) {
		t.Helper()
		var ce *ConfigError
		if !errors.As(err, &ce) || ce.Field != "Server" || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want a ConfigError of Server with %q", err, want)
		}
	}
	srv := new(http.Server)
	s := serveReal(t, Config{Server: srv}, http.NotFoundHandler())
	cfg := Config{HTTPSAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Server: srv}
	fault(Serve(t.Context(), cfg, nil), "of its own")
	srv.Shutdown(t.Context()) // the user's
	fault(<-s.ended, "shut down")
	over := new(http.Server)
	over.Close()
	cfg.Server = over
	fault(Serve(t.Context(), cfg, nil), "shut down")
}
