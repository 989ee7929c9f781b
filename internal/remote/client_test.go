package remote_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/clustertest"
	"github.com/flotilla-ha/flotilla/internal/remote"
	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire"
)

func open(t *testing.T, cfg remote.Config) *remote.Client {
	t.Helper()
	c, err := remote.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// wantFault checks that a request fails, and with which text.
func wantFault(t *testing.T, c *remote.Client, want string) {
	t.Helper()
	_, _, err := c.List(t.Context(), "")
	var unreachable *remote.UnreachableError
	if !errors.As(err, &unreachable) || !strings.Contains(err.Error(), want) {
		t.Errorf("the error is %v\nand should say %q", err, want)
	}
}

func TestWrongSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := clustertest.New(t, 1, nil)
		cluster.Settle()
		c := open(t,
			remote.Config{Secrets: []seal.Secret{{1}}, Peers: flotilla.Static("n0:7373"), Dial: cluster.Config(0).PeerDial},
		)
		wantFault(t, c, "n0:7373: the node has another cluster secret (its key ID ")
		wantFault(t, c, "; give the secret of its cluster")
	})
}

// The node that answered is asked first the next time; the others when it is gone.
func TestNodesAreTriedInTurn(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		cluster := clustertest.New(t, 3, nil)
		cluster.Settle()
		secret, err := seal.ParseSecret(cluster.Config(0).Secrets[0].Encode())
		if err != nil {
			t.Fatal(err)
		}
		var dialled []string
		c := open(t, remote.Config{
			Secrets: []seal.Secret{{1}, secret},
			Peers:   flotilla.Static("n9:7373", "n1:7373", "n1:7373", "n2:7373"),
			Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				dialled = append(dialled, addr)
				return cluster.Config(0).PeerDial(ctx, network, addr)
			},
		})
		ask := func(want ...string) {
			t.Helper()
			dialled = nil
			if _, _, err := c.List(t.Context(), ""); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(want, dialled); diff != "" {
				t.Errorf("dialled (-want +got):\n%s", diff)
			}
		}
		ask("n9:7373", "n1:7373", "n1:7373") // n1 twice: it has the second secret
		ask()                                // the connection is still there
		time.Sleep(time.Minute)
		ask("n1:7373")
		cluster.Kill(1)
		ask("n9:7373", "n2:7373", "n2:7373") // n1 has reset its connection
	})
}

func TestNodeThatIsNotInACluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cluster := clustertest.New(t, 1, func(_ int, cfg *flotilla.Config) { cfg.Expect = 3 })
		secret, err := seal.ParseSecret(cluster.Config(0).Secrets[0].Encode())
		if err != nil {
			t.Fatal(err)
		}
		c := open(t,
			remote.Config{
				Secrets: []seal.Secret{secret},
				Peers:   flotilla.Static("n0:7373"),
				Dial:    cluster.Config(0).PeerDial,
			},
		)
		wantFault(t, c, "n0:7373: the node cannot answer now: ")
		wantFault(t, c, "node is not ready")
	})
}

// answering listens on loopback and gives each connection to f.
func answering(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return l.Addr().String()
}

// Anything may listen at an address.
func TestNotANode(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	https := httptest.NewUnstartedServer(http.NotFoundHandler())
	https.Config.ErrorLog = log.New(io.Discard, "", 0)
	https.StartTLS()
	defer https.Close()
	old := httptest.NewUnstartedServer(http.NotFoundHandler())
	old.Config.ErrorLog = log.New(io.Discard, "", 0)
	old.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
	old.StartTLS()
	defer old.Close()
	closed := answering(t, func(net.Conn) {})
	for name, test := range map[string]struct {
		addr, want string
		dial       func(context.Context, string, string) (net.Conn, error)
	}{
		"HTTP":           {addr: plain.Listener.Addr().String(), want: "is not a node's port for its peers (tls: first record does not look like a TLS handshake)"},
		"HTTPS":          {addr: https.Listener.Addr().String(), want: "is not a node's port for its peers ("},
		"TLS 1.2":        {addr: old.Listener.Addr().String(), want: "is not a node's port for its peers ("},
		"closes at once": {addr: closed, want: "the connection ended before there was an answer"},
		"nobody":         {addr: "n:1", want: "n:1: nobody listens there; is the node running", dial: fails(syscall.ECONNREFUSED)},
		"no route":       {addr: "n:1", want: "it cannot be reached (no route to host)", dial: fails(syscall.EHOSTUNREACH)},
		"no name":        {addr: "n:1", want: "the host name leads nowhere (no such host)", dial: fails(&net.DNSError{Err: "no such host", Name: "n"})},
		"no answer": {addr: "n:1", want: "no answer in time", dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			wantFault(t,
				open(t, remote.Config{Secrets: []seal.Secret{{1}}, Peers: flotilla.Static(test.addr), Dial: test.dial}),
				test.want,
			)
		})
	}
}

func fails(err error) func(context.Context, string, string) (net.Conn, error) {
	return func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
}

