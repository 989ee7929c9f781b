package balancers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"
)

// HAProxy sends no new connections to a node that drains, is dead, or is frozen. It cuts the
// connections of a dead or frozen node, and keeps those of a draining one.
func TestChecks(t *testing.T) {
	cl := startCluster(t, "")
	for _, tt := range []struct {
		name   string
		to     syscall.Signal
		state  string
		checks []string
		cut    bool
	}{
		{"draining", syscall.SIGTERM, "NOLB", []string{"L7OKC"}, false},
		{"killed", syscall.SIGKILL, "DOWN", []string{"L4CON"}, true},
		{"frozen", syscall.SIGSTOP, "DOWN", []string{"L7TOUT", "L4TOUT"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := cl.nodes[1]
			// A request that the client has not finished, on its own connection to the node through
			// HAProxy.
			pending := cl.begin(t, m)
			m.signal(t, tt.to)
			signalled := time.Now()
			cl.awaitState(t, m, tt.state, tt.checks...)
			t.Logf("HAProxy reports %s after %s", tt.state, time.Since(signalled).Round(time.Millisecond))

			c := cl.client(cl.haproxy(), fresh)
			for range 10 {
				a, err := ask(t.Context(), c, nil)
				c.CloseIdleConnections()
				if err != nil || a.Node == m.Name() {
					t.Errorf("a new connection: %q, %v", a.Node, err)
				}
			}
			a, err := pending()
			if cut := err != nil; cut != tt.cut || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the unfinished request: %q, %v", a.Node, err)
			}
			switch tt.to {
			case syscall.SIGTERM:
				m.awaitEnd(t)
				cl.awaitState(t, m, "DOWN", "L4CON")
			case syscall.SIGSTOP:
				m.signal(t, syscall.SIGCONT)
			}
			if tt.to != syscall.SIGSTOP {
				m.Kill()
				if err := m.start(); err != nil {
					t.Fatal(err)
				}
			}
			cl.awaitServing(t, m)
		})
	}
}

// begin sends a request to m through HAProxy, except its end. The function that it returns sends
// the end and waits for the answer.
func (cl *cluster) begin(t *testing.T, m *member) (end func() (answer, error)) {
	t.Helper()
	c := cl.client(cl.haproxy(), kept)
	t.Cleanup(c.CloseIdleConnections)
	await(t, func(ctx context.Context) error {
		a, err := ask(ctx, c, nil)
		if err == nil && a.Node != m.Name() {
			c.CloseIdleConnections()
			err = fmt.Errorf("HAProxy has chosen %s", a.Node)
		}
		return err
	})
	type result struct {
		answer
		err error
	}
	body, sender := io.Pipe()
	done := make(chan result, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
		defer cancel()
		a, err := ask(ctx, c, body)
		body.CloseWithError(io.ErrUnexpectedEOF) // so that a write no longer waits for a reader
		done <- result{a, err}
	}()
	if _, err := io.WriteString(sender, "begun"); err != nil { // the connection has it
		t.Fatal(err)
	}
	return func() (answer, error) {
		sender.Close()
		r := <-done
		return r.answer, r.err
	}
}

// Two of three nodes are killed. The last has no quorum and is not ready, but still gets all new
// connections, and keeps those that it has.
func TestWithoutQuorum(t *testing.T) {
	cl := startCluster(t, "")
	last := cl.nodes[0]
	pending := cl.begin(t, last)
	loads := cl.startLoads(t, fresh)
	more(t, loads, 20)
	for _, m := range cl.others(last) {
		m.Kill()
	}
	killed := time.Now()
	cl.awaitState(t, last, "NOLB", "L7OKC")
	notReady := time.Since(killed)
	for _, m := range cl.others(last) {
		cl.awaitState(t, m, "DOWN", "L4CON")
	}
	t.Logf("two nodes killed; HAProxy found the third not ready after %s, and the others down after %s",
		notReady.Round(time.Millisecond), time.Since(killed).Round(time.Millisecond))
	noticed := time.Now()
	more(t, loads, 100)
	for _, l := range loads {
		l.lost(t, killed, noticed)
	}
	if a, err := pending(); err != nil || a.Node != last.Name() {
		t.Errorf("the request that began before: %q, %v", a.Node, err)
	}
	c := cl.client(cl.haproxy(), h2)
	defer c.CloseIdleConnections()
	if _, err := ask(t.Context(), c, nil); err != nil {
		t.Error(err)
	}

	for _, m := range cl.others(last) {
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range cl.nodes {
		cl.awaitServing(t, m)
	}
}
