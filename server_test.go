package flotilla

import (
	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
	"github.com/flotilla-ha/flotilla/internal/frontend"
	"github.com/flotilla-ha/flotilla/internal/testlog"

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
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
)

// serving is a cluster of one that serves app.test on the sockets of this machine.
type serving struct {
	*Node
	port  string
	roots *x509.CertPool
	stop  context.CancelFunc
	ended chan error
}

// serveReal serves h with cfg on every address of this machine, in the way of Node.Serve.
func serveReal(t *testing.T, cfg Config, h http.Handler) *serving {
	t.Helper()
	_, port, _ := net.SplitHostPort(freeAddr(t))
	cfg.Secrets, cfg.Addr, cfg.Timing = []Secret{NewSecret()}, "127.0.0.1:0", Fast
	cfg.HTTPSAddr, cfg.HTTPAddr = "0.0.0.0:"+port, freeAddr(t)
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
	for len(n.fronts.List()) == 0 { // the certificate may be there before the servers are
		select {
		case err := <-s.ended:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	return s
}

// ownIssuer has the cluster issue its certificates itself.
func ownIssuer(c *certmagic.Config, _ *certmagic.ACMEIssuer) {
	c.Issuers = []certmagic.Issuer{&devca.Issuer{Storage: c.Storage}}
}

// awaitCertificate waits for the certificate of app.test, and returns who has signed it. It fails the
// test if Serve ends first, which ended tells.
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
			ended <- err // for those who wait for it as well
			t.Fatalf("Serve has ended before there was a certificate: %v", err)
		case <-tick.C:
		}
	}
}

// tls returns a client's configuration.
func (s *serving) tls(protos ...string) *tls.Config {
	return &tls.Config{RootCAs: s.roots, ServerName: "app.test", NextProtos: protos}
}

