package wire

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/wire/datagram"
	"github.com/flotilla-ha/flotilla/internal/wire/peerconn"
)

// A node that has lost its directory returns under another ID, at the address of a member that
// others still dial. Those dials must not disturb what they send to the node itself.
func TestDatagramsBesideDeadNamesake(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, func(c *Config) {
			c.Resolve = func(id string) (string, bool) { return nodeAt(2), id == nodeID(2) || id == nodeID(3) }
		})
		var arrived atomic.Int32
		open(t, n, 2, func(c *Config) { c.OnDatagram = func(string, []byte) { arrived.Add(1) } })
		const sent = 100
		for range sent {
			a.SendDatagram(nodeID(2), []byte("you"))
			a.SendDatagram(nodeID(3), []byte("the one before"))
			time.Sleep(50 * time.Millisecond)
		}
		if got := arrived.Load(); got != sent {
			t.Errorf("%d of %d datagrams came", got, sent)
		}
	})
}

func TestDatagramsAfterRestart(t *testing.T) {
	synctest.Parallel(t)
	for _, down := range []time.Duration{0, 100 * time.Millisecond, 10 * time.Second} {
		for _, calls := range []bool{false, true} {
			t.Run(fmt.Sprint(down, " and the peer calls: ", calls), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := simnet.New()
					var e collector
					a, b := open(t, n, 1, nil), open(t, n, 2, e.use)
					stop := sendEvery(a, 2, 10*time.Millisecond)
					defer stop()
					time.Sleep(2 * time.Second)
					n.Host("b").Crash()
					b.Close()
					time.Sleep(down)
					was := e.take()
					back := time.Now()
					b = open(t, n, 2, e.use)
					if calls {
						if _, err := b.Call(t.Context(), nodeID(1), "/", nil); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(2 * time.Second)
					limit := datagram.MaxPause
					if calls || down == 0 {
						limit = datagram.MinPause
					}
					if took, ok := e.after(back); !ok || took > limit+20*time.Millisecond {
						t.Errorf("datagrams came after %v, %v", took, ok)
					}
					inOrder(t, append(was, e.take()...))
				})
			})
		}
	}
}

// The death of a peer is noticed even while nothing is sent.
func TestDatagramsOfDeadPeer(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a := open(t, n, 1, nil)
		open(t, n, 2, discard)
		a.SendDatagram(nodeID(2), nil)
		time.Sleep(2 * time.Second)
		if len(datagramConns(a, 2, false)) != 1 {
			t.Fatal("no connection")
		}
		n.Host("b").Crash()
		time.Sleep(time.Millisecond)
		if len(a.conns.All()) != 0 {
			t.Fatal("the connection is still there")
		}
	})
}

func TestDatagramsAfterPartition(t *testing.T) {
	if testing.Short() {
		t.Skip("a slow test: it runs without -short")
	}
	synctest.Parallel(t)
	for name, cut := range map[string]func(*simnet.Network){
		"both ways": func(n *simnet.Network) { n.Isolate("b") },
		"to it":     func(n *simnet.Network) { n.Block("a", "b") },
		"from it":   func(n *simnet.Network) { n.Block("b", "a") },
	} {
		for _, c := range []struct {
			last    time.Duration
			answers bool // the peer answers datagrams, and is not asked whether it is there
		}{
			{200 * time.Millisecond, false}, {3 * time.Second, false}, {time.Minute, false},
			{200 * time.Millisecond, true}, {3 * time.Second, true}, {time.Minute, true},
		} {
			last := c.last
			t.Run(fmt.Sprint(name, " for ", last, ", with answers: ", c.answers), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := simnet.New()
					var d dials
					var e collector
					var a, b *Port
					a = open(t, n, 1, func(cfg *Config) { d.use(cfg); answering(&a)(cfg) })
					b = open(t, n, 2, func(cfg *Config) {
						e.use(cfg)
						collect := cfg.OnDatagram
						cfg.OnDatagram = func(id string, data []byte) {
							collect(id, data)
							if c.answers {
								b.SendDatagram(id, data)
							}
						}
					})
					stop := sendEvery(a, 2, 10*time.Millisecond)
					defer stop()
					time.Sleep(2 * time.Second)
					cut(n)
					time.Sleep(last)
					if last > time.Second && d.count() < 2 {
						t.Error("it was not noticed that the path is dead")
					}
					healed := time.Now()
					n.Heal()
					time.Sleep(2 * time.Second)
					if all := datagramConns(a, 2, false); len(all) != 1 {
						t.Errorf("%d connections", len(all))
					}
					if took, ok := e.after(healed); !ok || took > datagram.MaxPause+datagram.MinPause {
						t.Errorf("datagrams came after %v, %v", took, ok)
					}
					inOrder(t, e.take())
				})
			})
		}
	}
}

