package frontend

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/meter"
	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// Silent connections cannot take more than the maximum, and clients that ask get answers.
func TestMaxConnections(t *testing.T) {
	srv := smallServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "yes") }), testlog.None(), new(meter.Counter))
	if srv.ConnState == nil {
		t.Fatal("the number is not bounded")
	}
	m := newMaxConns(3, new(meter.Counter))
	srv.ConnState = m.onState
	ln := listenLoopback(t, "127.0.0.1:0")
	drainerOf(srv, ln)
	go srv.Serve(ln)
	dial := func(n int) net.Conn {
		conn := dialClient(t, ln.Addr().String())
		for { // until the server has it
			m.mu.Lock()
			have := m.order.Len()
			m.mu.Unlock()
			if have >= n {
				return conn
			}
			<-time.After(time.Millisecond)
		}
	}
	asks := func(conn net.Conn) {
		t.Helper()
		if res, _, err := ask(conn, false); err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("%v, %v", res, err)
		}
	}
	first, second, third := dial(1), dial(2), dial(3)
	asks(first)
	var fourth net.Conn
	for _, gone := range []net.Conn{second, third} {
		fourth = dial(3)
		if err := isClosedSoon(gone); err != nil {
			t.Error(err)
		}
	}
	asks(first)
	asks(fourth)
	srv.Close()
	for { // closed connections are forgotten
		m.mu.Lock()
		left := m.order.Len()
		same := left == len(m.places)
		m.mu.Unlock()
		if !same {
			t.Fatal("connections and places differ")
		}
		if left == 0 {
			return
		}
		<-time.After(time.Millisecond)
	}
}
