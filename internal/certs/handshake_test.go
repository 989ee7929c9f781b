package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/flotilla-ha/flotilla/internal/certs/devca"
	"github.com/flotilla-ha/flotilla/internal/certs/selfsign"
	"github.com/flotilla-ha/flotilla/internal/certs/stubca"
)

// countedStorage counts every call.
type countedStorage struct {
	*memStorage
	all   atomic.Int64
	looks atomic.Int64 // of these, Exists
}

func (s *countedStorage) Store(ctx context.Context, key string, value []byte) error {
	s.all.Add(1)
	return s.memStorage.Store(ctx, key, value)
}

func (s *countedStorage) Load(ctx context.Context, key string) ([]byte, error) {
	s.all.Add(1)
	return s.memStorage.Load(ctx, key)
}

func (s *countedStorage) Delete(ctx context.Context, key string) error {
	s.all.Add(1)
	return s.memStorage.Delete(ctx, key)
}

func (s *countedStorage) Exists(ctx context.Context, key string) bool {
	s.all.Add(1)
	s.looks.Add(1)
	return s.memStorage.Exists(ctx, key)
}

func (s *countedStorage) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	s.all.Add(1)
	return s.memStorage.List(ctx, dir, recursive)
}

func (s *countedStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	s.all.Add(1)
	return s.memStorage.Stat(ctx, key)
}

func (s *countedStorage) Lock(ctx context.Context, name string) error {
	s.all.Add(1)
	return s.memStorage.Lock(ctx, name)
}

func (s *countedStorage) TryLock(ctx context.Context, name string) (bool, error) {
	s.all.Add(1)
	return s.memStorage.TryLock(ctx, name)
}

func (s *countedStorage) Unlock(ctx context.Context, name string) error {
	s.all.Add(1)
	return s.memStorage.Unlock(ctx, name)
}

// countedLog counts the records that an operator would see.
type countedLog struct {
	slog.Handler
	n *atomic.Int64
}

func (h countedLog) Enabled(context.Context, slog.Level) bool { return true }
func (h countedLog) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h countedLog) WithGroup(string) slog.Handler            { return h }

func (h countedLog) Handle(_ context.Context, r slog.Record) error {
	if r.Level > slog.LevelDebug {
		h.n.Add(1)
	}
	return nil
}

// flood dials addr n times, each time for another name that is not served, and returns how many got
// through.
func flood(t *testing.T, addr string, n int, protos ...string) int64 {
	t.Helper()
	var through atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 {
				name := fmt.Sprintf("%x.%d.example", i*7919, i)
				conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: protos})
				if err == nil {
					conn.Close()
					through.Add(1)
				} else if errors.As(err, new(*net.OpError)) && !strings.Contains(err.Error(), "remote error: tls") {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return through.Load()
}

