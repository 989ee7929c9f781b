package testca

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// The port that is held for certmagic's solvers takes connections that nobody accepts. In a bubble
// too they do not stay there.
func TestHeldPortIsDrained(t *testing.T) {
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		a := New(t, Config{})
		for range 3 {
			conn, err := net.Dial("tcp", a.held.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
		}
		a.drain()
		a.held.SetDeadline(time.Now().Add(drainTime))
		if _, err := a.held.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection is left: %v", err)
		}
	})
}

func TestReverse(t *testing.T) {
	for ip, want := range map[string]string{
		"192.0.2.7":   "7.2.0.192.in-addr.arpa",
		"2001:db8::7": "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
	} {
		if got := reverse(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: %s, want %s", ip, got, want)
		}
	}
}
