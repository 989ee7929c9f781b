package flotilla

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// askPlain sends text on a new connection and returns the answer. The status is 0 if the connection
// is closed without one.
func askPlain(t *testing.T, addr, text string) (status int, location, body string) {
	t.Helper()
	conn := dialClient(t, addr)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, "", ""
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, res.Header.Get("Location"), string(b)
}

// Behind a balancer that begins every connection with a PROXY header, the plain port works as the
// port for HTTPS does. The health port takes no header. The log reports what does not match.
func TestServePlainBehindBalancer(t *testing.T) {
	SkipShort(t)
	out := new(testlog.Buffer)
	cfg := Config{
		Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, HealthAddr: freeAddr(t),
		Drain: Drain{Grace: -1}, Logger: slog.New(slog.NewTextHandler(out, nil)),
	}
	s := serveReal(t, cfg, http.NotFoundHandler())
	const request = "GET /x HTTP/1.1\r\nHost: app.test\r\n\r\n"
	v2 := "\r\n\r\n\x00\r\nQUIT\n" + "\x21\x11\x00\x0c" + "\xcb\x00\x71\x07" + "\xc0\x00\x02\x01" + "\x12\x67\x00\x50"
	local := "\r\n\r\n\x00\r\nQUIT\n" + "\x20\x00\x00\x00"
	for name, header := range map[string]string{"v1": proxyV1, "v2": v2, "LOCAL": local, "UNKNOWN": "PROXY UNKNOWN\r\n"} {
		if status, to, _ := askPlain(t, s.cfg.HTTPAddr, header+request); status != http.StatusPermanentRedirect || to != "https://app.test/x" {
			t.Errorf("%s: %d %q", name, status, to)
		}
	}
	if strings.Contains(out.String(), "connections are refused") {
		t.Errorf("a good header is reported: %s", out.String())
	}
	if status, _, _ := askPlain(t, s.cfg.HTTPAddr, request); status != 0 {
		t.Errorf("without the header that is required: %d", status)
	}
	if text := out.String(); !strings.Contains(text, "a balancer in Config.Proxies must begin each with a PROXY header") || !strings.Contains(text, "127.0.0.1") {
		t.Errorf("the log does not say what is wrong: %s", text)
	}
	if code, _, err := readyz(s.cfg); code != http.StatusOK {
		t.Errorf("health: %d, %v", code, err)
	}
	idle := dialClient(t, s.cfg.HTTPAddr)
	fmt.Fprint(idle, proxyV1+"GET / HTTP/1.1\r\nHost: app.test\r\n") // an answer is due
	time.AfterFunc(50*time.Millisecond, func() { s.stop() })
	time.AfterFunc(300*time.Millisecond, func() { fmt.Fprint(idle, "\r\n") })
	if res, err := http.ReadResponse(bufio.NewReader(idle), nil); err != nil || res.StatusCode != http.StatusPermanentRedirect {
		t.Errorf("a request that was under way when the node began to drain: %v", err)
	}
	if err := <-s.ended; err != nil {
		t.Error(err)
	}
}

// The log reports a PROXY header from a peer that is not listed, on both ports.
func TestUnknownSendersHeaderIsLogged(t *testing.T) {
	SkipShort(t)
	for _, port := range []string{"HTTPSAddr", "HTTPAddr"} {
		t.Run(port, func(t *testing.T) {
			out := new(testlog.Buffer)
			s := serveReal(t, Config{Logger: slog.New(slog.NewTextHandler(out, nil))}, http.NotFoundHandler())
			addr := s.cfg.HTTPAddr
			if port == "HTTPSAddr" {
				addr = "127.0.0.1:" + s.port
			}
			for range 3 {
				askPlain(t, addr, proxyV1+"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n")
			}
			if n := strings.Count(out.String(), "its sender is not in Config.Proxies"); n != 1 {
				t.Errorf("logged %d times, want once a minute: %s", n, out.String())
			}
		})
	}
}

// Listen is for programs with a plain port of their own.
func TestListen(t *testing.T) {
	open := func(t *testing.T, cfg Config) *Node {
		cfg.Secrets, cfg.Addr = []Secret{NewSecret()}, "127.0.0.1:0"
		n, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	serve := func(t *testing.T, n *Node) (addr string) {
		ln, err := n.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) })}
		done := make(chan struct{})
		go func() { defer close(done); srv.Serve(ln) }()
		t.Cleanup(func() { srv.Close(); <-done })
		return ln.Addr().String()
	}
	const request = "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
	t.Run("the client is the one of the header", func(t *testing.T) {
		n := open(t, Config{Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}})
		if status, _, client := askPlain(t, serve(t, n), proxyV1+request); status != 200 || client != "203.0.113.7:4711" {
			t.Errorf("%d %q", status, client)
		}
	})
	t.Run("without balancers it is the peer", func(t *testing.T) {
		if status, _, client := askPlain(t, serve(t, open(t, Config{})), request); status != 200 || !strings.HasPrefix(client, "127.0.0.1:") {
			t.Errorf("%d %q", status, client)
		}
	})
	t.Run("development mode stays on this machine", func(t *testing.T) {
		n, err := Open(t.Context(), Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		var ce *ConfigError
		if _, err := n.Listen("tcp", ":0"); !errors.As(err, &ce) || ce.Field != "HTTPAddr" {
			t.Errorf("%v, want a ConfigError of HTTPAddr", err)
		}
		n.Close()
		if _, err := n.Listen("tcp", "127.0.0.1:0"); !errors.Is(err, ErrClosed) {
			t.Errorf("%v, want ErrClosed", err)
		}
	})
}
