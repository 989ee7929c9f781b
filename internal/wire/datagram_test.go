package wire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/seal"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire/datagram"
	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
	"github.com/flotilla-ha/flotilla/internal/wire/peertls"
)

// collector keeps the datagrams that a node takes.
type collector struct {
	mu        sync.Mutex
	datagrams []string // "1: text" from node 1
	at        []time.Time
}

func (e *collector) use(c *Config) {
	c.OnDatagram = func(id string, data []byte) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.datagrams = append(e.datagrams, strings.TrimLeft(id, "0")+": "+string(data))
		e.at = append(e.at, time.Now())
	}
}

// take returns the datagrams since the last call.
func (e *collector) take() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	datagrams := e.datagrams
	e.datagrams, e.at = nil, nil
	return datagrams
}

// after returns how long after a moment the first datagram came.
func (e *collector) after(from time.Time) (time.Duration, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, at := range e.at {
		if at.After(from) {
			return at.Sub(from), true
		}
	}
	return 0, false
}

// discard takes datagrams and does nothing with them.
func discard(c *Config) { c.OnDatagram = func(string, []byte) {} }

// dials counts the dials of a node.
type dials struct{ n atomic.Int32 }

func (d *dials) use(c *Config) {
	dial := c.Dial
	c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		d.n.Add(1)
		return dial(ctx, network, addr)
	}
}

func (d *dials) count() int { return int(d.n.Load()) }

// sendEvery sends numbers to a node at an interval, until the test calls stop.
func sendEvery(p *Port, to int, every time.Duration) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-tick.C:
				p.SendDatagram(nodeID(to), strconv.AppendInt(nil, int64(i), 10))
			case <-done:
				return
			}
		}
	}()
	return func() { close(done); <-ended }
}

// inOrder fails unless the datagrams of sendEvery are in order.
func inOrder(t *testing.T, datagrams []string) {
	t.Helper()
	last := -1
	for _, data := range datagrams {
		_, text, _ := strings.Cut(data, ": ")
		i, err := strconv.Atoi(text)
		if err != nil || i <= last {
			t.Fatalf("%q after %d", data, last)
		}
		last = i
	}
}

// datagramConns returns the open connections of a node for datagrams: those from the node of that
// number, or those to it.
func datagramConns(p *Port, i int, inbound bool) (conns []*peerconn.Conn) {
	for _, c := range p.conns.All() {
		if c.Protocol() == peerconn.Datagrams && c.Inbound() == inbound && c.Peer().ID == nodeID(i) {
			conns = append(conns, c)
		}
	}
	return conns
}

// framed returns datagrams as they are sent.
func framed(datagrams ...string) (b []byte) {
	for _, d := range datagrams {
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(d))), d...)
	}
	return b
}

