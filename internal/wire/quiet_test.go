package wire

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// traffic counts the connections that a node has dialled, how often something is written to them,
// and how often something comes back on them.
type traffic struct{ dials, out, back atomic.Int64 }

func (f *traffic) use(c *Config) {
	dial := c.Dial
	c.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		f.dials.Add(1)
		return &counted{nc, f}, nil
	}
}

type counted struct {
	net.Conn
	traffic *traffic
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.traffic.back.Add(1)
	}
	return n, err
}

func (c *counted) Write(b []byte) (int, error) {
	c.traffic.out.Add(1)
	return c.Conn.Write(b)
}

// answering makes a node know an answer to a datagram, as every datagram of these tests is.
func answering(p **Port) func(*Config) {
	return func(c *Config) { c.OnDatagram = func(id string, _ []byte) { (*p).DatagramAnswered(id) } }
}

// While nodes answer each other's datagrams they send nothing else, on any connection.
func TestNothingBesidesDatagrams(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		var f traffic
		var a, b *Port
		a = open(t, n, 1, func(c *Config) { f.use(c); answering(&a)(c) })
		b = open(t, n, 2, answering(&b))
		const every = 100 * time.Millisecond
		stopA, stopB := sendEvery(a, 2, every), sendEvery(b, 1, every)
		defer stopA()
		defer stopB()
		time.Sleep(time.Second)
		if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		out, back := f.out.Load(), f.back.Load()
		const long = 50 * time.Second // the connection of the call is kept for a minute
		time.Sleep(long)
		if out, back = f.out.Load()-out, f.back.Load()-back; out > int64(long/every) || back != 0 {
			t.Errorf("%d writes for %d datagrams, and %d answers", out, long/every, back)
		}
		if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
			t.Fatal(err)
		}
	})
}

// A connection that was made before datagrams were answered serves the calls after that too. When
// it has been at rest the next connection is one without pings.
func TestCallsKeepTheirConnection(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		var f traffic
		var a, b *Port
		a = open(t, n, 1, func(c *Config) { f.use(c); answering(&a)(c) })
		b = open(t, n, 2, answering(&b))
		dials := func() (n int64) {
			t.Helper()
			before := f.dials.Load()
			if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
				t.Fatal(err)
			}
			return f.dials.Load() - before
		}
		if n := dials(); n != 1 {
			t.Fatalf("the first call makes %d connections", n)
		}
		stopA, stopB := sendEvery(a, 2, 100*time.Millisecond), sendEvery(b, 1, 100*time.Millisecond)
		defer stopA()
		defer stopB()
		for i := range 3 {
			time.Sleep(45 * time.Second)
			if n := dials(); n != 0 {
				t.Errorf("call %d makes %d connections", i, n)
			}
		}
		time.Sleep(2 * time.Minute)
		if n := dials(); n != 1 {
			t.Errorf("a call after a long rest makes %d connections", n)
		}
		back := f.back.Load()
		time.Sleep(45 * time.Second)
		if back = f.back.Load() - back; back != 0 {
			t.Errorf("%d answers to pings", back)
		}
	})
}

// A call ends when its path dies, and its connection with it, also where datagrams take the place
// of pings. A call that takes long does not end while the node is there.
func TestCallBesideDatagrams(t *testing.T) {
	synctest.Parallel(t)
	for name, cut := range map[string]bool{"the path dies": true, "a long call": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := simnet.New()
				var a, b *Port
				var slow atomic.Bool
				a = open(t, n, 1, answering(&a))
				b = open(t, n, 2, func(c *Config) {
					answering(&b)(c)
					c.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
						if slow.Load() {
							time.Sleep(10 * rpcTimeout)
						}
					})
				})
				stopA, stopB := sendEvery(a, 2, 100*time.Millisecond), sendEvery(b, 1, 100*time.Millisecond)
				defer stopA()
				defer stopB()
				time.Sleep(time.Second)
				if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil {
					t.Fatal(err)
				}
				if cut {
					n.Isolate("b")
				}
				slow.Store(!cut)
				start := time.Now()
				_, err := a.Call(t.Context(), nodeID(2), "/", nil)
				if took := time.Since(start); cut && (!errors.Is(err, net.ErrClosed) || took > 2*rpcTimeout+time.Second) || !cut && err != nil {
					t.Fatal(took, err)
				}
				n.Heal()
				slow.Store(false)
				time.Sleep(time.Second)
				start = time.Now()
				if _, err := a.Call(t.Context(), nodeID(2), "/", nil); err != nil || time.Since(start) > time.Second {
					t.Fatal(time.Since(start), err)
				}
			})
		})
	}
}
