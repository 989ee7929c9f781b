// Package clustertest runs clusters of real nodes in one process, over a network in memory. The
// nodes have their own raft, files, storage, and TLS between them, and production timings. The
// package is made for testing/synctest, where seconds of a cluster take milliseconds:
//
//	func TestFailover(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			c := clustertest.New(t, 3, nil)
//			c.Settle()
//			c.Kill(c.Leader())
//			c.Settle() // the survivors have another leader
//		})
//	}
//
// It also works without a bubble, in real time.
//
// # Faults
//
// A test breaks links (Link, Block, Isolate, Partition), disks (Disk), clocks (Clock) and processes
// (Kill, KillAt, KillAll, Pause, Wipe). Each comment says what the fault is made of.
//
// Rand draws the random numbers of a schedule. A test that fails prints its seed, which the
// environment variable CLUSTERTEST_SEED sets, and what has happened: see Trace.
//
// # Limits
//
// certmagic keeps ACME challenges in variables of the process, so the nodes of one process see each
// other's: orders across nodes need several processes. A bubble must contain no real sockets: use
// Node.TLSConfig on connections in memory, not Node.ListenTLS.
//
// With -race and Go 1.26, also give go test the flag -cpu=1. The race detector of Go 1.26 sometimes
// crashes in bubbles whose timers run on two threads. Go 1.27 has fixed that.
package clustertest

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/hooks"
	"github.com/flotilla-ha/flotilla/internal/simnet"
)

// stepTimeout bounds everything that a cluster is expected to do. In a bubble it costs nothing.
const stepTimeout = time.Minute

// Cluster is a number of nodes and the network between them. Its methods fail the test instead of
// returning errors. Call them from the goroutine of the test.
type Cluster struct {
	// Nodes are the nodes by number. A killed node stays until Restart replaces it.
	Nodes []*flotilla.Node

	t        testing.TB
	net      *simnet.Network
	dir      string
	configs  []flotilla.Config
	dead     []bool
	machines []*machine
	seed     uint64
	random   *rand.Rand
	trace    *trace
}

// New starts n nodes that form a cluster. Their names are n0, n1 and so on, and each has its own
// directory. The function configure, if not nil, may change each configuration; with an empty Dir a
// node keeps nothing. The nodes are closed when the test ends. Call Settle to wait until they are
// ready.
func New(t testing.TB, n int, configure func(i int, c *flotilla.Config)) *Cluster {
	t.Helper()
	c := &Cluster{t: t, net: simnet.New(), seed: newSeed(t), trace: newTrace()}
	c.random = rand.New(rand.NewPCG(c.seed, 0))
	c.net.Seed(c.seed)
	c.dir = t.TempDir() // before the clean-up below, which so runs first
	t.Cleanup(func() {
		c.report()
		c.net.Heal()
		for i, m := range c.machines {
			if !c.dead[i] {
				m.release()
				m.end()
			}
		}
	})
	secret := flotilla.NewSecret()
	var addrs []string
	for i := range n {
		addrs = append(addrs, name(i)+":7373")
	}
	for i := range n {
		c.add(flotilla.Config{Secrets: []flotilla.Secret{secret}}, filepath.Join(c.dir, name(i)), addrs, n, configure)
	}
	return c
}

func name(i int) string { return "n" + strconv.Itoa(i) }

// add adds a node to the cluster whose secrets are those of cfg.
func (c *Cluster) add(cfg flotilla.Config, dir string, addrs []string, expect int, configure func(int, *flotilla.Config)) {
	c.t.Helper()
	i := len(c.Nodes)
	host := c.net.Host(name(i))
	cfg.Dir, cfg.Name = dir, name(i)
	cfg.Peers, cfg.Expect = flotilla.Static(addrs...), expect
	cfg.Logger = slog.New(slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	cfg.PeerListen, cfg.PeerDial = host.Listen, host.Dial
	if configure != nil {
		configure(i, &cfg)
	}
	c.configs = append(c.configs, cfg)
	c.Nodes = append(c.Nodes, nil)
	c.dead = append(c.dead, true)
	c.machines = append(c.machines, newMachine(c, i))
	c.Restart(i)
}

// open starts a node, on a machine with its faults.
func (c *Cluster) open(i int) error {
	m := c.machines[i]
	m.begin()
	cfg := c.configs[i]
	cfg.Logger = c.trace.logger(cfg.Logger, i)
	c.trace.add(name(i), "starts")
	node, err := flotilla.Open(hooks.With(c.t.Context(), m.hook), cfg)
	if err != nil {
		c.trace.add(name(i), "does not start: %v", err)
		return err
	}
	c.Nodes[i], c.dead[i] = node, false
	return nil
}

// Add starts one more node, which joins the cluster, and returns its number. configure may be nil.
func (c *Cluster) Add(configure func(i int, c *flotilla.Config)) int {
	c.t.Helper()
	first := c.configs[0]
	var addrs []string
	for i := range c.Nodes {
		addrs = append(addrs, name(i)+":7373")
	}
	c.add(flotilla.Config{Secrets: first.Secrets, SecretsFile: first.SecretsFile}, filepath.Join(c.dir, name(len(c.Nodes))), addrs, 0, configure)
	return len(c.Nodes) - 1
}

// Config returns the configuration of node i, with which Restart starts it.
func (c *Cluster) Config(i int) *flotilla.Config { return &c.configs[i] }

// Live returns the numbers of the running nodes.
func (c *Cluster) Live() []int {
	var live []int
	for i := range c.Nodes {
		if !c.dead[i] {
			live = append(live, i)
		}
	}
	return live
}

// Settle waits until every running node is ready. It fails while a partition keeps a node from its
// cluster.
func (c *Cluster) Settle() { c.t.Helper(); c.SettleNodes(c.Live()...) }

// SettleNodes waits until these nodes are ready and agree on a leader among the running nodes.
func (c *Cluster) SettleNodes(nodes ...int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), stepTimeout)
	defer cancel()
	for _, i := range nodes {
		if err := c.Nodes[i].Ready(ctx); err != nil {
			c.t.Fatalf("%s: %v\n%s", name(i), err, c.describe())
		}
	}
	c.await("one leader for all", func() bool {
		leader := ""
		for _, i := range nodes {
			s := c.Nodes[i].Status()
			if !s.Ready || s.Leader == "" || leader != "" && s.Leader != leader {
				return false
			}
			leader = s.Leader
		}
		return slices.ContainsFunc(c.Live(), func(i int) bool { return c.Nodes[i].Status().ID == leader })
	})
}