func TestDatagramsComeInOrder(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		var d dials
		var e, back collector
		a := open(t, n, 1, func(c *Config) { d.use(c); back.use(c) })
		b := open(t, n, 2, e.use)
		var want []string
		data := make([]byte, 0, MaxDatagram)
		for i := range 1000 {
			data = fmt.Append(data[:0], i, strings.Repeat("x", i%(MaxDatagram-4)))
			switch i % 100 {
			case 98:
				data = data[:0]
			case 99:
				data = append(data, make([]byte, MaxDatagram-len(data))...)
			}
			a.SendDatagram(nodeID(2), data)
			want = append(want, "1: "+string(data))
			clear(data)
			if i%datagram.MaxQueued == datagram.MaxQueued-1 {
				time.Sleep(50 * time.Millisecond)
			}
		}
		b.SendDatagram(nodeID(1), []byte("thanks"))
		time.Sleep(50 * time.Millisecond)
		if diff := cmp.Diff(want, e.take()); diff != "" {
			t.Fatal(diff)
		}
		if diff := cmp.Diff([]string{"2: thanks"}, back.take()); diff != "" {
			t.Fatal(diff)
		}
		if d.count() != 1 {
			t.Fatalf("%d dials", d.count())
		}
		// An unused connection is closed, and the next datagram makes another.
		time.Sleep(2 * datagram.IdleTimeout)
		if len(datagramConns(a, 2, false)) != 0 {
			t.Fatal("an idle connection stays")
		}
		a.SendDatagram(nodeID(2), []byte("again"))
		time.Sleep(10 * time.Millisecond)
		if diff := cmp.Diff([]string{"1: again"}, e.take()); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestOldestDatagramIsDropped(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		var e collector
		a := open(t, n, 1, nil)
		open(t, n, 2, e.use)
		var want []string
		for i := range 100 {
			a.SendDatagram(nodeID(2), strconv.AppendInt(nil, int64(i), 10))
			if i >= 100-datagram.MaxQueued {
				want = append(want, fmt.Sprint("1: ", i))
			}
		}
		time.Sleep(time.Second)
		if diff := cmp.Diff(want, e.take()); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestInvalidDatagramIsDropped(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		var e collector
		var j journal
		a := open(t, n, 1, func(c *Config) {
			c.Logger = slog.New(slog.NewTextHandler(&j, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		open(t, n, 2, e.use)
		a.SendDatagram(nodeID(2), make([]byte, MaxDatagram+1))
		a.SendDatagram("x", nil)
		time.Sleep(time.Second)
		if got := e.take(); len(got) != 0 || strings.Count(j.String(), "dropped a datagram") != 2 {
			t.Fatal(got, j.String())
		}
	})
}

// Whatever the peer does, Note takes no time. Goroutines and dials are few.
func TestSendNeverBlocks(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Parallel(t)
	for _, c := range []struct {
		name     string
		change   func(t *testing.T, n *simnet.Network, c *Config)
		min, max int // dials in ten seconds
	}{
		{"nobody listens", nil, 90, 110},
		{"the wire is cut", func(_ *testing.T, n *simnet.Network, _ *Config) { n.Isolate("a") }, 15, 25},
		{"the address is not known", func(_ *testing.T, _ *simnet.Network, c *Config) { c.Resolve = nil }, 0, 0},
		{"the peer says nothing", func(t *testing.T, n *simnet.Network, _ *Config) {
			if _, err := n.Host("b").Listen("tcp", ":7373"); err != nil {
				t.Fatal(err)
			}
		}, 3, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New()
				var d dials
				a := open(t, n, 1, func(cfg *Config) {
					if d.use(cfg); c.change != nil {
						c.change(t, n, cfg)
					}
				})
				start := time.Now()
				for range 10000 {
					a.SendDatagram(nodeID(2), []byte("x"))
				}
				if took := time.Since(start); took != 0 {
					t.Fatalf("blocked for %v", took)
				}
				stop := sendEvery(a, 2, time.Millisecond)
				time.Sleep(10 * time.Second)
				if got := d.count(); got < c.min || got > c.max {
					t.Errorf("%d dials", got)
				}
				stop()
				time.Sleep(2 * peerconn.HandshakeTimeout)
				before := d.count()
				time.Sleep(time.Minute)
				if d.count() != before || len(a.conns.All()) != 0 {
					t.Error("the node goes on dialling with nothing to send")
				}
			})
		})
	}
}

// Datagrams of a replaced connection are handed out before those of the new one, and none after.
func TestDatagramsOfTwoConnections(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, nil)
		var e collector
		hang := make(chan struct{})
		b := open(t, n, 2, func(c *Config) {
			e.use(c)
			noted := c.OnDatagram
			c.OnDatagram = func(id string, data []byte) {
				<-hang
				noted(id, data)
			}
		})
		var conns []*peerconn.Conn
		for i := range 3 {
			c, err := a.dialer.Node(t.Context(), nodeID(2), peerconn.Datagrams)
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
			c.Write(framed(strconv.Itoa(2*i), strconv.Itoa(2*i+1)))
			time.Sleep(10 * time.Millisecond)
		}
		for _, c := range conns[:2] {
			if _, err := c.Read(make([]byte, 1)); err == nil || peerconn.IsTimeout(err) {
				t.Errorf("a connection that was replaced is not closed: %v", err)
			}
		}
		close(hang)
		time.Sleep(10 * time.Millisecond)
		// The second connection was closed before it was read.
		if diff := cmp.Diff([]string{"1: 0", "1: 1", "1: 4", "1: 5"}, e.take()); diff != "" {
			t.Error(diff)
		}
		conns[2].Write(framed("6"))
		time.Sleep(10 * time.Millisecond)
		if diff := cmp.Diff([]string{"1: 6"}, e.take()); diff != "" {
			t.Error(diff)
		}
		conns[2].Close()
		time.Sleep(10 * time.Millisecond)
		if len(b.conns.All()) != 0 {
			t.Error("a connection that has ended is still open here")
		}
	})
}

