package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// Node 1 is on host a, node 2 on host b and so on, each at port 7373.
func nodeID(i int) string   { return fmt.Sprintf("%032x", i) }
func hostName(i int) string { return string(rune('a' + i - 1)) }
func nodeAt(i int) string   { return hostName(i) + ":7373" }

func resolve(id string) (string, bool) {
	for i := 1; i <= 26; i++ {
		if nodeID(i) == id {
			return nodeAt(i), true
		}
	}
	return "", false
}

func secret(b byte) seal.Secret { return seal.Secret{b} }

// open opens the Port of node i. It is closed when the test ends.
func open(t testing.TB, n *simnet.Network, i int, change func(*Config)) *Port {
	t.Helper()
	host := n.Host(hostName(i))
	l, err := host.Listen("tcp", ":7373")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		ID:       nodeID(i),
		Secrets:  []seal.Secret{secret(1)},
		Listener: l,
		Dial:     host.Dial,
		Resolve:  resolve,
		Handler:  echo(),
	}
	if change != nil {
		change(&cfg)
	}
	p, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// echo answers with the caller's ID, the path and the body; below /fail with an error.
func echo() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &large):
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		case err != nil:
			http.Error(w, err.Error(), http.StatusBadRequest)
		case strings.HasPrefix(r.URL.Path, "/fail"):
			http.Error(w, "no such luck", http.StatusConflict)
		default:
			fmt.Fprintf(w, "%s %s %s", Peer(r.Context()), r.URL.Path, body)
		}
	})
}

func TestOpenRefusesBadConfig(t *testing.T) {
	l, err := simnet.New().Host("a").Listen("tcp", ":1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want string
		cfg  Config
	}{
		{"is not 32 lower-case hexadecimal digits", Config{ID: "x", Secrets: []seal.Secret{secret(1)}, Listener: l}},
		{"is not 32 lower-case hexadecimal digits", Config{ID: strings.Repeat("A", 32), Secrets: []seal.Secret{secret(1)}, Listener: l}},
		{"no cluster secret", Config{ID: nodeID(1), Listener: l}},
		{"no listener", Config{ID: nodeID(1), Secrets: []seal.Secret{secret(1)}}},
	} {
		if _, err := Open(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("the error is %v, want %q in it", err, c.want)
		}
	}
}

func TestCall(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a, b := open(t, n, 1, nil), open(t, n, 2, nil)

		reply, err := a.Call(t.Context(), nodeID(2), "/x", []byte("body"))
		if diff := cmp.Diff(nodeID(1)+" /x body", string(reply)); diff != "" || err != nil {
			t.Fatal(diff, err)
		}
		if a.Transport().Contact(nodeID(2)) != time.Now() {
			// Nothing but latency has passed since.
			if d := time.Since(a.Transport().Contact(nodeID(2))); d > time.Millisecond {
				t.Fatalf("contact was %v ago", d)
			}
		}
		id, reply, err := b.CallAddr(t.Context(), nodeAt(1), "/y", nil)
		if diff := cmp.Diff([]string{nodeID(1), nodeID(2) + " /y "}, []string{id, string(reply)}); diff != "" ||
			err != nil {
			t.Fatal(diff, err)
		}
		var failed *RPCError
		if _, err := a.Call(t.Context(), nodeID(2), "/fail", nil); !errors.As(err, &failed) ||
			*failed != (RPCError{Status: 409, Message: "no such luck"}) {
			t.Fatal(err)
		}
		if id, _, err := a.CallAddr(t.Context(), nodeAt(2), "/fail", nil); !errors.As(err, &failed) || id != nodeID(2) {
			t.Fatal(id, err)
		}
		if _, err := a.Call(t.Context(), "x", "/", nil); err == nil ||
			!strings.Contains(err.Error(), `node ID "x" is not`) {
			t.Fatal("called a node without an ID:", err)
		}
		if _, err := a.Call(t.Context(), nodeID(3), "/", nil); !errors.Is(err, syscall.ECONNREFUSED) ||
			!a.Transport().Refused(nodeID(3)) {
			t.Fatal(err)
		}
		open(t, n, 3, nil)
		if _, err := a.Call(t.Context(), nodeID(3), "/", nil); err != nil || a.Transport().Refused(nodeID(3)) {
			t.Fatal(err)
		}
		a.Close()
		if _, err := a.Call(t.Context(), nodeID(2), "/", nil); !errors.Is(err, net.ErrClosed) {
			t.Fatal(err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCallUsesOneConnection(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		var dials atomic.Int32
		a := open(t, n, 1, func(c *Config) {
			dial := c.Dial
			c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				dials.Add(1)
				return dial(ctx, network, addr)
			}
		})
		open(t, n, 2, nil)
		for range 100 {
			if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
				t.Fatal(err)
			}
		}
		if dials.Load() != 1 {
			t.Fatalf("%d dials", dials.Load())
		}
	})
}

