package frontend

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// counted returns the counters that are not zero, by their labels.
func counted(c *meter.Counters) map[string]uint64 {
	out := make(map[string]uint64)
	for _, l := range c.List() {
		if l.Count > 0 {
			out[strings.Join(l.Values, " ")] = l.Count
		}
	}
	return out
}

// becomes waits until a counter, or several, have a value.
func becomes[T any](t *testing.T, want T, get func() T) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(5 * time.Second); ; <-tick.C {
		diff := cmp.Diff(want, get())
		if diff == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
}

// Each handshake is counted once, with its version and its result.
func TestHandshakesAreCounted(t *testing.T) {
	version := func(v uint16) func(*testing.T, string) {
		return func(t *testing.T, addr string) {
			config := insecure()
			config.MaxVersion, config.ClientSessionCache = v, tls.NewLRUClientSessionCache(1)
			for range 2 {
				conn, err := tls.Dial("tcp", addr, config)
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := ask(conn, true); err != nil { // tickets come with the first data
					t.Error(err)
				}
				conn.Close()
			}
		}
	}
	sends := func(what string, thenEnd bool) func(*testing.T, string) {
		return func(t *testing.T, addr string) {
			conn := dialClient(t, addr)
			io.WriteString(conn, what)
			if thenEnd {
				conn.Close()
			}
		}
	}
	for name, test := range map[string]struct {
		limits  func(*limits)
		proxies []netip.Prefix
		client  func(t *testing.T, addr string)
		want    map[string]uint64 // of Handshakes
		refused map[string]uint64
		took    uint64 // handshakes in the histogram
	}{
		"TLS 1.3": {client: version(tls.VersionTLS13), want: map[string]uint64{"1.3 false ok": 1, "1.3 true ok": 1}, took: 2},
		"TLS 1.2": {client: version(tls.VersionTLS12), want: map[string]uint64{"1.2 false ok": 1, "1.2 true ok": 1}, took: 2},
		"a name without certificate": {
			client: func(_ *testing.T, addr string) {
				tls.Dial("tcp", addr, &tls.Config{ServerName: "none.test", InsecureSkipVerify: true})
			},
			want: map[string]uint64{"  no certificate": 1},
		},
		"no TLS":                  {client: sends("GET / HTTP/1.1\r\n\r\n", false), want: map[string]uint64{"  failed": 1}},
		"ends after its hello":    {client: sends(string(helloBytes("a.test")), true), want: map[string]uint64{"  failed": 1}},
		"ends without a byte":     {client: sends("", true), want: map[string]uint64{"  silent": 1}},
		"stops after its hello":   {limits: soon, client: sends(string(helloBytes("a.test")), false), want: map[string]uint64{"  timeout": 1}},
		"stops before it":         {limits: soon, client: sends("", false), want: map[string]uint64{"  timeout": 1}},
		"a balancer says nothing": {proxies: loopback(), client: sends("", true), want: map[string]uint64{"  silent": 1}},
		"a balancer sends no header": {
			proxies: loopback(), client: sends(string(helloBytes("a.test")), false),
			want: map[string]uint64{"  failed": 1}, refused: map[string]uint64{"proxy header missing": 1},
		},
		"a stranger sends one": {
			client: sends(proxyV1, false),
			want:   map[string]uint64{"  failed": 1}, refused: map[string]uint64{"proxy header not allowed": 1},
		},
		"too many": {
			limits: func(l *limits) { l.maxPending = 1 },
			client: func(t *testing.T, addr string) {
				first := dialClient(t, addr)
				dialClient(t, addr)
				first.Read(make([]byte, 1))
			},
			want: map[string]uint64{"  limit": 1}, refused: map[string]uint64{"limit": 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if test.limits == nil {
				test.limits = unchanged
			}
			config, _ := testTLS(t)
			certificate := config.GetCertificate
			config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				if hello.ServerName == "none.test" {
					Slots{}.Refuse(hello.Conn)
					return nil, errors.New("no certificate")
				}
				return certificate(hello)
			}
			s := serverWith(test.proxies, test.limits)
			test.client(t, serveBehind(t, s, config, func(http.ResponseWriter, *http.Request) {}))
			becomes(t, test.want, func() map[string]uint64 { return counted(&s.Meters().Handshakes) })
			if test.refused == nil {
				test.refused = map[string]uint64{}
			}
			if diff := cmp.Diff(test.refused, counted(&s.Meters().Refused)); diff != "" {
				t.Errorf("refused (-want +got):\n%s", diff)
			}
			if got := s.Meters().Handshake.Load(); got.Count != test.took || got.Sum < 0 || test.took > 0 && got.Sum == 0 {
				t.Errorf("%d handshakes took %v, want %d", got.Count, got.Sum, test.took)
			}
		})
	}
}

