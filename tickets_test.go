package flotilla

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/flotilla-ha/flotilla/internal/codec"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/internal/testtls"
)

// identityFor is testtls.Identity.
func identityFor(t *testing.T, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	cert, pool, err := testtls.Identity(names...)
	if err != nil {
		t.Fatal(err)
	}
	return cert, pool
}

// resumes is testtls.Resumes.
func resumes(t *testing.T, client, server *tls.Config) bool {
	t.Helper()
	resumed, err := testtls.Resumes(t.Context(), client, server)
	if err != nil {
		t.Fatal(err)
	}
	return resumed
}

// ticketServers returns a server configuration for each node, all with one certificate, and a
// client's.
func ticketServers(t *testing.T, nodes []*Node) (servers []*tls.Config, client *tls.Config) {
	t.Helper()
	cert, pool := identityFor(t, "a.test", "b.test")
	for _, n := range nodes {
		cfg := &tls.Config{Certificates: []tls.Certificate{cert}}
		n.tickets.Bind(cfg, func(string) bool { return false })
		servers = append(servers, cfg)
	}
	return servers, &tls.Config{RootCAs: pool, ServerName: "a.test", ClientSessionCache: tls.NewLRUClientSessionCache(10)}
}

// awaitTickets waits until ok is true of every node's keys.
func awaitTickets(t *testing.T, nodes []*Node, ok func(*state.TicketKeys) bool) {
	t.Helper()
	for _, n := range nodes {
		if _, err := n.fsm.wait(t.Context(), func(s *state.State) bool { return s.Tickets != nil && ok(s.Tickets) }); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait() // for the consequences
}

func hasCurrent(k *state.TicketKeys) bool { return k.Current != nil }

// A client that uses all nodes in turn makes one full handshake, across rotations and a leader's
// death. It makes another one with a node that is cut off, and one after a drop.
func TestTicketsAcrossNodes(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := simnet.New()
				nodes := trio(t, net, func(c *Config) { c.TLS.TicketRotation = time.Minute })
				awaitTickets(t, nodes, hasCurrent)
				servers, client := ticketServers(t, nodes)
				client.MaxVersion = version
				full := 0
				round := func(times int) {
					t.Helper()
					for i := range 3 * times {
						if !resumes(t, client, servers[i%3]) {
							full++
						}
					}
				}
				round(5)
				first := nodes[0].fsm.state().Tickets
				for range 4 {
					now := nodes[0].fsm.state().Tickets.Index
					awaitTickets(t, nodes, func(k *state.TicketKeys) bool { return k.Index > now })
					round(1)
				}
				if k := nodes[0].fsm.state().Tickets; len(k.Previous) != state.PreviousTickets || slices.ContainsFunc(k.Previous, func(p []byte) bool { return bytes.Equal(p, first.Current) }) {
					t.Errorf("after four rotations %d keys are accepted, the first among them or not", len(k.Previous))
				}
				leader, rest := leaderOf(t, nodes)
				leader.Close()
				now := rest[0].fsm.state().Tickets.Index
				awaitTickets(t, rest, func(k *state.TicketKeys) bool { return k.Index > now }) // the new leader rotates
				round(1)                                                                       // the dead node's memory is that of a node cut off
				if full != 2 {
					t.Errorf("%d full handshakes, want the first, and one with the node that has no lease", full)
				}
				if err := rest[0].DropTickets(t.Context()); err != nil {
					t.Fatal(err)
				}
				awaitTickets(t, rest, hasCurrent)
				full = 0
				for i, s := range servers {
					if nodes[i] != leader && !resumes(t, client, s) {
						full++
					}
				}
				if full != 1 {
					t.Errorf("%d full handshakes after the drop, want 1", full)
				}
			})
		})
	}
}

// A node that is cut off for two rotations still gives out tickets that the others accept. When it
// is back, it opens those of the others.
func TestTicketsOfANodeThatSlept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, func(c *Config) { c.TLS.TicketRotation = time.Minute })
		awaitTickets(t, nodes, hasCurrent)
		servers, _ := ticketServers(t, nodes)
		leader, rest := leaderOf(t, nodes)
		sleeper := slices.Index(nodes, rest[0])
		net.Isolate(rest[0].name)
		awake := []*Node{leader, rest[1]}
		for range 2 {
			now := leader.fsm.state().Tickets.Index
			awaitTickets(t, awake, func(k *state.TicketKeys) bool { return k.Index > now })
			_, client := ticketServers(t, nodes)
			client.InsecureSkipVerify = true
			resumes(t, client, servers[sleeper])
			if !resumes(t, client, servers[slices.Index(nodes, leader)]) {
				t.Error("a ticket of the node that sleeps is not accepted")
			}
		}
		net.Heal()
		mustBeReady(t, rest[0])
		now := leader.fsm.state().Tickets.Index
		awaitTickets(t, nodes, func(k *state.TicketKeys) bool { return k.Index >= now })
		_, client := ticketServers(t, nodes)
		client.InsecureSkipVerify = true
		resumes(t, client, servers[slices.Index(nodes, leader)])
		if !resumes(t, client, servers[sleeper]) {
			t.Error("the node that slept does not accept a ticket of the others")
		}
	})
}

