package frontend

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-ha/flotilla/internal/testlog"
)

// The tests in this file are of single guards. Without its guard each of them fails: see TESTING.md.

// pipeTo returns the client's end of a connection that g has taken, and g's.
func pipeTo(t *testing.T, g *Limiter, config *tls.Config) (client net.Conn, c *limitedConn) {
	t.Helper()
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, g.Take(server, config)
}

// isClosed reports whether the other end of a pipe was closed.
func isClosed(client net.Conn) bool {
	client.SetReadDeadline(time.Now().Add(time.Second))
	_, err := client.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

// A connection that says nothing is closed in its time, with TLS and without.
func TestSilentConnectionsAreClosed(t *testing.T) {
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS": {}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, _ := pipeTo(t, NewLimiter(testlog.None()), config)
				time.Sleep(handshakeTimeout - 2*time.Second)
				if isClosed(client) {
					t.Error("it is closed before its time")
				}
				time.Sleep(2 * time.Second)
				if !isClosed(client) {
					t.Error("it stays")
				}
			})
		})
	}
}

// Of too many connections the one goes that has been longest without progress, not the oldest.
func TestProgressKeepsAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewLimiter(testlog.None())
		g.Max = 2
		first, got := pipeTo(t, g, nil)
		second, _ := pipeTo(t, g, nil)
		g.Progress(got)
		pipeTo(t, g, nil)
		synctest.Wait()
		if isClosed(first) || !isClosed(second) {
			t.Error("the one that has got on is closed, and not the other")
		}
	})
}

// Who waits for the client holds no turn.
func TestNoTurnWhileReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewLimiter(testlog.None())
		g.Slots = make(chan struct{}, 1)
		_, first := pipeTo(t, g, nil)
		_, second := pipeTo(t, g, nil)
		if err := first.Admit(t.Context().Done()); err != nil {
			t.Fatal(err)
		}
		admitted := make(chan error, 1)
		go func() { admitted <- second.Admit(context.Background().Done()) }()
		synctest.Wait()
		if len(admitted) != 0 {
			t.Fatal("two have a turn where there is one")
		}
		go first.Read(make([]byte, 1))
		synctest.Wait()
		if len(admitted) != 1 {
			t.Error("one that waits for its client holds its turn")
			first.Close()
		}
		if err := <-admitted; err != nil {
			t.Error(err)
		}
	})
}

// A user who takes time to choose a configuration does not keep other clients from their handshakes.
func TestUsersConfigForClientTakesNoTurn(t *testing.T) {
	_, served, _ := testTLS(t)
	var within, after bool
	ours := &tls.Config{GetCertificate: served.GetCertificate, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return nil, acquireSlot(hello)
	}}
	slot := func(conn net.Conn) bool { return conn.(*limitedConn).Slot.Load() }
	var conn net.Conn
	user := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		conn = hello.Conn
		within = slot(conn)
		return &tls.Config{}, nil
	}}
	MergeTLS(ours, user, new(http.Server), func(*tls.Config) { after = slot(conn) })
	near, far := net.Pipe()
	defer near.Close()
	server := NewLimiter(testlog.None()).Take(far, ours).TLS
	go server.Handshake()
	if err := tls.Client(near, &tls.Config{ServerName: "a.test", InsecureSkipVerify: true}).Handshake(); err != nil {
		t.Fatal(err)
	}
	if within || !after {
		t.Errorf("a slot is held while the user chooses: %v; after it: %v", within, after)
	}
}

// Connections that say nothing cannot take more than their number, and those who ask get answers.
func TestMaxConnections(t *testing.T) {
	srv := SmallServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "yes") }), testlog.None())
	if srv.ConnState == nil {
		t.Fatal("the number is not bounded")
	}
	c := newConnLimit(3)
	srv.ConnState = c.Note
	ln := listenLoopback(t, "127.0.0.1:0")
	NewDrainer(srv, testlog.None())
	go srv.Serve(ln)
	dial := func(n int) net.Conn {
		conn := dialClient(t, ln.Addr().String())
		for { // until the server has it
			c.Mu.Lock()
			have := c.Order.Len()
			c.Mu.Unlock()
			if have >= n {
				return conn
			}
			<-time.After(time.Millisecond)
		}
	}
	asks := func(conn net.Conn) {
		t.Helper()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || resp.StatusCode != 200 {
			t.Errorf("%v, %v", resp, err)
		}
	}
	first, second, third := dial(1), dial(2), dial(3)
	asks(first)
	var fourth net.Conn
	for _, gone := range []net.Conn{second, third} {
		fourth = dial(3)
		if err := closedSoon(gone); err != nil {
			t.Error(err)
		}
	}
	asks(first)
	asks(fourth)
	srv.Close()
	for { // those that go are forgotten
		c.Mu.Lock()
		left := c.Order.Len()
		same := left == len(c.Places)
		c.Mu.Unlock()
		if !same {
			t.Fatal("connections and places differ")
		}
		if left == 0 {
			return
		}
		<-time.After(time.Millisecond)
	}
}

// closedSoon returns an error unless the other side closes conn.
func closedSoon(conn net.Conn) error {
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	_, err := io.Copy(io.Discard, conn)
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		return errors.New("the connection stays")
	}
	return nil
}