// Leader waits until a running node leads, and returns its number. If two nodes believe that they
// lead, it is the one with the later term.
func (c *Cluster) Leader() int {
	c.t.Helper()
	leader := -1
	c.await("a leader", func() bool {
		var term uint64
		for _, i := range c.Live() {
			if s := c.Nodes[i].Status(); s.Leader == s.ID && s.Term > term {
				leader, term = i, s.Term
			}
		}
		return leader >= 0
	})
	return leader
}

// await checks a condition again and again.
func (c *Cluster) await(what string, ok func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(stepTimeout)
	for !ok() {
		if time.Now().After(deadline) {
			c.t.Fatalf("no %s within %v\n%s", what, stepTimeout, c.describe())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (c *Cluster) describe() string {
	var s string
	for _, i := range c.Live() {
		st := c.Nodes[i].Status()
		s += fmt.Sprintf("%s: leader %q, term %d, index %d, ready %v, err %q\n", st.Name, st.LeaderName, st.Term, st.Index, st.Ready, st.Err)
	}
	return s
}

// Kill ends node i as kill -9 does. Its connections are reset before it can send anything. Its
// files stay.
func (c *Cluster) Kill(i int) {
	c.t.Helper()
	m := c.machine(i)
	c.trace.add(name(i), "fault: killed")
	m.strike() // from now on nobody sees what it does
	m.end()
	c.dead[i] = true
}

// Stop shuts node i down as an operator does: it hands over first.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), stepTimeout)
	defer cancel()
	c.trace.add(name(i), "is stopped")
	if err := c.Nodes[i].Shutdown(ctx); err != nil {
		c.t.Errorf("stopping %s: %v", name(i), err)
	}
	c.machine(i).end()
	c.dead[i] = true
}

// Leave makes node i leave the cluster for good. Restart starts it as a new node.
func (c *Cluster) Leave(i int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), stepTimeout)
	defer cancel()
	c.trace.add(name(i), "is told to leave")
	if err := c.Nodes[i].Leave(ctx); err != nil {
		c.t.Errorf("%s leaves: %v", name(i), err)
	}
	c.machine(i).end()
	c.dead[i] = true
}

// Restart starts a killed or stopped node again, with its directory.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	if err := c.TryRestart(i); err != nil {
		c.t.Fatalf("opening %s: %v", name(i), err)
	}
}

// Isolate cuts node i off from all others in both directions. What was sent before or is sent
// meanwhile arrives after Heal.
func (c *Cluster) Isolate(i int) {
	c.trace.add(name(i), "fault: cut off from all others")
	c.net.Isolate(name(i))
}

// Block cuts one direction between two nodes.
func (c *Cluster) Block(from, to int) {
	c.trace.add("", "fault: %s to %s: cut", name(from), name(to))
	c.net.Block(name(from), name(to))
}

// Unblock undoes Block.
func (c *Cluster) Unblock(from, to int) {
	c.trace.add("", "%s to %s: mended", name(from), name(to))
	c.net.Unblock(name(from), name(to))
}

// SetLatency sets the one-way latency between nodes, from now on.
func (c *Cluster) SetLatency(d time.Duration) {
	c.trace.add("", "the latency is %v", d)
	c.net.SetLatency(d)
}

// Partition cuts the network into groups that cannot reach each other.
func (c *Cluster) Partition(groups ...[]int) {
	named := make([][]string, len(groups))
	for g, group := range groups {
		for _, i := range group {
			named[g] = append(named[g], name(i))
		}
	}
	c.trace.add("", "fault: cut into %v", named)
	c.net.Partition(named...)
}

// Heal mends the network: all links are as at the beginning, but for SetLatency.
func (c *Cluster) Heal() {
	c.trace.add("", "the network is mended")
	c.net.Heal()
}
