package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/flotilla-ha/flotilla/internal/applied"
	"github.com/flotilla-ha/flotilla/internal/clocks"
	"github.com/flotilla-ha/flotilla/internal/keyspace"
	"github.com/flotilla-ha/flotilla/internal/lifecycle"
	"github.com/flotilla-ha/flotilla/internal/peers"
	"github.com/flotilla-ha/flotilla/internal/self"
	"github.com/flotilla-ha/flotilla/internal/state"
	"github.com/flotilla-ha/flotilla/internal/testlog"
	"github.com/flotilla-ha/flotilla/internal/timing"
)

// testTiming is that of a LAN.
func testTiming() timing.Timing { return timing.Of(600 * time.Millisecond) }

const (
	testLatency = 2 * time.Millisecond                       // of the network, one way, at least
	testStagger = 11*time.Millisecond + 171*time.Microsecond // between the starts of nodes
)

// testCluster is Managers on a network and a log in memory, in virtual time. It has one leader,
// whose word a node follows as long as both can reach each other. An entry is committed when the
// leader reaches a majority of the voters. The network loses what it cannot deliver.
type testCluster struct {
	t     testing.TB
	ctx   context.Context
	nodes []*testNode
	tasks sync.WaitGroup

	mu     sync.Mutex
	log    []testEntry
	leader string
	since  time.Time       // when that was elected
	down   map[string]bool // links, as "a b", in one direction
	sends  map[string]int  // by link: how often something was sent
	events []testEvent
}

// testEntry is one of the log: a command or a configuration.
type testEntry struct {
	command         *state.Command
	servers, voters []string
}

// testEvent is something that a script prints.
type testEvent struct {
	at   time.Time
	text string
}

// testNode is one node. Its fields are guarded by the cluster's mutex.
type testNode struct {
	c       *testCluster
	name    string
	process int // counts from 1
	*Manager
	stop context.CancelFunc

	leader   string // as this node knows it
	state    *state.State
	lags     bool // applies nothing
	stalled  bool // its disk hangs
	late     bool // for the leader: keeps writers waiting
	expelled bool // for the leader: is being removed
	paused   chan struct{}
	sent     map[string][]string // what this node has sent to each since a script looked
}

// newTestCluster starts nodes, of which the first leads and all but some vote. It returns when each
// has a session and a lease. It must be called in a synctest bubble.
func newTestCluster(t testing.TB, names, voters []string) *testCluster {
	t.Helper()
	c := &testCluster{t: t, ctx: t.Context(), down: make(map[string]bool), sends: make(map[string]int), since: time.Now()}
	t.Cleanup(c.close)
	c.elect(names[0])
	for _, name := range names {
		c.start(name)
	}
	c.commit(testEntry{servers: names, voters: voters})
	for _, name := range names {
		c.open(name)
	}
	c.sleep(5 * time.Second)
	for _, n := range c.nodes {
		if !n.Valid() {
			t.Fatalf("%s has no lease", n.name)
		}
	}
	return c
}

func (c *testCluster) close() {
	for _, n := range c.nodes {
		c.mu.Lock()
		if n.paused != nil {
			close(n.paused)
			n.paused = nil
		}
		c.mu.Unlock()
		n.end()
	}
	c.tasks.Wait()
}

// start adds a node that has caught up.
func (c *testCluster) start(name string) *testNode {
	c.mu.Lock()
	n := &testNode{c: c, name: name, leader: c.leader, sent: make(map[string][]string)}
	c.nodes = append(c.nodes, n)
	c.mu.Unlock()
	n.restart()
	n.CatchUp()
	c.sleep(testStagger)
	return n
}

// restart starts another process of a node, with an empty state, which applies the log before it
// catches up.
func (n *testNode) restart() {
	n.end()
	store, log := applied.New(), testlog.None()
	ctx, stop := context.WithCancel(n.c.ctx)
	n.c.mu.Lock()
	n.process++
	n.state, n.stop = store.State(), stop
	n.Manager = New(Config{
		Timing: testTiming(), Log: log, Life: lifecycle.New(), Store: store, Peers: peers.NewTable(store),
		Self:   &self.Self{ID: n.name, Incarnation: n.incarnation()},
		Clocks: clocks.New(clocks.Config{Log: log}), Replica: n, Term: n.term, Delay: n.delay,
		OnLost: func(session uint64, _ time.Time, cause error) {
			n.c.event("%s loses the lease of session %d: %v", n.name, session, cause)
		},
	})
	m := n.Manager
	n.c.mu.Unlock()
	n.c.replicate()
	n.c.tasks.Go(func() { m.Run(ctx) })
}

// end ends the node's present process, if there is one.
func (n *testNode) end() {
	if n.Manager != nil {
		n.stop()
		n.cfg.Life.End(errors.New("the process ends"))
		n.cfg.Life.Tasks.Close()
	}
}

