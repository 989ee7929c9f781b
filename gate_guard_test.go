package flotilla

import (
	"github.com/flotilla-ha/flotilla/internal/testlog"

	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The tests in this file are of single guards of the gate and of what handshakes are refused. Without its guard each of them
// fails: see TESTING.md.

// pipeTo returns the client's end of a connection that g has taken, and g's.
func pipeTo(t *testing.T, g *gate, config *tls.Config) (client net.Conn, c *gatedConn) {
	t.Helper()
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, g.take(server, config)
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
				client, _ := pipeTo(t, newGate(testlog.None()), config)
				time.Sleep(gatePatience - 2*time.Second)
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
		g := newGate(testlog.None())
		g.max = 2
		first, got := pipeTo(t, g, nil)
		second, _ := pipeTo(t, g, nil)
		g.progress(got)
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
		g := newGate(testlog.None())
		g.slots = make(chan struct{}, 1)
		_, first := pipeTo(t, g, nil)
		_, second := pipeTo(t, g, nil)
		if err := first.admit(t.Context().Done()); err != nil {
			t.Fatal(err)
		}
		admitted := make(chan error, 1)
		go func() { admitted <- second.admit(context.Background().Done()) }()
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

// A name of many labels that nobody manages is not looked for, even if the program has a certificate for it.
func TestManyLabelsAreNotLookedFor(t *testing.T) {
	c := bootCerts(t, newMemStorage(), always, func() error { return nil }, nil)
	config, err := c.tlsConfig("a.test")
	if err != nil {
		t.Fatal(err)
	}
	settle(t, c)
	for dots, want := range map[int]error{strangeDots: nil, strangeDots + 1: errUnknownName} {
		name := strings.Repeat("a.", dots) + "test"
		own, err := newSelfSigned(name, newSerial(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.config.CacheUnmanagedTLSCertificate(t.Context(), *own, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := config.GetConfigForClient(&tls.ClientHelloInfo{ServerName: name}); !errors.Is(err, want) {
			t.Errorf("a name with %d dots: %v, want %v", dots, err, want)
		}
	}
}