func TestNoAddress(t *testing.T) {
	c := open(t, remote.Config{Secrets: []seal.Secret{{1}}, Peers: flotilla.Static()})
	wantFault(t, c, "no address was found")
	c = open(t,
		remote.Config{
			Secrets: []seal.Secret{{1}},
			Peers:   func(context.Context) ([]string, error) { return nil, errors.New("no DNS") },
		},
	)
	wantFault(t, c, "finding the nodes: no DNS")
	if _, err := remote.Open(remote.Config{}); err == nil || !strings.Contains(err.Error(), "no cluster secret") {
		t.Errorf("a client without a secret opens: %v", err)
	}
}

// A node may be older or newer, or send nonsense: the client says so, and stops.
func TestAnswersOfANode(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   []byte
		want   string
	}{
		"older":       {http.StatusNotFound, nil, "it runs an older version of flotilla: upgrade it"},
		"malformed":   {http.StatusOK, []byte{1, 1, 9}, "malformed encoding"},
		"endless":     {http.StatusOK, remote.ListReply{More: true}.Encode(), "malformed encoding"},
		"endless too": {http.StatusOK, remote.ListReply{More: true, Keys: []string{"a"}}.Encode(), "malformed encoding"},
		"confused":    {http.StatusBadRequest, nil, "it runs another version of flotilla"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			port, err := wire.Open(
				wire.Config{
					ID:       strings.Repeat("a", 32),
					Secrets:  []seal.Secret{{1}},
					Listener: l,
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						io.Copy(io.Discard, r.Body)
						w.WriteHeader(test.status)
						w.Write(test.body)
					}),
				},
			)
			if err != nil {
				t.Fatal(err)
			}
			defer port.Close()
			c := open(t, remote.Config{Secrets: []seal.Secret{{2}, {1}}, Peers: flotilla.Static(l.Addr().String())})
			if _, _, err := c.List(t.Context(), ""); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("list: %v, want %q", err, test.want)
			}
			for _, err := range c.Load(t.Context(), []string{"a"}) {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("load: %v, want %q", err, test.want)
				}
			}
		})
	}
}

// node answers the calls of clients with h, and returns its address. It is no member of a cluster.
func node(t *testing.T, id string, h http.HandlerFunc) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port, err := wire.Open(wire.Config{ID: strings.Repeat(id, 32), Secrets: []seal.Secret{{1}}, Listener: l, Handler: h})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { port.Close() })
	return l.Addr().String()
}

// A backup comes from the first node that begins one. It may be longer than other answers. One that
// is cut off is an error, and so is a fault of the writer.
func TestBackup(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	piece := bytes.Repeat([]byte("backup"), 10_000)
	write := func(pieces int, cut bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			for range pieces {
				w.Write(piece)
			}
			if cut {
				http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
		}
	}
	fails := node(t, "a", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "not now", http.StatusServiceUnavailable) })
	cut := node(t, "b", write(3, true))
	const long = 70 << 20
	works := node(t, "c", write(long/len(piece)+1, false))
	full := errors.New("the disk is full")
	for name, test := range map[string]struct {
		addrs []string
		w     io.Writer
		want  string
	}{
		"the second answers": {[]string{fails, works}, nil, ""},
		"cut off":            {[]string{cut, works}, nil, "was cut off after 180000 bytes"},
		"nobody":             {[]string{fails}, nil, "the node cannot answer now: not now"},
		"a full disk":        {[]string{works}, brokenWriter{full}, "the disk is full"},
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, remote.Config{Secrets: []seal.Secret{{1}}, Peers: flotilla.Static(test.addrs...)})
			var n counter
			if test.w == nil {
				test.w = &n
			}
			err := c.Backup(t.Context(), test.w)
			if test.want == "" && (err != nil || n < long) || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%d bytes, %v; want an error with %q", n, err, test.want)
			}
		})
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }

// counter counts what is written.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// What the node says that is to be evicted counts for nothing: it may say that it is done.
func TestEvicteeIsNotBelieved(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	var mu sync.Mutex
	asked := make(map[string]int)
	answers := func(doing string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			asked[doing]++
			mu.Unlock()
			w.Write(remote.EvictReply{RotateReply: remote.RotateReply{Done: true, Doing: doing}}.Encode())
		}
	}
	evictee, other := node(t, "a", answers("nothing")), node(t, "b", answers("it all"))
	for _, test := range []struct {
		addrs []string
		want  string
	}{
		{[]string{evictee, other}, "it all"},
		{[]string{evictee}, ""},
	} {
		c := open(t, remote.Config{Secrets: []seal.Secret{{1}}, Peers: flotilla.Static(test.addrs...)})
		p, err := c.Evict(t.Context(), remote.EvictRequest{Node: "n1"}, strings.Repeat("a", 32))
		var unreachable *remote.UnreachableError
		if p.Doing != test.want || (err != nil) != (test.want == "") || err != nil && !errors.As(err, &unreachable) {
			t.Errorf("of %d nodes: %q, %v", len(test.addrs), p.Doing, err)
		}
		c.Evict(t.Context(), remote.EvictRequest{Node: "n1"}, strings.Repeat("a", 32))
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(map[string]int{"nothing": 3, "it all": 2}, asked); diff != "" {
		t.Errorf("how often the nodes were asked (-want +got):\n%s", diff)
	}
}