func (n *testNode) incarnation() string { return fmt.Sprint(n.name, n.process) }

func (n *testNode) delay() {
	n.c.mu.Lock()
	paused := n.paused
	n.c.mu.Unlock()
	if paused != nil {
		<-paused
	}
}

func (c *testCluster) node(name string) *testNode {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.nodes {
		if n.name == name {
			return n
		}
	}
	c.t.Fatalf("there is no node %s", name)
	return nil
}

// manager returns the Manager of a node's present process.
func (c *testCluster) manager(name string) *Manager {
	n := c.node(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	return n.Manager
}

func (c *testCluster) event(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, testEvent{time.Now(), fmt.Sprintf(format, args...)})
}

// takeEvents returns what has happened since the last call, in order.
func (c *testCluster) takeEvents() []testEvent {
	c.mu.Lock()
	defer c.mu.Unlock()
	events := c.events
	c.events = nil
	slices.SortStableFunc(events, func(a, b testEvent) int {
		if by := a.at.Compare(b.at); by != 0 {
			return by
		}
		return strings.Compare(a.text, b.text)
	})
	return events
}

// latency returns how long the next message takes. It is different each time, so that no two things
// happen at the same moment: what follows would depend on which one comes first. The caller holds
// the lock.
func (c *testCluster) latency(from, to string) time.Duration {
	link := from + " " + to
	c.sends[link]++
	return testLatency + time.Duration((c.sends[link]*37+int(from[0])*11+int(to[0])*7)%1009)*time.Microsecond
}

// connected reports whether two nodes reach each other. The caller holds the lock.
func (c *testCluster) connected(a, b string) bool { return !c.down[a+" "+b] && !c.down[b+" "+a] }

// sleep lets virtual time pass. Managers call it through interfaces, so TestNoSleepOutsideBubbles
// could not see that time.Sleep is called in bubbles only.
func (c *testCluster) sleep(d time.Duration) { <-time.After(d) }

// cut lets nothing through between two nodes any more.
func (c *testCluster) cut(a, b string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down[a+" "+b], c.down[b+" "+a] = true, true
}

// heal mends all links. All follow the leader again.
func (c *testCluster) heal() {
	c.mu.Lock()
	clear(c.down)
	leader := c.leader
	c.mu.Unlock()
	c.follow(leader)
	c.replicate()
}

// elect makes a node the leader, of all that it reaches.
func (c *testCluster) elect(name string) {
	c.mu.Lock()
	c.leader, c.since = name, time.Now()
	c.mu.Unlock()
	c.follow(name)
}

func (c *testCluster) follow(leader string) {
	c.mu.Lock()
	nodes := slices.Clone(c.nodes)
	for _, n := range nodes {
		if leader == "" || c.connected(n.name, leader) {
			n.leader = leader
		}
	}
	c.mu.Unlock()
	for _, n := range nodes {
		n.Wake()
	}
}

// commit appends an entry, if the leader reaches a majority of the voters, and has it applied.
func (c *testCluster) commit(e testEntry) bool {
	c.mu.Lock()
	there, voters := 0, e.voters
	for _, n := range c.nodes {
		if n.name == c.leader && len(n.state.Voters) > 0 {
			voters = n.state.Voters
		}
	}
	for _, v := range voters {
		if c.connected(c.leader, v) {
			there++
		}
	}
	if there <= len(voters)/2 {
		c.mu.Unlock()
		return false
	}
	c.log = append(c.log, e)
	c.mu.Unlock()
	c.replicate()
	return true
}

// replicate has every node that the leader reaches apply what it does not have yet.
func (c *testCluster) replicate() {
	c.mu.Lock()
	var changed []*Manager
	for _, n := range c.nodes {
		before := n.state.Index
		for !n.lags && c.connected(c.leader, n.name) && n.state.Index < uint64(len(c.log)) {
			e := c.log[n.state.Index]
			if e.command != nil {
				n.state, _ = n.state.Apply(n.state.Index+1, e.command, nil)
			} else {
				n.state = n.state.Configure(n.state.Index+1, e.servers, e.voters, new(state.Effects))
			}
		}
		if n.state.Index > before {
			n.cfg.Store.Publish(n.state)
			changed = append(changed, n.Manager)
		}
	}
	c.mu.Unlock()
	for _, m := range changed {
		m.SessionsChanged()
	}
}

// change commits a change of the cluster's own.
func (c *testCluster) change(change state.Change) bool {
	return c.commit(testEntry{command: &state.Command{Change: change}})
}

