package acmetest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
)

// A challenge is answered by nodes that did not order: the authority is sent to all but the one that did.
func TestChallengeOfAnotherNode(t *testing.T) {
	for _, challenge := range []string{http01, tlsALPN} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			f := startFleet(t, options{challenge: challenge})
			for _, orderer := range f.nodes {
				name := "of-" + orderer.settings.Name + "." + zone
				others := f.others(orderer)
				f.ca.resolve(func(string) []net.IP { return f.without(orderer) })
				orders := f.ca.Orders.Load()
				if _, err := orderer.ask(t.Context(), question{Ask: askAdd, Name: name}); err != nil {
					t.Fatal(err)
				}
				answeredByOthers(t, orderer, others, name)
				if n := f.ca.Orders.Load() - orders; n != 1 {
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

// answeredByOthers checks that orderer put the token there, and that each of the others, and they alone, looked for it. A node that
// ordered has it in memory.
func answeredByOthers(t *testing.T, orderer *member, others []*member, name string) {
	t.Helper()
	for _, m := range append([]*member{orderer}, others...) {
		a, err := m.ask(t.Context(), question{Ask: askTokens, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		if ordered := m == orderer; ordered != (a.Stores > 0) || ordered == (a.Loads > 0) {
			t.Errorf("node %s, ordered %t: the token for %s was stored %d times and loaded %d times by it", m.settings.Name, ordered, name, a.Stores, a.Loads)
		}
	}
}

// An order fails because the name is nowhere yet. The next one, which is the node's own doing, succeeds, goes to the same authority
// and is validated by the other nodes. certmagic's own second attempt goes to another authority, if it knows one, and puts its
// token where other nodes do not look (certmagic issue 334).
func TestRetryIsAnsweredByOthers(t *testing.T) {
	for _, challenge := range []string{http01, tlsALPN} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			trap := newAuthority(t, 1, 1, func(string) []net.IP { return nil })
			f := startFleet(t, options{challenge: challenge, testCA: trap.URL})
			orderer, name := f.nodes[1], "late."+zone
			before := f.ca.Orders.Load()
			f.ca.resolve(func(string) []net.IP {
				if f.ca.Orders.Load() == before+1 {
					return nil
				}
				return f.without(orderer)
			})
			done := make(chan error, 1)
			go func() {
				_, err := orderer.ask(t.Context(), question{Ask: askAdd, Name: name})
				done <- err
			}()
			err := await(t.Context(), func(ctx context.Context) error {
				a, err := orderer.ask(ctx, question{Ask: askState, Name: name})
				switch {
				case err != nil:
					return err
				case a.HasCertificate:
					return &hopelessError{errors.New("the first order has not failed")}
				case f.ca.Orders.Load() == before || a.State == "" || a.State == "not tried yet":
					return fmt.Errorf("state %q", a.State)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			err = <-done
			if n := trap.requests.Load(); n != 0 {
				t.Errorf("the test CA was asked %d times", n)
			}
			if err != nil {
				t.Fatal(err)
			}
			answeredByOthers(t, orderer, f.others(orderer), name)
			if _, err := orderer.shake(t.Context(), name); err != nil {
				t.Error(err)
			}
			if n := f.ca.Orders.Load() - before; n != 2 {
				t.Errorf("%d orders, want the one that failed and the next", n)
			}
		})
	}
}
