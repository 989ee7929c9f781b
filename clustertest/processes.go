package clustertest

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/flotilla-ha/flotilla"
	"github.com/flotilla-ha/flotilla/internal/hooks"
)

// machine is what a node runs on.
type machine struct {
	c     *Cluster
	node  int
	disk  *Disk
	clock Clock

	mu     sync.Mutex
	still  chan struct{} // closed when the process goes on; nil: it does not stand still
	struck bool          // the process is dead for all others
	guard  func()        // what its guard does after that; nil: it has done it
	arms   int           // calls of KillAt
	victim process       // of KillAt
	step   Step          // at which it dies; empty: at none
	died   chan struct{} // closed when it has died there and is closed; nil: KillAt was not called
}

// process is a node with the program that serves on it.
type process struct {
	node    *flotilla.Node
	program *program
	// dial is how its guard reports the death. Nil: it does not.
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// machines are those of the nodes by number. The goroutine of the test adds them, and others may
// look for one.
type machines struct {
	mu  sync.Mutex
	all []*machine
}

func (m *machines) add(x *machine) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, x)
}

// of returns the machine of node i, nil if there is none.
func (m *machines) of(i int) *machine {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i < 0 || i >= len(m.all) {
		return nil
	}
	return m.all[i]
}

func newMachine(c *Cluster, i int) *machine {
	m := &machine{c: c, node: i}
	m.clock.c, m.clock.node = c, i
	m.disk = &Disk{c: c, node: i, reach: m.reach, armed: m.armed, changed: make(chan struct{})}
	return m
}

// machine returns that of node i.
func (c *Cluster) machine(i int) *machine {
	c.t.Helper()
	m := c.machines.of(i)
	if m == nil {
		c.t.Fatalf("there is no node %d", i)
	}
	return m
}

// Disk returns the disk of node i.
func (c *Cluster) Disk(i int) *Disk {
	c.t.Helper()
	return c.machine(i).disk
}

// Clock returns the clock of node i.
func (c *Cluster) Clock(i int) *Clock {
	c.t.Helper()
	return &c.machine(i).clock
}

// process returns what runs as node i.
func (c *Cluster) process(i int) process {
	c.Live() // it finds a node that was opened again
	dial := c.configs[i].PeerDial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return process{c.Nodes[i], c.programs[i], dial}
}

// hook completes the configuration of a node that is opened on the machine, and puts its faults in.
func (m *machine) hook(h *hooks.Hooks) {
	h.Config = func(cfg any) error { return m.c.prepare(m.node, cfg.(*flotilla.Config)) }
	h.Rate = m.clock.rate
	h.Ahead = m.clock.wall
	h.Delay = m.delay
	h.Disk.Before = m.disk.before
	h.Disk.System = files{Disk: m.disk}
	h.Changed = m.c.trace.changed
}

// delay waits while the process stands still.
func (m *machine) delay() {
	m.mu.Lock()
	still := m.still
	m.mu.Unlock()
	if still != nil {
		<-still
	}
}

// strike ends the process for all others: from now on nothing leaves it, and its disk stays as it
// is. Its goroutines are still there until bury.
func (m *machine) strike(p process) {
	m.mu.Lock()
	struck := m.struck
	m.struck = true
	m.mu.Unlock()
	if struck {
		return
	}
	p.program.expectEnd()
	guard := m.c.addresses.die(name(m.node), p.dial)
	m.c.ground.kill(name(m.node))
	m.disk.kill()
	m.goOn()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.guard = guard
}

// bury closes what is left of a process, and waits for its program. What runs beside the process
// goes on then.
func (m *machine) bury(p process) {
	m.disk.settle()
	p.node.Close()
	m.c.await(m.node, p.program)
	m.c.ground.revive(name(m.node))
	m.mu.Lock()
	guard := m.guard
	m.guard = nil
	m.mu.Unlock()
	if guard != nil {
		guard()
	}
}

// goOn lets a process go on that stands still. It reports whether it did.
func (m *machine) goOn() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.still == nil {
		return false
	}
	close(m.still)
	m.still = nil
	return true
}

// armed returns how often KillAt was called.
func (m *machine) armed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.arms
}

// reach reports whether the process dies at this step, and kills it then. What has begun before
// KillAt was called does not count: armed is what armed returned when it began.
func (m *machine) reach(step Step, armed int) bool {
	m.mu.Lock()
	dies := m.step == step && step != "" && m.arms == armed
	victim, died := m.victim, m.died
	if dies {
		m.step = ""
	}
	m.mu.Unlock()
	if !dies {
		return false
	}
	m.c.trace.add(name(m.node), "fault: killed %s", step)
	m.strike(victim)
	go func() {
		defer close(died)
		m.bury(victim)
	}()
	return true
}

// begin is for the next process.
func (m *machine) begin() {
	m.c.ground.revive(name(m.node))
	m.disk.begin()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.struck = false
}

// end closes the process of the machine, or waits until that is done if it died at a step.
func (m *machine) end() {
	m.mu.Lock()
	died, pending := m.died, m.step != ""
	m.step, m.died = "", nil
	m.mu.Unlock()
	if died != nil && !pending {
		<-died
		return
	}
	m.bury(m.c.process(m.node))
}

