// Package clustertest runs clusters of real nodes in one process, over a network in memory. The
// nodes have their own raft, files, storage, and TLS between them, and production timings. It also
// runs your program on them, and clients reach that by HTTPS. The package is made for
// testing/synctest, where seconds of a cluster take milliseconds:
//
//	func TestRollingRestart(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			c := clustertest.Run(t, 3, run)
//			c.Settle()
//			stop := c.Load(c.Client(), "https://api.test/")
//			for i := range c.Nodes {
//				c.Stop(i)
//				c.Restart(i)
//				c.Settle()
//			}
//			stop() // fails the test if a request has failed
//		})
//	}
//
// Here run is the program's own: main calls it with the configuration of a machine, and this test
// with that of each node.
//
//	func run(ctx context.Context, cfg flotilla.Config) error {
//		return flotilla.Serve(ctx, cfg, handler(), "api.test")
//	}
//
// A cluster of New has no program. Cluster.Serve serves handlers on its nodes, and the test may use
// the nodes themselves.
//
// # Clients
//
// Each node is a host on the network, with its own ports 443, 80 and 8081 for Health.
// Cluster.Client reaches any node, Cluster.ClientOf one node, and Cluster.Balancer one that is
// ready, as through a balancer. All of them trust the authority within the cluster, which is the
// default here: see flotilla.TLS.Private. They work with every host name that the nodes serve. A
// client's Transport is an *http.Transport of its own, which may be changed before it is used: for
// HTTP/1.1 only, client certificates, or other roots. Programs that speak something else, such as
// gRPC or WebSocket, use its DialContext and its TLSClientConfig.
//
// # Faults
//
// A test breaks links (Link, Block, Isolate, Partition), disks (Disk), clocks (Clock) and processes
// (Kill, KillAt, KillAll, Pause, Wipe). Each comment says what the fault is made of.
//
// Rand draws the random numbers of a schedule. A test that fails prints its seed, which the
// environment variable CLUSTERTEST_SEED sets, and what has happened: see Trace.
//
// # In a bubble and outside
//
// A bubble must contain no real sockets, because virtual time stands still while a goroutine waits
// for one. A configuration that leads to some fails the test at once, as far as it can be told: a
// PeerListen, PeerDial or Listen that was set to nil, and a certificate authority on the real
// network. Calls of package net in the program cannot be told. Node.ListenTLS and Node.Listen can
// be used. Leave signal.NotifyContext in main: it starts a goroutine that never ends.
//
// All calls also work outside of a bubble, in real time. Options.Loopback then puts the nodes and
// their clients on real sockets of this machine.
//
// certmagic keeps ACME challenges in variables of the process, so the nodes of one process see each
// other's. Package testca is an authority in memory whose challenges the nodes answer from their
// storage. Its documentation says what only several processes show.
//
// With -race and Go 1.26, also give go test the flag -cpu=1. The race detector of Go 1.26 sometimes
// crashes in bubbles whose timers run on two threads. Go 1.27 has fixed that.
package clustertest

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/hooks"
	"github.com/flotilla-ha/flotilla/internal/simnet"
	"github.com/flotilla-ha/flotilla/internal/synctest"
	"github.com/flotilla-ha/flotilla/vip"
)

// stepTimeout bounds everything that a cluster is expected to do. In a bubble it costs nothing.
const stepTimeout = time.Minute

// Options say what Start starts.
type Options struct {
	// Nodes is the number of nodes that form the cluster.
	Nodes int

	// Configure may change the configuration of each node. With an empty Dir a node keeps nothing. If
	// it sets neither CA nor Configure of TLS, an authority within the cluster signs the
	// certificates. Nil changes nothing.
	Configure func(i int, c *flotilla.Config)

	// Run is the program of every node. It opens one node with cfg, which it may change, by
	// flotilla.Serve or flotilla.Open. It must give that its ctx, or a context derived from it, so
	// that the cluster knows the node. It returns when ctx has ended, as after a signal. If it
	// returns earlier, the test fails. Nil: the cluster opens the nodes itself.
	Run func(ctx context.Context, cfg flotilla.Config) error

	// Loopback uses real sockets on free ports of 127.0.0.1, for the nodes and for clients. It needs
	// real time, and has no faults of links, and no Pause. The program must keep the addresses of
	// cfg. Clients find them by the ports 443, 80 and 8081.
	Loopback bool

	// Link is a network link in memory on which the programs have floating addresses: each passes
	// Link.Machine(cfg.Name) to vip.Run as its Binder. Kill then does what the guard process of
	// package vip does. ClientAt reaches an address. Nil: there are none.
	Link *vip.Memory
}