func TestServerDefaults(t *testing.T) {
	type limits struct {
		header, idle, read, write time.Duration
		bytes                     int
		h2                        [3]time.Duration // SendPing, Ping, WriteByte
	}
	for _, tc := range []struct {
		name string
		srv  *http.Server
		want limits
	}{
		{"none", nil, limits{10 * time.Second, 2 * time.Minute, 0, 0, 64 << 10, [3]time.Duration{30 * time.Second, 15 * time.Second, 30 * time.Second}}},
		{"empty", &http.Server{}, limits{10 * time.Second, 2 * time.Minute, 0, 0, 64 << 10, [3]time.Duration{30 * time.Second, 15 * time.Second, 30 * time.Second}}},
		{"set", &http.Server{
			ReadHeaderTimeout: 1, IdleTimeout: 2, WriteTimeout: 4, MaxHeaderBytes: 5, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 9, SendPingTimeout: 6, PingTimeout: 7, WriteByteTimeout: 8},
		}, limits{1, 2, 0, 4, 5, [3]time.Duration{6, 7, 8}}},
		{"none wanted", &http.Server{
			ReadHeaderTimeout: -1, IdleTimeout: -1, ReadTimeout: -1, MaxHeaderBytes: -1, HTTP2: &http.HTTP2Config{SendPingTimeout: -1, WriteByteTimeout: -1},
		}, limits{-1, -1, -1, 0, -1, [3]time.Duration{-1, 15 * time.Second, -1}}},
		{"no ReadTimeout wanted", &http.Server{ReadTimeout: -1}, limits{10 * time.Second, 2 * time.Minute, -1, 0, 64 << 10, [3]time.Duration{30 * time.Second, 15 * time.Second, 30 * time.Second}}},
		{"ReadTimeout stands for others", &http.Server{ReadTimeout: 3}, limits{0, 0, 3, 0, 64 << 10, [3]time.Duration{30 * time.Second, 15 * time.Second, 30 * time.Second}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var given *http.HTTP2Config
			if tc.srv != nil {
				given = tc.srv.HTTP2
			}
			h := http.NotFoundHandler()
			srv, err := frontend.HTTPSServer(tc.srv, h, &tls.Config{}, testlog.None(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if tc.srv != nil && srv != tc.srv {
				t.Error("another server than the user's")
			}
			got := limits{
				srv.ReadHeaderTimeout, srv.IdleTimeout, srv.ReadTimeout, srv.WriteTimeout, srv.MaxHeaderBytes,
				[3]time.Duration{srv.HTTP2.SendPingTimeout, srv.HTTP2.PingTimeout, srv.HTTP2.WriteByteTimeout},
			}
			if got != tc.want || srv.ErrorLog == nil {
				t.Errorf("%+v, want %+v", got, tc.want)
			}
			if given != nil && srv.HTTP2.MaxConcurrentStreams != given.MaxConcurrentStreams {
				t.Error("another limit of the user's for HTTP/2 is lost")
			}
			if given == srv.HTTP2 {
				t.Error("the user's HTTP2Config has been changed")
			}
		})
	}
}

// What the user sets in a tls.Config is kept, field by field; one that Go adds is in it, or this fails.
func TestMergeTLSKnowsEveryField(t *testing.T) {
	ownField := map[string]bool{"NextProtos": true, "GetConfigForClient": true} // see the tests below
	fields := reflect.TypeFor[tls.Config]()
	for i := range fields.NumField() {
		f := fields.Field(i)
		if !f.IsExported() || ownField[f.Name] {
			continue
		}
		t.Run(f.Name, func(t *testing.T) {
			user, ours := new(tls.Config), &tls.Config{NextProtos: []string{"ours"}}
			at := reflect.ValueOf(user).Elem().Field(i)
			at.Set(someValue(t, f.Type))
			frontend.MergeTLS(ours, user, new(http.Server), func(*tls.Config) {})
			if got := reflect.ValueOf(ours).Elem().Field(i); !same(got, at) {
				t.Errorf("the user's %v has become %v", at, got)
			}
			if f.Name == "MinVersion" { // the user's wins
				for _, v := range []uint16{tls.VersionTLS10, tls.VersionTLS13} {
					ours, user = &tls.Config{MinVersion: tls.VersionTLS12}, &tls.Config{MinVersion: v}
					if frontend.MergeTLS(ours, user, new(http.Server), func(*tls.Config) {}); ours.MinVersion != v {
						t.Errorf("the user's %s has become %s", tls.VersionName(v), tls.VersionName(ours.MinVersion))
					}
				}
				return
			}
			// What ours sets wins.
			set := new(tls.Config)
			own := reflect.ValueOf(set).Elem().Field(i)
			own.Set(someValue(t, f.Type))
			before := reflect.New(f.Type).Elem()
			before.Set(own)
			frontend.MergeTLS(set, user, new(http.Server), func(*tls.Config) {})
			if f.Type.Kind() == reflect.Func && own.Pointer() != before.Pointer() || f.Type.Kind() != reflect.Func && !same(own, before) {
				t.Error("the user's has won over ours")
			}
		})
	}
}

// someValue returns a value of a field that is not zero.
func someValue(t *testing.T, typ reflect.Type) reflect.Value {
	t.Helper()
	v := reflect.New(typ).Elem()
	switch typ.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(1)
	case reflect.Uint16:
		v.SetUint(tls.VersionTLS13)
	case reflect.String:
		v.SetString("x")
	case reflect.Slice:
		v.Set(reflect.MakeSlice(typ, 1, 1))
	case reflect.Array:
		v.Index(0).SetUint(1)
	case reflect.Map:
		v.Set(reflect.MakeMap(typ))
	case reflect.Pointer:
		v.Set(reflect.New(typ.Elem()))
	case reflect.Func:
		v.Set(reflect.MakeFunc(typ, func([]reflect.Value) []reflect.Value { return nil }))
	case reflect.Interface:
		for _, x := range []any{rand.Reader, io.Discard, tls.NewLRUClientSessionCache(1)} {
			if reflect.TypeOf(x).Implements(typ) {
				v.Set(reflect.ValueOf(x))
			}
		}
	}
	if v.IsZero() {
		t.Fatalf("no value for a %v", typ)
	}
	return v
}

// same compares what has an identity by it.
func same(a, b reflect.Value) bool {
	switch a.Kind() {
	case reflect.Func, reflect.Slice, reflect.Map, reflect.Pointer:
		return a.Pointer() == b.Pointer()
	}
	return a.Interface() == b.Interface()
}