// Pause has the process of node i stand still until Resume, as SIGSTOP, a debugger or a busy
// machine does. Its network stands still: nothing leaves it, and it reads nothing, while its
// connections stay up and accept what others send. Its disk stands still too, and so does the part
// of it that looks at the clock for its lease.
//
// The other goroutines of the process cannot be stopped from outside. Timers and handlers run on,
// and so does what the test calls. What they send or write to the log is seen after Resume only.
// Reads and tenures look at the clock, as they do in a process that wakes.
func (c *Cluster) Pause(i int) {
	c.t.Helper()
	m, network := c.running(i), c.faults()
	m.mu.Lock()
	if m.still == nil {
		m.still = make(chan struct{})
	}
	m.mu.Unlock()
	m.disk.stop(true)
	network.Host(name(i)).Freeze()
	c.trace.add(name(i), "fault: stands still")
}

// Resume undoes Pause. What others have sent meanwhile arrives, and what the node has sent leaves
// it.
func (c *Cluster) Resume(i int) {
	c.t.Helper()
	m, network := c.running(i), c.faults()
	if m.goOn() {
		c.trace.add(name(i), "goes on")
	}
	m.disk.stop(false)
	network.Host(name(i)).Thaw()
}

// release undoes what would keep the node from being closed.
func (m *machine) release() {
	m.goOn()
	m.disk.release()
	if m.c.net != nil {
		m.c.net.Host(name(m.node)).Thaw()
	}
}

// running returns the machine of a node that must run.
func (c *Cluster) running(i int) *machine {
	c.t.Helper()
	m := c.machine(i)
	if c.dead[i] {
		c.t.Fatalf("%s does not run", name(i))
	}
	return m
}

// KillAt has node i die, as by kill -9, when it reaches that step for the next time. A batch of the
// log counts if it began after the call. AwaitKill waits for the death.
func (c *Cluster) KillAt(i int, step Step) {
	c.t.Helper()
	m := c.running(i)
	if step == "" {
		c.t.Fatal("KillAt needs the name of a step")
	}
	victim := c.process(i)
	m.mu.Lock()
	m.victim, m.step, m.died = victim, step, make(chan struct{})
	m.arms++
	m.mu.Unlock()
	c.trace.add(name(i), "will be killed %s", step)
}

// AwaitKill waits until node i has died at the step that KillAt named. Then Restart may start it.
func (c *Cluster) AwaitKill(i int) {
	c.t.Helper()
	m := c.running(i)
	m.mu.Lock()
	died, step := m.died, m.step
	m.mu.Unlock()
	if died == nil {
		c.t.Fatalf("AwaitKill of %s, and no KillAt", name(i))
	}
	timeout := time.NewTimer(stepTimeout)
	defer timeout.Stop()
	select {
	case <-died:
	case <-timeout.C:
		c.t.Fatalf("%s has not come to %q within %v\n%s", name(i), step, stepTimeout, c.describe())
	}
	m.end()
	c.dead[i] = true
}

// Step is a place in the program under test, which runs on node i: the program calls it between two
// of its steps, by a function that the test gives it. It returns nil, or, if KillAt has named this
// step, an error that wraps flotilla.ErrClosed. Nothing leaves the node then any more, and the
// program must return. Any goroutine may call Step.
func (c *Cluster) Step(i int, step Step) error {
	m := c.machines.of(i)
	if m == nil {
		return fmt.Errorf("clustertest: there is no node %d", i)
	}
	if !m.reach(step, m.armed()) {
		return nil
	}
	return fmt.Errorf("clustertest: %s was killed %s: %w", name(i), step, flotilla.ErrClosed)
}

// KillAll kills all running nodes at the same moment, as when the power fails.
func (c *Cluster) KillAll() {
	c.t.Helper()
	live := c.Live()
	for _, i := range live {
		p := c.process(i)
		p.dial = nil // no guard is left to report it
		c.machine(i).strike(p)
	}
	c.trace.add("", "fault: all are killed")
	for _, i := range live {
		c.machine(i).end()
		c.dead[i] = true
	}
}

// Wipe empties the directory of node i, which must not run. Restart then starts it as a new node:
// with an empty memory, and without the vote that it had.
func (c *Cluster) Wipe(i int) {
	c.t.Helper()
	c.machine(i)
	if !c.dead[i] {
		c.t.Fatalf("%s runs; stop or kill it before its directory is emptied", name(i))
	}
	if dir := c.configs[i].Dir; dir != "" {
		if err := os.RemoveAll(dir); err != nil {
			c.t.Fatal(err)
		}
	}
	c.trace.add(name(i), "fault: its directory is emptied")
}

// TryRestart is Restart for a node that may not start, such as one with a damaged disk. It returns
// the error of flotilla.Open, or of a program that ends before it has opened its node. The node
// stays dead then.
func (c *Cluster) TryRestart(i int) error {
	c.t.Helper()
	c.machine(i)
	if !c.dead[i] {
		c.t.Fatalf("%s still runs", name(i))
	}
	return c.open(i)
}
