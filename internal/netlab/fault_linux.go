package netlab

import (
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// network is what of the lab's network works at a time. Hosts go by their index.
type network struct {
	since time.Time
	down  []bool // the host's interface
	cut   []bool // its port of the bridge
	mute  []bool // what it sends is dropped at the port
	deaf  []bool // what is sent to it is dropped at the port
	side  []int  // its side of the partition
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
	n.down, n.cut, n.mute, n.deaf = slices.Clone(n.down), slices.Clone(n.cut), slices.Clone(n.mute), slices.Clone(n.deaf)
	n.side = slices.Clone(n.side)
	return n
}

// filtered reports whether the bridge drops what one host sends to another.
func (n network) filtered(from, to int) bool {
	return n.mute[from] || n.deaf[to] || n.side[from] != n.side[to]
}

// delivers reports whether what one host sends to another arrives.
func (n network) delivers(from, to int) bool {
	return !n.filtered(from, to) && !n.down[from] && !n.cut[from] && !n.down[to] && !n.cut[to]
}

// change changes the network, and notes it once it is so.
func (l *Lab) change(f func(*network)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.net.clone()
	f(&next)
	if err := l.filters.set(next, l.hosts()); err != nil {
		return err
	}
	next.since = time.Now()
	l.net = next
	l.history = append(l.history, next.clone())
	return nil
}

// Delivers reports whether, by the faults that are switched on, what one host sends to another arrives.
func (l *Lab) Delivers(from, to *Host) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.net.delivers(from.index, to.index)
}

// joined returns the periods in which two hosts could reach one another, both ways.
func (l *Lab) joined(a, b int) (periods []span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, n := range l.history {
		if !n.delivers(a, b) || !n.delivers(b, a) {
			continue
		}
		s := span{from: n.since, to: time.Now()}
		if i+1 < len(l.history) {
			s.to = l.history[i+1].since
		}
		periods = append(periods, s)
	}
	return periods
}

// Partition splits the network, at once, into groups of hosts that reach one another and no others; hosts that are in no group make one
// more. Links and carriers stay as they are. A later Partition replaces it.
func (l *Lab) Partition(groups ...[]*Host) error {
	return l.change(func(n *network) {
		clear(n.side)
		for i, g := range groups {
			for _, h := range g {
				n.side[h.index] = i + 1
			}
		}
	})
}

// Heal ends the partition and all one-way cuts. What is down or cut stays so.
func (l *Lab) Heal() error {
	return l.change(func(n *network) {
		clear(n.side)
		clear(n.mute)
		clear(n.deaf)
	})
}

// CutSending drops all that the host sends, at the bridge. It goes on receiving, and its carrier stays.
func (h *Host) CutSending() error { return h.lab.change(func(n *network) { n.mute[h.index] = true }) }

// CutReceiving drops all that is sent to the host, at the bridge. What it sends arrives, and its carrier stays.
func (h *Host) CutReceiving() error {
	return h.lab.change(func(n *network) { n.deaf[h.index] = true })
}

// filters is a chain of nftables that sees every frame from one port of the bridge to another.
type filters struct {
	conn  *nftables.Conn
	table *nftables.Table
	chain *nftables.Chain
}

func newFilters(bridge *site) (*filters, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(int(bridge.ns)), nftables.AsLasting())
	if err != nil {
		return nil, err
	}
	f := &filters{conn: conn}
	f.table = conn.AddTable(&nftables.Table{Family: nftables.TableFamilyBridge, Name: "netlab"})
	f.chain = conn.AddChain(&nftables.Chain{
		Name:     "faults",
		Table:    f.table,
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookForward,
		Priority: nftables.ChainPriorityFilter,
	})
	if err := conn.Flush(); err != nil {
		conn.CloseLasting()
		return nil, fmt.Errorf("nftables for bridges: %w", err)
	}
	return f, nil
}

// set replaces all rules in one transaction.
func (f *filters) set(n network, hosts []*Host) error {
	f.conn.FlushChain(f.chain)
	for _, from := range hosts {
		for _, to := range hosts {
			if from != to && n.filtered(from.index, to.index) {
				f.conn.AddRule(f.rule(from, to))
			}
		}
	}
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("the filters of the bridge: %w", err)
	}
	return nil
}

func (f *filters) close() error { return f.conn.CloseLasting() }

// rule drops what comes in at one host's port and would leave by the other's.
func (f *filters) rule(from, to *Host) *nftables.Rule {
	index := func(h *Host) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(h.port.Attrs().Index)) }
	return &nftables.Rule{Table: f.table, Chain: f.chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIF, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: index(from)},
		&expr.Meta{Key: expr.MetaKeyOIF, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: index(to)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}}
}