// No node uses a key that another node does not have. While one node receives nothing, the others
// use no new key.
func TestTicketsWaitForEveryNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		awaitTickets(t, nodes, hasCurrent)
		leader, rest := leaderOf(t, nodes)
		before := rest[0].fsm.state().Tickets
		net.Block(leader.name, rest[0].name)
		dropped := make(chan error, 1)
		go func() { dropped <- leader.DropTickets(t.Context()) }()
		awaitTickets(t, []*Node{leader, rest[1]}, func(k *state.TicketKeys) bool { return k.Index > before.Index })
		time.Sleep(leader.pace.lease / 4) // far more than a round to the two takes, and less than a verdict
		if rest[0].fsm.state().Tickets != before || rest[0].ownSession(leader.fsm.state()) == 0 {
			t.Fatal("the node has heard of the drop, or is given up already")
		}
		for _, n := range []*Node{leader, rest[1]} {
			if n.fsm.state().Tickets.Current != nil {
				t.Errorf("%s uses a key that %s has not got", n.name, rest[0].name)
			}
		}
		net.Unblock(leader.name, rest[0].name)
		if err := <-dropped; err != nil {
			t.Error(err)
		}
		awaitTickets(t, nodes, hasCurrent)
	})
}

func TestTicketsInTheState(t *testing.T) {
	rotate := func(s *state.State, index, cond uint64, drop bool, key byte) (*state.State, state.Code, bool) {
		var fx state.Effects
		next, a := s.Apply(index, &state.Command{Op: state.OpTickets, Cond: cond, Flag: drop, Value: bytes.Repeat([]byte{key}, state.TicketKeySize), Time: int64(index)}, &fx)
		return next, a.Code, fx.Tickets
	}
	k := func(b byte) []byte { return bytes.Repeat([]byte{b}, state.TicketKeySize) }
	s := state.New()
	for i, want := range []*state.TicketKeys{
		{Index: 1, Time: 1, Next: k(1)},
		{Index: 2, Time: 2, Next: k(2), Current: k(1)},
		{Index: 3, Time: 3, Next: k(3), Current: k(2), Previous: [][]byte{k(1)}},
		{Index: 4, Time: 4, Next: k(4), Current: k(3), Previous: [][]byte{k(2), k(1)}},
		{Index: 5, Time: 5, Next: k(5), Current: k(4), Previous: [][]byte{k(3), k(2)}},
	} {
		next, code, told := rotate(s, uint64(i+1), s.Tickets.MadeAt(), false, byte(i+1))
		if code != state.CodeOK || !told {
			t.Fatalf("rotation %d: code %d, told %v", i, code, told)
		}
		if diff := cmp.Diff(want, next.Tickets, cmp.AllowUnexported(state.TicketKeys{})); diff != "" {
			t.Fatalf("rotation %d: %s", i, diff)
		}
		s = next
		var e codec.Encoder
		s.Tickets.Encode(&e)
		got, err := state.DecodeTicketKeys(&codec.Decoder{B: e.B})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(state.TicketKeys{})); diff != "" {
			t.Fatalf("in a snapshot, rotation %d: %s", i, diff)
		}
	}
	if next, code, _ := rotate(s, 6, 4, false, 9); code != state.CodeChanged || next.Tickets != s.Tickets {
		t.Errorf("a rotation of other keys: code %d", code)
	}
	if next, code, _ := rotate(s, 6, 4, true, 9); code != state.CodeOK || next.Tickets.Current != nil || next.Tickets.Previous != nil {
		t.Errorf("a drop: code %d, %v", code, next.Tickets)
	}
	var fx state.Effects
	c := &state.Command{Op: state.OpStore, Key: "certificates/ca/a.test/a.test.key.compromised", Value: []byte("x"), Number: 1 << 20}
	marked, a := s.Apply(6, c, &fx)
	if a.Code != state.CodeOK || marked.Tickets != nil || !fx.Tickets {
		t.Errorf("a compromised key: code %d, tickets %v, told %v", a.Code, marked.Tickets, fx.Tickets)
	}
	// Until there is another key clients see the certificate of the old one.
	s, _, _ = rotate(marked, 7, 0, false, 7)
	for key, drops := range map[string]bool{"certificates/ca/a.test/a.test.key": true, "certificates/ca/b.test/b.test.key": false, "certificates/ca/a.test/a.test.crt": false} {
		fx = state.Effects{}
		c = &state.Command{Op: state.OpPut, Value: state.EncodeRecords([]state.Record{{Key: key, Value: []byte("y")}}), Number: 1 << 20}
		if next, a := s.Apply(8, c, &fx); a.Code != state.CodeOK || (next.Tickets == nil) != drops || fx.Tickets != drops {
			t.Errorf("%s after that: code %d, tickets %v, told %v", key, a.Code, next.Tickets, fx.Tickets)
		}
	}
}