func TestCallOverDeadPath(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, nil)
		open(t, n, 2, nil)
		if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
			t.Fatal(err)
		}
		n.Isolate("b")
		start := time.Now()
		if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err == nil ||
			!strings.Contains(err.Error(), "connection lost") {
			t.Fatal("the wire is cut:", err)
		}
		if d := time.Since(start); d > 2*rpcTimeout+time.Second {
			t.Fatalf("noticed after %v", d)
		}
		start = time.Now()
		if _, err := a.Call(t.Context(), nodeID(2), "/", nil); !errors.Is(err, context.DeadlineExceeded) ||
			time.Since(start) > peerconn.DialTimeout {
			t.Fatal(err, time.Since(start))
		}
		n.Heal()
		if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCallTooLarge(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, nil)
		open(t, n, 2, nil)
		if _, err := a.Call(t.Context(), nodeID(2), "/", make([]byte, MaxRequest+1)); err == nil ||
			!strings.Contains(err.Error(), "is too large") {
			t.Fatal("sent a call over the limit:", err)
		}
		reply, err := a.Call(t.Context(), nodeID(2), "/", make([]byte, MaxRequest))
		if err != nil || len(reply) < MaxRequest {
			t.Fatal(len(reply), err)
		}
		// A peer that ignores the limit, with and without announcing the length.
		var h2c http.Protocols
		h2c.SetUnencryptedHTTP2(true)
		careless := &http.Transport{
			Protocols: &h2c,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return a.dialer.Node(ctx, nodeID(2), peerconn.RPC)
			},
		}
		defer careless.CloseIdleConnections()
		for _, body := range []io.Reader{bytes.NewReader(make([]byte, MaxRequest+1)), io.LimitReader(zeros{}, MaxRequest+1)} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+nodeID(2)+"/", body)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := careless.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode != http.StatusRequestEntityTooLarge {
				t.Fatal(resp.Status)
			}
		}
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestSecretRotation(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Parallel(t)
	const old, new = 1, 2
	steps := [][]byte{{old}, {old, new}, {new, old}, {new}}
	for i, from := range steps {
		for j, to := range steps {
			if i-j > 1 || j-i > 1 {
				continue
			}
			t.Run(fmt.Sprint(from, " dials ", to), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := simnet.New()
					a := open(t, n, 1, func(c *Config) { c.Secrets = secrets(from) })
					b := open(t, n, 2, func(c *Config) { c.Secrets = secrets(to) })
					for range 2 { // the second time from memory
						if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
							t.Error(err)
						}
						if _, _, err := b.CallAddr(t.Context(), nodeAt(1), "/", nil); err != nil {
							t.Error(err)
						}
						a.rpc.CloseIdle()
						b.rpc.CloseIdle()
					}
				})
			})
		}
	}
}

// A Port takes other secrets while it runs. Connections that were made with a dropped one end, and
// others are made with one that both have.
func TestSetSecrets(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a, b := open(t, n, 1, nil), open(t, n, 2, nil)
		call := func(from *Port, to int) error {
			_, err := from.Call(t.Context(), nodeID(to), "/", nil)
			return err
		}
		set := func(p *Port, bs ...byte) {
			t.Helper()
			if err := p.SetSecrets(secrets(bs)); err != nil {
				t.Fatal(err)
			}
		}
		want := func(p *Port, secret byte) {
			t.Helper()
			time.Sleep(time.Second) // until the other side has heard of it
			synctest.Wait()
			for _, c := range p.conns.All() {
				if c.Secret() != (seal.Secret{secret}).ID() {
					t.Errorf("a connection is left that was made with %v", c.Secret())
				}
			}
		}
		if err := call(a, 2); err != nil {
			t.Fatal(err)
		}
		set(a, 1, 2)
		set(b, 2, 1) // it would dial with the second from now on
		if err := errors.Join(call(a, 2), call(b, 1)); err != nil {
			t.Error(err)
		}
		set(b, 2)
		want(b, 2)
		want(a, 2)
		if err := errors.Join(call(a, 2), call(b, 1)); err != nil {
			t.Error(err)
		}
		set(a, 1)
		want(a, 1)
		for _, err := range []error{call(a, 2), call(b, 1)} {
			var wrong *WrongSecretError
			if !errors.As(err, &wrong) {
				t.Errorf("nodes without a common secret: %v", err)
			}
		}
		if err := a.SetSecrets(nil); err == nil || err.Error() != "no cluster secret" {
			t.Errorf("no secret: %v", err)
		}
	})
}