// soon closes connections whose handshake takes too long, soon.
func soon(l *limits) { l.handshakeTimeout = 50 * time.Millisecond }

// Connections without TLS that are refused are counted, and no handshakes are.
func TestPlainRefusalsAreCounted(t *testing.T) {
	for name, test := range map[string]struct {
		limits  func(*limits)
		proxies []netip.Prefix
		sends   []string // a connection each
		want    map[string]uint64
	}{
		"silent":             {limits: soon, sends: []string{""}, want: map[string]uint64{"silent": 1}},
		"slow":               {limits: soon, sends: []string{"G"}, want: map[string]uint64{}},
		"too many":           {limits: func(l *limits) { l.maxPending = 1 }, sends: []string{"", ""}, want: map[string]uint64{"limit": 1}},
		"header missing":     {proxies: loopback(), sends: []string{"GET / HTTP/1.1\r\n"}, want: map[string]uint64{"proxy header missing": 1}},
		"header not allowed": {sends: []string{proxyV1}, want: map[string]uint64{"proxy header not allowed": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.limits == nil {
				test.limits = unchanged
			}
			s := serverWith(test.proxies, test.limits)
			addr := serveBehind(t, s, nil, http.NotFound)
			for _, what := range test.sends {
				io.WriteString(dialClient(t, addr), what)
			}
			<-time.After(200 * time.Millisecond)
			becomes(t, test.want, func() map[string]uint64 { return counted(&s.Meters().Refused) })
			if got := counted(&s.Meters().Handshakes); len(got) > 0 {
				t.Errorf("handshakes %v", got)
			}
		})
	}
	t.Run("a client that takes nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l := limiterWith(unchanged)
			_, c := pipeTo(t, l, nil)
			c.establish()
			go c.Write(make([]byte, 1))
			time.Sleep(2 * stallTimeout)
			synctest.Wait()
			if diff := cmp.Diff(map[string]uint64{"stalled": 1}, counted(&l.counts.Refused)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	})
}

// A port for small requests counts the connections that it closes because there are too many.
func TestMaxConnectionsAreCounted(t *testing.T) {
	var refused meter.Counter
	m := newMaxConns(1, &refused)
	for range 3 {
		client, server := net.Pipe()
		defer client.Close()
		m.onState(server, http.StateNew)
	}
	if n := refused.Load(); n != 2 {
		t.Errorf("%d refused, want 2", n)
	}
}

// A handshake waits for a slot, and the wait is measured. One that need not wait counts as zero.
func TestWaitForASlotIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limiterWith(func(l *limits) { l.slots = 1 })
		_, first := pipeTo(t, l, nil)
		_, second := pipeTo(t, l, nil)
		if err := first.acquire(nil); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(3*time.Second, first.release)
		if err := second.acquire(nil); err != nil {
			t.Fatal(err)
		}
		got := l.counts.HandshakeWait.Load()
		if got.Count != 2 || got.Sum != 3*time.Second || got.Buckets[0].Count != 1 {
			t.Errorf("%d waits of %v, %d of them none; want one of none and one of 3s", got.Count, got.Sum, got.Buckets[0].Count)
		}
	})
}

