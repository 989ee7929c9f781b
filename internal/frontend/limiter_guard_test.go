package frontend

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// Each test in this file is of one guard, and fails without it: see TESTING.md.

// pipeTo returns the client's end of a connection under l, and its other end.
func pipeTo(t *testing.T, l *limiter, config *tls.Config) (client net.Conn, c *limitedConn) {
	t.Helper()
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, l.add(server, config)
}

// isClosedNow reports whether the other end of a pipe was closed.
func isClosedNow(client net.Conn) bool {
	client.SetReadDeadline(time.Now().Add(time.Second))
	_, err := client.Read(make([]byte, 1))
	return errors.Is(err, io.EOF)
}

// A connection that sends nothing is closed in its time, with TLS and without.
func TestSilentConnectionsAreClosed(t *testing.T) {
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS": {}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, _ := pipeTo(t, limiterWith(unchanged), config)
				time.Sleep(handshakeTimeout - 2*time.Second)
				if isClosedNow(client) {
					t.Error("it is closed before its time")
				}
				time.Sleep(2 * time.Second)
				if !isClosedNow(client) {
					t.Error("it stays")
				}
			})
		})
	}
}

// Of too many connections, the one that has been without progress for longest is closed, not the
// oldest.
func TestProgressKeepsAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limiterWith(func(l *limits) { l.maxPending = 2 })
		first, c := pipeTo(t, l, nil)
		second, _ := pipeTo(t, l, nil)
		l.progress(c)
		pipeTo(t, l, nil)
		synctest.Wait()
		if isClosedNow(first) || !isClosedNow(second) {
			t.Error("the connection with progress is closed, and not the other")
		}
	})
}

// A handshake that waits for its client holds no slot.
func TestNoSlotWhileReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limiterWith(func(l *limits) { l.slots = 1 })
		_, first := pipeTo(t, l, nil)
		_, second := pipeTo(t, l, nil)
		if err := first.acquire(t.Context().Done()); err != nil {
			t.Fatal(err)
		}
		acquired := make(chan error, 1)
		go func() { acquired <- second.acquire(context.Background().Done()) }()
		synctest.Wait()
		if len(acquired) != 0 {
			t.Fatal("two handshakes have the only slot")
		}
		go first.Read(make([]byte, 1))
		synctest.Wait()
		if len(acquired) != 1 {
			t.Error("a handshake that waits for its client holds its slot")
			first.Close()
		}
		if err := <-acquired; err != nil {
			t.Error(err)
		}
	})
}

// No slot is held while the user's function chooses a configuration.
func TestNoSlotInTheUsersConfigForClient(t *testing.T) {
	ours, _ := testTLS(t)
	var within, after bool
	slot := func(conn net.Conn) bool { return conn.(*limitedConn).slot.Load() }
	var conn net.Conn
	user := &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		conn = hello.Conn
		within = slot(conn)
		return &tls.Config{}, nil
	}}
	mergeTLS(ours, user, new(http.Server), func(*tls.Config) { after = slot(conn) })
	client, c := pipeTo(t, limiterWith(unchanged), ours)
	go c.tls.Handshake()
	if err := tls.Client(client, insecure()).Handshake(); err != nil {
		t.Fatal(err)
	}
	if within || !after {
		t.Errorf("a slot is held while the user chooses: %v; after it: %v", within, after)
	}
}