func secrets(bs []byte) (all []seal.Secret) {
	for _, b := range bs {
		all = append(all, secret(b))
	}
	return all
}

// journal is a slog.Logger's text.
type journal struct{ testlog.Buffer }

func (j *journal) use(c *Config) { c.Logger = slog.New(slog.NewTextHandler(j, nil)) }

func TestWrongSecret(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		var ja, jb journal
		a := open(t, n, 1, ja.use)
		open(t, n, 2, func(c *Config) { jb.use(c); c.Secrets = secrets([]byte{3, 4}) })
		for range 5 {
			_, err := a.Call(t.Context(), nodeID(2), "/", nil)
			var wrong *WrongSecretError
			if !errors.As(err, &wrong) {
				t.Fatal(err)
			}
			if diff := cmp.Diff(WrongSecretError{Addr: nodeAt(2), Want: secret(1).ID(), Have: secret(3).ID()}, *wrong); diff != "" {
				t.Fatal(diff)
			}
		}
		synctest.Wait()
		for _, j := range []*journal{&ja, &jb} {
			text := j.String()
			if strings.Count(text, "another cluster secret") != 1 || !strings.Contains(text, secret(1).ID().String()) ||
				!strings.Contains(text, secret(3).ID().String()) {
				t.Errorf("not one sentence with both key IDs: %q", text)
			}
		}
		time.Sleep(time.Minute)
		a.Call(t.Context(), nodeID(2), "/", nil)
		time.Sleep(time.Second)
		if text := jb.String(); strings.Count(text, "another cluster secret") != 2 {
			t.Errorf("not once a minute: %q", text)
		}
	})
}

func TestWrongNode(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, func(c *Config) { c.Resolve = func(string) (string, bool) { return nodeAt(2), true } })
		open(t, n, 2, nil)
		_, err := a.Call(t.Context(), nodeID(3), "/", nil)
		var wrong *WrongNodeError
		if !errors.As(err, &wrong) {
			t.Fatal(err)
		}
		if diff := cmp.Diff(WrongNodeError{Addr: nodeAt(2), Want: nodeID(3), Got: nodeID(2)}, *wrong); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestConnectionsOfOnePeerAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, nil)
		open(t, n, 2, nil)
		for range peerconn.MaxPerPeer {
			if _, err := a.dialer.Node(t.Context(), nodeID(2), peerconn.RPC); err != nil {
				t.Fatal(err)
			}
		}
		_, err := a.dialer.Node(t.Context(), nodeID(2), peerconn.RPC)
		var refused *RefusedError
		if !errors.As(err, &refused) {
			t.Fatal(err)
		}
		// Connections that never speak HTTP/2 are closed.
		time.Sleep(2 * peerconn.HandshakeTimeout)
		c, err := a.dialer.Node(t.Context(), nodeID(2), peerconn.RPC)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

func TestCloseEndsCalls(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, nil)
		ended := false
		b := open(t, n, 2, func(c *Config) {
			c.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
				time.Sleep(time.Second)
				ended = true
			})
		})
		done := make(chan error, 1)
		go func() { _, err := a.Call(t.Context(), nodeID(2), "/", nil); done <- err }()
		synctest.Wait()
		time.Sleep(time.Second)
		b.Close()
		if !ended {
			t.Fatal("Close did not wait for a call")
		}
		var answer *RPCError
		if err := <-done; err == nil || errors.As(err, &answer) {
			t.Fatal("answered:", err)
		}
	})
}

func TestCloseEndsDial(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		l, err := n.Host("b").Listen("tcp", ":7373") // accepts nothing
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		a := open(t, n, 1, nil)
		done := make(chan error, 1)
		go func() { _, err := a.Call(t.Context(), nodeID(2), "/", nil); done <- err }()
		time.Sleep(time.Second)
		start := time.Now()
		a.Close()
		if err := <-done; err == nil || !strings.Contains(err.Error(), "no connection to node "+nodeID(2)) ||
			time.Since(start) > 0 {
			t.Fatal(err, time.Since(start))
		}
	})
}

// flaky is a listener that fails every second time.
type flaky struct {
	net.Listener
	n atomic.Int32
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.n.Add(1)%2 == 1 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

func TestAcceptErrorsPass(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, nil)
		open(t, n, 2, func(c *Config) { c.Listener = &flaky{Listener: c.Listener} })
		for range 5 {
			if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
				t.Fatal(err)
			}
			a.rpc.CloseIdle()
		}
	})
}