// open opens a session for a node's process in place of its last one, and asks for a lease.
func (c *testCluster) open(name string) uint64 {
	n := c.node(name)
	change := state.OpenSession{Incarnation: n.incarnation(), Replaces: c.newest().Number(name)}
	for p := range n.process {
		change.Processes = append(change.Processes, fmt.Sprint(name, p+1))
	}
	c.commit(testEntry{command: &state.Command{Node: name, Change: change}})
	number := c.newest().Number(name)
	n.Begin(number)
	return number
}

// newest returns the leader's state.
func (c *testCluster) newest() *state.State {
	n := c.node(c.leader)
	c.mu.Lock()
	defer c.mu.Unlock()
	return n.state
}

// The methods of Replica.

func (n *testNode) Leader() string {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	return n.leader
}

func (n *testNode) Others() (ids []string) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	for _, id := range n.state.Servers {
		if id != n.name {
			ids = append(ids, id)
		}
	}
	return ids
}

func (n *testNode) Stalled() bool {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	return n.stalled
}

func (n *testNode) Answered(string) {}

func (n *testNode) Send(to string, b []byte) {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	for d := range decode(b) {
		if _, ok := d.(Kept); !ok { // no lease depends on it
			n.sent[to] = append(n.sent[to], describe(d))
		}
	}
	if n.c.down[n.name+" "+to] {
		return
	}
	if slices.ContainsFunc(n.c.nodes, func(n *testNode) bool { return n.name == to }) {
		time.AfterFunc(n.c.latency(n.name, to), func() { n.c.manager(to).OnDatagram(n.name, b) })
	}
}

func (n *testNode) Call(ctx context.Context, to, _ string, body []byte) ([]byte, error) {
	n.c.mu.Lock()
	out, back := n.c.latency(n.name, to), n.c.latency(to, n.name)
	ok := n.c.connected(n.name, to)
	n.c.mu.Unlock()
	n.c.sleep(out)
	if !ok {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	defer n.c.sleep(back)
	return n.c.manager(to).ServeExpired(ctx, n.name, body)
}

func (n *testNode) StandFor(_ context.Context, leader string, reason func() bool) {
	n.c.mu.Lock()
	rank := slices.Index(n.state.Voters, n.name)
	n.c.mu.Unlock()
	n.c.sleep(time.Duration(rank) * 100 * time.Millisecond) // one after another
	if !reason() || n.Leader() != leader {
		return
	}
	n.c.event("%s stands for election in the place of %s", n.name, leader)
	n.c.mustBeOver(leader)
	n.c.elect(n.name)
}

// term returns the leader's term as this node sees it.
func (n *testNode) term() Term {
	n.c.mu.Lock()
	defer n.c.mu.Unlock()
	if n.leader != n.name {
		return nil
	}
	return &testTerm{n: n, since: n.c.since}
}

// mustBeOver checks that a node counts on its lease no more. All nodes have one clock.
func (c *testCluster) mustBeOver(node string) {
	c.t.Helper()
	if _, end := c.manager(node).own.until(); time.Now().Before(end) {
		c.t.Errorf("the lease of %s has expired for others %v before its end", node, time.Until(end))
	}
}

type testTerm struct {
	n     *testNode
	since time.Time
}

// leads reports whether a term has not been followed by another one.
func (c *testCluster) leads(t *testTerm) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leader == t.n.name && c.since.Equal(t.since)
}

func (t *testTerm) Since() time.Time { return t.since }

func (t *testTerm) Late(node string, _ time.Time) bool {
	n := t.n.c.node(node)
	t.n.c.mu.Lock()
	defer t.n.c.mu.Unlock()
	return n.late
}

func (t *testTerm) Beat() {}

func (t *testTerm) Expels(node string) bool {
	n := t.n.c.node(node)
	t.n.c.mu.Lock()
	defer t.n.c.mu.Unlock()
	return n.expelled
}

func (t *testTerm) Stored(string, string) uint64 { return 0 }

// Propose commits a change. A session may be ended only when its node does not count on its lease.
func (t *testTerm) Propose(change state.Change) error {
	c := t.n.c
	c.sleep(testLatency)
	var text, about string
	switch ch := change.(type) {
	case state.Suspect:
		text = "suspects " + ch.Node
	case state.ClearSuspicion:
		text = "clears " + ch.Node
	case state.EndSession:
		about = ch.Node
		text = fmt.Sprintf("ends session %d of %s", ch.Number, ch.Node)
	case state.ExpireHoldDown:
		text = "frees " + strings.TrimPrefix(ch.Role, keyspace.RolePrefix)
	}
	if !c.leads(t) || !c.change(change) {
		c.event("%s %s in vain", t.n.name, text)
		c.sleep(time.Second)
		return errors.New("nobody commits it")
	}
	c.event("%s %s", t.n.name, text)
	if about != "" && c.newest().Session(about) == nil {
		c.mustBeOver(about)
	}
	return nil
}
