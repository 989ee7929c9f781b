package flotilla

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
)

// differing starts a cluster in which one node, c, is configured otherwise.
func differing(t *testing.T, network *simnet.Network, books map[string]*logbook, otherwise func(*Config)) []*Node {
	t.Helper()
	return trio(t, network, func(c *Config) {
		books[c.Name] = newLogbook()
		c.Logger = books[c.Name].logger()
		c.TLS.Private = true
		if c.Name == "c" {
			otherwise(c)
		}
	})
}

// What nodes should have alike and have not is told on both sides, with the field and both values,
// and again until a node has restarted with another configuration.
func TestDifferentSettings(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, tc := range Some(t, []struct {
		field     string
		otherwise func(*Config)
		here      string // on a node that is as most are
	}{
		{"MaxState", func(c *Config) { c.MaxState = 1 << 20 }, "67108864 here, 1048576 there"},
		{"TLS.Private", func(c *Config) { c.TLS.Private = false }, "true here, false there"},
		{"TLS.PerNode", func(c *Config) { c.TLS.PerNode = true }, "false here, true there"},
		{"TLS.TicketRotation", func(c *Config) { c.TLS.TicketRotation = time.Hour }, "12h0m0s here, 1h0m0s there"},
		{"TLS issuers", func(c *Config) { c.TLS.Private, c.TLS.CA = false, "https://ca.test/dir" }, "ca.test"},
	}, 2) {
		t.Run(tc.field, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, books := simnet.New(), make(map[string]*logbook)
				nodes := differing(t, network, books, tc.otherwise)
				time.Sleep(10 * time.Second)
				for _, n := range nodes {
					odd := "c at c:7373"
					if n.self.Name == "c" {
						odd = "a at a:7373"
					}
					if len(books[n.self.Name].with("level=WARN", "nodes are configured differently", odd+": ", tc.field+": ")) == 0 {
						t.Errorf("%s does not say that %s differs: %q", n.self.Name, odd, books[n.self.Name].with("level=WARN"))
					}
				}
				s := nodes[0].Status()
				if len(s.Peers) != 1 || s.Peers[0].Name != "c" || !strings.Contains(strings.Join(s.Peers[0].Differs, "\n"), tc.field+": ") || !strings.Contains(strings.Join(s.Peers[0].Differs, "\n"), tc.here) {
					t.Errorf("%+v", s.Peers)
				}
				cfg := nodes[2].cfg
				cfg.MaxState, cfg.TLS = nodes[0].cfg.MaxState, nodes[0].cfg.TLS
				if err := nodes[2].Shutdown(t.Context()); err != nil {
					t.Fatal(err)
				}
				n, err := Open(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer n.Close()
				mustBeReady(t, n)
				time.Sleep(10 * time.Second)
				for _, n := range []*Node{nodes[0], nodes[1], n} {
					if s := n.Status(); len(s.Peers)+len(s.Waiting) != 0 {
						t.Errorf("%s, when all is repaired: %+v %+v", n.self.Name, s.Peers, s.Waiting)
					}
				}
			})
		})
	}
}

// Domains are compared among nodes that serve some, whenever they begin to.
func TestDifferentDomains(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		network, books := simnet.New(), make(map[string]*logbook)
		nodes := differing(t, network, books, func(*Config) {})
		time.Sleep(10 * time.Second)
		for i, domains := range [][]string{{"a.test", "b.test"}, {"b.test", "a.test"}, {"a.test"}} {
			if i == 2 {
				time.Sleep(20 * time.Second)
				if s := nodes[0].Status(); len(s.Peers) != 0 {
					t.Errorf("one serves nothing yet, the others the same: %+v", s.Peers)
				}
			}
			if _, err := nodes[i].TLSConfig(domains...); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		if s := nodes[0].Status(); len(s.Peers) != 1 || len(s.Peers[0].Differs) != 1 || s.Peers[0].Differs[0] != "domains: a.test, b.test here, a.test there" {
			t.Errorf("%+v", s.Peers)
		}
	})
}

