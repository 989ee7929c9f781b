package acmetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/flotilla-ha/flotilla/examples/internal/process"
)

// Nodes that did not order a certificate answer its challenge. The authority is sent to them alone.
func TestChallengeOfAnotherNode(t *testing.T) {
	for _, challenge := range []string{http01, tlsALPN} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, options{challenge: challenge})
			for _, orderer := range c.nodes {
				name := "of-" + orderer.Name() + "." + zone
				others := c.others(orderer)
				c.ca.resolve(func(string) []net.IP { return c.without(orderer) })
				orders := c.ca.Orders.Load()
				if _, err := orderer.ask(t.Context(), question{Ask: askAdd, Name: name}); err != nil {
					t.Fatal(err)
				}
				answeredByOthers(t, orderer, others, name)
				if n := c.ca.Orders.Load() - orders; n != 1 {
					t.Errorf("%d orders for %s, want 1", n, name)
				}
				leaf, err := orderer.shake(t.Context(), name)
				if err != nil {
					t.Fatal(err)
				}
				for _, m := range others {
					if _, err := m.ask(t.Context(), question{Ask: askAdd, Name: name}); err != nil {
						t.Fatal(err)
					}
					if _, err := m.serves(t.Context(), name, serial(leaf.SerialNumber.Text(16))); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// answeredByOthers checks that orderer stored the token, and that each of the others loaded it. The
// orderer has it in memory and must not load it.
func answeredByOthers(t *testing.T, orderer *member, others []*member, name string) {
	t.Helper()
	for _, m := range append([]*member{orderer}, others...) {
		a, err := m.ask(t.Context(), question{Ask: askTokens, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		if ordered := m == orderer; ordered != (a.Stores > 0) || ordered == (a.Loads > 0) {
			t.Errorf("node %s, ordered %t: it stored the token for %s %d times and loaded it %d times",
				m.Name(), ordered, name, a.Stores, a.Loads)
		}
	}
}

// An order fails because the name has no address yet. The node then orders again from the same
// authority, and the other nodes answer the challenge. certmagic alone would go to another
// authority, if it knows one, and store the token where other nodes do not look (certmagic issue
// 334).
func TestRetryIsAnsweredByOthers(t *testing.T) {
	for _, challenge := range []string{http01, tlsALPN} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			trap := newAuthority(t, 1, 1, func(string) []net.IP { return nil })
			c := startCluster(t, options{challenge: challenge, testCA: trap.URL})
			orderer, name := c.nodes[1], "late."+zone
			before := c.ca.Orders.Load()
			c.ca.resolve(func(string) []net.IP {
				if c.ca.Orders.Load() == before+1 {
					return nil
				}
				return c.without(orderer)
			})
			done := make(chan error, 1)
			go func() {
				_, err := orderer.ask(t.Context(), question{Ask: askAdd, Name: name})
				done <- err
			}()
			err := process.Await(t.Context(), waitLimit, func(ctx context.Context) error {
				a, err := orderer.ask(ctx, question{Ask: askState, Name: name})
				switch {
				case err != nil:
					return err
				case a.HasCertificate:
					return &process.PermanentError{Err: errors.New("the first order has not failed")}
				case c.ca.Orders.Load() == before || a.State == "" || a.State == "not tried yet":
					return fmt.Errorf("state %q", a.State)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			err = <-done
			if n := trap.requests.Load(); n != 0 {
				t.Errorf("the test CA got %d requests", n)
			}
			if err != nil {
				t.Fatal(err)
			}
			answeredByOthers(t, orderer, c.others(orderer), name)
			if _, err := orderer.shake(t.Context(), name); err != nil {
				t.Error(err)
			}
			if n := c.ca.Orders.Load() - before; n != 2 {
				t.Errorf("%d orders, want the failed one and the next", n)
			}
		})
	}
}