func TestWhichCertificate(t *testing.T) {
	skipShort(t)
	storage := newMemStorage()
	start := func(def string, managed ...string) (*Certs, []*tls.Config) {
		c := bootCerts(t, storage, always, func() error { return nil }, nil)
		c.loader.config.DefaultServerName = def
		var configs []*tls.Config
		for _, names := range managed {
			cfg, err := c.TLSConfig(strings.Split(names, " ")...)
			if err != nil {
				t.Fatal(err)
			}
			configs = append(configs, cfg)
		}
		settle(t, c)
		return c, configs
	}
	c, plain := start("", "a.test b.test *.wild.test 192.0.2.1 2001:db8::1", "b.test")
	_, byDefault := start("B.Test", "a.test b.test 192.0.2.1")
	for _, tc := range []struct {
		name       string
		cfg        *tls.Config
		sni, local string
		want       string // empty: refused
	}{
		{"exact", plain[0], "b.test", "", "b.test"},
		{"upper case", plain[0], "B.tEST", "", "b.test"},
		{"wildcard", plain[0], "x.wild.test", "", "*.wild.test"},
		{"two labels for one", plain[0], "y.x.wild.test", "", ""},
		{"the wildcard's parent", plain[0], "wild.test", "", ""},
		{"unknown", plain[0], "c.test", "", ""},
		{"of another configuration", plain[1], "a.test", "", "a.test"},
		{"nobody", plain[0], "", "192.0.2.9:443", "a.test"},
		{"nobody, second configuration", plain[1], "", "192.0.2.9:443", "b.test"},
		{"by address", plain[0], "", "192.0.2.1:443", "192.0.2.1"},
		{"by address of the other family", plain[0], "", "[2001:db8::1]:443", "2001:db8::1"},
		{"nobody, default", byDefault[0], "", "192.0.2.9:443", "b.test"},
		{"by address, default", byDefault[0], "", "192.0.2.1:443", "192.0.2.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := ""
			if leaf := leafFrom(tc.cfg, tc.sni, tc.local); leaf != nil {
				got = strings.Join(leaf.DNSNames, "")
				for _, ip := range leaf.IPAddresses {
					got += ip.String()
				}
			}
			if got != tc.want {
				t.Errorf("shown the certificate of %q, want %q", got, tc.want)
			}
		})
	}

	t.Run("refused in the first moment", func(t *testing.T) {
		copied := plain[0].Clone() // as net/http makes it
		for name, want := range map[string]bool{"a.test": true, "x.wild.test": true, "": true, "c.test": false, "y.x.wild.test": false, strings.Repeat("a.", 100) + "test": false} {
			cfg, err := copied.GetConfigForClient(&tls.ClientHelloInfo{ServerName: name})
			if cfg != nil || want && err != nil || !want && !errors.Is(err, errUnknownName) {
				t.Errorf("%q: %v, %v", name, cfg, err)
			}
		}
	})
	t.Run("what the program put there itself", func(t *testing.T) {
		own, err := selfsign.New("own.test", devca.NewSerial(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.loader.config.CacheUnmanagedTLSCertificate(t.Context(), *own, nil); err != nil {
			t.Fatal(err)
		}
		if leaf := leafFrom(plain[0], "own.test", ""); leaf == nil || leaf.Subject.CommonName != selfsign.CommonName {
			t.Errorf("shown %+v", leaf)
		}
	})
}

// A node that serves a self-signed certificate answers a challenge, and never with that
// certificate.
func TestChallengeIsNotSelfSigned(t *testing.T) {
	storage := newMemStorage()
	wait, _ := stubca.Barrier()
	c := acmeCerts(t, storage, func(cfg *certmagic.Config, _ *certmagic.ACMEIssuer) {
		cfg.OnEvent = func(ctx context.Context, event string, _ map[string]any) error {
			if event == "cert_obtaining" {
				return wait(ctx)
			}
			return nil
		}
	})
	addr := serveTLS(t, c, http.NotFoundHandler(), "a.test")
	shown := func(protos ...string) string {
		conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "a.test", NextProtos: protos, InsecureSkipVerify: true})
		if err != nil {
			return ""
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := shown("h2"); got != selfsign.CommonName {
		t.Errorf("shown %q", got)
	}
	for _, protos := range [][]string{{acmez.ACMETLS1Protocol}, {acmez.ACMETLS1Protocol, "h2"}} {
		if got := shown(protos...); got != "" {
			t.Errorf("%q without a challenge: shown %q", protos, got)
		}
	}
	stubca.StoreToken(t, storage, c.Issuers()[0], acme.ChallengeTypeTLSALPN01, "a.test")
	if got := shown(acmez.ACMETLS1Protocol); got != "ACME challenge" {
		t.Errorf("with a challenge: shown %q", got)
	}
}

// scripted is the server's end of a connection whose client has said all that it will say.
type scripted struct {
	net.Conn
	said []byte
}

func (s *scripted) Read(p []byte) (int, error) {
	if len(s.said) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.said)
	s.said = s.said[n:]
	return n, nil
}

func (*scripted) Write(p []byte) (int, error) { return len(p), nil }
func (*scripted) Close() error                { return nil }
func (*scripted) LocalAddr() net.Addr         { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 9), Port: 443} }
func (*scripted) RemoteAddr() net.Addr        { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 99), Port: 4} }

// BenchmarkUnknownName measures the cost of a ClientHello: for a name that is not served, refused
// at once; the same, refused when a certificate is looked for, as crypto/tls does by itself; and
// for a name that is served, until the node waits for the client.
func BenchmarkUnknownName(b *testing.B) {
	storage := newMemStorage()
	c, err := openCerts(Policy{}, storage, true, always, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	cfg, err := c.TLSConfig("home.test")
	if err != nil {
		b.Fatal(err)
	}
	c.obtainer.work.Wait()
	late := cfg.Clone()
	late.GetConfigForClient = nil
	for _, bc := range []struct {
		name, sni string
		cfg       *tls.Config
	}{{"refused", "a7f3.example", cfg}, {"refused late", "a7f3.example", late}, {"served", "home.test", cfg}} {
		b.Run(bc.name, func(b *testing.B) {
			hello := helloOf(b, bc.sni)
			b.ReportAllocs()
			for b.Loop() {
				if tls.Server(&scripted{said: hello}, bc.cfg).Handshake() == nil {
					b.Fatal("a handshake with half a client")
				}
			}
		})
	}
}

// helloOf returns the first words of a client that wants name.
func helloOf(b *testing.B, name string) []byte {
	b.Helper()
	client, server := net.Pipe()
	go tls.Client(client, &tls.Config{ServerName: name, NextProtos: []string{"h2"}, InsecureSkipVerify: true}).Handshake()
	hello := make([]byte, 1<<16)
	n, err := server.Read(hello)
	if err != nil {
		b.Fatal(err)
	}
	client.Close()
	server.Close()
	return hello[:n]
}
