package frontend

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// Zero limits of the user's http.Server get defaults, and the others are kept.
func TestServerDefaults(t *testing.T) {
	type limits struct {
		header, idle, read, write time.Duration
		bytes                     int
		h2                        [3]time.Duration // SendPing, Ping, WriteByte
	}
	h2 := [3]time.Duration{30 * time.Second, 15 * time.Second, 30 * time.Second}
	for _, tc := range []struct {
		name string
		srv  *http.Server
		want limits
	}{
		{"none", nil, limits{10 * time.Second, 2 * time.Minute, 0, 0, 64 << 10, h2}},
		{"empty", &http.Server{}, limits{10 * time.Second, 2 * time.Minute, 0, 0, 64 << 10, h2}},
		{"set", &http.Server{
			ReadHeaderTimeout: 1, IdleTimeout: 2, WriteTimeout: 4, MaxHeaderBytes: 5,
			HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 9, SendPingTimeout: 6, PingTimeout: 7, WriteByteTimeout: 8},
		}, limits{1, 2, 0, 4, 5, [3]time.Duration{6, 7, 8}}},
		{"none wanted", &http.Server{
			ReadHeaderTimeout: -1, IdleTimeout: -1, ReadTimeout: -1, MaxHeaderBytes: -1,
			HTTP2: &http.HTTP2Config{SendPingTimeout: -1, WriteByteTimeout: -1},
		}, limits{-1, -1, -1, 0, -1, [3]time.Duration{-1, 15 * time.Second, -1}}},
		{"no ReadTimeout wanted", &http.Server{ReadTimeout: -1}, limits{10 * time.Second, 2 * time.Minute, -1, 0, 64 << 10, h2}},
		{"ReadTimeout stands for others", &http.Server{ReadTimeout: 3}, limits{0, 0, 3, 0, 64 << 10, h2}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var given *http.HTTP2Config
			if tc.srv != nil {
				given = tc.srv.HTTP2
			}
			srv, err := (&HTTPS{Server: tc.srv, Handler: http.NotFoundHandler(), TLS: new(tls.Config)}).server(testlog.None())
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

// The contexts of requests derive from what the caller wants, and from that of the user's server.
func TestContextOfRequests(t *testing.T) {
	type key string
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, k := range []key{"user", "ours"} {
			if v, ok := r.Context().Value(k).(string); ok {
				io.WriteString(w, v+" ")
			}
		}
	})
	config, _ := testTLS(t)
	derive := func(ctx context.Context) context.Context { return context.WithValue(ctx, key("ours"), "ours") }
	user := func(net.Listener) context.Context {
		return context.WithValue(context.Background(), key("user"), "user")
	}
	for _, tc := range []struct {
		name string
		tls  bool
		open func(*Server, *Listener) (*Port, error)
		want string
	}{
		{"nothing wanted", false, func(s *Server, ln *Listener) (*Port, error) { return s.Plain(ln, h, nil), nil }, ""},
		{"without TLS", false, func(s *Server, ln *Listener) (*Port, error) { return s.Plain(ln, h, derive), nil }, "ours "},
		{"with TLS", true, func(s *Server, ln *Listener) (*Port, error) {
			return s.HTTPS(ln, HTTPS{TLS: config, Handler: h, Context: derive})
		}, "ours "},
		{"the user's server", true, func(s *Server, ln *Listener) (*Port, error) {
			return s.HTTPS(ln, HTTPS{TLS: config, Server: &http.Server{BaseContext: user}, Handler: h, Context: derive})
		}, "user ours "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ln := listenLoopback(t, "127.0.0.1:0")
			s := serverWith(nil, unchanged)
			port, err := tc.open(s, ln)
			if err != nil {
				t.Fatal(err)
			}
			defer port.Close()
			go port.Serve()
			conn := dialClient(t, ln.Addr().String())
			if tc.tls {
				conn = tls.Client(conn, insecure())
			}
			_, body, err := ask(conn, true)
			if err != nil || body != tc.want {
				t.Errorf("%q, %v, want %q", body, err, tc.want)
			}
		})
	}
}
