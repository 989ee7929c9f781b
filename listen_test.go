package flotilla

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// askConn asks a.test for a path, and returns the answer with its body read.
func askConn(conn net.Conn, path string) (*http.Response, string, error) {
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: a.test\r\n\r\n"); err != nil {
		return nil, "", err
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, string(body), err
}

// Serve serves clients on whatever Config.Listen returns: here on a network in memory, in virtual
// time. It answers what is under way when it ends, and leaves no listener open.
func TestServeListens(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New()
		host := network.Host("a")
		cfg := Config{
			Name: "a", Secrets: []Secret{NewSecret()}, TLS: TLS{Private: true}, HealthAddr: "0.0.0.0:8081", Drain: Drain{Grace: -1},
			PeerListen: host.Listen, PeerDial: host.Dial, Listen: host.Listen, certs: offline,
			Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		}
		ctx, stop := context.WithCancel(t.Context())
		under, release, served := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		go func() {
			served <- Serve(ctx, cfg, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(under)
				<-release
				io.WriteString(w, "answered")
			}), "a.test")
		}()
		synctest.Wait() // the ports are open
		dial := func(port string) net.Conn {
			t.Helper()
			conn, err := network.Host("client").Dial(t.Context(), "tcp", "a:"+port)
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
		for port, want := range map[string]int{"80": http.StatusPermanentRedirect, "8081": http.StatusOK} {
			conn := dial(port)
			if res, body, err := askConn(conn, "/livez"); err != nil || res.StatusCode != want {
				t.Errorf("port %s: %v %q, %v", port, res, body, err)
			}
			conn.Close()
		}
		slow := make(chan error, 1)
		go func() {
			conn := tls.Client(dial("443"), &tls.Config{ServerName: "a.test", InsecureSkipVerify: true})
			_, body, err := askConn(conn, "/")
			if err == nil && body != "answered" {
				err = errors.New("the body is " + body)
			}
			slow <- errors.Join(err, conn.Close())
		}()
		<-under
		stop()
		synctest.Wait()
		close(release)
		if err := <-slow; err != nil {
			t.Errorf("a request under way: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		for _, port := range []string{"80", "443", "8081"} {
			ln, err := host.Listen("tcp", ":"+port)
			if err != nil {
				t.Errorf("after Serve: %v", err)
				continue
			}
			ln.Close()
		}
	})
}

// Config.Listen also opens the ports of ListenTLS and Listen.
func TestListenersListen(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		network := simnet.New()
		host := network.Host("a")
		n, err := Open(t.Context(), Config{
			Name: "a", Secrets: []Secret{NewSecret()}, TLS: TLS{Private: true},
			PeerListen: host.Listen, PeerDial: host.Dial, Listen: host.Listen, certs: offline,
			Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		if err := n.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		secure, err := n.ListenTLS("tcp", ":443", "a.test")
		if err != nil {
			t.Fatal(err)
		}
		plain, err := n.Listen("tcp", ":80")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "answered") })}
		defer srv.Close()
		go srv.Serve(secure)
		go srv.Serve(plain)
		for _, port := range []string{"443", "80"} {
			conn, err := network.Host("client").Dial(t.Context(), "tcp", "a:"+port)
			if err != nil {
				t.Fatal(err)
			}
			if port == "443" {
				conn = tls.Client(conn, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true})
			}
			if _, body, err := askConn(conn, "/"); err != nil || body != "answered" {
				t.Errorf("port %s: %q, %v", port, body, err)
			}
			conn.Close()
		}
		var ce *ConfigError
		if _, err := n.ListenTLS("tcp", ":443", "a.test"); !errors.As(err, &ce) || ce.Field != "Listen" || !strings.Contains(err.Error(), "it opens no listener for :443") {
			t.Errorf("a port in use: %v", err)
		}
	})
}

// What Config.Listen returns is checked as what the node opens itself is, and without a listener
// the node opens the port.
func TestListenErrors(t *testing.T) {
	refused := errors.New("no socket for that")
	for name, c := range map[string]struct {
		listen func(network, addr string) (net.Listener, error)
		want   string
	}{
		"it fails": {func(string, string) (net.Listener, error) { return nil, refused }, "no socket for that"},
		"development mode for all the world": {
			func(network, _ string) (net.Listener, error) { return net.Listen(network, "0.0.0.0:0") }, "is not a loopback address",
		},
		"it was closed": {
			func(network, _ string) (net.Listener, error) {
				ln, err := net.Listen(network, "127.0.0.1:0")
				if err != nil {
					return nil, err
				}
				return ln, ln.Close()
			}, "it returns a closed listener for HTTPSAddr, 127.0.0.1:0; open one on each call",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var closed []net.Listener
			cfg := Config{HTTPSAddr: "127.0.0.1:0", HTTPAddr: "127.0.0.1:0", Listen: func(network, addr string) (net.Listener, error) {
				ln, err := c.listen(network, addr)
				if ln != nil {
					closed = append(closed, ln)
				}
				return ln, err
			}}
			n, err := Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			p, err := n.openPorts(t.Context(), nil)
			defer p.close()
			var ce *ConfigError
			if !errors.As(err, &ce) || ce.Field != "Listen" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want a ConfigError of Listen with %q", err, c.want)
			}
			for _, ln := range closed {
				if err := ln.(*net.TCPListener).SetDeadline(time.Time{}); !errors.Is(err, net.ErrClosed) {
					t.Errorf("a listener is open: %v", err)
				}
			}
		})
	}
	t.Run("it leaves the port to the node", func(t *testing.T) {
		asked := make(map[string]bool)
		addrs := freeAddrs(t, 2)
		cfg := Config{HTTPSAddr: addrs[0], HTTPAddr: addrs[1], Listen: func(_, addr string) (net.Listener, error) {
			asked[addr] = true
			return nil, nil
		}}
		n, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		p, err := n.openPorts(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		if p.https.Addr().String() != cfg.HTTPSAddr || p.plain.Addr().String() != cfg.HTTPAddr || !asked[cfg.HTTPSAddr] || !asked[cfg.HTTPAddr] {
			t.Errorf("it listens at %v and %v, and asked for %v", p.https.Addr(), p.plain.Addr(), asked)
		}
	})
}
