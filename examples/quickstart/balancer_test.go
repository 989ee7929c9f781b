package main

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/flotilla-ha/flotilla/examples/internal/process"
)

// backend listens on loopback and gives every connection to serve.
func backend(t *testing.T, serve func(*net.TCPConn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
	return ln.Addr().String()
}

// refused returns an address at which nobody listens.
func refused(t *testing.T) string {
	t.Helper()
	ports, err := process.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	return process.HostPort(net.IPv4(127, 0, 0, 1), ports[0])
}

// says returns the behaviour of a backend that sends name and closes the connection.
func says(name string) func(*net.TCPConn) {
	return func(c *net.TCPConn) {
		io.WriteString(c, name)
		c.Close()
	}
}

func testBalancer(t *testing.T, backends ...string) *balancer {
	t.Helper()
	b, err := startBalancer("127.0.0.1:0", backends...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.close)
	return b
}

// dial connects to b.
func dial(t *testing.T, b *balancer) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", b.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func TestBalancerTurns(t *testing.T) {
	up := func(name string) string { return backend(t, says(name)) }
	tests := []struct {
		name     string
		backends []string
		want     []string
	}{
		{"in turn", []string{up("a"), up("b"), up("c")}, []string{"a", "b", "c", "a", "b"}},
		{"the next if one refuses", []string{up("a"), refused(t), up("c")}, []string{"a", "c", "c", "a", "c"}},
		{"the first again if the last refuses", []string{up("a"), refused(t)}, []string{"a", "a", "a"}},
		{"nobody", []string{refused(t), refused(t)}, []string{"", ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := testBalancer(t, tt.backends...)
			for i, want := range tt.want {
				got, err := io.ReadAll(dial(t, b))
				if err != nil || string(got) != want {
					t.Errorf("connection %d: got %q, %v; want %q", i, got, err, want)
				}
			}
		})
	}
}

// One side may send everything, and then still receive from the other.
func TestBalancerHalfClose(t *testing.T) {
	b := testBalancer(t, backend(t, func(c *net.TCPConn) {
		defer c.Close()
		question, err := io.ReadAll(c) // returns only if the end of the client arrives
		if err == nil {
			io.WriteString(c, "you said "+string(question))
		}
	}))
	c := dial(t, b)
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if want := "you said hello"; err != nil || string(got) != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

// A node that dies ends the connections of its clients, also idle ones.
func TestBalancerBrokenNode(t *testing.T) {
	b := testBalancer(t, backend(t, func(c *net.TCPConn) {
		c.SetLinger(0) // Close sends a reset, as for a dead process with unread data
		c.Close()
	}))
	_, err := io.ReadAll(dial(t, b))
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want the end of the connection", err)
	}
}

func TestBalancerClose(t *testing.T) {
	carried := make(chan struct{})
	b := testBalancer(t, backend(t, func(c *net.TCPConn) {
		close(carried)
		io.Copy(io.Discard, c)
		c.Close()
	}))
	c := dial(t, b)
	<-carried
	b.close() // returns only when the goroutines of the connection have ended
	if _, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want the end of the connection", err)
	}
	if _, err := net.Dial("tcp", b.ln.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the balancer still listens after close: %v", err)
	}
}
