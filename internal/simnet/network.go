// Package simnet is a network of TCP-like connections in memory. It is made for testing/synctest:
// every wait in it is durably blocked, so virtual time goes on. It has no goroutines of its own. It
// also works in real time.
//
// Some things are as with TCP. Bytes arrive in order, after a latency. A closed connection can be
// read to its end and then returns io.EOF. A dead process resets its connections. A cut path loses
// nothing: what was sent arrives after the path is mended. A dial to a port without a listener is
// refused; over a cut path it hangs.
//
// Other things are not. Buffers have no bound, so Write never blocks, and a lock that a caller
// holds while it writes cannot stop virtual time. A connection over a cut path stays up for ever.
// Retransmission begins at the moment the path is mended. Bytes on their way to an end that closes
// are lost without a reset.
//
// A path may have a [Quality]: latency, jitter, losses, duplicates and a bandwidth of its own, one
// way. They are those of segments under TCP, so a reader sees them as time.
package simnet

import (
	"math/rand/v2"
	"sync"
	"time"
)

// defaultLatency is the one-way latency of a new network.
const defaultLatency = 100 * time.Microsecond

// path is a direction between two hosts, by their names.
type path struct{ from, to string }

// Network connects hosts. Any goroutine may call its methods at any time. One lock guards the whole
// network, its hosts, listeners and connections. It is held for memory only, never across a wait.
type Network struct {
	mu       sync.Mutex
	hosts    map[string]*Host
	links    map[*link]struct{} // connections with an open end
	latency  time.Duration
	lines    map[path]*line  // paths with a quality
	random   *rand.Rand      // see Seed
	blocks   map[path]bool   // by Block
	isolated map[string]bool // by Isolate
	group    map[string]int  // by Partition; other hosts are in no group
	changed  signal          // a path may be mended, or a host has crashed
}

// New returns a network without hosts and blocks, with a latency of 100 µs.
func New() *Network {
	n := &Network{hosts: make(map[string]*Host), links: make(map[*link]struct{}), latency: defaultLatency, random: newRandom(0)}
	n.clear()
	return n
}

// Host returns the host of this name, the same one for every call.
func (n *Network) Host(name string) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[name]
	if h == nil {
		h = &Host{net: n, name: name, listeners: make(map[int]*listener), port: firstPort}
		n.hosts[name] = h
	}
	return h
}

// SetLatency sets the one-way latency between all hosts, from now on. It also applies to a host
// that dials itself. SetQuality may set another one for a path.
func (n *Network) SetLatency(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.latency = max(d, 0)
}

// Block cuts the path from one host to another, in this direction only.
func (n *Network) Block(from, to string) {
	n.change(func() { n.blocks[path{from, to}] = true })
}

// Unblock undoes Block. It does not undo Isolate and Partition.
func (n *Network) Unblock(from, to string) {
	n.change(func() { delete(n.blocks, path{from, to}) })
}

// Isolate cuts a host off from all others in both directions, also from hosts that are added later.
// The host still reaches itself.
func (n *Network) Isolate(name string) {
	n.change(func() { n.isolated[name] = true })
}

// Partition cuts hosts of different groups off from each other. It replaces an earlier partition.
// Hosts in no group reach all.
func (n *Network) Partition(groups ...[]string) {
	n.change(func() {
		clear(n.group)
		for i, names := range groups {
			for _, name := range names {
				n.group[name] = i
			}
		}
	})
}

// Heal undoes every Block, Isolate, Partition and SetQuality. Bytes that were held back are then on
// their way.
func (n *Network) Heal() { n.change(n.clear) }

func (n *Network) clear() {
	n.blocks, n.isolated, n.group, n.lines = make(map[path]bool), make(map[string]bool), make(map[string]int), make(map[path]*line)
}

// change changes which paths are cut, and tells the connections.
func (n *Network) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
	now := time.Now()
	for l := range n.links {
		for _, c := range l.ends {
			c.in.setCut(n.cut(c.peer.host.name, c.host.name), now)
		}
	}
	n.changed.broadcast()
}

// cut returns true if nothing gets from one host to another. The caller holds mu.
func (n *Network) cut(from, to string) bool {
	if n.blocks[path{from, to}] {
		return true
	}
	if from == to {
		return false
	}
	f, ok1 := n.group[from]
	t, ok2 := n.group[to]
	return n.isolated[from] || n.isolated[to] || ok1 && ok2 && f != t
}

// signal wakes all waiters. The network's mutex guards it.
type signal struct{ c chan struct{} }

// wait returns a channel that the next broadcast closes.
func (s *signal) wait() <-chan struct{} {
	if s.c == nil {
		s.c = make(chan struct{})
	}
	return s.c
}

func (s *signal) broadcast() {
	if s.c != nil {
		close(s.c)
		s.c = nil
	}
}