// Cluster is a number of nodes and the network between them. Its methods fail the test instead of
// returning errors. Call them from the goroutine of the test.
type Cluster struct {
	// Nodes are the nodes by number. A killed node stays until Restart replaces it. A program may
	// open its node again, as flotilla.Serve does when it has to start anew. Methods that look at the
	// nodes, such as Settle, then replace it here.
	Nodes []*flotilla.Node

	t        testing.TB
	bubble   bool
	net      *simnet.Network // nil: on loopback
	ground   ground
	dir      string
	configs  []flotilla.Config
	dead     []bool
	machines machines
	run      func(context.Context, flotilla.Config) error // nil: the nodes have no program
	serving  *serving                                     // nil: Serve was not called
	programs []*program                                   // of the nodes; nil: it has none
	targets  targets

	addresses addresses

	seed   uint64
	random *rand.Rand
	trace  *trace
}

// New starts n nodes that form a cluster. Their names are n0, n1 and so on, and each has its own
// directory. The function configure, if not nil, may change each configuration: see Options. The
// nodes are closed when the test ends. Call Settle to wait until they are ready. In a bubble the
// directories are in memory, unless TMPDIR is set or /dev/shm has less than a gigabyte.
func New(t testing.TB, n int, configure func(i int, c *flotilla.Config)) *Cluster {
	t.Helper()
	return Start(t, Options{Nodes: n, Configure: configure})
}

// Run is New with a program on each node: see Options.
func Run(t testing.TB, n int, run func(ctx context.Context, cfg flotilla.Config) error) *Cluster {
	t.Helper()
	return Start(t, Options{Nodes: n, Run: run})
}

// Start starts a cluster as New does.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{t: t, bubble: synctest.InBubble(), run: o.Run, addresses: addresses{link: o.Link}, seed: newSeed(t), trace: newTrace()}
	c.random = rand.New(rand.NewPCG(c.seed, 0))
	if o.Loopback && c.bubble {
		t.Fatal("clustertest: Options.Loopback uses real sockets, on which the virtual time of a bubble stands still; " +
			"leave it out, or call Start outside of testing/synctest")
	}
	if o.Loopback {
		c.ground = newLoopback()
	} else {
		c.net = simnet.New()
		c.net.Seed(c.seed)
		c.ground = &memory{c.net}
	}
	c.dir = c.tempDir() // before the clean-up below, which so runs first
	t.Cleanup(c.close)
	secret := flotilla.NewSecret()
	var addrs []string
	for i := range o.Nodes {
		addrs = append(addrs, c.peerAddr(i))
	}
	for i := range o.Nodes {
		c.add(flotilla.Config{Secrets: []flotilla.Secret{secret}}, filepath.Join(c.dir, name(i)), addrs, o.Nodes, o.Configure)
	}
	return c
}

// tempDir makes the directory for those of the nodes, which is removed when the test ends.
func (c *Cluster) tempDir() string {
	c.t.Helper()
	if !c.bubble {
		return c.t.TempDir()
	}
	dir, err := memoryDir()
	if err != nil || dir == "" {
		return c.t.TempDir()
	}
	c.t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			c.t.Errorf("removing the directories of the nodes: %v", err)
		}
	})
	return dir
}

// close ends everything at the end of the test.
func (c *Cluster) close() {
	c.report()
	if c.net != nil {
		c.net.Heal()
	}
	for _, i := range c.Live() {
		c.programs[i].expectEnd()
		c.machine(i).release()
		c.machine(i).end()
	}
	c.addresses.guards.Wait()
	if c.bubble {
		// What is on its way arrives, and calls of clients time out. Otherwise their goroutines would be
		// left when the bubble ends.
		time.Sleep(stepTimeout)
	}
}

func name(i int) string { return "n" + strconv.Itoa(i) }

