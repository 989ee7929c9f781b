package netlab

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/flotilla-ha/flotilla/internal/netlab/namespace"
)

// filters is an nftables chain for frames from one port of the bridge to another.
type filters struct {
	ports []int // the interface indexes of the hosts' ports
	conn  *nftables.Conn
	table *nftables.Table
	chain *nftables.Chain
}

func newFilters(bridge *namespace.Namespace, ports []int) (*filters, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(int(bridge.NS)), nftables.AsLasting())
	if err != nil {
		return nil, err
	}
	f := &filters{ports: ports, conn: conn}
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
func (f *filters) set(n network) error {
	f.conn.FlushChain(f.chain)
	for from := range f.ports {
		for to := range f.ports {
			if from != to && n.filtered(from, to) {
				f.conn.AddRule(f.rule(from, to))
			}
		}
	}
	if err := f.conn.Flush(); err != nil {
		return fmt.Errorf("set the filters of the bridge: %w", err)
	}
	return nil
}

func (f *filters) close() error { return f.conn.CloseLasting() }

// rule drops frames that arrive at the port of one host and leave by the port of another.
func (f *filters) rule(from, to int) *nftables.Rule {
	index := func(host int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(f.ports[host])) }
	return &nftables.Rule{Table: f.table, Chain: f.chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIF, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: index(from)},
		&expr.Meta{Key: expr.MetaKeyOIF, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: index(to)},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}}
}