func TestMergeTLSProtocols(t *testing.T) {
	noHTTP2, noHTTP1 := new(http.Protocols), new(http.Protocols)
	noHTTP2.SetHTTP1(true)
	noHTTP1.SetHTTP2(true)
	for _, tc := range []struct {
		name string
		user []string
		srv  *http.Server
		want []string
	}{
		{"none", nil, &http.Server{}, []string{"h2", "http/1.1", "acme-tls/1"}},
		{"the user's come first", []string{"mine", "http/1.1"}, &http.Server{}, []string{"mine", "http/1.1", "h2", "acme-tls/1"}},
		{"no HTTP/2", []string{"h2"}, &http.Server{Protocols: noHTTP2}, []string{"http/1.1", "acme-tls/1"}},
		{"no HTTP/2, as it used to be said", nil, &http.Server{TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}, []string{"http/1.1", "acme-tls/1"}},
		{"no HTTP/1.1", nil, &http.Server{Protocols: noHTTP1}, []string{"h2", "acme-tls/1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, config := range []*tls.Config{{NextProtos: tc.user}, nil} {
				if config == nil && tc.user != nil {
					continue
				}
				tc.srv.TLSConfig = config
				ours := &tls.Config{NextProtos: []string{"h2", "http/1.1", "acme-tls/1"}}
				if _, err := frontend.HTTPSServer(tc.srv, nil, ours, testlog.None(), nil); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(ours.NextProtos, tc.want) {
					t.Errorf("%q, want %q", ours.NextProtos, tc.want)
				}
			}
		})
	}
}

// A configuration that either side has for one client is completed by the other's: the clients of neither get past ClientAuth.
func TestMergeTLSForClient(t *testing.T) {
	special := func(c *tls.Config) func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return func(*tls.ClientHelloInfo) (*tls.Config, error) { return c, nil }
	}
	for _, tc := range []struct {
		name       string
		ours, user *tls.Config
		want       tls.ClientAuthType
	}{
		{"ours", &tls.Config{GetConfigForClient: special(&tls.Config{ServerName: "special"})}, &tls.Config{ClientAuth: tls.RequireAnyClientCert}, tls.RequireAnyClientCert},
		{"the user's", &tls.Config{}, &tls.Config{GetConfigForClient: special(&tls.Config{ServerName: "special", ClientAuth: tls.RequestClientCert})}, tls.RequestClientCert},
		{"both", &tls.Config{GetConfigForClient: special(&tls.Config{ServerName: "special"})},
			&tls.Config{GetConfigForClient: special(&tls.Config{ClientAuth: tls.RequestClientCert})}, tls.RequestClientCert},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.ours.NextProtos = []string{"h2"}
			var bound *tls.Config
			frontend.MergeTLS(tc.ours, tc.user, new(http.Server), func(c *tls.Config) { bound = c })
			c, err := tc.ours.GetConfigForClient(&tls.ClientHelloInfo{SupportedProtos: []string{"h2"}})
			if err != nil || c == nil {
				t.Fatal(c, err)
			}
			if bound != c {
				t.Error("its tickets are another configuration's")
			}
			if c.ClientAuth != tc.want || c.ServerName != "special" || tc.name == "the user's" && !slices.Equal(c.NextProtos, []string{"h2"}) {
				t.Errorf("%v, %q, %q", c.ClientAuth, c.ServerName, c.NextProtos)
			}
		})
	}
	plain := new(tls.Config)
	frontend.MergeTLS(plain, &tls.Config{ClientAuth: tls.RequireAnyClientCert}, new(http.Server), func(*tls.Config) {})
	c, err := plain.GetConfigForClient(&tls.ClientHelloInfo{SupportedProtos: []string{acmez.ACMETLS1Protocol}})
	if err != nil || c.ClientAuth != tls.NoClientCert || !c.SessionTicketsDisabled || !slices.Equal(c.NextProtos, []string{acmez.ACMETLS1Protocol}) {
		t.Errorf("for a challenge: %+v, %v", c, err)
	}
	failing := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, io.ErrUnexpectedEOF }}
	ours := new(tls.Config)
	frontend.MergeTLS(ours, failing, new(http.Server), func(*tls.Config) {})
	if _, err := ours.GetConfigForClient(&tls.ClientHelloInfo{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the user's refusal is lost: %v", err)
	}
}

// Clients show certificates if the user's server wants them; the certificate authority does not have to.
func TestServeWithClientCertificates(t *testing.T) {
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
	// ALPN that only looks like a challenge gets no further.
	for _, protos := range [][]string{{acmez.ACMETLS1Protocol, "http/1.1"}, {"http/1.1", acmez.ACMETLS1Protocol}} {
		conn, err := tls.Dial("tcp", addr, s.tls(protos...))
		if err == nil {
			_, err = conn.Read(make([]byte, 1)) // in TLS 1.3 the client hears of it here
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

// A server serves once, and one that has been shut down not at all.
func TestServerServesOnce(t *testing.T) {
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
