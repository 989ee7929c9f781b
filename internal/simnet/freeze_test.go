package simnet

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// A host that stands still sends nothing and reads nothing, and its kernel goes on.
func TestFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New()
		b := n.Host("b")
		l := listen(t, b, ":80")
		out, in := pair(t, n) // from a to b
		write(t, in, "sent before")
		b.Freeze()
		b.Freeze() // twice is once
		expect(t, out, "sent before")

		write(t, in, "from b")
		silent(t, out)
		write(t, out, "to b")
		read := make(chan string, 1)
		go func() {
			p := make([]byte, 10)
			k, err := in.Read(p)
			if err != nil {
				t.Error(err)
			}
			read <- string(p[:k])
		}()
		dialled, err := n.Host("a").Dial(t.Context(), "tcp", "b:80")
		if err != nil {
			t.Fatal(err)
		}
		defer dialled.Close()
		accepted, dials := make(chan net.Conn, 1), make(chan error, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				t.Error(err)
			}
			accepted <- c
		}()
		go func() {
			_, err := b.Dial(t.Context(), "tcp", "a:1")
			dials <- err
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(read)+len(accepted)+len(dials) != 0 {
			t.Errorf("while it stood still: %d reads, %d accepts, %d dials", len(read), len(accepted), len(dials))
		}

		start := time.Now()
		b.Thaw()
		expect(t, out, "from b")
		if d := time.Since(start); d != defaultLatency {
			t.Errorf("what it wrote came %v after it went on", d)
		}
		if got := <-read; got != "to b" {
			t.Errorf("it read %q", got)
		}
		(<-accepted).Close()
		if err := <-dials; !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
	})
}

// What a host has written while it stood still is not sent if its process is killed, or if the path
// is cut when it goes on.
func TestFreezeAndOtherFaults(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, n *Network, out net.Conn)
	}{
		{"killed", func(t *testing.T, n *Network, out net.Conn) {
			n.Host("b").Kill()
			fails(t, out, syscall.ECONNRESET)
			n.Host("b").Revive()
			listen(t, n.Host("b"), ":80") // the next process does not stand still
			if _, err := n.Host("b").Dial(t.Context(), "tcp", "c:1"); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Error(err)
			}
		}},
		{"cut", func(t *testing.T, n *Network, out net.Conn) {
			n.Isolate("b")
			n.Host("b").Thaw()
			silent(t, out)
			n.Heal()
			expect(t, out, "late")
		}},
		{"cut before", func(t *testing.T, n *Network, out net.Conn) {
			n.Isolate("b")
			n.Heal()
			silent(t, out)
			n.Host("b").Thaw()
			expect(t, out, "late")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := New()
				out, in := pair(t, n)
				n.Host("b").Freeze()
				write(t, in, "late")
				tt.do(t, n, out)
			})
		})
	}
}