// clog is a connection whose Write can be made to block, as on TCP when the peer stops reading.
type clog struct {
	net.Conn
	full     *atomic.Bool
	closed   chan struct{}
	once     sync.Once
	mu       sync.Mutex
	deadline time.Time
}

func (c *clog) SetWriteDeadline(at time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = at
	return c.Conn.SetWriteDeadline(at)
}

func (c *clog) Write(b []byte) (int, error) {
	if !c.full.Load() {
		return c.Conn.Write(b)
	}
	c.mu.Lock()
	var passed <-chan time.Time
	if !c.deadline.IsZero() {
		passed = time.After(time.Until(c.deadline))
	}
	c.mu.Unlock()
	select {
	case <-passed:
		return 0, os.ErrDeadlineExceeded
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *clog) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func TestDatagramsToPeerThatStopsReading(t *testing.T) {
	synctest.Parallel(t)
	t.Run("its buffers are full", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New()
			var e collector
			var full atomic.Bool
			a := open(t, n, 1, func(c *Config) {
				dial := c.Dial
				c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
					nc, err := dial(ctx, network, addr)
					if err != nil {
						return nil, err
					}
					return &clog{Conn: nc, full: &full, closed: make(chan struct{})}, nil
				}
			})
			open(t, n, 2, e.use)
			a.SendDatagram(nodeID(2), []byte("1"))
			time.Sleep(datagram.AskInterval / 2) // the peer has answered, and is not asked again yet
			full.Store(true)
			a.SendDatagram(nodeID(2), []byte("2"))
			time.Sleep(rpcTimeout - time.Millisecond)
			if len(a.conns.All()) != 1 {
				t.Fatal("gave up early")
			}
			time.Sleep(2 * time.Millisecond)
			if len(a.conns.All()) != 0 {
				t.Fatal("still waits")
			}
			full.Store(false)
			a.SendDatagram(nodeID(2), []byte("3"))
			time.Sleep(10 * time.Millisecond)
			if diff := cmp.Diff([]string{"1: 1", "1: 3"}, e.take()); diff != "" {
				t.Fatal(diff)
			}
		})
	})
	t.Run("they are not", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := simnet.New()
			var d dials
			a := open(t, n, 1, d.use)
			hang := make(chan struct{})
			b := open(t, n, 2, func(c *Config) { c.OnDatagram = func(string, []byte) { <-hang } })
			stop := sendEvery(a, 2, 10*time.Millisecond)
			time.Sleep(10 * time.Second)
			// Each connection is given up after Timeout/4, and there is a pause.
			if got := d.count(); got < 10 || got > 20 {
				t.Errorf("%d dials", got)
			}
			stop()
			if got := len(b.conns.All()); got > 1 {
				t.Errorf("%d connections pile up", got)
			}
			close(hang)
			a.SendDatagram(nodeID(2), nil)
			time.Sleep(10 * time.Second)
			if len(a.conns.All()) != 1 || len(b.conns.All()) != 1 {
				t.Errorf("%d and %d connections once it reads", len(a.conns.All()), len(b.conns.All()))
			}
		})
	})
}

