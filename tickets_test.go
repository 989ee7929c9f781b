package flotilla

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"testing"
	"time"

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
		if _, err := n.store.Wait(t.Context(), func(s *state.State) bool { return s.Tickets != nil && ok(s.Tickets) }); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait() // for the consequences
}

func hasCurrent(k *state.TicketKeys) bool { return k.Current != nil }

// A client that uses all nodes in turn makes one full handshake, across rotations and a leader's
// death. It makes another one with a node that is cut off, and one after a drop.
func TestTicketsAcrossNodes(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, version := range Some(t, []uint16{tls.VersionTLS13, tls.VersionTLS12}, 2) {
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
				first := nodes[0].store.State().Tickets
				for range 4 {
					now := nodes[0].store.State().Tickets.Index
					awaitTickets(t, nodes, func(k *state.TicketKeys) bool { return k.Index > now })
					round(1)
				}
				if k := nodes[0].store.State().Tickets; len(k.Previous) != state.PreviousTickets || slices.ContainsFunc(k.Previous, func(p []byte) bool { return bytes.Equal(p, first.Current) }) {
					t.Errorf("after four rotations %d keys are accepted, the first among them or not", len(k.Previous))
				}
				leader, rest := leaderOf(t, nodes)
				leader.Close()
				now := rest[0].store.State().Tickets.Index
				// the new leader rotates
				awaitTickets(t, rest, func(k *state.TicketKeys) bool { return k.Index > now })
				// the dead node's memory is that of a node cut off
				round(1)
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
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, func(c *Config) { c.TLS.TicketRotation = time.Minute })
		awaitTickets(t, nodes, hasCurrent)
		servers, _ := ticketServers(t, nodes)
		leader, rest := leaderOf(t, nodes)
		sleeper := slices.Index(nodes, rest[0])
		net.Isolate(rest[0].self.Name)
		awake := []*Node{leader, rest[1]}
		for range 2 {
			now := leader.store.State().Tickets.Index
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
		now := leader.store.State().Tickets.Index
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
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		net := simnet.New()
		nodes := trio(t, net, nil)
		awaitTickets(t, nodes, hasCurrent)
		leader, rest := leaderOf(t, nodes)
		before := rest[0].store.State().Tickets
		net.Block(leader.self.Name, rest[0].self.Name)
		dropped := make(chan error, 1)
		go func() { dropped <- leader.DropTickets(t.Context()) }()
		awaitTickets(t, []*Node{leader, rest[1]}, func(k *state.TicketKeys) bool { return k.Index > before.Index })
		// far more than a round to the two takes, and less than the failure detector needs
		time.Sleep(leader.timing.Lease / 4)
		if rest[0].store.State().Tickets != before || rest[0].self.Session(leader.store.State()) == 0 {
			t.Fatal("the node has heard of the drop, or is given up already")
		}
		for _, n := range []*Node{leader, rest[1]} {
			if n.store.State().Tickets.Current != nil {
				t.Errorf("%s uses a key that %s has not got", n.self.Name, rest[0].self.Name)
			}
		}
		net.Unblock(leader.self.Name, rest[0].self.Name)
		if err := <-dropped; err != nil {
			t.Error(err)
		}
		awaitTickets(t, nodes, hasCurrent)
	})
}