// add adds a node to the cluster whose secrets are those of cfg.
func (c *Cluster) add(cfg flotilla.Config, dir string, addrs []string, expect int, configure func(int, *flotilla.Config)) {
	c.t.Helper()
	i := len(c.Nodes)
	cfg.Dir, cfg.Name = dir, name(i)
	cfg.Peers, cfg.Expect = flotilla.Static(addrs...), expect
	cfg.Logger = slog.New(slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
	if err := c.ground.place(name(i), &cfg); err != nil {
		c.t.Fatalf("%s: %v", name(i), err)
	}
	if configure != nil {
		configure(i, &cfg)
	}
	c.configs = append(c.configs, cfg)
	c.Nodes = append(c.Nodes, nil)
	c.dead = append(c.dead, true)
	c.programs = append(c.programs, nil)
	c.machines.add(newMachine(c, i))
	c.Restart(i)
	c.targets.add(name(i))
}

// open starts a node or its program, on a machine with its faults.
func (c *Cluster) open(i int) error {
	c.t.Helper()
	m := c.machine(i)
	m.begin()
	c.trace.add(name(i), "starts")
	var node *flotilla.Node
	var err error
	if c.run != nil {
		node, err = c.startProgram(m)
	} else {
		node, err = flotilla.Open(hooks.With(c.t.Context(), m.hook), c.configs[i])
	}
	if err != nil {
		c.trace.add(name(i), "does not start: %v", err)
		return err
	}
	c.Nodes[i], c.dead[i] = node, false
	if c.serving != nil {
		c.serve(i)
	}
	return nil
}

// prepare completes the configuration with which node i is opened.
func (c *Cluster) prepare(i int, cfg *flotilla.Config) error {
	cfg.Logger = c.trace.logger(cfg.Logger, name(i))
	cfg.TLS.Private = usesPrivate(cfg.TLS)
	cfg.Guard = false // a process of its own cannot see that a node of this one is dead
	if c.bubble {
		return keepInBubble(c.t, name(i), cfg)
	}
	return nil
}

// usesPrivate reports whether a node with these settings uses the authority within the cluster. It
// is the default here.
func usesPrivate(t flotilla.TLS) bool { return t.Private || t.CA == "" && t.Configure == nil }

// Add starts one more node, which joins the cluster, and returns its number. configure may be nil.
func (c *Cluster) Add(configure func(i int, c *flotilla.Config)) int {
	c.t.Helper()
	first := c.configs[0]
	var addrs []string
	for i := range c.Nodes {
		addrs = append(addrs, c.peerAddr(i))
	}
	c.add(flotilla.Config{Secrets: first.Secrets, SecretsFile: first.SecretsFile}, filepath.Join(c.dir, name(len(c.Nodes))), addrs, 0, configure)
	return len(c.Nodes) - 1
}

// Config returns the configuration of node i, with which Restart starts it.
func (c *Cluster) Config(i int) *flotilla.Config { return &c.configs[i] }

// peerAddr returns the address at which other nodes find node i.
func (c *Cluster) peerAddr(i int) string {
	addr, err := c.ground.peerAddr(name(i))
	if err != nil {
		c.t.Fatalf("%s: %v", name(i), err)
	}
	return addr
}

// Live returns the numbers of the running nodes.
func (c *Cluster) Live() []int {
	var live []int
	for i := range c.Nodes {
		if !c.dead[i] {
			if p := c.programs[i]; p != nil && c.run != nil {
				c.Nodes[i] = p.node.Load()
			}
			live = append(live, i)
		}
	}
	return live
}

// Settle waits until every running node is ready, and, where it serves clients, has certificates of
// the authority within the cluster. It fails while a partition keeps a node from its cluster.
func (c *Cluster) Settle() { c.t.Helper(); c.SettleNodes(c.Live()...) }

// SettleNodes waits until these nodes are ready and agree on a leader among the running nodes.
func (c *Cluster) SettleNodes(nodes ...int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), stepTimeout)
	defer cancel()
	c.Live() // it finds nodes that were opened again
	for _, i := range nodes {
		if err := c.Nodes[i].Ready(ctx); err != nil {
			c.programs[i].report()
			c.t.Fatalf("%s: %v\n%s", name(i), err, c.describe())
		}
	}
	c.awaitThat("one leader for all", func() bool {
		leader := ""
		for _, i := range nodes {
			s := c.Nodes[i].Status()
			if !c.hasCertificates(i, s) || !s.Ready || s.Leader == "" || leader != "" && s.Leader != leader {
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
	c.awaitThat("a leader", func() bool {
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

// awaitThat checks a condition again and again.
func (c *Cluster) awaitThat(what string, ok func() bool) {
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
// files stay. Its program gets ErrClosed from its calls, its context ends, and nobody sees what it
// still does until it has returned. On loopback, connections of clients end somewhat later.
func (c *Cluster) Kill(i int) {
	c.t.Helper()
	m := c.machine(i)
	c.trace.add(name(i), "fault: killed")
	m.strike(c.process(i)) // from now on nobody sees what it does
	m.end()
	c.dead[i] = true
}

// Stop shuts node i down as an operator does: it hands over first. What serves clients there is
// drained before that, as Config.Drain says.
func (c *Cluster) Stop(i int) {
	c.t.Helper()
	c.Live()
	p, m := c.programs[i], c.machine(i)
	c.trace.add(name(i), "is stopped")
	p.expectEnd()
	if err := c.await(i, p); err != nil {
		c.t.Errorf("stopping %s: %v", name(i), err)
	}
	if c.run == nil {
		ctx, cancel := context.WithTimeout(c.t.Context(), stepTimeout)
		defer cancel()
		if err := c.Nodes[i].Shutdown(ctx); err != nil {
			c.t.Errorf("stopping %s: %v", name(i), err)
		}
	}
	m.end()
	c.dead[i] = true
}

// Leave makes node i leave the cluster for good. Restart starts it as a new node. What Serve serves
// there is drained first. A program gets ErrClosed from its calls.
func (c *Cluster) Leave(i int) {
	c.t.Helper()
	c.Live()
	p := c.programs[i]
	p.expectEnd()
	if c.run == nil {
		if err := c.await(i, p); err != nil {
			c.t.Errorf("%s leaves: %v", name(i), err)
		}
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), stepTimeout)
	defer cancel()
	c.trace.add(name(i), "is told to leave")
	if err := c.Nodes[i].Leave(ctx); err != nil {
		c.t.Errorf("%s leaves: %v", name(i), err)
	}
	c.await(i, p)
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
	c.t.Helper()
	c.faults().Isolate(name(i))
	c.trace.add(name(i), "fault: cut off from all others")
}

// Block cuts one direction between two nodes.
func (c *Cluster) Block(from, to int) {
	c.t.Helper()
	c.faults().Block(name(from), name(to))
	c.trace.add("", "fault: %s to %s: cut", name(from), name(to))
}

// Unblock undoes Block.
func (c *Cluster) Unblock(from, to int) {
	c.t.Helper()
	c.faults().Unblock(name(from), name(to))
	c.trace.add("", "%s to %s: mended", name(from), name(to))
}

// SetLatency sets the one-way latency between nodes, from now on.
func (c *Cluster) SetLatency(d time.Duration) {
	c.t.Helper()
	c.faults().SetLatency(d)
	c.trace.add("", "the latency is %v", d)
}

// Partition cuts the network into groups that cannot reach each other.
func (c *Cluster) Partition(groups ...[]int) {
	c.t.Helper()
	named := make([][]string, len(groups))
	for g, group := range groups {
		for _, i := range group {
			named[g] = append(named[g], name(i))
		}
	}
	c.faults().Partition(named...)
	c.trace.add("", "fault: cut into %v", named)
}

// Heal mends the network: all links are as at the beginning, but for SetLatency.
func (c *Cluster) Heal() {
	c.t.Helper()
	c.faults().Heal()
	c.trace.add("", "the network is mended")
}

// faults returns the network in memory.
func (c *Cluster) faults() *simnet.Network {
	c.t.Helper()
	if c.net == nil {
		c.t.Fatal("clustertest: with Options.Loopback the network is that of this machine, which has no faults to choose; leave Loopback out")
	}
	return c.net
}

func (c *Cluster) notNegative(what string, d time.Duration) {
	c.t.Helper()
	if d < 0 {
		c.t.Fatalf("%s of %v is negative", what, d)
	}
}

// Rand returns the random numbers of the test, for schedules of faults and of what the program
// does. Their seed is random, and a test that fails prints it. The environment variable
// CLUSTERTEST_SEED sets it: the test then draws the same numbers. What nodes and their goroutines
// do is not drawn from it. So the same schedule may end in another way, though most failures come
// again soon.
//
// Jitter and losses of links are drawn from the same seed. Only one goroutine at a time may use the
// numbers.
func (c *Cluster) Rand() *rand.Rand { return c.random }

// Note adds a line to the trace: what the test or the program under test does. Any goroutine may
// call it.
func (c *Cluster) Note(format string, args ...any) { c.trace.add("", format, args...) }

// Trace returns what has happened in the cluster, a line for each event in order of time: the
// faults and other actions of this package, what the nodes have logged, which sessions and roles
// began and ended, and notes. Only the newest 200 lines are kept. A test that fails prints it.
func (c *Cluster) Trace() string { return c.trace.text() }

// report prints the seed and the trace of a test that has failed.
func (c *Cluster) report() {
	if c.t.Failed() {
		c.t.Logf("to draw the same random numbers again: %s=%d\nwhat happened, by the time since the start:\n%s", seedVariable, c.seed, c.Trace())
	}
}