// A peer that takes no datagrams is there: it is dialled rarely, and raft does not wait for it.
func TestDatagramsNotTaken(t *testing.T) {
	synctest.Parallel(t)
	for _, c := range []struct {
		name string
		peer func(t *testing.T, n *simnet.Network)
	}{
		{"it refuses", func(t *testing.T, n *simnet.Network) { open(t, n, 2, nil) }},
		{"it is older", func(t *testing.T, n *simnet.Network) {
			l, err := n.Host("b").Listen("tcp", ":7373")
			if err != nil {
				t.Fatal(err)
			}
			id, err := peertls.NewNode(secret(1), nodeID(2), "")
			if err != nil {
				t.Fatal(err)
			}
			l = tls.NewListener(l, &tls.Config{NextProtos: []string{string(peerconn.Raft), string(peerconn.RPC)}, Certificates: []tls.Certificate{id.Certificate()}})
			served := make(chan struct{})
			go func() {
				defer close(served)
				for {
					nc, err := l.Accept()
					if err != nil {
						return
					}
					io.Copy(io.Discard, nc)
					nc.Close()
				}
			}()
			t.Cleanup(func() { l.Close(); <-served })
		}},
		{"it hangs up", func(t *testing.T, n *simnet.Network) {
			var b *Port
			b = open(t, n, 2, func(c *Config) {
				c.OnDatagram = func(string, []byte) {
					for _, c := range datagramConns(b, 1, true) {
						c.Close()
					}
				}
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New()
				var d dials
				c.peer(t, n)
				a := open(t, n, 1, d.use)
				stop := sendEvery(a, 2, 10*time.Millisecond)
				time.Sleep(5 * time.Second)
				stop()
				if got := d.count(); got < 8 || got > 15 {
					t.Errorf("%d dials", got)
				}
				if a.peers.Up(nodeID(2)) != nil {
					t.Error("raft waits for a peer that is there")
				}
				time.Sleep(time.Second)
				if len(a.conns.All()) != 0 {
					t.Error("connections remain")
				}
			})
		})
	}
}

func TestDatagramsAreNonsense(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		var e collector
		var j journal
		a := open(t, n, 1, nil)
		open(t, n, 2, func(c *Config) { e.use(c); j.use(c) })
		for range 2 {
			c, err := a.dialer.Node(t.Context(), nodeID(2), peerconn.Datagrams)
			if err != nil {
				t.Fatal(err)
			}
			c.Write([]byte{0, 1, 'x', 1, 1, 'y'}) // the second says that it has 257 bytes
			start := time.Now()
			if _, err := c.Read(make([]byte, 1)); err != io.EOF || time.Since(start) > time.Second {
				t.Error(err, time.Since(start))
			}
		}
		time.Sleep(time.Second)
		if diff := cmp.Diff([]string{"1: x", "1: x"}, e.take()); diff != "" ||
			strings.Count(j.String(), "not valid") != 1 {
			t.Error(diff, j.String())
		}
	})
	// The other way: an answer without a question.
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a, b := open(t, n, 1, nil), open(t, n, 2, discard)
		a.SendDatagram(nodeID(2), nil)
		time.Sleep(10 * time.Millisecond)
		datagramConns(b, 1, true)[0].Write([]byte{1})
		time.Sleep(10 * time.Millisecond)
		if len(a.conns.All()) != 0 {
			t.Error("the connection is still there")
		}
	})
}

// BenchmarkDatagram measures a datagram and the datagram that answers it, over TCP.
func BenchmarkDatagram(b *testing.B) {
	var addrs [3]string
	answered := make(chan struct{})
	ports := make([]*Port, 3)
	for i := 1; i <= 2; i++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		addrs[i] = l.Addr().String()
		ports[i], err = Open(Config{
			ID: nodeID(i), Secrets: []seal.Secret{secret(1)}, Listener: l,
			Resolve: func(id string) (string, bool) {
				for k := 1; k <= 2; k++ {
					if id == nodeID(k) {
						return addrs[k], true
					}
				}
				return "", false
			},
			OnDatagram: func(id string, data []byte) {
				if i == 2 {
					ports[2].SendDatagram(id, data)
				} else {
					answered <- struct{}{}
				}
			},
		})
		if err != nil {
			b.Fatal(err)
		}
		defer ports[i].Close()
	}
	data, peer := make([]byte, 64), nodeID(2)
	round := func() {
		ports[1].SendDatagram(peer, data)
		select {
		case <-answered:
		case <-b.Context().Done():
			b.Fatal("no answer")
		}
	}
	round() // makes the connections
	b.ReportAllocs()
	for b.Loop() {
		round()
	}
}
