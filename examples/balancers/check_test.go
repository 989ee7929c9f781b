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

// HAProxy tells a node that drains from one that is dead, and from one that is frozen: it sends none of them anybody new, and cuts off those
// whom only the last two have.
func TestChecks(t *testing.T) {
	f := startFleet(t, "")
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
			m := f.nodes[1]
			// A request whose end the client has not sent yet, on a connection of its own to that node, through HAProxy.
			pending := f.begin(t, m)
			m.signal(t, tt.to)
			signalled := time.Now()
			f.awaitState(t, m, tt.state, tt.checks...)
			t.Logf("HAProxy says %s after %s", tt.state, time.Since(signalled).Round(time.Millisecond))

			c := f.client(f.haproxy(), fresh)
			for range 10 {
				a, err := ask(t.Context(), c, nil)
				c.CloseIdleConnections()
				if err != nil || a.Node == m.settings.Name {
					t.Errorf("a new connection: %q, %v", a.Node, err)
				}
			}
			a, err := pending()
			if cut := err != nil; cut != tt.cut || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the request under way: %q, %v", a.Node, err)
			}
			switch tt.to {
			case syscall.SIGTERM:
				m.awaitEnd(t)
				f.awaitState(t, m, "DOWN", "L4CON")
			case syscall.SIGSTOP:
				m.signal(t, syscall.SIGCONT)
			}
			if tt.to != syscall.SIGSTOP {
				m.kill()
				if err := m.start(); err != nil {
					t.Fatal(err)
				}
			}
			f.awaitServing(t, m)
		})
	}
}

// begin sends m all of a request through HAProxy but its end, and returns what sends that and waits for the answer.
func (f *fleet) begin(t *testing.T, m *member) (end func() (answer, error)) {
	t.Helper()
	c := f.client(f.haproxy(), kept)
	t.Cleanup(c.CloseIdleConnections)
	await(t, func(ctx context.Context) error {
		a, err := ask(ctx, c, nil)
		if err == nil && a.Node != m.settings.Name {
			c.CloseIdleConnections()
			err = fmt.Errorf("this is %s", a.Node)
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
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		a, err := ask(ctx, c, body)
		body.CloseWithError(io.ErrUnexpectedEOF) // so that what is written no longer waits for a reader
		done <- result{a, err}
	}()
	if _, err := io.WriteString(sender, "begun"); err != nil { // the connection has taken it
		t.Fatal(err)
	}
	return func() (answer, error) {
		sender.Close()
		r := <-done
		return r.answer, r.err
	}
}

// Two of three nodes are killed: the last has no quorum and is not ready, and gets everybody all the same. Whom it had before stays.
func TestWithoutQuorum(t *testing.T) {
	f := startFleet(t, "")
	last := f.nodes[0]
	pending := f.begin(t, last)
	loads := f.startLoads(t, fresh)
	more(t, loads, 20)
	for _, m := range f.others(last) {
		m.kill()
	}
	killed := time.Now()
	f.awaitState(t, last, "NOLB", "L7OKC")
	notReady := time.Since(killed)
	for _, m := range f.others(last) {
		f.awaitState(t, m, "DOWN", "L4CON")
	}
	t.Logf("two nodes killed; HAProxy knew that the third was not ready after %s, and all after %s", notReady.Round(time.Millisecond), time.Since(killed).Round(time.Millisecond))
	noticed := time.Now()
	more(t, loads, 100)
	for _, l := range loads {
		l.lost(t, killed, noticed)
	}
	if a, err := pending(); err != nil || a.Node != last.settings.Name {
		t.Errorf("the request that was under way before: %q, %v", a.Node, err)
	}
	c := f.client(f.haproxy(), h2)
	defer c.CloseIdleConnections()
	if _, err := ask(t.Context(), c, nil); err != nil {
		t.Error(err)
	}

	for _, m := range f.others(last) {
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range f.nodes {
		f.awaitServing(t, m)
	}
}