// Leases of different length do not go together. Nodes that form a cluster wait for one whose
// Timing is repaired, and say so.
func TestNoFormationWithAnotherTiming(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		network, secret, books := simnet.New(), NewSecret(), make(map[string]*logbook)
		open := func(name string, timing Timing) *Node {
			host := network.Host(name)
			books[name] = newLogbook()
			n, err := Open(t.Context(), Config{
				Name: name, Secrets: []Secret{secret}, Peers: Static("a:7373", "b:7373", "c:7373"), Expect: 3, Timing: timing,
				PeerListen: host.Listen, PeerDial: host.Dial, Logger: books[name].logger(),
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { n.Close() })
			return n
		}
		nodes := []*Node{open("a", LAN), open("b", LAN), open("c", Fast)}
		time.Sleep(15 * time.Second)
		for _, n := range nodes {
			if n.replica.Raft.Load() != nil || n.life.Failure() != nil {
				t.Fatalf("%s: in a cluster, or failed: %v", n.self.Name, n.life.Failure())
			}
		}
		if len(books["a"].with("level=WARN", "this node is in no cluster yet", "c at c:7373: its Timing is fast, and that of this cluster is lan")) == 0 {
			t.Errorf("%q", books["a"].lines)
		}
		if len(books["c"].with("level=WARN", "its Timing is lan, and that of this cluster is fast")) == 0 {
			t.Errorf("%q", books["c"].lines)
		}
		nodes[2].Close()
		nodes[2] = open("c", LAN)
		for _, n := range nodes {
			mustBeReady(t, n)
		}
	})
}

// A cluster refuses a member that comes back with another Timing, and a new node; both hear why,
// and so does the cluster's log. The others go on.
func TestAnotherTimingIsRefused(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	for _, joins := range []bool{false, true} {
		t.Run(fmt.Sprintf("new node %v", joins), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network, books := simnet.New(), make(map[string]*logbook)
				nodes := differing(t, network, books, func(*Config) {})
				leader, others := leaderOf(t, nodes)
				cfg := others[0].cfg
				if joins {
					host := network.Host("d")
					cfg.Name, cfg.Dir, cfg.PeerListen, cfg.PeerDial = "d", "", host.Listen, host.Dial
				} else if err := others[0].Shutdown(t.Context()); err != nil {
					t.Fatal(err)
				}
				own := newLogbook()
				cfg.Timing, cfg.Logger = WAN, own.logger()
				n, err := Open(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer n.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				const why = "its Timing is wan, and that of this cluster is lan; give all nodes the same"
				err = n.Ready(ctx)
				if ce := new(ConfigError); !errors.As(err, &ce) || ce.Field != "Timing" || !strings.Contains(err.Error(), why) || errors.Is(err, ErrRemoved) {
					t.Errorf("%v, want a ConfigError of Timing with %q", err, why)
				}
				if len(own.with("level=ERROR", why)) == 0 {
					t.Errorf("%q", own.lines)
				}
				told := 0
				for _, other := range []*Node{leader, others[1]} {
					told += len(books[other.self.Name].with("level=WARN", "a node is refused", why, cfg.Name))
				}
				if told == 0 {
					t.Error("the cluster's log does not say that a node is refused")
				}
				if err := leader.storage.Store(t.Context(), "x", []byte("y")); err != nil {
					t.Error(err)
				}
				n.Close()
				cfg.Timing = LAN
				again, err := Open(t.Context(), cfg)
				if err != nil {
					t.Fatal(err)
				}
				defer again.Close()
				mustBeReady(t, again)
				time.Sleep(10 * time.Second)
				if s := leader.Status(); len(s.Peers) != 0 {
					t.Errorf("when it is repaired: %+v", s.Peers)
				}
			})
		})
	}
}

// All members restart at once, one of them with another Timing: it waits, and those who agree go on
// without it.
func TestRestartWithAnotherTiming(t *testing.T) {
	SkipShort(t)
	synctest.Parallel(t)
	synctest.Test(t, func(t *testing.T) {
		network, books := simnet.New(), make(map[string]*logbook)
		nodes := differing(t, network, books, func(*Config) {})
		time.Sleep(time.Second)
		shutdownAll(t, nodes, 0)
		for i := range nodes {
			cfg := nodes[i].cfg
			if cfg.Name == "c" {
				cfg.Timing = Fast
			}
			n, err := Open(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			nodes[i] = n
		}
		mustBeReady(t, nodes[0])
		mustBeReady(t, nodes[1])
		time.Sleep(10 * time.Second)
		if nodes[2].leases.IsReady() || nodes[2].replica.Raft.Load() != nil {
			t.Error("a node with shorter leases takes part")
		}
		if len(books["c"].with("its Timing is", "give all nodes the same")) == 0 {
			t.Errorf("%q", books["c"].lines)
		}
	})
}

// No secret travels with the settings.
func TestSettingsHoldNoSecret(t *testing.T) {
	n, err := Open(t.Context(), Config{Secrets: []Secret{NewSecret()}, Addr: "127.0.0.1:0", TLS: TLS{Email: "me@a.test", CA: "https://ca.test/dir"}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	b, err := json.Marshal(n.ownSettings())
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{n.cfg.Secrets[0].Encode(), "me@a.test"} {
		if strings.Contains(string(b), secret) {
			t.Errorf("%s", b)
		}
	}
	if !strings.Contains(string(b), `"Timing":"lan"`) || !strings.Contains(string(b), `"Version":1`) {
		t.Errorf("%s", b)
	}
}