// Open connections are counted, with TLS and without, until they are closed.
func TestOpenConnectionsAreCounted(t *testing.T) {
	config, _ := testTLS(t)
	s := serverWith(nil, unchanged)
	open := func() int64 { return s.Meters().Connections.Load() }
	handler := func(http.ResponseWriter, *http.Request) {}
	plain, https := serveBehind(t, s, nil, handler), serveBehind(t, s, config, handler)
	a, b := dialClient(t, plain), tls.Client(dialClient(t, https), insecure())
	for _, conn := range []net.Conn{a, b} {
		if _, _, err := ask(conn, false); err != nil {
			t.Fatal(err)
		}
	}
	becomes(t, 2, open)
	a.Close()
	becomes(t, 1, open)
	b.Close()
	becomes(t, 0, open)
}

// What a drain cuts is counted: requests, and connections that came shortly before.
func TestDrainCounts(t *testing.T) {
	for name, test := range map[string]struct {
		drain func(s *Server, p *Port, ctx context.Context) error
		want  uint64
	}{
		"a port": {func(_ *Server, p *Port, ctx context.Context) error { return p.Drain(ctx) }, 2},
		"an address": {func(s *Server, p *Port, ctx context.Context) error {
			s.DrainAddr(ctx, netip.MustParseAddr("127.0.0.1"))
			return nil
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := serverWith(nil, unchanged)
			ln := listenLoopback(t, "127.0.0.1:0")
			entered, leave := make(chan struct{}), make(chan struct{})
			p := s.Plain(ln, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				close(entered)
				<-leave
			}), nil)
			served := make(chan error, 1)
			go func() { served <- p.Serve() }()
			io.WriteString(dialClient(t, ln.Addr().String()), "GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
			<-entered
			dialClient(t, ln.Addr().String()) // sends nothing yet
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if err := test.drain(s, p, ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			if got := s.Meters().DrainCut.Load(); got != test.want {
				t.Errorf("%d were cut, want %d", got, test.want)
			}
			close(leave)
			p.Close()
			<-served
		})
	}
}

// A handshake whose context ends is not taken for a complete one while it goes on, and nothing
// waits for it in its own goroutine.
func TestEndOfTheContextIsNotTheEndOfTheHandshake(t *testing.T) {
	config, _ := testTLS(t)
	l := limiterWith(unchanged)
	ctx, cancel := context.WithCancel(t.Context())
	certificate := config.GetCertificate
	config.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cancel()
		return certificate(hello)
	}
	client, c := pipeTo(t, l, config)
	go tls.Client(client, insecure()).Handshake()
	done := make(chan error, 1)
	go func() { done <- c.tls.HandshakeContext(ctx) }()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the handshake: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for itself")
	}
	c.Close()
	if diff := cmp.Diff(map[string]uint64{"  failed": 1}, counted(&l.counts.Handshakes)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Without the field that says whether a handshake is complete, it is counted without its version.
func TestCompleteFieldOf(t *testing.T) {
	for name, test := range map[string]struct {
		conn  reflect.Type
		found bool
	}{
		"this version of Go":  {reflect.TypeFor[tls.Conn](), true},
		"it is gone":          {reflect.TypeFor[struct{ other bool }](), false},
		"it has another type": {reflect.TypeFor[struct{ isHandshakeComplete bool }](), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := completeFieldOf(test.conn); (got >= 0) != test.found {
				t.Errorf("field %d", got)
			}
		})
	}
	t.Run("counted all the same", func(t *testing.T) {
		c := newCounts()
		c.completeField = -1
		c.complete(nil, time.Second)
		if got := counted(&c.Handshakes); got["  ok"] != 1 || c.Handshake.Load().Count != 1 {
			t.Errorf("%v", got)
		}
	})
}
