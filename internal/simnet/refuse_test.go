package simnet

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A listener that refuses frees its port, and hands out what has come before.
func TestRefuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		b := n.Host("b")
		l := listen(t, b, ":1")
		first, err := n.Host("a").Dial(t.Context(), "tcp", "b:1")
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		l.(interface{ Refuse() }).Refuse()
		if _, err := n.Host("a").Dial(t.Context(), "tcp", "b:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a further connection: %v", err)
		}
		next := listen(t, b, ":1")
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		write(t, first, "x")
		expect(t, conn, "x")
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		second, err := n.Host("a").Dial(t.Context(), "tcp", "b:1")
		if err != nil {
			t.Fatalf("the next listener: %v", err)
		}
		defer second.Close()
		if conn, err := next.Accept(); err != nil {
			t.Error(err)
		} else {
			conn.Close()
		}
	})
}

// Both ends see the address that a host was called by.
func TestDialAs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		l := listen(t, n.Host("b"), ":443")
		near, err := n.Host("a").DialAs(t.Context(), "tcp", "b:443", "192.0.2.1:443")
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		if got := []string{near.RemoteAddr().String(), far.LocalAddr().String()}; got[0] != "192.0.2.1:443" || got[1] != "192.0.2.1:443" {
			t.Errorf("they see %v", got)
		}
		write(t, near, "x")
		expect(t, far, "x")
	})
}
