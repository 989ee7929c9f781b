package netlab

import (
	"slices"
	"time"
)

// network is the state of the lab's network at one time. Hosts are known by their index.
type network struct {
	since time.Time
	down  []bool // the interface of the host
	cut   []bool // the bridge port of the host
	mute  []bool // the port drops what the host sends
	deaf  []bool // the port drops what is sent to the host
	side  []int  // the side of the partition that the host is on
}

func newNetwork(hosts int) network {
	return network{
		since: time.Now(),
		down:  make([]bool, hosts),
		cut:   make([]bool, hosts),
		mute:  make([]bool, hosts),
		deaf:  make([]bool, hosts),
		side:  make([]int, hosts),
	}
}

func (n network) clone() network {
	n.down, n.cut = slices.Clone(n.down), slices.Clone(n.cut)
	n.mute, n.deaf = slices.Clone(n.mute), slices.Clone(n.deaf)
	n.side = slices.Clone(n.side)
	return n
}

// filtered returns true if the bridge drops what one host sends to another.
func (n network) filtered(from, to int) bool {
	return n.mute[from] || n.deaf[to] || n.side[from] != n.side[to]
}

// delivers returns true if what one host sends to another arrives.
func (n network) delivers(from, to int) bool {
	return !n.filtered(from, to) && !n.down[from] && !n.cut[from] && !n.down[to] && !n.cut[to]
}
