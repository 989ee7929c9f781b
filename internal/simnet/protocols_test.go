package simnet

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// certificate returns a configuration for both ends, with a new certificate for the name "b".
func certificate(t *testing.T) *tls.Config {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"b"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: pool, ServerName: "b"}
}

func TestTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, New())
		cfg := certificate(t)
		go func() {
			s := tls.Server(b, cfg)
			defer s.Close()
			io.Copy(s, io.LimitReader(s, 1<<20))
		}()
		c := tls.Client(a, cfg)
		defer c.Close()
		want := strings.Repeat("0123456789abcdef", 1<<16)
		if _, err := io.WriteString(c, want); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Fatalf("%d bytes came back changed", len(got))
		}
	})
}

func TestHTTP(t *testing.T) {
	for _, c := range []struct {
		name, scheme string
		set          func(*http.Protocols)
		want         string
	}{
		{"HTTP/1.1", "http", func(p *http.Protocols) { p.SetHTTP1(true) }, "HTTP/1.1"},
		{"h2c", "http", func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }, "HTTP/2.0"},
		{"HTTP/2", "https", func(p *http.Protocols) { p.SetHTTP2(true) }, "HTTP/2.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New()
				l := listen(t, n.Host("b"), ":80")
				cfg := certificate(t)
				protocols := new(http.Protocols)
				c.set(protocols)
				srv := &http.Server{
					Protocols: protocols,
					TLSConfig: cfg.Clone(),
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						body, _ := io.ReadAll(r.Body)
						time.Sleep(time.Second)
						fmt.Fprintf(w, "%s %s", r.Proto, body)
					}),
				}
				served := make(chan error, 1)
				go func() {
					if c.scheme == "https" {
						served <- srv.ServeTLS(l, "", "")
					} else {
						served <- srv.Serve(l)
					}
				}()
				tr := &http.Transport{DialContext: n.Host("a").Dial, Protocols: protocols, TLSClientConfig: cfg.Clone()}
				client := &http.Client{Transport: tr, Timeout: time.Minute}
				post := func() (string, error) {
					resp, err := client.Post(c.scheme+"://b:80/", "text/plain", strings.NewReader("hello"))
					if err != nil {
						return "", err
					}
					defer resp.Body.Close()
					text, err := io.ReadAll(resp.Body)
					return string(text), err
				}
				for range 2 {
					got, err := post()
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(c.want+" hello", got); diff != "" {
						t.Fatal(diff)
					}
				}
				n.Isolate("b")
				start := time.Now()
				if e, ok := errors.AsType[net.Error](second(post())); !ok || !e.Timeout() || time.Since(start) != time.Minute {
					t.Fatalf("%v after %v", e, time.Since(start))
				}
				n.Heal()
				if _, err := post(); err != nil {
					t.Fatal(err)
				}
				tr.CloseIdleConnections()
				if err := srv.Shutdown(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := <-served; !errors.Is(err, http.ErrServerClosed) {
					t.Fatal(err)
				}
			})
		})
	}
}

func second[T any](_ T, err error) error { return err }

func BenchmarkRoundTrip(b *testing.B) {
	n := New()
	n.SetLatency(0)
	l, err := n.Host("b").Listen("tcp", ":80")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.Copy(c, struct{ io.Reader }{c})
	}()
	c, err := n.Host("a").Dial(b.Context(), "tcp", "b:80")
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	buf := make([]byte, 1024)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			b.Fatal(err)
		}
	}
}
