package peerconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// from is one end of a pipe that says which address it comes from.
type from struct {
	net.Conn
	host string
}

func (c from) RemoteAddr() net.Addr { return addr(c.host + ":1") }

type addr string

func (a addr) Network() string { return "tcp" }
func (a addr) String() string  { return string(a) }

// The limiter closes the oldest connection, that of the same host if the bound is the host's.
func TestLimiter(t *testing.T) {
	set, l := NewSet(), newLimiter()
	t.Cleanup(set.Close)
	closed := make(map[string]int)
	var all []*pending
	enter := func(host string) {
		raw, _ := net.Pipe()
		c := set.Track(from{raw, host})
		n := len(all)
		c.AtClose(func() { closed[fmt.Sprint(host, " ", n)]++ })
		p, _ := l.enter(c)
		all = append(all, p)
	}
	enter("other")
	for range MaxPendingHost + 1 {
		enter("one")
	}
	if len(closed) != 1 || closed["one 1"] != 1 || l.len() != MaxPendingHost+1 {
		t.Fatalf("closed %v, %d wait", closed, l.len())
	}
	for i := range MaxPending {
		enter(fmt.Sprint("host", i/2))
	}
	if l.len() != MaxPending || closed["other 0"] != 1 {
		t.Fatalf("closed %v, %d wait", closed, l.len())
	}
	for _, p := range all {
		l.leave(p)
		l.leave(p)
	}
	if l.len() != 0 || len(l.hosts) != 0 {
		t.Errorf("%d connections and %d hosts are remembered", l.len(), len(l.hosts))
	}
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(time.Minute)
		if !th.Pass("a") || !th.Pass("b") || th.Pass("a") {
			t.Error("not one line for each key")
		}
		time.Sleep(time.Minute)
		if !th.Pass("a") {
			t.Error("no line after the interval")
		}
		for i := range 3000 {
			th.Pass(fmt.Sprint(i))
		}
		if len(th.last) > 1024 {
			t.Errorf("%d keys are remembered", len(th.last))
		}
	})
}

// A failed dial makes a peer down until it is seen.
func TestTable(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for _, test := range []struct {
		name            string
		do              func(p *Table)
		down            bool
		refused, hungUp bool
		err             error
	}{
		{"nothing is known", func(*Table) {}, false, false, false, nil},
		{"refused", func(p *Table) { p.Failed("a", refused) }, true, true, true, refused},
		{"timed out", func(p *Table) { p.Failed("a", context.DeadlineExceeded) }, true, false, false, context.DeadlineExceeded},
		{"refused, then timed out", func(p *Table) {
			p.Failed("a", refused)
			p.Failed("a", context.DeadlineExceeded)
		}, true, false, false, context.DeadlineExceeded},
		{"refused and seen", func(p *Table) { p.Failed("a", refused); p.Observe("a") }, false, false, false, nil},
		{"refused and answered", func(p *Table) { p.Failed("a", refused); p.Answered("a") }, false, false, false, nil},
		{"refused and connected to us", func(p *Table) { p.enter("a"); p.Failed("a", refused) }, true, true, false, refused},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := NewTable()
			test.do(p)
			if _, err := p.LastError("a"); !errors.Is(err, test.err) {
				t.Errorf("the last error is %v, want %v", err, test.err)
			}
			up := p.Up("a")
			if (up != nil) != test.down || p.Refused("a") != test.refused || p.BelievedDead("a") != test.hungUp {
				t.Errorf("down %v, refused %v, hung up %v", up != nil, p.Refused("a"), p.BelievedDead("a"))
			}
			if p.Observe("a"); up != nil {
				<-up
			}
		})
	}
	p := NewTable()
	for range MaxPerPeer {
		if !p.enter("a") {
			t.Fatal("too few connections are allowed")
		}
	}
	if p.enter("a") {
		t.Error("too many connections are allowed")
	}
	p.leave("a")
	if !p.enter("a") {
		t.Error("a connection that has ended counts")
	}
}

// After End nothing starts, and Wait returns when all has ended.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLife()
		ctx, release, err := l.Context(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ended := false
		l.Go(func() { <-l.Done(); time.Sleep(time.Second); ended = true })
		if l.Ended() || !l.End() || l.End() || !l.Ended() {
			t.Error("it does not end once")
		}
		<-ctx.Done()
		release()
		if l.Wait(); !ended {
			t.Error("Wait does not wait")
		}
		if _, _, err := l.Context(t.Context()); l.Enter() || l.Go(func() {}) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("something starts after the end: %v", err)
		}
	})
}