// Close ends all goroutines of a Port, without a wait. The bubble waits for all of them.
func TestCloseEndsDatagrams(t *testing.T) {
	synctest.Parallel(t)
	for name, change := range map[string]func(n *simnet.Network){
		"connected":   func(*simnet.Network) {},
		"dialling":    func(n *simnet.Network) { n.Isolate("b"); n.Host("b").Crash() },
		"pausing":     func(n *simnet.Network) { n.Host("b").Crash() },
		"wire is cut": func(n *simnet.Network) { n.Isolate("b") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New()
				a, b := open(t, n, 1, discard), open(t, n, 2, discard)
				stop := sendEvery(a, 2, 10*time.Millisecond)
				stopB := sendEvery(b, 1, 10*time.Millisecond)
				defer stop()
				defer stopB()
				time.Sleep(time.Second)
				change(n)
				time.Sleep(310 * time.Millisecond)
				for _, p := range []*Port{a, b} {
					start := time.Now()
					p.Close()
					if took := time.Since(start); took != 0 || len(p.conns.All()) != 0 {
						t.Errorf("Close took %v", took)
					}
				}
				time.Sleep(time.Second) // datagrams go on after Close
			})
		})
	}
}

// A datagram says that its sender is there.
func TestDatagramShowsThatSenderIsThere(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		a, b := open(t, n, 1, discard), open(t, n, 2, discard)
		b.SendDatagram(nodeID(1), nil)
		a.SendDatagram(nodeID(2), nil)
		time.Sleep(2 * datagram.AskInterval)
		for _, p := range []*Port{a, b} { // a by an answer and b by a datagram
			p.peers.Failed(nodeID(1), syscall.ECONNREFUSED)
			p.peers.Failed(nodeID(2), syscall.ECONNREFUSED)
		}
		a.SendDatagram(nodeID(2), nil)
		time.Sleep(10 * time.Millisecond)
		if b.peers.Up(nodeID(1)) != nil || a.peers.Up(nodeID(2)) != nil {
			t.Error("not seen")
		}
		b.peers.Failed(nodeID(1), syscall.ECONNREFUSED)
		c, err := b.dialer.Node(t.Context(), nodeID(1), peerconn.Datagrams)
		if err != nil || b.peers.Up(nodeID(1)) != nil {
			t.Error("a dial has succeeded", err)
		}
		c.Close()
	})
}

func TestBelievedDead(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		is := func(p *Port, what string, want bool) {
			t.Helper()
			if got := p.BelievedDead(nodeID(2)); got != want {
				t.Errorf("%s: %v", what, got)
			}
		}
		var lost atomic.Bool // the address of the peer is wrong
		a := open(t, n, 1, func(c *Config) {
			c.Resolve = func(id string) (string, bool) {
				if lost.Load() {
					return "b:1", true
				}
				return resolve(id)
			}
		})
		is(a, "never dialled", false)
		a.SendDatagram(nodeID(2), nil)
		time.Sleep(10 * time.Millisecond)
		is(a, "never there", true)

		b := open(t, n, 2, discard)
		b.Call(t.Context(), nodeID(1), "/", nil)
		is(a, "it called", false)
		n.Host("b").Crash()
		b.Close()
		time.Sleep(10 * time.Millisecond)
		is(a, "not dialled since it died", false)
		a.SendDatagram(nodeID(2), nil)
		time.Sleep(10 * time.Millisecond)
		is(a, "it died", true)

		open(t, n, 2, discard)
		a.SendDatagram(nodeID(2), nil)
		time.Sleep(time.Second)
		is(a, "dialled since it is back", false)
		n.Isolate("b")
		a.SendDatagram(nodeID(2), nil)
		time.Sleep(2 * time.Second)
		a.SendDatagram(nodeID(2), nil)
		time.Sleep(2 * time.Second)
		is(a, "cut off", false)
		n.Heal()

		b = open(t, simnet.New(), 2, func(c *Config) {
			if err := c.Listener.Close(); err != nil {
				t.Fatal(err)
			}
			var err error
			if c.Listener, err = n.Host("b").Listen("tcp", ":7374"); err != nil {
				t.Fatal(err)
			}
			c.Dial = n.Host("b").Dial
		})
		if _, err := b.Call(t.Context(), nodeID(1), "/", nil); err != nil {
			t.Fatal(err)
		}
		lost.Store(true)
		if _, err := a.dialer.Node(t.Context(), nodeID(2), peerconn.RPC); !peerconn.PortRefuses(err) {
			t.Fatal(err)
		}
		if !a.Transport().Refused(nodeID(2)) {
			t.Error("not refused")
		}
		is(a, "it is connected to us", false)
		b.rpc.CloseIdle()
		time.Sleep(10 * time.Millisecond)
		is(a, "it has hung up", true)
	})
}
